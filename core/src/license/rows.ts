// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, getTableColumns, isNull, ne, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import { isUuid } from '../http/schemas.ts'
import type { Tx } from '../db/client.ts'
import { licenseEvents, licenseState, licenseTokens } from '../db/tables.ts'
import type { LicenseSource } from '../db/tables.ts'
import type { LicenseEvent } from '../events.ts'
import type { VerifiedLicense } from './token.ts'

/** Channel by which replicas hear that the license was changed [L-101]. */
export const licenseChannel = 'iot_pms_license'
/** [L-70] Advisory lock of everything that changes the license. Any number of our own. */
const installLock = 7_316_204_922

export type StateRow = typeof licenseState.$inferSelect
export type TokenRow = typeof licenseTokens.$inferSelect

/** Makes installs wait for each other until the transaction ends. */
export async function lockLicense(tx: Tx): Promise<void> {
  await tx.execute(sql`select pg_advisory_xact_lock(${installLock})`)
}

export async function readStateRow(tx: Tx): Promise<StateRow> {
  const [row] = await tx.select().from(licenseState)
  if (!row) throw new Error('the database has no license_state row')
  return row
}

/** Tokens that may be in force or come into force: neither removed nor released. */
export async function listTokenRows(tx: Tx): Promise<TokenRow[]> {
  return tx.select().from(licenseTokens).where(isNull(licenseTokens.removedAt))
}

export async function findTokenRow(tx: Tx, jti: string): Promise<TokenRow | undefined> {
  const [row] = await tx.select().from(licenseTokens).where(eq(licenseTokens.jti, jti))
  return row
}

/** [L-70] The highest `seq` ever installed for a customer by another token; 0 when there was none. */
export async function readHighestSeq(tx: Tx, sub: string, jti: string): Promise<number> {
  const [row] = await tx
    .select({ highest: sql<string | null>`max(${licenseTokens.seq})` })
    .from(licenseTokens)
    .where(and(eq(licenseTokens.sub, sub), ne(licenseTokens.jti, jti)))
  return Number(row?.highest ?? 0)
}

export type Installation = { source: LicenseSource; at: Date; by: string }

/** Stores a token, or takes back the removal of one that is known; since when it mismatches is kept [L-38]. */
export async function storeToken(
  tx: Tx,
  tenantId: string,
  token: string,
  { claims, kid }: VerifiedLicense,
  installation: Installation,
): Promise<void> {
  const values = { token, source: installation.source, installedAt: installation.at, installedBy: installation.by }
  await tx
    .insert(licenseTokens)
    .values({ tenantId, jti: claims.jti, sub: claims.sub, seq: claims.seq, kid, claims: { ...claims }, ...values })
    .onConflictDoUpdate({ target: [licenseTokens.tenantId, licenseTokens.jti], set: { ...values, removedAt: null, removedBy: null } })
}

/** Ends a change: replicas read again as soon as it is committed. */
export async function announceChange(tx: Tx, change: Partial<Pick<StateRow, 'currentSub' | 'crl' | 'crlSeq'>> = {}): Promise<void> {
  await tx.update(licenseState).set({ ...change, revision: sql`${licenseState.revision} + 1` })
  await tx.execute(sql`select pg_notify(${licenseChannel}, '')`)
}

/** [L-63] Days on which there were more devices than the license allows. */
export async function countOverDays(tx: Tx, jti: string): Promise<number> {
  const [row] = await tx.execute<{ days: string }>(
    sql`select count(*) as days from license_usage_days where jti = ${jti} and limit_devices >= 0 and devices > limit_devices`,
  )
  return Number(row?.days ?? 0)
}

export async function noteUsage(tx: Tx, now: number, jti: string, devices: number, limit: number): Promise<void> {
  const day = new Date(now).toISOString().slice(0, 10)
  await tx.execute(sql`select license_note_usage(${day}, ${jti}, ${devices}, ${limit})`)
}

export async function readCounts(tx: Tx): Promise<{ devices: number; users: number; tenants: number }> {
  const [row] = await tx.execute<{ devices: string; users: string; tenants: string }>(sql`select * from license_counts()`)
  return { devices: Number(row!.devices), users: Number(row!.users), tenants: Number(row!.tenants) }
}

export type NewEvent = Pick<LicenseEvent, 'actor' | 'action'> & Partial<Omit<LicenseEvent, 'id'>> & { once?: string }

/**
 * Notes what happened; nothing of a token is in it [L-4].
 * @returns undefined when an event with the same `once` is there already
 */
export async function addLicenseEvent(tx: Tx, tenantId: string, at: number, event: NewEvent): Promise<LicenseEvent | undefined> {
  const full: LicenseEvent = {
    id: randomUUIDv7(),
    at,
    actor: event.actor,
    action: event.action,
    outcome: event.outcome ?? 'ok',
    code: event.code ?? null,
    jti: event.jti ?? null,
    seq: event.seq ?? null,
    kid: event.kid ?? null,
    detail: event.detail ?? {},
  }
  const added = await tx
    .insert(licenseEvents)
    .values({ ...full, tenantId, at: new Date(at), once: event.once ?? null })
    .onConflictDoNothing()
    .returning({ id: licenseEvents.id })
  if (added.length === 0) return undefined
  const { actor, action, outcome, code, jti, detail } = full
  recordAudit(tx, {
    type: action,
    outcome: outcome === 'ok' ? 'success' : 'failure',
    ...(code === null ? {} : { reason: code }),
    subject: jti === null ? '-' : `license:${jti}`,
    changes: { from: null, to: detail },
    actor: isUuid(actor) ? `user:${actor}` : 'system',
    isPlatform: true,
  })
  return full
}

/** One page of the history, newest first. */
export async function listLicenseEvents(tx: Tx, limit: number, before: string | undefined): Promise<LicenseEvent[]> {
  const { tenantId: _, once: __, ...columns } = getTableColumns(licenseEvents)
  const rows = await tx
    .select(columns)
    .from(licenseEvents)
    .where(before === undefined ? undefined : sql`${licenseEvents.id} < ${before}::uuid`)
    .orderBy(sql`${licenseEvents.id} desc`)
    .limit(limit)
  return rows.map((row) => ({ ...row, at: row.at.getTime() }))
}
