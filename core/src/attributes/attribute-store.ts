// SPDX-License-Identifier: AGPL-3.0-only
import { TransactionRollbackError, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import type { BatchStore } from '../ingest/writer.ts'
import { toColumns } from './columns.ts'
import type { AttributeScope, ValueColumns } from './columns.ts'
import type { DeviceWrite, WriteRefusals } from '../telemetry/store.ts'

/** A value to store: its device, scope and key, the server's time in ms, and the columns of its value. */
export type AttributeRow = { device: string; scope: AttributeScope; key: string; at: number } & ValueColumns

const nothingRefused: WriteRefusals = new Map()

/** Writes the client attributes that devices report: the last value per key, with the server's time. */
export class AttributeStore implements BatchStore {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  async write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    for (const { scope, rows } of groupByTenant(batch)) await this.#context.db.withTenant(scope, (tx) => upsert(tx, scope, rows))
    return nothingRefused
  }

  async probe(batch: readonly DeviceWrite[]): Promise<void> {
    const tryAndTakeBack = async (tx: Tx, scope: Scope, rows: readonly AttributeRow[]) => {
      await upsert(tx, scope, rows)
      tx.rollback()
    }
    for (const { scope, rows } of groupByTenant(batch)) {
      await this.#context.db
        .withTenant(scope, (tx) => tryAndTakeBack(tx, scope, rows))
        .catch((error: unknown) => {
          if (!(error instanceof TransactionRollbackError)) throw error
        })
    }
  }
}

/** The last value per device and key. */
function groupByTenant(batch: readonly DeviceWrite[]): { scope: Scope; rows: AttributeRow[] }[] {
  return [...Map.groupBy(batch, ({ device }) => device.tenantId)].map(([tenantId, writes]) => {
    const rows = new Map<string, AttributeRow>()
    for (const { device, points } of writes) {
      for (const point of points) {
        rows.set(`${device.id} ${point.key}`, { device: device.id, scope: 'client', key: point.key, at: point.ts, ...toColumns(point) })
      }
    }
    return { scope: { tenantId, tenantNo: writes[0]!.device.tenantNo }, rows: [...rows.values()] }
  })
}

/** Always in the same order, so that two transactions on the same rows wait for each other instead of blocking each other. */
export async function upsert(tx: Tx, scope: Scope, rows: readonly AttributeRow[]): Promise<void> {
  await tx.execute(sql`
    insert into device_attributes (tenant_id, device_id, scope, key, kind, num, big, txt, updated_at)
    select ${scope.tenantId}, r.device, r.scope, r.key, r.kind, r.num, r.big, r.txt, to_timestamp(r.at / 1000.0)
    from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
      as r (device uuid, scope text, key text, kind int2, num float8, big int8, txt text, at float8)
    where exists (select 1 from devices d where d.id = r.device) order by r.device, r.scope, r.key collate "C"
    on conflict (tenant_id, device_id, scope, key) do update
      set kind = excluded.kind, num = excluded.num, big = excluded.big, txt = excluded.txt, updated_at = excluded.updated_at`)
}
