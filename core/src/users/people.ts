// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { tenants, users } from '../db/tables.ts'
import { ApiKeys } from './api-keys.ts'
import { LoginLimits } from './login-limits.ts'
import { Passwords } from './passwords.ts'
import { addSecurityEvent, systemOrigin } from './security-events.ts'
import { Sessions } from './sessions.ts'

/** What everything about users, logins and keys shares. Made once in start.ts. */
export type People = {
  context: Context
  version: string
  hasDemo: () => boolean | Promise<boolean>
  passwords: Passwords
  limits: LoginLimits
  sessions: Sessions
  keys: ApiKeys
  /** Whether this process knows that the first administrator exists. */
  setup: { isDone: boolean }
}

export type User = typeof users.$inferSelect

export type PeopleOptions = {
  version: string
  /** Whether demo data is loaded, for the dashboard's chip. */
  hasDemo?: () => boolean | Promise<boolean>
}

export function createPeople(context: Context, options: PeopleOptions): People {
  return {
    context,
    version: options.version,
    hasDemo: options.hasDemo ?? (() => false),
    passwords: new Passwords(),
    limits: new LoginLimits(context.clock, () => noteFlood(context)),
    sessions: new Sessions(context),
    keys: new ApiKeys(context),
    setup: { isDone: false },
  }
}

/** More than 1,000 failed logins in an hour: somebody works on this installation [SC-32]. */
function noteFlood(context: Context): void {
  context.log.warn('more than 1,000 logins failed within an hour')
  const { tenantId } = context.rootTenant
  context.db
    .withTenant(context.rootTenant, (tx) =>
      addSecurityEvent(tx, tenantId, systemOrigin, context.clock.now(), {
        actor: 'system',
        action: 'login.flood',
        target: 'installation',
        outcome: 'denied',
        detail: { failuresPerHour: 1000 },
      }),
    )
    .catch((error: unknown) => context.log.error({ err: error }, 'noting a security event failed'))
}

/** The one spelling of an address: accounts are told apart without case. */
export function foldEmail(email: string): string {
  return email.normalize('NFC').trim().toLowerCase()
}

export function isUser(context: Context, id: string): SQL {
  return and(eq(users.tenantId, context.rootTenant.tenantId), eq(users.id, id))!
}

export async function findUserByEmail(tx: Tx, context: Context, email: string): Promise<User | undefined> {
  const [user] = await tx
    .select()
    .from(users)
    .where(and(eq(users.tenantId, context.rootTenant.tenantId), sql`lower(${users.email}) = ${foldEmail(email)}`))
  return user
}

/**
 * Lets one transaction at a time decide about who may administer: two of them could otherwise
 * both remove "the other" administrator, or both be the first one.
 */
export async function lockPeople(tx: Tx, context: Context): Promise<void> {
  await tx.select({ id: tenants.id }).from(tenants).where(eq(tenants.id, context.rootTenant.tenantId)).for('update')
}

export async function hasUsers(tx: Tx, context: Context): Promise<boolean> {
  const rows = await tx.select({ id: users.id }).from(users).where(eq(users.tenantId, context.rootTenant.tenantId)).limit(1)
  return rows.length > 0
}
