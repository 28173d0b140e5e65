// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { LicenseClaims } from './claims.ts'
import type { License } from './snapshot.ts'

export type LimitName = 'devices' | 'tenants' | 'users' | 'replicas'

/** [L-60] What a limit is that a license does not name. */
const missingLimits: Record<LimitName, number> = { devices: 0, tenants: 1, replicas: 1, users: -1 }
/** [L-63] Days above the limit, cumulative, until the overage is used up. */
export const overDaysAllowed = 30
/** Advisory lock of everything that counts devices and then adds one [L-65]. Any number of our own. */
const deviceLock = 7_316_204_921

export function limitOf(claims: Pick<LicenseClaims, 'limits'>, name: LimitName): number {
  return claims.limits[name] ?? missingLimits[name]
}

/** [L-62] The number of devices at which no further one is created; −1: none. */
export function hardLimit(claims: Pick<LicenseClaims, 'limits' | 'kind'>, overDays = 0): number {
  const limit = limitOf(claims, 'devices')
  if (limit === -1 || claims.kind === 'trial' || overDays > overDaysAllowed) return limit
  return limit + Math.floor((limit * (claims.limits['overage_pct'] ?? 0)) / 100)
}

/**
 * [L-65] Holds room for new devices until the transaction ends: counting and inserting are one act, in every process.
 * Without a limit neither lock nor count is taken.
 *
 * @throws {ProblemError} 402 `LIMIT_DEVICES` when not all of them fit
 */
export async function reserveDevices(license: License, tx: Tx, added: number): Promise<void> {
  const { limit, hard } = license.get().devices
  const { taken, used } = await reserveSome(license, tx, added)
  if (taken < added) throw new ProblemError('LIMIT_DEVICES', { members: { limit, hard, used, source: 'license' } })
}

/**
 * The same where those that fit go on without the others, as the children of a gateway do.
 *
 * @returns for how many of the wanted ones there is room, and how many devices there are
 */
export async function reserveSome(license: License, tx: Tx, wanted: number): Promise<{ taken: number; used: number }> {
  const { devices, inForce } = license.get()
  const { limit, hard } = devices
  if (hard === -1 || wanted === 0 || !inForce) return { taken: wanted, used: devices.used }
  // Two statements: the second one sees what those before us have committed while we waited.
  await tx.execute(sql`select pg_advisory_xact_lock(${deviceLock})`)
  const [row] = await tx.execute<{ used: string }>(sql`select license_device_count() as used`)
  const used = Number(row!.used)
  const taken = Math.max(0, Math.min(wanted, hard - used))
  if (taken < wanted) license.countRefusal('LIMIT_DEVICES')
  if (taken > 0 && used + taken > limit) {
    const day = new Date(license.now()).toISOString().slice(0, 10)
    await tx.execute(sql`select license_note_usage(${day}, ${inForce.claims.jti}, ${used + taken}, ${limit})`)
  }
  return { taken, used }
}
