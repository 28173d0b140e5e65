// SPDX-License-Identifier: AGPL-3.0-only
import bin from './en/bin.json'
import common from './en/common.json'
import connect from './en/connect.json'
import device from './en/device.json'
import devices from './en/devices.json'
import overview from './en/overview.json'
import reject from './en/reject.json'
import settings from './en/settings.json'
import shell from './en/shell.json'
import start from './en/start.json'

/** Texts of the first pages, and of what all pages share. */
export const messages = { bin, common, connect, device, devices, overview, reject, settings, shell, start }
