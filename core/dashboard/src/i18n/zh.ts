// SPDX-License-Identifier: AGPL-3.0-only
import alarms from './zh/alarms.json'
import attributes from './zh/attributes.json'
import bin from './zh/bin.json'
import commands from './zh/commands.json'
import common from './zh/common.json'
import connect from './zh/connect.json'
import connectors from './zh/connectors.json'
import device from './zh/device.json'
import devices from './zh/devices.json'
import firmware from './zh/firmware.json'
import jobs from './zh/jobs.json'
import license from './zh/license.json'
import notifications from './zh/notifications.json'
import overview from './zh/overview.json'
import products from './zh/products.json'
import reject from './zh/reject.json'
import rules from './zh/rules.json'
import settings from './zh/settings.json'
import shell from './zh/shell.json'
import start from './zh/start.json'

export const messages = {
  alarms,
  attributes,
  bin,
  commands,
  common,
  connect,
  connectors,
  device,
  devices,
  firmware,
  jobs,
  license,
  notifications,
  overview,
  products,
  reject,
  rules,
  settings,
  shell,
  start,
}
