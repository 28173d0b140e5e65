// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import { copyOut } from '../db/copy-out.ts'
import { assertLease } from '../db/lease.ts'
import type { LeaseProof } from '../db/lease.ts'
import { inTransaction } from '../db/transaction.ts'
import { ChunkMerger, lockChunks } from './chunk-merge.ts'
import type { MergeLog, SeriesPoints } from './chunk-merge.ts'
import { sortNewest } from './overlay.ts'
import { RowCursor } from './segment-rows.ts'
import { selectByDevice } from './segment-sql.ts'

/** Sealed segments to be merged, in their order, by whoever holds the lease. */
export type MergeTask = { segments: readonly number[]; lease: LeaseProof }

/** Points, series and UTF-16 units of texts merged at a time: what is held in memory. */
const slicePoints = 100_000
const sliceSeries = 10_000
const sliceText = 8_000_000

/**
 * Brings all points of segments into chunks and marks the segments, in one transaction.
 *
 * @param pool at least two connections as `pms_store`
 * @throws the database's error; when the lease was lost; when it shall stop
 */
export async function mergeSegments(pool: pg.Pool, { segments, lease }: MergeTask, log: MergeLog, mayGoOn: () => boolean): Promise<void> {
  const startedAt = performance.now()
  log.debug({ segments }, 'telemetry: merging')
  // Both connections before the lock: whoever waits for the lock holds one of its own.
  const reader = await pool.connect()
  let isComplete = false
  try {
    const points = await inTransaction(pool, async (client) => {
      await lockChunks(client)
      await assertLease(client, lease)
      const merged = await mergeRows(reader, new ChunkMerger(client, log), segments, mayGoOn)
      isComplete = true
      const { rowCount } = await client.query(
        `update telemetry_segments set state = 'compacted', compacted_at = clock_timestamp() where segment_no = any($1) and state = 'sealed'`,
        [segments],
      )
      if (rowCount !== segments.length) throw new Error('a segment was compacted by another server')
      log.debug({}, 'telemetry: committing chunks')
      return merged
    })
    log.debug({ segments: segments.length, points, ms: Math.round(performance.now() - startedAt) }, 'telemetry: merged')
  } finally {
    // A COPY that was left in the middle cannot be taken up again.
    reader.release(!isComplete)
  }
}

/** All points of the segments by device, in slices; rows of a device come in the order they were written. */
async function mergeRows(reader: pg.PoolClient, merger: ChunkMerger, segments: readonly number[], mayGoOn: () => boolean): Promise<number> {
  const slice = new Slice()
  let total = 0
  await reader.query(`set work_mem = '32MB'; set statement_timeout = 0`)
  for await (const rows of copyOut(reader, selectByDevice(segments))) {
    for (const row of rows) {
      if (!mayGoOn()) throw new Error('the server is stopping')
      for (const cursor = slice.open(row); slice.fill(cursor);) {
        total += slice.points
        await merger.merge(slice.take())
      }
    }
  }
  total += slice.points
  await merger.merge(slice.take())
  await reader.query('reset work_mem; reset statement_timeout')
  return total
}

/** Points of several series on their way into chunks, in the order they were written. */
class Slice {
  #series = new Map<string, SeriesPoints>()
  #tenantNo = 0
  #deviceNo = 0
  points = 0
  #text = 0

  /** A row of three fields: tenant, device, bytes. */
  open(row: Buffer): RowCursor {
    this.#tenantNo = row.readInt32BE(6)
    this.#deviceNo = row.readInt32BE(14)
    return new RowCursor(row.subarray(22))
  }

  /** Takes points in. @returns true when the slice is full and must be taken, false at the end of the row */
  fill(cursor: RowCursor): boolean {
    let keyNo = -1
    let points: StoredPoints | undefined
    while (this.points < slicePoints && this.#series.size < sliceSeries && this.#text < sliceText) {
      if (!cursor.next()) return false
      if (cursor.keyNo !== keyNo || !points) {
        keyNo = cursor.keyNo
        points = this.#pointsOf(keyNo)
      }
      const point = cursor.point()
      if (point.kind === 'string' || point.kind === 'json') this.#text += point.value.length
      points.push(point)
      this.points++
    }
    return true
  }

  take(): SeriesPoints[] {
    const all = [...this.#series.values()]
    for (const one of all) one.points = sortNewest(one.points)
    this.#series = new Map()
    this.points = 0
    this.#text = 0
    return all
  }

  #pointsOf(keyNo: number): StoredPoints {
    const id = `${this.#tenantNo} ${this.#deviceNo} ${keyNo}`
    let series = this.#series.get(id)
    if (!series) {
      series = { tenantNo: this.#tenantNo, deviceNo: this.#deviceNo, keyNo, points: [] }
      this.#series.set(id, series)
    }
    return series.points
  }
}

type StoredPoints = SeriesPoints['points']
