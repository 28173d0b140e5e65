// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Counter, Gauge } from 'prom-client'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'

type Count = { messages: number; points: number; rejects: number }
type Tenant = { scope: Scope; minute: number; now: Count; last: Count; unwritten: Map<number, Count> }

const minuteMs = 60_000
const writeMs = 10_000
const empty = (): Count => ({ messages: 0, points: 0, rejects: 0 })

/** Messages, points and rejects: per minute for the overview, in total for metrics. */
export class IngestCounters {
  readonly #context: Context
  readonly #tenants = new Map<string, Tenant>()
  readonly #messages: Counter
  readonly #points: Counter
  readonly #rejects: Counter
  #timer: NodeJS.Timeout | undefined

  constructor(context: Context, metrics: Registry) {
    this.#context = context
    const counter = (name: string, help: string) => new Counter({ name, help, registers: [metrics] })
    this.#messages = counter('iot_pms_ingest_messages_total', 'Messages of devices taken in')
    this.#points = counter('iot_pms_ingest_points_total', 'Points committed')
    this.#rejects = counter('iot_pms_ingest_rejects_total', 'Messages and points refused')
  }

  start(): void {
    this.#timer = setInterval(() => void this.flush(), writeMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
  }

  add(scope: Scope, change: Partial<Count>): void {
    const tenant = this.#tenant(scope)
    const unwritten = tenant.unwritten.get(tenant.minute) ?? empty()
    tenant.unwritten.set(tenant.minute, unwritten)
    for (const [name, total] of [
      ['messages', this.#messages],
      ['points', this.#points],
      ['rejects', this.#rejects],
    ] as const) {
      const count = change[name] ?? 0
      if (count === 0) continue
      tenant.now[name] += count
      unwritten[name] += count
      total.inc(count)
    }
  }

  /** Rates per minute over the last one to two minutes. */
  perMinute(scope: Scope): Count {
    const tenant = this.#tenant(scope)
    const share = (this.#context.clock.now() % minuteMs) / minuteMs
    const rate = (name: keyof Count) => Math.round((tenant.last[name] + tenant.now[name]) / (1 + share))
    return { messages: rate('messages'), points: rate('points'), rejects: rate('rejects') }
  }

  async flush(): Promise<void> {
    for (const tenant of this.#tenants.values()) {
      const rows = [...tenant.unwritten].map(([minute, count]) => ({ minute: new Date(minute).toISOString(), ...count }))
      tenant.unwritten.clear()
      if (rows.length === 0) continue
      await this.#context.db
        .withTenant(tenant.scope, (tx) =>
          tx.execute(sql`
            insert into ingest_minutes as m (tenant_id, minute, messages, points, rejects)
            select ${tenant.scope.tenantId}, r.minute, r.messages, r.points, r.rejects
            from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as r (minute timestamptz, messages int8, points int8, rejects int8)
            on conflict (tenant_id, minute) do update set messages = m.messages + excluded.messages, points = m.points + excluded.points, rejects = m.rejects + excluded.rejects`),
        )
        // Counts for a picture are not worth more than this.
        .catch((error: unknown) => this.#context.log.warn({ err: error }, 'ingest counts of the last seconds are lost'))
    }
  }

  #tenant(scope: Scope): Tenant {
    const minute = Math.floor(this.#context.clock.now() / minuteMs) * minuteMs
    let tenant = this.#tenants.get(scope.tenantId)
    if (!tenant) {
      tenant = { scope: { tenantId: scope.tenantId, tenantNo: scope.tenantNo }, minute, now: empty(), last: empty(), unwritten: new Map() }
      this.#tenants.set(scope.tenantId, tenant)
    }
    if (tenant.minute !== minute) {
      tenant.last = minute - tenant.minute === minuteMs ? tenant.now : empty()
      tenant.now = empty()
      tenant.minute = minute
    }
    return tenant
  }
}

/** A gauge that is read when somebody looks. */
export function watchGauge(metrics: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [metrics],
    collect() {
      this.set(read())
    },
  })
}
