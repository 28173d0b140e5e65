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
  'rule.read',
  'rule.write',
  'license.read',
  'license.write',
] as const
/** Permissions that modules bring have the module's name first. */
export type ModulePermission = `${string}.${string}.${string}`
export type Permission = (typeof permissions)[number] | ModulePermission

/** A permission that a module's manifest names. */
export function modulePermission(name: string): ModulePermission {
  return name as ModulePermission
}

const viewer: Permission[] = ['device.read', 'telemetry.read', 'product.read', 'alarm.read', 'rule.read']
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
  'rule.write',
]

const ofRoles: Record<UserRole, Set<Permission>> = {
  viewer: new Set(viewer),
  operator: new Set(operator),
  admin: new Set(permissions),
}
export const rolePermissions: Record<UserRole, ReadonlySet<Permission>> = ofRoles

/** A permission of a module, for a role and all above it. It stays known when the module stops [MO-54]. */
export function allowPermission(name: string, lowest: UserRole): void {
  const roles: UserRole[] =
    lowest === 'viewer' ? ['viewer', 'operator', 'admin'] : lowest === 'operator' ? ['operator', 'admin'] : ['admin']
  for (const role of roles) ofRoles[role].add(name as ModulePermission)
}
