// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Counter, Gauge, Histogram } from 'prom-client'
import type { Registry } from 'prom-client'
import type { Tx } from '../db/client.ts'
import type { DeliveryRow } from './messages.ts'
import type { Attempt } from './sender.ts'

/** What one look at a tenant's tables found. */
export type NotifyLook = {
  queue: { state: string; count: number; oldestS: number }[]
  channels: { type: string; state: string; count: number }[]
  groups: number
}

/** Few statements, for the sweep that runs anyway. */
export async function lookAtNotifications(tx: Tx): Promise<NotifyLook> {
  const queue = await tx.execute<NotifyLook['queue'][number]>(
    sql`select d.state, count(*)::int as count, coalesce(extract(epoch from now() - min(d.created_at) filter (
        where d.next_at is null and d.held_until is null and (m.scheduled_at is null or m.scheduled_at <= now()))), 0)::float8 as "oldestS"
      from notify_deliveries d join notify_messages m on m.tenant_id = d.tenant_id and m.id = d.message_id
      where d.state in ('accepted', 'queued', 'sending') group by d.state`,
  )
  const channels = await tx.execute<NotifyLook['channels'][number]>(
    sql`select type, case when enabled then state else 'off' end as state, count(*)::int as count from notify_channels group by 1, 2`,
  )
  const [groups] = await tx.execute<{ count: number }>(sql`select count(*)::int as count from notify_groups`)
  return { queue: [...queue], channels: [...channels], groups: groups!.count }
}

/** Numbers of the hub [notifications §12]. */
export class NotifyMetrics {
  readonly #attempts: Counter
  readonly #took: Histogram
  readonly #toSent: Histogram
  readonly #queue: Gauge
  readonly #oldest: Gauge
  readonly #channels: Gauge
  readonly #groups: Gauge

  constructor(registry: Registry) {
    const registers = [registry]
    this.#attempts = new Counter({
      name: 'iot_pms_notify_attempts_total',
      help: 'Attempts at deliveries',
      labelNames: ['type', 'outcome'],
      registers,
    })
    this.#took = new Histogram({ name: 'iot_pms_notify_attempt_seconds', help: 'Duration of attempts', labelNames: ['type'], registers })
    this.#toSent = new Histogram({
      name: 'iot_pms_notify_accept_to_sent_seconds',
      help: 'From accepting a message to its delivery, by priority',
      labelNames: ['priority'],
      buckets: [0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800],
      registers,
    })
    this.#queue = new Gauge({ name: 'iot_pms_notify_queue', help: 'Deliveries that have not ended', labelNames: ['state'], registers })
    this.#oldest = new Gauge({
      name: 'iot_pms_notify_oldest_seconds',
      help: 'Age of the oldest delivery that waits for nothing but its turn',
      registers,
    })
    this.#channels = new Gauge({ name: 'iot_pms_notify_channel_up', help: 'Channels by state', labelNames: ['type', 'state'], registers })
    this.#groups = new Gauge({ name: 'iot_pms_notify_groups', help: 'Groups of alerts', registers })
  }

  /** @param now ms since 1970 */
  noteAttempt(type: string, { outcome, latencyMs }: Attempt, delivery: Pick<DeliveryRow, 'priority' | 'createdAt'>, now: number): void {
    this.#attempts.inc({ type, outcome: outcome.outcome })
    this.#took.observe({ type }, latencyMs / 1000)
    if (outcome.outcome !== 'sent') return
    this.#toSent.observe({ priority: String(delivery.priority) }, (now - delivery.createdAt.getTime()) / 1000)
  }

  /** Of all tenants together. */
  set(looks: readonly NotifyLook[]): void {
    for (const gauge of [this.#queue, this.#channels]) gauge.reset()
    this.#oldest.set(looks.flatMap((one) => one.queue).reduce((most, one) => Math.max(most, one.oldestS), 0))
    this.#groups.set(looks.reduce((sum, one) => sum + one.groups, 0))
    for (const { queue, channels } of looks) {
      for (const { state, count } of queue) this.#queue.inc({ state }, count)
      for (const { type, state, count } of channels) this.#channels.inc({ type, state }, count)
    }
  }
}
