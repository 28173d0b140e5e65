// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { OtaKind } from '../db/tables.ts'
import type { OtaEvent } from './schemas.ts'

export type OtaEventName =
  | 'assigned'
  | 'taken_away'
  | 'offered'
  | 'offered_again'
  | 'withdrawn'
  | 'first_chunk'
  | 'last_chunk'
  | 'state'
  | 'current'
  | 'error'

type Subject = { scope: Scope; deviceId: string; kind: OtaKind; packageId: string | null }
type Waiting = { tenantId: string; tenantNo: number; device: string; id: string; kind: OtaKind; at: string; package: string | null } & {
  event: OtaEventName
  detail: Record<string, unknown>
}

const flushMs = 500
const retryMs = 2000
/** A storm of events beyond this is only counted in the server's log. */
const maxWaiting = 50_000
/** Kept of each device, and shown of each kind. */
const keptEvents = 200
const shownEvents = 100

/** What happened to the updates of each device, gathered and written twice a second. */
export class OtaTrace {
  readonly #context: Context
  #waiting: Waiting[] = []
  #lost = 0
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()

  constructor(context: Context) {
    this.#context = context
  }

  add({ scope, deviceId, kind, packageId }: Subject, event: OtaEventName, detail: Record<string, unknown> = {}): void {
    if (this.#waiting.length >= maxWaiting) {
      this.#lost++
      return
    }
    const { tenantId, tenantNo } = scope
    const at = new Date(this.#context.clock.now()).toISOString()
    this.#waiting.push({ tenantId, tenantNo, device: deviceId, id: randomUUIDv7(), kind, at, package: packageId, event, detail })
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref()
  }

  /** Newest first. */
  async list(scope: Scope, deviceId: string, kind: OtaKind): Promise<OtaEvent[]> {
    await this.flush()
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<Omit<OtaEvent, 'at'> & { at: number }>(sql`
        select id, floor(extract(epoch from at) * 1000)::float8 as at, event, package_id as "packageId", detail from ota_events
        where device_id = ${deviceId} and kind = ${kind} order by id desc limit ${shownEvents}`),
    )
    return rows.map((row) => ({ ...row, at: new Date(row.at).toISOString() }))
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#flushing = this.#flushing
      .then(() => this.#write())
      .catch((error: unknown) => this.#context.log.warn({ err: error }, 'events of updates could not be written'))
    return this.#flushing
  }

  async removeOld(scope: Scope): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        delete from ota_events e using (
          select tenant_id, device_id, id, row_number() over (partition by tenant_id, device_id order by id desc) as place from ota_events) old
        where old.place > ${keptEvents} and e.tenant_id = old.tenant_id and e.device_id = old.device_id and e.id = old.id`),
    )
  }

  async #write(): Promise<void> {
    const waiting = this.#waiting
    this.#waiting = []
    if (this.#lost > 0) this.#context.log.warn({ lost: this.#lost }, 'too many events of updates at once, some were not kept')
    this.#lost = 0
    try {
      for (const [tenantId, rows] of Map.groupBy(waiting, (one) => one.tenantId)) {
        await this.#context.db.withTenant({ tenantId, tenantNo: rows[0]!.tenantNo }, (tx) =>
          tx.execute(sql`
            insert into ota_events (tenant_id, device_id, id, kind, at, package_id, event, detail)
            select ${tenantId}, r.device, r.id, r.kind, r.at, r.package, r.event, r.detail
            from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as r (device uuid, id uuid, kind text, at timestamptz, package uuid, event text, detail jsonb)
            where exists (select 1 from devices d where d.id = r.device)
            on conflict do nothing`),
        )
      }
    } catch (error) {
      // Ids are fixed, so what was written before the failure is not written twice.
      this.#waiting = [...waiting, ...this.#waiting].slice(0, maxWaiting)
      this.#timer ??= setTimeout(() => void this.flush(), retryMs).unref()
      throw error
    }
  }
}
