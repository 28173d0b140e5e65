// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { BatchStore } from '../ingest/writer.ts'
import { kindNumbers } from '../telemetry/copy-encoder.ts'
import type { TypedValue } from '../telemetry/points.ts'
import type { DeviceWrite, WriteRefusals } from '../telemetry/store.ts'

const nothingRefused: WriteRefusals = new Map()

/** Client attributes that devices report: the last value per key, with the server's time. */
export class AttributeStore implements BatchStore {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  async write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    const byTenant = new Map<string, { scope: Scope; rows: Map<string, Record<string, unknown>> }>()
    for (const { device, points } of batch) {
      const group = byTenant.get(device.tenantId) ?? {
        scope: { tenantId: device.tenantId, tenantNo: device.tenantNo },
        rows: new Map<string, Record<string, unknown>>(),
      }
      byTenant.set(device.tenantId, group)
      for (const point of points) {
        group.rows.set(`${device.id} ${point.key}`, { device: device.id, key: point.key, at: point.ts, ...toColumns(point) })
      }
    }
    for (const { scope, rows } of byTenant.values()) await this.#upsert(scope, [...rows.values()])
    return nothingRefused
  }

  async #upsert(scope: Scope, rows: readonly Record<string, unknown>[]): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        insert into device_attributes (tenant_id, device_id, scope, key, kind, num, big, txt, updated_at)
        select ${scope.tenantId}, r.device, 'client', r.key, r.kind, r.num, r.big, r.txt, to_timestamp(r.at / 1000.0)
        from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as r (device uuid, key text, kind int2, num float8, big int8, txt text, at float8)
        where exists (select 1 from devices d where d.id = r.device)
        on conflict (tenant_id, device_id, scope, key) do update
          set kind = excluded.kind, num = excluded.num, big = excluded.big, txt = excluded.txt, updated_at = excluded.updated_at`),
    )
  }
}

/** A value as its columns; integers as text, since JSON numbers would round them. */
function toColumns(value: TypedValue): Record<string, unknown> {
  const kind = kindNumbers[value.kind]
  switch (value.kind) {
    case 'double':
      return { kind, num: value.value }
    case 'integer':
    case 'boolean':
      return { kind, big: String(BigInt(value.value)) }
    case 'string':
    case 'json':
      return { kind, txt: value.value }
  }
}
