// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import { inTransaction } from '../db/transaction.ts'
import type { Log } from '../log.ts'
import { ChunkMerger, lockChunks } from './chunk-merge.ts'
import type { FirstStore } from './first-store.ts'
import { decodeRows, encodeRow } from './segment-rows.ts'
import { deleteRow, selectRows, updateRow } from './segment-sql.ts'
import type { Freed, RetentionBatch } from './store.ts'

export type DeviceNumber = { tenantNo: number; deviceNo: number }

/** Keys and chunks of one transaction: at most a second or two. */
const keysAtOnce = 50
const chunksAtOnce = 1000

type HeadRow = { key_no: number; first_ts: string; last_ts: string; count: number; points: Buffer | null }

/** Takes points out of segments and chunks: ranges that somebody deletes, and what is past its retention. */
export class Removal {
  readonly #keeper: pg.Pool
  readonly #first: FirstStore
  readonly #log: Log

  constructor(keeper: pg.Pool, first: FirstStore, log: Log) {
    this.#keeper = keeper
    this.#first = first
    this.#log = log
  }

  /**
   * Removes points in `from ≤ ts < to` of the keys (undefined: of all), in several transactions when there
   * is much: one that fails leaves the rest, and a repeat goes on with it.
   * @returns how many points are no longer readable
   */
  async deleteRange(device: DeviceNumber, keyNos: readonly number[] | undefined, from: number, to: number): Promise<number> {
    const all = keyNos ?? (await this.#listKeys(device))
    let removed = 0
    for (let start = 0; start < all.length; start += keysAtOnce) {
      /** Times removed outside chunks: a chunk, of a later step perhaps, may hold an older value of the same point. */
      const times = new Map(all.slice(start, start + keysAtOnce).map((keyNo) => [keyNo, new Set<number>()]))
      for (let isDone = false; !isDone;) {
        const step = await inTransaction(this.#keeper, (client) => this.#deleteStep(client, device, times, from, to))
        removed += step.removed
        isDone = step.isDone
      }
      for (const set of times.values()) removed += set.size
    }
    return removed
  }

  /** Removes the list of keys a device has sent. */
  async forgetKeys({ tenantNo, deviceNo }: DeviceNumber): Promise<void> {
    await this.#keeper.query('delete from telemetry_device_keys where tenant_no = $1 and device_no = $2', [tenantNo, deviceNo])
  }

  /** Removes chunks whose newest point is older than the batch's bound. */
  async applyRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed> {
    this.#log.debug({ tenantNo, devices: batch.deviceNos.length, before: batch.before }, 'telemetry: retention')
    return inTransaction(this.#keeper, async (client) => {
      await lockChunks(client)
      const { rows } = await client.query<FreedRow>(applySql, [tenantNo, batch.deviceNos, batch.keyNos ?? null, batch.before])
      return toFreed(rows[0]!)
    })
  }

  /** What {@link applyRetention} would remove. */
  async previewRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed> {
    const { rows } = await this.#keeper.query<FreedRow>(previewSql, [tenantNo, batch.deviceNos, batch.keyNos ?? null, batch.before])
    return toFreed(rows[0]!)
  }

  async #listKeys({ tenantNo, deviceNo }: DeviceNumber): Promise<number[]> {
    const { rows } = await this.#keeper.query<{ key_no: number }>(
      'select key_no from telemetry_device_keys where tenant_no = $1 and device_no = $2 order by 1',
      [tenantNo, deviceNo],
    )
    return rows.map((row) => row.key_no)
  }

  /** @returns how many points went out of chunks, without those in `times`, and whether that was all */
  async #deleteStep(
    client: pg.PoolClient,
    device: DeviceNumber,
    times: ReadonlyMap<number, Set<number>>,
    from: number,
    to: number,
  ): Promise<{ removed: number; isDone: boolean }> {
    await lockChunks(client)
    const keyNos = [...times.keys()]
    const { rows } = await client.query<HeadRow>(
      `select c.key_no, c.first_ts, c.last_ts, c.count from telemetry_chunks c
       where c.tenant_no = $1 and c.device_no = $2 and c.key_no = any($3) and c.first_ts < $5 and c.last_ts >= $4
       order by c.key_no, c.first_ts limit $6`,
      [device.tenantNo, device.deviceNo, keyNos, from, to, chunksAtOnce],
    )
    const isDone = rows.length < chunksAtOnce
    // What is newest goes last: a deletion that ends half-way must not bring older values to light.
    await this.#deleteFromSegments(client, device, times, { from, to, isDone })
    for (const { keyNo, ts } of await this.#first.delete(client, device, keyNos, from, to)) times.get(keyNo)!.add(ts)
    const counted = new Map([...times].map(([keyNo, set]) => [keyNo, Float64Array.from(set).sort()]))
    const merger = new ChunkMerger(client, this.#log)
    let removed = 0
    for (const row of rows) {
      removed += await this.#deleteFromChunk(client, merger, device, row, counted.get(row.key_no)!, from, to)
      await merger.giveTurn()
    }
    await merger.flush()
    return { removed, isDone }
  }

  /** Notes the times and, at last, writes the rows anew without the points; an active segment only grows meanwhile. */
  async #deleteFromSegments(
    client: pg.PoolClient,
    { tenantNo, deviceNo }: DeviceNumber,
    times: ReadonlyMap<number, Set<number>>,
    { from, to, isDone }: { from: number; to: number; isDone: boolean },
  ): Promise<void> {
    const { rows: segments } = await client.query<{ no: number }>(
      `select segment_no as no from telemetry_segments where state <> 'compacted' order by 1`,
    )
    for (const { no } of segments) {
      const { rows } = await client.query<{ place: string; points: Buffer }>(selectRows(no), [tenantNo, deviceNo, from, to])
      for (const { place, points } of rows) {
        const all = [...decodeRows(points)]
        const kept = all.filter(({ keyNo, ts }) => ts < from || ts >= to || !times.has(keyNo))
        if (kept.length === all.length) continue
        for (const { keyNo, ts } of all) if (ts >= from && ts < to) times.get(keyNo)?.add(ts)
        if (!isDone) continue
        if (kept.length === 0) await client.query(deleteRow(no), [place])
        else await client.query(updateRow(no), [place, encodeRow(kept)])
      }
    }
  }

  /** @returns how many of its points go, without those counted already */
  async #deleteFromChunk(
    client: pg.PoolClient,
    merger: ChunkMerger,
    device: DeviceNumber,
    row: HeadRow,
    counted: Float64Array,
    from: number,
    to: number,
  ): Promise<number> {
    const series = { ...device, keyNo: row.key_no }
    const head = { firstTs: Number(row.first_ts), lastTs: Number(row.last_ts), count: row.count }
    const isInside = head.firstTs >= from && head.lastTs < to
    const isCounted = countBetween(counted, head.firstTs, head.lastTs + 1) > 0
    if (isInside && !isCounted) {
      await merger.replace(series, [head], [])
      return head.count
    }
    const { rows } = await client.query<{ points: Buffer }>(
      'select points from telemetry_chunks where tenant_no = $1 and device_no = $2 and key_no = $3 and first_ts = $4',
      [series.tenantNo, series.deviceNo, series.keyNo, head.firstTs],
    )
    const points = await merger.decode(series, { ...head, bytes: rows[0]!.points })
    const kept = points.filter(({ ts }) => ts < from || ts >= to)
    await merger.replace(series, [head], kept)
    return points.filter(({ ts }) => ts >= from && ts < to && countBetween(counted, ts, ts + 1) === 0).length
  }
}

/** How many of ascending numbers lie in `from ≤ n < to`. */
function countBetween(sorted: Float64Array, from: number, to: number): number {
  const indexOf = (wanted: number) => {
    let [low, high] = [0, sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sorted[middle]! < wanted) low = middle + 1
      else high = middle
    }
    return low
  }
  return indexOf(to) - indexOf(from)
}

const expired = `c.tenant_no = $1 and c.device_no = any($2) and ($3::int4[] is null or c.key_no = any($3)) and c.first_ts < $4 and c.last_ts < $4`
const freedColumns =
  'count(*)::int4 as chunks, coalesce(sum(count), 0) as points, coalesce(sum(bytes), 0) as bytes, min(first_ts) as oldest'
const chunkColumns = 'c.count, c.first_ts, pg_column_size(c.*) as bytes'
const applySql = `with gone as (delete from telemetry_chunks c where ${expired} returning ${chunkColumns}) select ${freedColumns} from gone`
const previewSql = `with gone as (select ${chunkColumns} from telemetry_chunks c where ${expired}) select ${freedColumns} from gone`
type FreedRow = { chunks: number; points: string; bytes: string; oldest: string | null }

function toFreed({ chunks, points, bytes, oldest }: FreedRow): Freed {
  return { chunks, points: Number(points), bytes: Number(bytes), oldestTs: oldest === null ? null : Number(oldest) }
}
