// SPDX-License-Identifier: AGPL-3.0-only
import type { Role } from '../../api/types.ts'

/** Permissions a key or a role can have, in the order they are shown. */
export const permissionNames = [
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
  'rule.read',
  'rule.write',
  'license.read',
  'license.write',
] as const
export type PermissionName = (typeof permissionNames)[number]

const viewer = new Set<PermissionName>(['device.read', 'telemetry.read', 'product.read', 'alarm.read'])
const operator = new Set<PermissionName>([
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
])

/** For showing only; what somebody may is decided by the server. */
export function roleHas(role: Role, name: PermissionName): boolean {
  return role === 'admin' || (role === 'operator' ? operator : viewer).has(name)
}
