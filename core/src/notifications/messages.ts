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
import { holdBack } from './preferences.ts'
import type { About } from './preferences.ts'
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

type Plan = { about: About; plan: PlannedTarget[][]; fallbackAfterMs: number | undefined }
type Planned = Plan & { index: number; draft: MessageDraft }
type SendJob = { data: { tenantId: string; deliveryId: string }; key: string; priority: number; delayMs?: number }
type FallbackJob = { data: { tenantId: string; messageId: string; step: number }; priority: number; delayMs?: number }

const after = (delayMs: number) => (delayMs > 0 ? { delayMs } : {})

function assertText(draft: MessageDraft): void {
  for (const text of [draft.title ?? '', draft.text]) {
    if (text.includes('\0') || !text.isWellFormed()) throw new ProblemError('TEXT_INVALID')
  }
}

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
    const [taken] = await this.acceptMany(tx, scope, [draft])
    if (taken instanceof ProblemError) throw taken
    return taken!
  }

  /** Takes many with few statements; a wrong one does not fail the others. At most one of them may have a `dedupKey`. */
  async acceptMany(tx: Tx, scope: Scope, drafts: readonly MessageDraft[]): Promise<(Accepted | ProblemError)[]> {
    const results: (Accepted | ProblemError)[] = []
    const planned: Planned[] = []
    const known = new Map<string, Plan>()
    for (const [index, draft] of drafts.entries()) {
      try {
        assertText(draft)
        const duplicate = await this.#findDuplicate(tx, scope, draft)
        if (duplicate) results[index] = duplicate
        else planned.push({ index, draft, ...(await this.#plan(tx, scope, draft, known)) })
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        results[index] = error
      }
    }
    if (planned.length === 0) return results
    const plans = await holdBack(tx, scope, planned)
    const rows = planned.map((one, at) => this.#toMessage(scope, one, plans[at]!))
    const messages = await tx.insert(notifyMessages).values(rows).returning()
    const made = await this.#startSteps(
      tx,
      messages.map((message) => ({ message, step: 0 })),
    )
    for (const [at, { id }] of rows.entries()) {
      const deliveries = made.filter((one) => one.messageId === id).map(({ id: own, type, state }) => ({ id: own, type, state }))
      results[planned[at]!.index] = { id, deliveries, deduplicated: false }
    }
    return results
  }

  /** @param known plans of this transaction by what was wanted; those with people in them depend on the people */
  async #plan(tx: Tx, scope: Scope, draft: MessageDraft, known: Map<string, Plan>): Promise<Plan> {
    const now = this.#context.clock.now()
    const startsAt = Math.max(now, draft.scheduledAt?.getTime() ?? now)
    const about = { priority: draft.priority ?? 3, topic: draft.topic ?? 'message', now: startsAt }
    const key = JSON.stringify([draft.to, about])
    const found = known.get(key)
    if (found) return found
    const made = { about, ...(await planTargets(tx, scope, draft.to, about)) }
    if (made.plan.length === 0) throw new ProblemError('NO_RECIPIENT')
    if (!made.plan.flat().some((one) => one.userId !== undefined)) known.set(key, made)
    return made
  }

  #toMessage(scope: Scope, { draft, about, fallbackAfterMs }: Planned, plan: PlannedTarget[][]) {
    const { priority, topic, now: startsAt } = about
    return {
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
      createdAt: new Date(this.#context.clock.now()),
    }
  }

  /** The deliveries of one step of each message, with the jobs that send them. */
  async #startSteps(tx: Tx, starting: readonly { message: MessageRow; step: number }[]): Promise<DeliveryRow[]> {
    const real = starting.filter(({ message, step }) => (message.plan[step] ?? []).length > 0)
    if (real.length === 0) return []
    for (const { message, step } of real) {
      if (step > 0) await tx.update(notifyMessages).set({ step }).where(eq(notifyMessages.id, message.id))
    }
    const values = real.flatMap(({ message, step }) => message.plan[step]!.map((target) => toDelivery(message, target, step)))
    const made = await tx.insert(notifyDeliveries).values(values).returning()
    const byMessage = Map.groupBy(made, (one) => one.messageId)
    const [sends, fallbacks, idle] = [[] as SendJob[], [] as FallbackJob[], [] as { message: MessageRow; step: number }[]]
    for (const { message, step } of real) {
      const open = (byMessage.get(message.id) ?? []).filter((one) => one.state === 'queued')
      const delayMs = Math.max(0, (message.scheduledAt?.getTime() ?? 0) - this.#context.clock.now())
      const priority = priorityOf(message.priority)
      for (const { id, heldUntil, userId } of open) {
        if (heldUntil !== null && userId !== null) await this.#hold(tx, message.tenantId, userId, heldUntil)
        else sends.push({ data: { tenantId: message.tenantId, deliveryId: id }, key: id, priority, ...after(delayMs) })
      }
      // Nobody of this step is told: the next one need not wait.
      if (open.length === 0) idle.push({ message, step: step + 1 })
      else if (message.plan.length > step + 1) {
        const data = { tenantId: message.tenantId, messageId: message.id, step }
        fallbacks.push({ data, priority, ...after(delayMs + message.fallbackAfterMs) })
      }
    }
    await this.#context.jobs.sendMany(notifySend, sends, { tx })
    await this.#context.jobs.sendMany(notifyFallback, fallbacks, { tx })
    return [...made, ...(await this.#startSteps(tx, idle))]
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
    await this.#startSteps(tx, [{ message, step: step + 1 }])
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
