// SPDX-License-Identifier: AGPL-3.0-only
import { eq, sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { notifyChannels } from '../db/notify-tables.ts'
import { ready } from './channels.ts'
import type { ChannelRow } from './channels.ts'
import type { Outcome } from './outcome.ts'

/** [notifications §5] So many transient failures in a row within this time let the channel rest. */
const mostFailures = 10
const failureSpanMs = 300_000
const firstPauseMs = 60_000
const longestPauseMs = 600_000
const probeEveryMs = 900_000
/** What may mend itself, so that one delivery tries it now and then. */
const probeReasons = new Set(['sign', 'ip', 'tls', 'redirect', 'address_blocked', 'security'])
/** Reasons that are about the channel's pace, and hold up everything that wants to use it. */
const paceReasons = new Set(['rate', 'rate_global', 'punished', 'daily_limit'])

/** Whether a delivery may use the channel: now, in so many ms, or never. */
export async function mayTry(tx: Tx, row: ChannelRow, priority: number, now: number): Promise<'now' | 'never' | number> {
  if (!row.enabled) return 'never'
  const restMs = (row.pausedUntil?.getTime() ?? 0) - now
  if (row.state === 'disabled') {
    if (restMs > 0 || !probeReasons.has(row.reason ?? '')) return 'never'
    await tx
      .update(notifyChannels)
      .set({ pausedUntil: new Date(now + probeEveryMs) })
      .where(eq(notifyChannels.id, row.id))
    return 'now'
  }
  const isUrgent = row.state === 'failing' && priority === 1
  return restMs > 0 && !isUrgent ? restMs : 'now'
}

export async function afterGood(tx: Tx, channelId: string, paceMs: number | undefined, now: number): Promise<void> {
  await tx
    .update(notifyChannels)
    .set({ ...ready, lastSentAt: sql`now()`, lastError: null, ...(paceMs === undefined ? {} : { pausedUntil: new Date(now + paceMs) }) })
    .where(eq(notifyChannels.id, channelId))
}

export async function afterTransient(tx: Tx, row: ChannelRow, outcome: Extract<Outcome, { outcome: 'retry' }>, now: number): Promise<void> {
  if (paceReasons.has(outcome.reason)) {
    await tx
      .update(notifyChannels)
      .set({ lastError: outcome.reason, ...(outcome.afterMs === undefined ? {} : { pausedUntil: new Date(now + outcome.afterMs) }) })
      .where(eq(notifyChannels.id, row.id))
    return
  }
  const isRecent = row.failingSince !== null && now - row.failingSince.getTime() < failureSpanMs
  const failures = isRecent || row.state === 'failing' ? row.failures + 1 : 1
  const isFailing = failures >= mostFailures
  const pauseMs = isFailing ? Math.min(longestPauseMs, row.pauseMs === 0 ? firstPauseMs : row.pauseMs * 2) : 0
  await tx
    .update(notifyChannels)
    .set({
      failures,
      failingSince: isRecent ? row.failingSince : new Date(now),
      lastError: outcome.reason,
      ...(isFailing ? { state: 'failing' as const, reason: outcome.reason, pauseMs, pausedUntil: new Date(now + pauseMs) } : {}),
      ...(isFailing && row.state !== 'failing' ? { stateSince: sql`now()` } : {}),
    })
    .where(eq(notifyChannels.id, row.id))
}

/** A person is needed. */
export async function disable(
  tx: Tx,
  channelId: string,
  outcome: Extract<Outcome, { outcome: 'channel_disabled' }>,
  now: number,
): Promise<void> {
  await tx
    .update(notifyChannels)
    .set({
      state: 'disabled',
      reason: outcome.reason,
      stateSince: sql`case when state = 'disabled' then state_since else now() end`,
      pausedUntil: new Date(now + probeEveryMs),
      lastError: outcome.detail ?? outcome.providerMessage ?? outcome.reason,
    })
    .where(eq(notifyChannels.id, channelId))
}
