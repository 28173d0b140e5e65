// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyChannels, notifyDeliveries, notifyGroups, notifyMessages } from '../db/notify-tables.ts'
import { digests, release, sendDigest } from './drain.ts'
import type { Waiting } from './drain.ts'
import type { Group } from './groups.ts'
import { notifyRelease } from './queues.ts'

const atOnce = 500

/**
 * Sends a person what was held back for them until now: one alone as it is, more as one digest per way. Of alerts that
 * have ended meanwhile nothing is said any more [notifications 7.5].
 */
export async function releaseHeld(context: Context, tx: Tx, scope: Scope, userId: string): Promise<void> {
  const rows: Waiting[] = await tx
    .select({ delivery: notifyDeliveries, message: notifyMessages })
    .from(notifyDeliveries)
    .innerJoin(
      notifyMessages,
      and(eq(notifyMessages.tenantId, notifyDeliveries.tenantId), eq(notifyMessages.id, notifyDeliveries.messageId)),
    )
    .where(
      and(
        eq(notifyDeliveries.userId, userId),
        eq(notifyDeliveries.state, 'queued'),
        sql`${notifyDeliveries.heldUntil} <= ${new Date(context.clock.now()).toISOString()}`,
      ),
    )
    .orderBy(notifyDeliveries.priority, notifyDeliveries.createdAt)
    .limit(atOnce)
    .for('update', { of: notifyDeliveries })
  const over = await findOver(tx, rows)
  const overIds = rows.filter((one) => over.has(one.message.groupKey ?? '')).map((one) => one.delivery.id)
  if (overIds.length > 0) {
    await tx
      .update(notifyDeliveries)
      .set({ state: 'suppressed', reason: 'resolved', heldUntil: null, updatedAt: sql`now()` })
      .where(inArray(notifyDeliveries.id, overIds))
  }
  const ways = Map.groupBy(
    rows.filter((one) => !overIds.includes(one.delivery.id)),
    ({ delivery }) => `${delivery.channelId} ${delivery.address}`,
  )
  for (const waiting of ways.values()) {
    const [row] = await tx.select().from(notifyChannels).where(eq(notifyChannels.id, waiting[0]!.delivery.channelId))
    for (const unit of digests(waiting)) {
      if (unit.length === 1 || !row) for (const one of unit) await release(context, tx, one.delivery, false)
      else await sendDigest(context, tx, scope, { row }, unit, false)
    }
  }
  if (rows.length === atOnce) await context.jobs.send(notifyRelease, { tenantId: scope.tenantId, userId }, { tx })
}

/** Groups whose alerts began and ended while they were held. */
async function findOver(tx: Tx, rows: readonly Waiting[]): Promise<Set<string>> {
  const begun = rows.flatMap(({ message }) => (message.source === 'alert' && !message.resolved ? (message.groupKey ?? []) : []))
  const keys = new Set(begun)
  if (keys.size === 0) return keys
  const groups = await tx
    .select()
    .from(notifyGroups)
    .where(inArray(notifyGroups.id, [...keys]))
  for (const { id, state } of groups) {
    const { members } = state as unknown as Group
    if (Object.values(members).some((one) => one.status === 'firing')) keys.delete(id)
  }
  return keys
}
