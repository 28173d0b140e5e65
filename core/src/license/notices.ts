// SPDX-License-Identifier: AGPL-3.0-only
import type { NewEvent } from './rows.ts'
import type { LicenseSnapshot } from './snapshot.ts'

const dayMs = 86_400_000
/** [L-54] Days before the end at which it is told. */
const thresholds = [1, 3, 7, 14, 30]

/**
 * What should be noted of the present moment; each has a `once`, so that neither a replica nor the next minute
 * notes it again.
 */
export function listNotices(snapshot: LicenseSnapshot, now: number): NewEvent[] {
  const notices: NewEvent[] = []
  const day = new Date(now).toISOString().slice(0, 10)
  if (snapshot.conditions.includes('CLOCK_SUSPECT')) notices.push({ actor: 'system', action: 'license.clock', once: `clock ${day}` })
  const { inForce, match, state } = snapshot
  if (!inForce) return notices
  const { jti, seq, exp } = inForce.claims
  const token = { actor: 'system', jti, seq, kid: inForce.kid }
  if (match && snapshot.conditions.includes('DRIFT')) {
    const kinds = match.factors.filter((factor) => !factor.match).map(({ k }) => k)
    notices.push({ ...token, action: 'license.drift', detail: { kinds }, once: `drift ${jti} ${kinds.join(' ')}` })
  }
  if (state === 'GRACE') notices.push({ ...token, action: 'license.grace', once: `grace ${jti} ${day}` })
  if (snapshot.conditions.includes('OVER_LIMIT')) {
    const { used, limit } = snapshot.devices
    notices.push({ ...token, action: 'license.over_limit', detail: { used, limit }, once: `over ${jti} ${day}` })
  }
  if (snapshot.conditions.includes('TOKEN_SKIPPED')) {
    notices.push({ ...token, action: 'license.state', detail: { reason: 'TOKEN_SKIPPED' }, once: `skipped ${jti}` })
  }
  const daysLeft = Math.ceil((exp * 1000 - now) / dayMs)
  const threshold = now < exp * 1000 ? thresholds.find((days) => daysLeft <= days) : undefined
  if (threshold !== undefined) {
    notices.push({ ...token, action: 'license.expiring', detail: { days: threshold }, once: `expiring ${jti} ${threshold}` })
  }
  return notices
}
