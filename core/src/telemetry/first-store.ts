// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type pg from 'pg'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { sqlStateOf } from '../db/errors.ts'
import type { SeriesPoints } from './chunk-merge.ts'
import type { TypedValue } from './points.ts'
import type { LatestPoint, StoredPoint } from './store.ts'

type ValueRow = { kind: number; num: number | null; big: string | null; txt: string | null }
type PointRow = ValueRow & { ts: string }

/** Rows moved in one transaction. */
const takenRows = 100_000

/**
 * The table of version 0.1's first store, one row per point. Nothing is written into it any more: what it
 * holds is older than everything else, is read beside it, and moves into chunks until the table can go.
 */
export class FirstStore {
  readonly #context: Context
  #isGone = false
  #after: { tenantNo: number; deviceNo: number; keyNo: number } = { tenantNo: 0, deviceNo: 0, keyNo: 0 }

  constructor(context: Context) {
    this.#context = context
  }

  /** True when there is no such table, as in every new installation. */
  get isGone(): boolean {
    return this.#isGone
  }

  async start(): Promise<void> {
    if (this.#isGone) return
    const [row] = await this.#context.db.withRole('pms_store', (tx) =>
      tx.execute<{ gone: boolean }>(sql`select to_regclass('public.telemetry') is null as gone`),
    )
    this.#isGone = row!.gone
  }

  /** Whether a question failed since the table has gone meanwhile, emptied by this server or another. */
  async wentWith(error: unknown): Promise<boolean> {
    if (!['42P01', '42883'].includes(sqlStateOf(error) ?? '')) return false
    await this.start()
    return this.#isGone
  }

  /** Points of a series in the range, in blocks of at most `blockRows`. */
  async *read(
    transact: <T>(work: (tx: Tx) => Promise<T>) => Promise<T>,
    { deviceNo, key, from, to, newestFirst }: { deviceNo: number; key: string; from: number; to: number; newestFirst: boolean },
  ): AsyncGenerator<StoredPoint[]> {
    const blockRows = 20_000
    let [low, high] = [from, to]
    while (!this.#isGone && low < high) {
      const question = sql`select * from telemetry_points(${deviceNo}, ${key}, ${low}, ${high}, ${blockRows}, ${newestFirst})`
      const rows = await transact((tx) => tx.execute<PointRow>(question)).catch(async (error: unknown): Promise<PointRow[]> => {
        if (await this.wentWith(error)) return []
        throw error
      })
      if (rows.length > 0) yield rows.map(toPoint)
      if (rows.length < blockRows) return
      if (newestFirst) high = Number(rows.at(-1)!.ts)
      else low = Number(rows.at(-1)!.ts) + 1
    }
  }

  /** Newest point per device number and key. */
  async latest(tx: Tx, deviceNos: readonly number[]): Promise<(LatestPoint & { deviceNo: number })[]> {
    if (this.#isGone) return []
    const rows = await tx.execute<PointRow & { device_no: number; key: string }>(
      sql`select * from telemetry_latest(${sql.param(deviceNos)}::int4[], null, null)`,
    )
    return rows.map((row) => ({ ...toPoint(row), key: row.key, deviceNo: row.device_no }))
  }

  /** Removes points of a device's keys (undefined: of all) in a transaction of `pms_store`. @returns their times by key */
  async delete(
    client: pg.PoolClient,
    { tenantNo, deviceNo }: { tenantNo: number; deviceNo: number },
    keyNos: readonly number[] | undefined,
    from: number,
    to: number,
  ): Promise<{ keyNo: number; ts: number }[]> {
    if (await this.#looksGone(client)) return []
    const { rows } = await client.query<{ key_no: number; ts: string }>(
      `delete from telemetry where tenant_no = $1 and device_no = $2 and ($3::int4[] is null or key_no = any($3)) and ts >= $4 and ts < $5 returning key_no, ts`,
      [tenantNo, deviceNo, keyNos ?? null, from, to],
    )
    return rows.map((row) => ({ keyNo: row.key_no, ts: Number(row.ts) }))
  }

  /** Another server may have emptied it; who holds the lock on chunks can rely on the answer. */
  async #looksGone(client: pg.PoolClient): Promise<boolean> {
    if (this.#isGone) return true
    const { rows } = await client.query<{ gone: boolean }>(`select to_regclass('public.telemetry') is null as gone`)
    return (this.#isGone = rows[0]!.gone)
  }

  /** Takes points of the next series out, at most 100,000; at the end the table goes. */
  async take(client: pg.PoolClient): Promise<SeriesPoints | undefined> {
    if (await this.#looksGone(client)) return undefined
    const after = this.#after
    const { rows: found } = await client.query<{ tenant_no: number; device_no: number; key_no: number }>(
      `select tenant_no, device_no, key_no from telemetry where (tenant_no, device_no, key_no) >= ($1, $2, $3)
       order by tenant_no, device_no, key_no limit 1`,
      [after.tenantNo, after.deviceNo, after.keyNo],
    )
    if (!found[0]) {
      // Begun anew once more, should anything lie before where we were.
      if (after.tenantNo > 0) {
        this.#after = { tenantNo: 0, deviceNo: 0, keyNo: 0 }
        return undefined
      }
      const { rows } = await client.query<{ gone: boolean }>('select telemetry_drop_first_store() as gone')
      this.#isGone = rows[0]!.gone
      if (this.#isGone) this.#context.log.info('all points of the first store are in chunks; its table is gone')
      return undefined
    }
    const series = { tenantNo: found[0].tenant_no, deviceNo: found[0].device_no, keyNo: found[0].key_no }
    this.#after = series
    const { rows } = await client.query<PointRow>(
      `with taken as (
         delete from telemetry t using (
           select tableoid as part, ctid as place from telemetry where tenant_no = $1 and device_no = $2 and key_no = $3 order by ts limit $4) s
         where t.tableoid = s.part and t.ctid = s.place and t.tenant_no = $1 and t.device_no = $2 and t.key_no = $3
         returning t.ts, t.kind, t.num, t.big, t.txt)
       select * from taken order by ts`,
      [series.tenantNo, series.deviceNo, series.keyNo, takenRows],
    )
    return { ...series, points: rows.map(toPoint) }
  }
}

function toPoint(row: PointRow): StoredPoint {
  return { ts: Number(row.ts), ...toValue(row) }
}

/** Kinds of its rows: 0 double, 1 integer, 2 boolean, 3 string, 4 JSON. */
function toValue({ kind, num, big, txt }: ValueRow): TypedValue {
  switch (kind) {
    case 0:
      return { kind: 'double', value: num! }
    case 1:
      return { kind: 'integer', value: Number.isSafeInteger(Number(big)) ? Number(big) : BigInt(big!) }
    case 2:
      return { kind: 'boolean', value: big === '1' }
    case 3:
      return { kind: 'string', value: txt! }
    default:
      return { kind: 'json', value: txt! }
  }
}
