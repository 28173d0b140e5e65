// SPDX-License-Identifier: AGPL-3.0-only
import type { LicenseClaims } from './claims.ts'

/** States of the license in force (license rules §6). */
export type LicenseState = 'COMMUNITY' | 'TRIAL' | 'ACTIVE' | 'EXPIRING' | 'GRACE' | 'MISMATCH' | 'RESTRICTED' | 'REVOKED' | 'INVALID'

const dayMs = 86_400_000
const defaultGraceDays = 30
/** [L-38] Full function on a machine that does not match, before it becomes read-only. */
export const mismatchDays = 14
const expiringDays = 30

/** ms since 1970 at which the license becomes read-only for its term. */
export function graceEndOf(claims: Pick<LicenseClaims, 'exp' | 'kind' | 'grace_days'>): number {
  const days = claims.kind === 'trial' ? 0 : (claims.grace_days ?? defaultGraceDays)
  return claims.exp * 1000 + days * dayMs
}

/**
 * [L-50] The state of a license whose `nbf` has come; boundaries are exact to the millisecond.
 *
 * @param claims undefined when no token is in force
 * @param now effective now in ms [L-92]
 * @param mismatchSince since when it has not been bound, in ms; undefined counts as since now
 * @param invalid the stored token that should be in force no longer verifies
 */
export function evaluate(input: {
  claims: Pick<LicenseClaims, 'exp' | 'kind' | 'grace_days'> | undefined
  now: number
  bound: boolean
  mismatchSince: number | null | undefined
  revoked: boolean
  invalid?: boolean
}): LicenseState {
  const { claims, now, bound, revoked, invalid = false } = input
  const mismatchSince = input.mismatchSince ?? now
  if (invalid) return 'INVALID'
  if (!claims) return 'COMMUNITY'
  if (revoked) return 'REVOKED'
  const exp = claims.exp * 1000
  const isMismatchOver = !bound && now >= mismatchSince + mismatchDays * dayMs
  if (now >= graceEndOf(claims) || isMismatchOver) return 'RESTRICTED'
  if (!bound) return 'MISMATCH'
  if (now >= exp) return 'GRACE'
  if (now >= exp - expiringDays * dayMs) return 'EXPIRING'
  return claims.kind === 'trial' ? 'TRIAL' : 'ACTIVE'
}

/** Whether commercial features may change things, only be read, or are not granted at all. */
export function accessOf(state: LicenseState): 'full' | 'readonly' | 'none' {
  if (state === 'COMMUNITY' || state === 'INVALID') return 'none'
  return state === 'RESTRICTED' || state === 'REVOKED' ? 'readonly' : 'full'
}
