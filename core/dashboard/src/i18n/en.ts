// SPDX-License-Identifier: AGPL-3.0-only
import alarms from './en/alarms.json'
import attributes from './en/attributes.json'
import bin from './en/bin.json'
import commands from './en/commands.json'
import common from './en/common.json'
import connect from './en/connect.json'
import connectors from './en/connectors.json'
import device from './en/device.json'
import devices from './en/devices.json'
import firmware from './en/firmware.json'
import jobs from './en/jobs.json'
import license from './en/license.json'
import notifications from './en/notifications.json'
import overview from './en/overview.json'
import products from './en/products.json'
import reject from './en/reject.json'
import rules from './en/rules.json'
import settings from './en/settings.json'
import shell from './en/shell.json'
import start from './en/start.json'

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
