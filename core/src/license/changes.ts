// SPDX-License-Identifier: AGPL-3.0-only
import type { LicenseClaims } from './claims.ts'
import { FEATURES } from './features.ts'
import type { BothLanguages } from './features.ts'
import { limitOf } from './limits.ts'
import type { LimitName } from './limits.ts'
import type { MachineMatch } from './machine.ts'
import type { LicenseState } from './state.ts'

/** One difference between what is in force and what would be; `ack` where the administrator must accept it [L-72]. */
export type LicenseChange = { change: string; ack?: true; [member: string]: unknown }

export type Used = Partial<Record<LimitName, number>>
const limitNames: readonly LimitName[] = ['devices', 'tenants', 'users', 'replicas']

/**
 * [L-72] What installing `next` changes.
 *
 * @param current undefined in COMMUNITY, which has nothing to lose
 * @param after state the new license would have, and how it matches this machine
 */
export function compareLicenses(
  current: LicenseClaims | undefined,
  next: LicenseClaims,
  used: Used,
  after: { state: LicenseState; match: MachineMatch },
): LicenseChange[] {
  const changes: LicenseChange[] = [...compareFeatures(current?.features ?? [], next.features), ...compareLimits(current, next, used)]
  if (current) {
    if (next.exp > current.exp) changes.push({ change: 'EXPIRES_LATER', from: toInstant(current.exp), to: toInstant(next.exp) })
    if (next.exp < current.exp) {
      changes.push({ change: 'EXPIRES_EARLIER', from: toInstant(current.exp), to: toInstant(next.exp), ack: true })
    }
    if (next.edition !== current.edition) changes.push({ change: 'EDITION_CHANGED', from: current.edition, to: next.edition })
    if (next.kind !== current.kind && current.kind === 'production') {
      changes.push({ change: 'KIND_CHANGED', from: current.kind, to: next.kind, ack: true })
    }
    if (next.sub !== current.sub) changes.push({ change: 'CUSTOMER_CHANGED', from: current.sub, to: next.sub, ack: true })
  }
  const { state, match } = after
  if (state === 'GRACE' || state === 'RESTRICTED') changes.push({ change: 'STATE_AFTER', state, ack: true })
  if (!match.bound) {
    const { matched, min, total, factors } = match
    const kinds = factors.filter((factor) => !factor.match).map(({ k }) => k)
    changes.push({ change: 'STATE_AFTER', state: 'MISMATCH', matched, min, total, kinds, ack: true })
  }
  return changes
}

/** What taking the license away changes; `next` is the stored one that would take over. */
export function compareRemoval(current: LicenseClaims, next: LicenseClaims | undefined): LicenseChange[] {
  const changes = compareFeatures(current.features, next?.features ?? [])
  if (next?.edition !== current.edition) {
    changes.push({ change: 'EDITION_CHANGED', from: current.edition, to: next?.edition ?? 'community', ack: true })
  }
  return changes
}

function compareFeatures(from: readonly string[], to: readonly string[]): LicenseChange[] {
  return [
    ...to.filter((one) => !from.includes(one)).map((feature) => ({ change: 'FEATURE_ADDED', feature, title: titleOf(feature) })),
    ...from
      .filter((one) => !to.includes(one))
      .map((feature) => ({ change: 'FEATURE_REMOVED', feature, title: titleOf(feature), ack: true as const })),
  ]
}

function compareLimits(current: LicenseClaims | undefined, next: LicenseClaims, used: Used): LicenseChange[] {
  const changes: LicenseChange[] = []
  for (const limit of limitNames) {
    const to = limitOf(next, limit)
    const from = current ? limitOf(current, limit) : -1
    const use = used[limit]
    // COMMUNITY has no limits to lose, but one below what is there already should be known [L-67].
    if (!current && (to === -1 || use === undefined || use <= to)) continue
    const members = { limit, from, to, ...(use === undefined ? {} : { used: use }) }
    if (reach(to) > reach(from)) changes.push({ change: 'LIMIT_RAISED', ...members })
    if (reach(to) < reach(from)) changes.push({ change: 'LIMIT_LOWERED', ...members, ack: true })
  }
  const [from, to] = [current?.limits['overage_pct'] ?? 0, next.limits['overage_pct'] ?? 0]
  if (current && from !== to) {
    const members = { limit: 'overage_pct', from, to }
    changes.push(to > from ? { change: 'LIMIT_RAISED', ...members } : { change: 'LIMIT_LOWERED', ...members, ack: true })
  }
  return changes
}

function reach(limit: number): number {
  return limit === -1 ? Number.POSITIVE_INFINITY : limit
}

/** A feature we do not know is called by its id. */
export function titleOf(feature: string): BothLanguages {
  return FEATURES[feature]?.title ?? { zh: feature, en: feature }
}

/** RFC 3339 of whole seconds. */
export function toInstant(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}
