// SPDX-License-Identifier: AGPL-3.0-only
import bin from './zh/bin.json'
import common from './zh/common.json'
import connect from './zh/connect.json'
import device from './zh/device.json'
import devices from './zh/devices.json'
import overview from './zh/overview.json'
import reject from './zh/reject.json'
import settings from './zh/settings.json'
import shell from './zh/shell.json'
import start from './zh/start.json'

/** Texts of the first pages, and of what all pages share. */
export const messages = { bin, common, connect, device, devices, overview, reject, settings, shell, start }
