// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyDeliveries, notifyMessages } from '../db/notify-tables.ts'
import type { MessageSource, PlannedTarget } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { priorityOf } from '../jobs/define.ts'
import type { Priority } from './channel-type.ts'
import { notifyFallback, notifyRelease, notifySend } from './queues.ts'
import { planTargets } from './targets.ts'
import type { WantedTarget } from './targets.ts'

export type MessageRow = typeof notifyMessages.$inferSelect
export type DeliveryRow = typeof notifyDeliveries.$inferSelect

export type MessageDraft = {
  to: readonly WantedTarget[]
  title?: string
  text: string
  format?: 'markdown' | 'text'
  priority?: Priority
  topic?: string
  event?: string
  source?: MessageSource
  links?: { label: string; url: string }[]
  data?: Record<string, unknown>
  resolved?: boolean
  dedupKey?: string
  dedupWindowMs?: number
  groupKey?: string
  /** Name of the stored template that made the text. */
  template?: string
  scheduledAt?: Date
  ttlMs?: number
  createdBy: string
}

export type Accepted = { id: string; deliveries: { id: string; type: string; state: string }[]; deduplicated: boolean }

const hourMs = 3_600_000
/** [notifications §5] Nothing is sent after its time, by priority. */
const usualTtlMs = [0, 2 * hourMs, 6 * hourMs, 24 * hourMs, 24 * hourMs, 24 * hourMs] as const
const usualFallbackMs = [0, 60_000, 300_000, 1_800_000, 1_800_000, 1_800_000] as const
const usualDedupMs = 300_000
export const openStates = ['accepted', 'queued', 'sending'] as const
const goodStates = ['sent', 'delivered', 'read', 'acked']

/** Messages once accepted: their plan of steps, and the deliveries each step becomes. */
export class Messages {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  /**
   * Takes a message as part of a transaction: when it commits, the message will be sent, whatever happens to this
   * server; when it rolls back, nothing was said.
   *
   * @throws {ProblemError} `NO_RECIPIENT`, `TEXT_INVALID`
   */
  async accept(tx: Tx, scope: Scope, draft: MessageDraft): Promise<Accepted> {
    for (const text of [draft.title ?? '', draft.text]) {
      if (text.includes('\0') || !text.isWellFormed()) throw new ProblemError('TEXT_INVALID')
    }
    const known = await this.#findDuplicate(tx, scope, draft)
    if (known) return known
    const priority = draft.priority ?? 3
    const now = this.#context.clock.now()
    const startsAt = Math.max(now, draft.scheduledAt?.getTime() ?? now)
    const topic = draft.topic ?? 'message'
    const { plan, fallbackAfterMs } = await planTargets(tx, scope, draft.to, { priority, topic, now: startsAt })
    if (plan.length === 0 || plan[0]!.length === 0) throw new ProblemError('NO_RECIPIENT')
    const [message] = await tx
      .insert(notifyMessages)
      .values({
        tenantId: scope.tenantId,
        id: randomUUIDv7(),
        source: draft.source ?? 'api',
        topic,
        event: draft.event ?? 'message',
        priority,
        title: draft.title ?? '',
        text: draft.text,
        format: draft.format ?? 'markdown',
        resolved: draft.resolved ?? false,
        links: draft.links ?? [],
        data: draft.data ?? {},
        plan,
        fallbackAfterMs: fallbackAfterMs ?? usualFallbackMs[priority],
        dedupKey: draft.dedupKey ?? null,
        groupKey: draft.groupKey ?? null,
        template: draft.template ?? null,
        scheduledAt: draft.scheduledAt ?? null,
        expiresAt: new Date(startsAt + (draft.ttlMs ?? usualTtlMs[priority])),
        createdBy: draft.createdBy,
        createdAt: new Date(now),
      })
      .returning()
    const deliveries = await this.startStep(tx, message!, 0)
    return { id: message!.id, deliveries: deliveries.map(({ id, type, state }) => ({ id, type, state })), deduplicated: false }
  }

  /** The deliveries of one step, with the jobs that send them. */
  async startStep(tx: Tx, message: MessageRow, step: number): Promise<DeliveryRow[]> {
    const targets = message.plan[step] ?? []
    if (targets.length === 0) return []
    await tx.update(notifyMessages).set({ step }).where(eq(notifyMessages.id, message.id))
    const made = await tx
      .insert(notifyDeliveries)
      .values(targets.map((target) => toDelivery(message, target, step)))
      .returning()
    const delayMs = Math.max(0, (message.scheduledAt?.getTime() ?? 0) - this.#context.clock.now())
    const priority = priorityOf(message.priority)
    const open = made.filter((one) => one.state === 'queued')
    for (const { id, heldUntil, userId } of open) {
      if (heldUntil !== null && userId !== null) await this.#hold(tx, message.tenantId, userId, heldUntil)
      else {
        const data = { tenantId: message.tenantId, deliveryId: id }
        await this.#context.jobs.send(notifySend, data, { tx, key: id, priority, ...(delayMs > 0 ? { delayMs } : {}) })
      }
    }
    // Nobody of this step is told: the next one need not wait.
    if (open.length === 0) return [...made, ...(await this.startStep(tx, message, step + 1))]
    if (message.plan.length > step + 1) {
      const data = { tenantId: message.tenantId, messageId: message.id, step }
      await this.#context.jobs.send(notifyFallback, data, {
        tx,
        delayMs: delayMs + message.fallbackAfterMs,
        priority,
      })
    }
    return made
  }

  /** What is held for one person until one instant goes together. */
  async #hold(tx: Tx, tenantId: string, userId: string, until: Date): Promise<void> {
    const delayMs = Math.max(1, until.getTime() - this.#context.clock.now())
    const unique = { key: `${userId} ${until.getTime()}`, mode: 'exclusive' as const }
    await this.#context.jobs.send(notifyRelease, { tenantId, userId }, { tx, delayMs, unique })
  }

  /** Goes on to the next step, unless that has begun or the message has reached somebody. */
  async fallBack(tx: Tx, messageId: string, step: number): Promise<void> {
    const [message] = await tx.select().from(notifyMessages).where(eq(notifyMessages.id, messageId)).for('update')
    if (!message || message.step !== step || message.plan.length <= step + 1) return
    const made = await tx
      .select({ state: notifyDeliveries.state, type: notifyDeliveries.type, step: notifyDeliveries.step })
      .from(notifyDeliveries)
      .where(eq(notifyDeliveries.messageId, messageId))
    const isOver = message.expiresAt.getTime() <= this.#context.clock.now()
    const hasArrived = made.some((one) => goodStates.includes(one.state) && reaches(message.plan, one))
    if (isOver || hasArrived || made.every((one) => one.state === 'canceled')) return
    await this.startStep(tx, message, step + 1)
  }

  /** A delivery ended badly: when all of its step did, the next step begins at once. */
  async afterFailure(tx: Tx, delivery: DeliveryRow): Promise<void> {
    const open = await tx
      .select({ id: notifyDeliveries.id })
      .from(notifyDeliveries)
      .where(
        and(
          eq(notifyDeliveries.messageId, delivery.messageId),
          eq(notifyDeliveries.step, delivery.step),
          inArray(notifyDeliveries.state, openStates),
        ),
      )
      .limit(1)
    if (open.length === 0) await this.fallBack(tx, delivery.messageId, delivery.step)
  }

  /** A delivery arrived: what later steps have not sent yet is not needed any more. */
  async afterSuccess(tx: Tx, delivery: DeliveryRow): Promise<void> {
    if (delivery.type === 'inapp') {
      const [message] = await tx.select({ plan: notifyMessages.plan }).from(notifyMessages).where(eq(notifyMessages.id, delivery.messageId))
      if (message && !reaches(message.plan, delivery)) return this.afterFailure(tx, delivery)
    }
    await tx
      .update(notifyDeliveries)
      .set({ state: 'canceled', reason: 'sent_before', isWaiting: false, updatedAt: sql`now()` })
      .where(
        and(
          eq(notifyDeliveries.messageId, delivery.messageId),
          sql`${notifyDeliveries.step} > ${delivery.step}`,
          inArray(notifyDeliveries.state, ['accepted', 'queued']),
        ),
      )
  }

  /** Only what is not under way is canceled. @returns how many deliveries were @throws {ProblemError} `NOT_FOUND` */
  async cancel(tx: Tx, id: string): Promise<number> {
    const [message] = await tx.select({ id: notifyMessages.id }).from(notifyMessages).where(eq(notifyMessages.id, id)).for('update')
    if (!message) throw new ProblemError('NOT_FOUND')
    const canceled = await tx
      .update(notifyDeliveries)
      .set({ state: 'canceled', reason: 'user', isWaiting: false, updatedAt: sql`now()` })
      .where(and(eq(notifyDeliveries.messageId, id), inArray(notifyDeliveries.state, ['accepted', 'queued'])))
      .returning({ id: notifyDeliveries.id })
    return canceled.length
  }

  async #findDuplicate(tx: Tx, scope: Scope, draft: MessageDraft): Promise<Accepted | undefined> {
    if (draft.dedupKey === undefined) return undefined
    // Two at the same moment would both find nothing.
    await tx.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`notify ${scope.tenantId} ${draft.dedupKey}`}, 0))`)
    const since = new Date(this.#context.clock.now() - (draft.dedupWindowMs ?? usualDedupMs))
    const [first] = await tx
      .select({ id: notifyMessages.id })
      .from(notifyMessages)
      .where(and(eq(notifyMessages.dedupKey, draft.dedupKey), sql`${notifyMessages.createdAt} > ${since.toISOString()}`))
      .limit(1)
    if (!first) return undefined
    const deliveries = await tx
      .select({ id: notifyDeliveries.id, type: notifyDeliveries.type, state: notifyDeliveries.state })
      .from(notifyDeliveries)
      .where(eq(notifyDeliveries.messageId, first.id))
    return { id: first.id, deliveries, deduplicated: true }
  }
}

/** What lies in the inbox was not necessarily seen: beside another way it does not count as having arrived. */
const reaches = (plan: PlannedTarget[][], one: { type: string; step: number }): boolean =>
  one.type !== 'inapp' || (plan[one.step] ?? []).every((target) => target.type === 'inapp')

/** Webhooks are tried for days, so that a receiver that was away loses nothing. */
const webhookTtlMs = 4 * 24 * hourMs

function toDelivery(message: MessageRow, target: PlannedTarget, step: number) {
  const heldUntil = target.heldUntil === undefined ? null : new Date(target.heldUntil)
  const expiresAt =
    target.type === 'webhook'
      ? new Date(Math.max(message.expiresAt.getTime(), message.createdAt.getTime() + webhookTtlMs))
      : new Date(message.expiresAt.getTime() + Math.max(0, (heldUntil?.getTime() ?? 0) - message.createdAt.getTime()))
  return {
    tenantId: message.tenantId,
    id: randomUUIDv7(),
    messageId: message.id,
    step,
    channelId: target.channelId,
    type: target.type,
    userId: target.userId ?? null,
    address: target.address ?? null,
    priority: message.priority,
    state: target.suppressed === undefined ? ('queued' as const) : ('suppressed' as const),
    reason: target.suppressed ?? null,
    heldUntil: target.suppressed === undefined ? heldUntil : null,
    expiresAt,
  }
}
