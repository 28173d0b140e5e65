// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyChannels, notifyDeliveries, notifyMessages } from '../db/notify-tables.ts'
import { priorityOf } from '../jobs/define.ts'
import { takeInside } from '../jobs/limiter.ts'
import type { Channels, OpenChannel } from './channels.ts'
import { isDigesting, rateKey, windowsOf } from './channel-rate.ts'
import type { DeliveryRow, MessageRow } from './messages.ts'
import { notifyDrain, notifySend } from './queues.ts'
import { escapeText } from './render.ts'

const atOnce = 100
const digestChars = 3000

/** A delivery that waits, with what it says. */
export type Waiting = { delivery: DeliveryRow; message: MessageRow }

/**
 * Gives the free slots of a channel to what waits for one, the most urgent first. Where the channel digests, what
 * is not urgent becomes one message per slot.
 */
export async function drainChannel(context: Context, channels: Channels, scope: Scope, channelId: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const [row] = await tx.select().from(notifyChannels).where(eq(notifyChannels.id, channelId))
    if (!row) return
    const channel = channels.openRow(row)
    const waiting = await readWaiting(tx, channelId)
    const urgent = waiting.filter((one) => one.delivery.priority === 1)
    const others = waiting.filter((one) => one.delivery.priority !== 1)
    const units: Waiting[][] = [
      ...urgent.map((one) => [one]),
      ...(isDigesting(channel) && others.length > 1 ? digests(others) : others.map((one) => [one])),
    ]
    for (const unit of units) {
      const taken = await takeInside(tx, scope, rateKey(row), windowsOf(channel))
      if (!taken.ok) {
        await wakeDrain(context, tx, scope, channelId, taken.waitMs)
        return
      }
      await (unit.length === 1 ? release(context, tx, unit[0]!.delivery, true) : sendDigest(context, tx, scope, channel, unit, true))
    }
    if (waiting.length === atOnce) await wakeDrain(context, tx, scope, channelId, 0)
  })
}

/** Half a second: whoever waits for the same slot wakes one drain. */
const wakeStepMs = 500

/** Looks after the channel again when a slot is free. */
export async function wakeDrain(context: Context, tx: Tx, scope: Scope, channelId: string, delayMs: number): Promise<void> {
  const slot = Math.ceil((context.clock.now() + delayMs) / wakeStepMs)
  await context.jobs.send(
    notifyDrain,
    { tenantId: scope.tenantId, channelId },
    { tx, delayMs: Math.max(1, slot * wakeStepMs - context.clock.now()), unique: { key: `${channelId} ${slot}`, mode: 'exclusive' } },
  )
}

async function readWaiting(tx: Tx, channelId: string): Promise<Waiting[]> {
  const rows = await tx
    .select({ delivery: notifyDeliveries, message: notifyMessages })
    .from(notifyDeliveries)
    .innerJoin(
      notifyMessages,
      and(eq(notifyMessages.tenantId, notifyDeliveries.tenantId), eq(notifyMessages.id, notifyDeliveries.messageId)),
    )
    .where(and(eq(notifyDeliveries.channelId, channelId), eq(notifyDeliveries.isWaiting, true), eq(notifyDeliveries.state, 'queued')))
    .orderBy(notifyDeliveries.priority, notifyDeliveries.createdAt)
    .limit(atOnce)
    .for('update', { of: notifyDeliveries, skipLocked: true })
  return rows
}

/** @param reserved a slot of the channel was taken for it */
export async function release(context: Context, tx: Tx, delivery: DeliveryRow, reserved: boolean): Promise<void> {
  await tx.update(notifyDeliveries).set({ isWaiting: false, heldUntil: null }).where(eq(notifyDeliveries.id, delivery.id))
  const data = { tenantId: delivery.tenantId, deliveryId: delivery.id, reserved }
  await context.jobs.send(notifySend, data, { tx, key: delivery.id, priority: priorityOf(delivery.priority) })
}

/** In parts that fit one message of any channel. */
export function digests(waiting: readonly Waiting[]): Waiting[][] {
  const parts: Waiting[][] = []
  let chars = 0
  for (const one of waiting) {
    const own = one.message.title.length + one.message.text.length
    // Only those to one address belong together.
    const last = parts.at(-1)
    const fits = last && chars + own <= digestChars && last[0]!.delivery.address === one.delivery.address
    if (fits) {
      last.push(one)
      chars += own
    } else {
      parts.push([one])
      chars = own
    }
  }
  return parts
}

/** One message in place of many; those become `suppressed` with its id, and stay in the log. */
export async function sendDigest(
  context: Context,
  tx: Tx,
  scope: Scope,
  channel: Pick<OpenChannel, 'row'>,
  unit: readonly Waiting[],
  reserved: boolean,
): Promise<void> {
  const [first] = unit
  const { delivery, message } = first!
  const priority = unit.reduce((least, one) => (one.delivery.priority < least ? one.delivery.priority : least), delivery.priority)
  const [digest] = await tx
    .insert(notifyMessages)
    .values({
      tenantId: scope.tenantId,
      id: randomUUIDv7(),
      source: 'digest',
      topic: 'digest',
      event: 'message',
      priority,
      title: `${unit.length} 条通知 / ${unit.length} messages`,
      text: unit.map(({ message: one }) => lineOf(one)).join('\n\n'),
      format: 'markdown',
      plan: [[{ channelId: channel.row.id, type: channel.row.type, ...(delivery.address === null ? {} : { address: delivery.address }) }]],
      fallbackAfterMs: message.fallbackAfterMs,
      expiresAt: delivery.expiresAt,
      createdBy: 'digest',
    })
    .returning()
  const [made] = await tx
    .insert(notifyDeliveries)
    .values({
      tenantId: scope.tenantId,
      id: randomUUIDv7(),
      messageId: digest!.id,
      channelId: channel.row.id,
      type: channel.row.type,
      address: delivery.address,
      userId: delivery.userId,
      priority,
      state: 'queued',
      expiresAt: delivery.expiresAt,
    })
    .returning()
  const ids = unit.map((one) => one.delivery.id)
  await tx
    .update(notifyDeliveries)
    .set({ state: 'suppressed', reason: `digested ${digest!.id}`, isWaiting: false, heldUntil: null, updatedAt: sql`now()` })
    .where(inArray(notifyDeliveries.id, ids))
  await release(context, tx, made!, reserved)
}

function lineOf(message: MessageRow): string {
  const title = message.title ? `**${escapeText(message.title, 'commonmark')}**` : ''
  const text = message.format === 'text' ? escapeText(message.text, 'commonmark') : message.text
  return [title, text].filter(Boolean).join('\n')
}
