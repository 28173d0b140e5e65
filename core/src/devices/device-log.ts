// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { LogEntry } from './schemas.ts'

/** Events of one device are kept this long. */
const keptDays = 30
const flushMs = 500
const retryMs = 2000
/** A storm of connects beyond this is only counted in the server's log. */
const maxWaiting = 50_000

/** Connection events of devices, gathered and written twice a second. */
export class DeviceLog {
  readonly #context: Context
  #waiting: { device: Device; entry: LogEntry }[] = []
  #lost = 0
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()

  constructor(context: Context) {
    this.#context = context
  }

  add(device: Device, event: string, detail: Record<string, unknown>): void {
    const entry = { id: randomUUIDv7(), at: new Date(this.#context.clock.now()).toISOString(), event, detail }
    this.#context.events.emit('device.log', { tenantId: device.tenantId, deviceId: device.id, entry })
    if (this.#waiting.length >= maxWaiting) {
      this.#lost++
      return
    }
    this.#waiting.push({ device, entry })
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref()
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#flushing = this.#flushing
      .then(() => this.#write())
      .catch((error: unknown) => this.#context.log.warn({ err: error }, 'device events could not be written'))
    return this.#flushing
  }

  async removeOld(scope: Scope): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`delete from device_log where at < now() - ${keptDays} * interval '1 day'`),
    )
  }

  async #write(): Promise<void> {
    const waiting = this.#waiting
    this.#waiting = []
    if (this.#lost > 0) this.#context.log.warn({ lost: this.#lost }, 'too many device events at once, some were not kept')
    this.#lost = 0
    try {
      for (const [tenantId, group] of Map.groupBy(waiting, (one) => one.device.tenantId)) {
        const rows = group.map(({ device, entry }) => ({ device: device.id, ...entry }))
        // Asked per row, not joined: with statistics of a table that was small a moment ago a join compares all with all.
        await this.#context.db.withTenant({ tenantId, tenantNo: group[0]!.device.tenantNo }, (tx) =>
          tx.execute(sql`
            insert into device_log (tenant_id, device_id, id, at, event, detail)
            select ${tenantId}, r.device, r.id, r.at, r.event, r.detail
            from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as r (device uuid, id uuid, at timestamptz, event text, detail jsonb)
            where (select true from devices d where d.tenant_id = ${tenantId} and d.id = r.device)
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
