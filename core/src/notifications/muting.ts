// SPDX-License-Identifier: AGPL-3.0-only
import { eq, sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { notifyAlerts, notifySilences } from '../db/notify-tables.ts'
import { matchesAll } from './matchers.ts'
import type { Labels } from './matchers.ts'
import { isOutsideIntervals } from './route-tree.ts'
import type { RouteMatch } from './route-tree.ts'
import type { Routing } from './routing-document.ts'

export type Silence = { matchers: readonly string[]; startsAt: number; endsAt: number }

export function isSilenced(silences: readonly Silence[], labels: Labels, now: number): boolean {
  return silences.some((one) => one.startsAt <= now && now < one.endsAt && matchesAll(one.matchers, labels))
}

/**
 * Whether a firing alert that matches `source` mutes this one: all `equal` labels are the same, both missing counts
 * as the same. An alert never mutes itself, and where the muted one matches `source` too, only sources count that
 * are not such targets themselves: two of them do not mute each other.
 *
 * @param firing every alert that fires, by its id
 */
export function isInhibited(routing: Routing, firing: ReadonlyMap<string, Labels>, labels: Labels, alert: string): boolean {
  return (routing.inhibit ?? []).some((rule) => {
    if (!matchesAll(rule.target, labels)) return false
    const isSourceToo = matchesAll(rule.source, labels)
    for (const [id, source] of firing) {
      if (id === alert || !matchesAll(rule.source, source)) continue
      if (isSourceToo && matchesAll(rule.target, source)) continue
      if ((rule.equal ?? []).every((name) => (source[name] ?? '') === (labels[name] ?? ''))) return true
    }
    return false
  })
}

export type IsMuted = (labels: Labels, alert: string) => boolean

/** What keeps alerts of a route quiet at this instant: its intervals, silences, and what inhibits. */
export async function readMuting(tx: Tx, routing: Routing, match: RouteMatch, now: number): Promise<IsMuted> {
  const silences = await tx
    .select()
    .from(notifySilences)
    .where(sql`${notifySilences.endsAt} > now() and ${notifySilences.startsAt} <= now()`)
  const open = silences.map((one) => ({ matchers: one.matchers, startsAt: one.startsAt.getTime(), endsAt: one.endsAt.getTime() }))
  const firing = (routing.inhibit ?? []).length === 0 ? [] : await tx.select().from(notifyAlerts).where(eq(notifyAlerts.status, 'firing'))
  const labelsOf = new Map<string, Labels>(firing.map((one) => [one.id, one.labels]))
  const isOutside = isOutsideIntervals(routing, match, new Date(now))
  return (labels, alert) => isOutside || isSilenced(open, labels, now) || isInhibited(routing, labelsOf, labels, alert)
}
