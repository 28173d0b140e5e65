// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyAttempts, notifyChannels, notifyDeliveries, notifyMessages, notifySuppressions } from '../db/notify-tables.ts'
import type { DeliveryState } from '../db/notify-tables.ts'
import { priorityOf, skip } from '../jobs/define.ts'
import { takeInside } from '../jobs/limiter.ts'
import { createAckToken } from './acks.ts'
import { callbackUrlOf } from './callbacks.ts'
import { perNumber } from './channels/sms.ts'
import type { Channels, OpenChannel } from './channels.ts'
import { isDigesting, rateKey, windowsOf } from './channel-rate.ts'
import { wakeDrain } from './drain.ts'
import { afterGood, afterTransient, disable, mayTry } from './channel-health.ts'
import type { DeliveryRow, MessageRow, Messages } from './messages.ts'
import { notifySend } from './queues.ts'
import type { Attempt, Said, Sender } from './sender.ts'

const minute = 60_000
const hour = 3_600_000
/** Waits after one attempt and the next [notifications §5]. */
const usualWaits = [5000, 30_000, 2 * minute, 10 * minute, 30 * minute, hour, 2 * hour]
const webhookWaits = [5000, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
const mostUnknowns = 3
/** So little room is left that what waits becomes one message. */
const digestShare = 0.25

export type DeliverParts = {
  channels: Channels
  messages: Messages
  sender: Sender
  onAttempt: (type: string, attempt: Attempt, delivery: DeliveryRow) => void
}

type Ready = {
  delivery: DeliveryRow
  message: MessageRow
  channel: OpenChannel
  links: MessageRow['links']
  callbackUrl: string | undefined
}

/** Takes one delivery through one attempt. Every step that matters commits before the next. */
export class Deliverer {
  readonly #context: Context
  readonly #parts: DeliverParts

  constructor(context: Context, parts: DeliverParts) {
    this.#context = context
    this.#parts = parts
  }

  async run(scope: Scope, deliveryId: string, reserved: boolean, signal: AbortSignal): Promise<unknown> {
    const ready = await this.#context.db.withTenant(scope, (tx) => this.#prepare(tx, scope, deliveryId, reserved))
    if (typeof ready === 'string') return skip(ready)
    let attempt = await this.#parts.sender.send(ready.channel, saidOf(ready), signal)
    const moved = attempt.outcome.outcome === 'retry' ? attempt.outcome.movedTo : undefined
    if (moved !== undefined) {
      // The group has another number now: kept, and tried at once.
      const config = { ...ready.channel.config, chatId: moved }
      await this.#parts.channels.update(scope, ready.channel.row.id, { config: { chatId: moved } })
      attempt = await this.#parts.sender.send({ ...ready.channel, config }, saidOf(ready), signal)
    }
    await this.#context.db.withTenant(scope, (tx) => this.settle(tx, ready, attempt))
    this.#parts.onAttempt(ready.channel.type.type, attempt, ready.delivery)
    return { outcome: attempt.outcome.outcome }
  }

  /** @returns a reason when there is nothing to send now */
  async #prepare(tx: Tx, scope: Scope, id: string, reserved: boolean): Promise<Ready | string> {
    const [delivery] = await tx.select().from(notifyDeliveries).where(eq(notifyDeliveries.id, id)).for('update')
    if (!delivery || !['queued', 'sending'].includes(delivery.state)) return delivery?.state ?? 'gone'
    const [message] = await tx.select().from(notifyMessages).where(eq(notifyMessages.id, delivery.messageId))
    const [row] = await tx.select().from(notifyChannels).where(eq(notifyChannels.id, delivery.channelId))
    const now = this.#context.clock.now()
    if (delivery.heldUntil && delivery.heldUntil.getTime() > now) return 'held'
    if (delivery.expiresAt.getTime() <= now) return this.#end(tx, delivery, 'expired', 'ttl')
    if (!row || !message) return this.#end(tx, delivery, 'failed', 'channel_deleted')
    const turn = await mayTry(tx, row, delivery.priority, now)
    if (turn === 'never') return this.#end(tx, delivery, 'failed', 'channel_disabled')
    if (turn !== 'now') return this.#later(tx, delivery, turn, 'paused')
    const channel = this.#parts.channels.openRow(row)
    if (row.type === 'inapp') {
      const said = saidOf(await this.#withLinks(tx, delivery, message, channel))
      await this.#parts.sender.putIntoInbox(tx, said, scope.tenantId, delivery.userId ?? '')
      return this.#end(tx, delivery, 'sent', null)
    }
    // It began before, and nobody knows how that ended.
    if (delivery.state === 'sending' && channel.type.isOnce) return this.#end(tx, delivery, 'failed', 'uncertain')
    if (!reserved && !(await this.#takeSlot(tx, scope, channel, delivery))) return 'rate'
    await tx
      .update(notifyDeliveries)
      .set({ state: 'sending', isWaiting: false, attempts: delivery.attempts + 1, updatedAt: sql`now()` })
      .where(eq(notifyDeliveries.id, id))
    return this.#withLinks(tx, { ...delivery, attempts: delivery.attempts + 1 }, message, channel)
  }

  /** What fires can be acknowledged by a link of this recipient's own, where the server knows its address. */
  async #withLinks(tx: Tx, delivery: DeliveryRow, message: MessageRow, channel: OpenChannel): Promise<Ready> {
    const { publicUrl } = this.#context.config
    const callbackUrl = callbackUrlOf(this.#context, channel.row)
    const links = [...message.links]
    if (publicUrl && message.source === 'alert' && message.groupKey !== null && !message.resolved) {
      const token = await createAckToken(tx, delivery, message.groupKey, this.#context.clock.now())
      links.push({ label: '确认 / Acknowledge', url: new URL(`n/${token}`, publicUrl).href })
    }
    return { delivery, message, channel, links, callbackUrl }
  }

  async #takeSlot(tx: Tx, scope: Scope, channel: OpenChannel, delivery: DeliveryRow): Promise<boolean> {
    const windows = windowsOf(channel)
    if (channel.type.isOnce && delivery.address) {
      const number = await takeInside(tx, scope, `notify/number/${channel.type.type}/${delivery.address}`, perNumber)
      if (!number.ok) {
        await this.#later(tx, delivery, number.waitMs, 'rate')
        return false
      }
    }
    if (windows.length === 0) return true
    const taken = await takeInside(tx, scope, rateKey(channel.row), windows)
    const digests = isDigesting(channel) && delivery.priority >= 2
    const smallest = windows.reduce((least, one) => Math.min(least, one.count), Infinity)
    if (taken.ok && !(digests && taken.left < Math.ceil(smallest * digestShare))) return true
    await tx
      .update(notifyDeliveries)
      .set({ isWaiting: true, state: 'queued', updatedAt: sql`now()` })
      .where(eq(notifyDeliveries.id, delivery.id))
    // A slot that was taken all the same is the digest's: it comes when it is free again.
    const waitMs = taken.ok ? Math.max(...windows.map((one) => one.perMs / one.count)) : taken.waitMs
    await wakeDrain(this.#context, tx, scope, channel.row.id, waitMs)
    return false
  }

  /** Writes down how an attempt ended, and what follows from it. */
  async settle(tx: Tx, { delivery, channel }: Ready, attempt: Attempt): Promise<void> {
    const { outcome } = attempt
    const now = this.#context.clock.now()
    await tx.insert(notifyAttempts).values({
      tenantId: delivery.tenantId,
      deliveryId: delivery.id,
      no: delivery.attempts,
      at: new Date(now - attempt.latencyMs),
      outcome: outcome.outcome,
      reason: 'reason' in outcome ? outcome.reason : null,
      httpStatus: attempt.httpStatus,
      providerCode: outcome.providerCode ?? null,
      providerMessage: outcome.providerMessage ?? null,
      latencyMs: attempt.latencyMs,
      retryAfterMs: outcome.outcome === 'retry' ? (outcome.afterMs ?? null) : null,
    })
    await tx
      .update(notifyDeliveries)
      .set({ providerCode: outcome.providerCode ?? null })
      .where(eq(notifyDeliveries.id, delivery.id))
    switch (outcome.outcome) {
      case 'sent':
        await afterGood(tx, channel.row.id, outcome.paceMs, now)
        if (outcome.providerMessageId) {
          await tx
            .update(notifyDeliveries)
            .set({ providerMessageId: outcome.providerMessageId })
            .where(eq(notifyDeliveries.id, delivery.id))
        }
        await this.#end(tx, delivery, 'sent', null)
        return
      case 'retry':
        await afterTransient(tx, channel.row, outcome, now)
        await this.#again(tx, delivery, outcome.afterMs ?? 0, outcome.reason)
        return
      case 'unknown': {
        const unknowns = delivery.unknowns + 1
        await tx.update(notifyDeliveries).set({ unknowns }).where(eq(notifyDeliveries.id, delivery.id))
        if (unknowns >= mostUnknowns) await this.#end(tx, delivery, 'failed', 'unknown')
        else await this.#again(tx, delivery, 0, outcome.reason)
        return
      }
      case 'channel_disabled':
        await disable(tx, channel.row.id, outcome, now)
        this.#context.log.warn(
          { channel: channel.row.id, type: channel.row.type, reason: outcome.reason },
          'a notification channel is out of order',
        )
        await this.#end(tx, delivery, 'failed', outcome.reason)
        return
      case 'recipient_gone':
        await this.#markDead(tx, delivery, outcome.reason)
        await this.#end(tx, delivery, 'failed', outcome.reason)
        return
      case 'rejected':
      case 'uncertain':
        await this.#end(tx, delivery, 'failed', outcome.outcome === 'uncertain' ? 'uncertain' : outcome.reason)
    }
  }

  /** Nothing more goes to this address until a person says otherwise. */
  async #markDead(tx: Tx, { tenantId, type, address }: DeliveryRow, reason: string): Promise<void> {
    if (address === null) return
    await tx.insert(notifySuppressions).values({ tenantId, id: randomUUIDv7(), type, address, reason }).onConflictDoNothing()
  }

  /** After the wait of the schedule, or later when the provider said so; never after its time. */
  async #again(tx: Tx, delivery: DeliveryRow, afterMs: number, reason: string): Promise<void> {
    const waits = delivery.type === 'webhook' ? webhookWaits : usualWaits
    const wait = waits[delivery.attempts - 1]
    const jitter = delivery.type === 'webhook' ? 0.1 : 0.2
    if (wait === undefined) {
      await this.#end(tx, delivery, 'failed', reason)
      return
    }
    await this.#later(tx, delivery, Math.max(afterMs, wait * (1 - jitter + 2 * jitter * Math.random())), reason)
  }

  async #later(tx: Tx, delivery: DeliveryRow, waitMs: number, reason: string): Promise<string> {
    const nextAt = new Date(this.#context.clock.now() + waitMs)
    if (nextAt >= delivery.expiresAt) return this.#end(tx, delivery, 'expired', reason)
    await tx
      .update(notifyDeliveries)
      .set({ state: 'queued', reason, nextAt, updatedAt: sql`now()` })
      .where(eq(notifyDeliveries.id, delivery.id))
    const data = { tenantId: delivery.tenantId, deliveryId: delivery.id }
    await this.#context.jobs.send(notifySend, data, { tx, key: delivery.id, delayMs: waitMs, priority: priorityOf(delivery.priority) })
    return reason
  }

  /** A state never goes back: only one that is open ends. */
  async #end(tx: Tx, delivery: DeliveryRow, state: DeliveryState, reason: string | null): Promise<string> {
    const [ended] = await tx
      .update(notifyDeliveries)
      .set({ state, reason, isWaiting: false, nextAt: null, updatedAt: sql`now()`, ...(state === 'sent' ? { sentAt: sql`now()` } : {}) })
      .where(and(eq(notifyDeliveries.id, delivery.id), inArray(notifyDeliveries.state, ['accepted', 'queued', 'sending'])))
      .returning()
    if (!ended) return state
    if (state === 'sent') await this.#parts.messages.afterSuccess(tx, ended)
    else await this.#parts.messages.afterFailure(tx, ended)
    return state
  }
}

function saidOf({ delivery, message, channel, links, callbackUrl }: Ready): Said {
  const params = channel.config['params']
  const values = { title: message.title, text: message.text }
  const fill = (template: unknown) => String(template).replace(/\{\{ *(title|text) *\}\}/g, (_, name: 'title' | 'text') => values[name])
  return {
    deliveryId: delivery.id,
    messageId: message.id,
    title: message.title,
    text: message.text,
    format: message.format,
    priority: message.priority,
    resolved: message.resolved,
    links,
    ...(callbackUrl === undefined ? {} : { callbackUrl }),
    event: message.event,
    at: message.createdAt,
    data: Object.keys(message.data).length > 0 ? message.data : { title: message.title, text: message.text, priority: message.priority },
    ...(delivery.address === null ? {} : { address: delivery.address }),
    ...(delivery.userId === null ? {} : { userId: delivery.userId }),
    ...(message.groupKey === null ? {} : { groupKey: message.groupKey }),
    ...(Array.isArray(params) ? { params: params.map(fill) } : {}),
    ...(typeof params === 'object' && params !== null && !Array.isArray(params)
      ? { params: Object.fromEntries(Object.entries(params).map(([name, value]) => [name, fill(value)])) }
      : {}),
  }
}
