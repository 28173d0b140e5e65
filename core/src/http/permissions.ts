// SPDX-License-Identifier: AGPL-3.0-only
import type { UserRole } from '../db/tables.ts'

/** What a route may ask for. A role or an API key grants a set of these. */
export const permissions = [
  'device.read',
  'device.write',
  'device.credentials.read',
  'telemetry.read',
  'telemetry.write',
  'product.read',
  'product.write',
  'user.read',
  'user.write',
  'api-key.write',
  'settings.read',
  'settings.write',
  'system.read',
  'metrics.read',
  'job.read',
  'job.write',
  'notify.read',
  'notify.write',
  'notify.send',
  'alarm.read',
  'alarm.ack',
  'alarm.write',
  'alarm.create',
  'alarm.delete',
] as const
export type Permission = (typeof permissions)[number]

const viewer: Permission[] = ['device.read', 'telemetry.read', 'product.read', 'alarm.read']
const operator: Permission[] = [
  ...viewer,
  'device.write',
  'device.credentials.read',
  'telemetry.write',
  'product.write',
  'api-key.write',
  'notify.read',
  'notify.send',
  'alarm.ack',
  'alarm.write',
  'alarm.create',
]

export const rolePermissions: Record<UserRole, ReadonlySet<Permission>> = {
  viewer: new Set(viewer),
  operator: new Set(operator),
  admin: new Set(permissions),
}
