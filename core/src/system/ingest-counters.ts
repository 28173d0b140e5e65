// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Counter, Gauge } from 'prom-client'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'

type Count = { messages: number; points: number; rejects: number }
type Tenant = {
  scope: Scope
  minute: number
  now: Count
  last: Count
  /** By minute; `unwrittenNow` is that of the minute that runs. */
  unwritten: Map<number, Count>
  unwrittenNow: Count
}

const minuteMs = 60_000
const writeMs = 10_000
const empty = (): Count => ({ messages: 0, points: 0, rejects: 0 })

/** Messages, points and rejects: per minute for the overview, in total for metrics. */
export class IngestCounters {
  readonly #context: Context
  readonly #tenants = new Map<string, Tenant>()
  /** In all, for the metrics. */
  readonly #totals = empty()
  /** The tenant counted for last, which mostly is the next one too. */
  #last: Tenant | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(context: Context, metrics: Registry) {
    this.#context = context
    watchCounter(metrics, 'iot_pms_ingest_messages_total', 'Messages of devices taken in', () => this.#totals.messages)
    watchCounter(metrics, 'iot_pms_ingest_points_total', 'Points committed', () => this.#totals.points)
    watchCounter(metrics, 'iot_pms_ingest_rejects_total', 'Messages and points refused', () => this.#totals.rejects)
  }

  start(): void {
    this.#timer = setInterval(() => void this.flush(), writeMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
  }

  /** Counts a message with its committed points and its refusals. */
  addMessage(scope: Scope, points: number, rejects: number): void {
    const tenant = this.#tenant(scope)
    addTo(tenant.now, points, rejects)
    addTo(tenant.unwrittenNow, points, rejects)
    addTo(this.#totals, points, rejects)
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
      const counted = [...tenant.unwritten].filter(([, count]) => count.messages > 0)
      const rows = counted.map(([minute, count]) => ({ minute: new Date(minute).toISOString(), ...count }))
      tenant.unwritten.clear()
      tenant.unwrittenNow = empty()
      tenant.unwritten.set(tenant.minute, tenant.unwrittenNow)
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
    const tenant = this.#last?.scope.tenantId === scope.tenantId ? this.#last : this.#find(scope, minute)
    this.#last = tenant
    if (tenant.minute !== minute) {
      tenant.last = minute - tenant.minute === minuteMs ? tenant.now : empty()
      tenant.now = empty()
      tenant.minute = minute
      tenant.unwrittenNow = empty()
      tenant.unwritten.set(minute, tenant.unwrittenNow)
    }
    return tenant
  }

  #find({ tenantId, tenantNo }: Scope, minute: number): Tenant {
    const known = this.#tenants.get(tenantId)
    if (known) return known
    const unwrittenNow = empty()
    const unwritten = new Map([[minute, unwrittenNow]])
    const tenant = { scope: { tenantId, tenantNo }, minute, now: empty(), last: empty(), unwritten, unwrittenNow }
    this.#tenants.set(tenantId, tenant)
    return tenant
  }
}

function addTo(count: Count, points: number, rejects: number): void {
  count.messages++
  count.points += points
  count.rejects += rejects
}

/** A counter that is read when somebody looks. */
function watchCounter(metrics: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers: [metrics],
    collect() {
      this.reset()
      this.inc(read())
    },
  })
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
