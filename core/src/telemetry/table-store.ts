// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type pg from 'pg'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { copyIn } from '../db/copy-in.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { CopyEncoder, kindNumbers } from './copy-encoder.ts'
import type { TypedValue } from './points.ts'
import { ensureMonths } from './partitions.ts'
import type { DeviceWrite, LatestPoint, SeriesRange, StoredPoint, TelemetryStore, WriteRefusals } from './store.ts'

/** Distinct telemetry keys a device may have (device API §2.6). */
export const maxKeysPerDevice = 10_000

/** Rows fetched at a time while a series is read. */
const blockRows = 20_000

/** Points removed in one transaction: a second or two, well below the statement timeout. */
const deleteRows = 50_000

const uniqueViolation = '23505'
const hourMs = 3_600_000
const stopMs = 1000

const copyStatement = 'copy telemetry (tenant_no, device_no, key_no, ts, kind, num, big, txt) from stdin (format binary)'

type KeyRow = { device_no: number; key: string; key_no: number }
type Row = { ts: string; kind: number; num: number | null; big: string | null; txt: string | null }

/**
 * The first store: one table with the primary key (tenant, device, key, ts) in monthly partitions.
 * A batch goes in by binary COPY; where it meets a point that exists, it goes in again as an upsert.
 */
export class TableStore implements TelemetryStore {
  readonly #context: Context
  #writer: pg.Pool | undefined
  readonly #encoders: CopyEncoder[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(context: Context) {
    this.#context = context
  }

  async start(): Promise<void> {
    if (this.#writer) return
    const { config, db, log } = this.#context
    this.#writer = db.openWriter(config.writer.connections, log, config.testHooks.has('sync-commit-off') ? 'off' : 'on')
    await ensureMonths(this.#context)
    this.#timer = setInterval(() => {
      ensureMonths(this.#context).catch((error: unknown) => this.#context.log.error({ err: error }, 'no new telemetry partition'))
    }, hourMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    const writer = this.#writer
    this.#writer = undefined
    // A statement the database does not answer ends with its connection, at the latest when the process does.
    await Promise.race([writer?.end(), sleep(stopMs, undefined, { ref: false })])
  }

  async write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    const writer = this.#writer
    if (!writer) throw new Error('the telemetry store is not started')
    await this.#loadKeys(writer, batch)
    const refusals = await this.#registerKeys(writer, batch)
    const accepted = withoutRefused(batch, refusals)
    try {
      await this.#copy(writer, accepted)
    } catch (error) {
      if ((error as { code?: string }).code !== uniqueViolation) throw error
      await upsert(writer, accepted)
    }
    return refusals
  }

  async probe(batch: readonly DeviceWrite[]): Promise<void> {
    if (!this.#writer) throw new Error('the telemetry store is not started')
    await this.#loadKeys(this.#writer, batch)
    const refusals = await this.#registerKeys(this.#writer, batch)
    const client = await this.#writer.connect()
    try {
      await client.query('begin')
      await upsert(client, withoutRefused(batch, refusals))
    } finally {
      // Where the rollback fails the connection is lost, and with it what was tried.
      await client.query('rollback').then(
        () => client.release(),
        (error: unknown) => client.release(error instanceof Error ? error : true),
      )
    }
  }

  async *read(scope: Scope, range: SeriesRange, options: { newestFirst?: boolean; limit?: number } = {}): AsyncGenerator<StoredPoint[]> {
    const newestFirst = options.newestFirst ?? false
    let { from, to } = range
    let left = options.limit ?? Number.POSITIVE_INFINITY
    while (left > 0) {
      const wanted = Math.min(blockRows, left)
      const rows = await this.#context.db.withTenant(scope, (tx) =>
        tx.execute<Row>(sql`select p.* from devices d cross join lateral
          telemetry_points(d.number, ${range.key}, ${from}, ${to}, ${wanted}, ${newestFirst}) p
          where d.id = ${range.deviceId} and d.deleted_at is null`),
      )
      if (rows.length === 0) return
      const points = rows.map(toPoint)
      yield points
      if (rows.length < wanted) return
      left -= rows.length
      const lastTs = points.at(-1)!.ts
      if (newestFirst) to = lastTs
      else from = lastTs + 1
    }
  }

  async latest(
    scope: Scope,
    deviceIds: readonly string[],
    options: { keys?: readonly string[]; maxKeys?: number } = {},
  ): Promise<Map<string, LatestPoint[]>> {
    const names = options.keys ? sql`${sql.param(options.keys)}::text[]` : sql`null::text[]`
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<Row & { id: string; key: string }>(sql`
        with wanted as materialized (select id, number from devices where id = any(${sql.param(deviceIds)}::uuid[]) and deleted_at is null)
        select w.id, l.key, l.ts, l.kind, l.num, l.big, l.txt
        from telemetry_latest((select array_agg(number) from wanted), ${names}, ${options.maxKeys ?? null}::int4) l join wanted w on w.number = l.device_no
        order by w.id, l.key`),
    )
    const latest = new Map<string, LatestPoint[]>(deviceIds.map((id) => [id, []]))
    for (const row of rows) latest.get(row.id)?.push({ ...toPoint(row), key: row.key })
    return latest
  }

  async count(scope: Scope, deviceId: string, keys: readonly string[], from: number, to: number): Promise<number> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ count: string }>(
        sql`select telemetry_count(number, ${sql.param(keys)}::text[], ${from}, ${to}) as count from devices where id = ${deviceId} and deleted_at is null`,
      ),
    )
    return Number(rows[0]?.count ?? 0)
  }

  /** In many transactions when there is much: one that fails leaves the rest, and a repeat goes on with it. */
  async delete(scope: Scope, deviceId: string, keys: readonly string[] | undefined, from: number, to: number): Promise<number> {
    const names = keys ? sql`${sql.param(keys)}::text[]` : sql`null::text[]`
    let removed = 0
    for (let key: number = 0, ts: number = from; ;) {
      const [row] = await this.#context.db.withTenant(scope, (tx) =>
        tx.execute<{ removed: string; key: number | null; ts: string | null }>(sql`
          select p.removed, p.next_key as key, p.next_ts as ts from devices d
          cross join lateral telemetry_delete(d.number, ${names}, ${from}, ${to}, ${key}, ${ts}, ${deleteRows}) p where d.id = ${deviceId}`),
      )
      removed += Number(row?.removed ?? 0)
      if (!row || row.key === null) return removed
      key = row.key
      ts = Number(row.ts)
    }
  }

  async deleteDevice(scope: Scope, deviceId: string): Promise<void> {
    await this.delete(scope, deviceId, undefined, 0, Number.MAX_SAFE_INTEGER)
    const [device] = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ number: number }>(sql`select number from devices where id = ${deviceId}`),
    )
    if (!device) return
    await this.#context.db.withRole('pms_store', (tx) =>
      tx.execute(sql`delete from telemetry_device_keys where tenant_no = ${scope.tenantNo} and device_no = ${device.number}`),
    )
  }

  async #loadKeys(writer: pg.Pool, batch: readonly DeviceWrite[]): Promise<void> {
    const unknown = new Map<number, Device>()
    for (const { device } of batch) if (!device.keyNos) unknown.set(device.no, device)
    if (unknown.size === 0) return
    const devices = [...unknown.values()]
    const { rows } = await writer.query<KeyRow>('select * from telemetry_load_keys($1, $2)', [
      devices.map((device) => device.tenantNo),
      devices.map((device) => device.no),
    ])
    for (const device of devices) device.keyNos ??= new Map()
    for (const row of rows) unknown.get(row.device_no)!.keyNos!.set(row.key, row.key_no)
  }

  /** Gives numbers to keys a device sends for the first time, up to its limit; the surplus is refused. */
  async #registerKeys(writer: pg.Pool, batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    const refusals = new Map<number, Reject[]>()
    const added = new Map<Device, Set<string>>()
    for (const [index, { device, points }] of batch.entries()) {
      for (const { key, ts } of points) {
        if (device.keyNos!.has(key)) continue
        const fresh = added.get(device) ?? new Set()
        if (!fresh.has(key) && device.keyNos!.size + fresh.size >= maxKeysPerDevice) {
          const rejects = refusals.get(index) ?? []
          rejects.push({ code: 'TOO_MANY_KEYS', detail: `the device already has ${maxKeysPerDevice} keys`, key, ts })
          refusals.set(index, rejects)
          continue
        }
        fresh.add(key)
        added.set(device, fresh)
      }
    }
    if (added.size === 0) return refusals
    const pairs = [...added].flatMap(([device, keys]) => [...keys].map((key) => ({ device, key })))
    const { rows } = await writer.query<KeyRow>('select * from telemetry_register_keys($1, $2, $3)', [
      pairs.map((pair) => pair.device.tenantNo),
      pairs.map((pair) => pair.device.no),
      pairs.map((pair) => pair.key),
    ])
    const byNo = new Map([...added.keys()].map((device) => [device.no, device]))
    for (const row of rows) byNo.get(row.device_no)!.keyNos!.set(row.key, row.key_no)
    return refusals
  }

  async #copy(writer: pg.Pool, batch: readonly DeviceWrite[]): Promise<void> {
    const encoder = this.#encoders.pop() ?? new CopyEncoder()
    encoder.start()
    for (const { device, points } of batch) {
      for (const point of points) {
        encoder.add(device.tenantNo, device.no, keyNoOf(device, point.key), point.ts, point)
      }
    }
    await copyIn(writer, copyStatement, encoder.finish())
    this.#encoders.push(encoder)
  }
}

/** The slow way in for batches that repeat points: the last value per (device, key, ts) wins. */
async function upsert(writer: pg.Pool | pg.PoolClient, batch: readonly DeviceWrite[]): Promise<void> {
  const rows = new Map<string, [tenantNo: number, deviceNo: number, keyNo: number, ts: number, value: TypedValue]>()
  for (const { device, points } of batch) {
    for (const point of points) {
      const keyNo = keyNoOf(device, point.key)
      rows.set(`${device.no} ${keyNo} ${point.ts}`, [device.tenantNo, device.no, keyNo, point.ts, point])
    }
  }
  const all = [...rows.values()]
  const values = all.map((row) => row[4])
  await writer.query(
    `insert into telemetry (tenant_no, device_no, key_no, ts, kind, num, big, txt)
     select * from unnest($1::int4[], $2::int4[], $3::int4[], $4::int8[], $5::int2[], $6::float8[], $7::int8[], $8::text[])
     on conflict (tenant_no, device_no, key_no, ts) do update
       set kind = excluded.kind, num = excluded.num, big = excluded.big, txt = excluded.txt`,
    [
      all.map((row) => row[0]),
      all.map((row) => row[1]),
      all.map((row) => row[2]),
      all.map((row) => row[3]),
      values.map((value) => kindNumbers[value.kind]),
      values.map((value) => (value.kind === 'double' ? value.value : null)),
      values.map((value) => (value.kind === 'integer' || value.kind === 'boolean' ? String(BigInt(value.value)) : null)),
      values.map((value) => (value.kind === 'string' || value.kind === 'json' ? value.value : null)),
    ],
  )
}

/** A key without a number here would be a point that is acknowledged and not stored. */
function keyNoOf(device: Device, key: string): number {
  const keyNo = device.keyNos?.get(key)
  if (keyNo === undefined) throw new Error(`key ${JSON.stringify(key)} of device ${device.id} was not registered`)
  return keyNo
}

function withoutRefused(batch: readonly DeviceWrite[], refusals: WriteRefusals): readonly DeviceWrite[] {
  if (refusals.size === 0) return batch
  return batch.map(({ device, points }, index) => {
    const refused = new Set(refusals.get(index)?.map((reject) => reject.key))
    return { device, points: points.filter((point) => !refused.has(point.key)) }
  })
}

function toPoint(row: Row): StoredPoint {
  const ts = Number(row.ts)
  switch (row.kind) {
    case kindNumbers.double:
      return { ts, kind: 'double', value: row.num! }
    case kindNumbers.integer: {
      const value = Number(row.big)
      return { ts, kind: 'integer', value: Number.isSafeInteger(value) ? value : BigInt(row.big!) }
    }
    case kindNumbers.boolean:
      return { ts, kind: 'boolean', value: row.big === '1' }
    case kindNumbers.string:
      return { ts, kind: 'string', value: row.txt! }
    default:
      return { ts, kind: 'json', value: row.txt! }
  }
}
