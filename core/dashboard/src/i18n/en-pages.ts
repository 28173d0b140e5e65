// SPDX-License-Identifier: AGPL-3.0-only
import alarms from './en/alarms.json'
import attributes from './en/attributes.json'
import commands from './en/commands.json'
import connectors from './en/connectors.json'
import firmware from './en/firmware.json'
import jobs from './en/jobs.json'
import license from './en/license.json'
import notifications from './en/notifications.json'
import products from './en/products.json'
import rules from './en/rules.json'

/** Texts that only pages behind the sign-in need. */
export const messages = { alarms, attributes, commands, connectors, firmware, jobs, license, notifications, products, rules }
