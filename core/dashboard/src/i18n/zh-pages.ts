// SPDX-License-Identifier: AGPL-3.0-only
import alarms from './zh/alarms.json'
import attributes from './zh/attributes.json'
import commands from './zh/commands.json'
import connectors from './zh/connectors.json'
import firmware from './zh/firmware.json'
import jobs from './zh/jobs.json'
import license from './zh/license.json'
import notifications from './zh/notifications.json'
import products from './zh/products.json'
import rules from './zh/rules.json'

/** Texts that only pages behind the sign-in need. */
export const messages = { alarms, attributes, commands, connectors, firmware, jobs, license, notifications, products, rules }
