// SPDX-License-Identifier: AGPL-3.0-only
import type { ChunkSummary } from './chunk-summary.ts'
import { encodeEnds } from './segment-rows.ts'

const signature = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex')
const fieldCount = 15
/** Type numbers of array elements in PostgreSQL's binary form. */
const int4Oid = 23
const float8Oid = 701
const hourMs = 3_600_000

export const copyChunks = `copy telemetry_chunks (tenant_no, device_no, key_no, count, first_ts, last_ts, min, max, sum, growth,
  kinds, ends, hour_marks, hour_values, points) from stdin (format binary)`

/** Whose points a chunk holds. */
export type SeriesId = { tenantNo: number; deviceNo: number; keyNo: number }

/** Writes rows of telemetry_chunks in PostgreSQL's binary COPY format. */
export class ChunkEncoder {
  #parts: Buffer[] = [signature]
  sizeBytes = signature.length
  rowCount = 0

  add(series: SeriesId, summary: ChunkSummary, points: Buffer): void {
    const { statistics, hours } = summary
    const ends = summary.ends && encodeEnds(summary.ends)
    const hasHours = hours[0]?.statistics !== undefined
    const row = Buffer.allocUnsafe(
      2 + 15 * 4 + 16 + 16 + 32 + 2 + (ends?.length ?? 0) + (20 + hours.length * 16) + (20 + hours.length * 36),
    )
    let at = row.writeInt16BE(fieldCount)
    for (const value of [series.tenantNo, series.deviceNo, series.keyNo, summary.count]) {
      at = row.writeInt32BE(value, row.writeInt32BE(4, at))
    }
    for (const value of [summary.firstTs, summary.lastTs]) at = row.writeBigInt64BE(BigInt(value), row.writeInt32BE(8, at))
    for (const name of ['min', 'max', 'sum', 'growth'] as const) {
      at = statistics ? row.writeDoubleBE(Number(statistics[name].value), row.writeInt32BE(8, at)) : row.writeInt32BE(-1, at)
    }
    at = row.writeInt16BE(summary.kinds, row.writeInt32BE(2, at))
    at = row.writeInt32BE(ends ? ends.length : -1, at)
    if (ends) at += ends.copy(row, at)
    at = writeArrayHead(row, at, int4Oid, 4, hours.length * 2)
    for (const { startTs, count } of hours) {
      at = row.writeInt32BE(startTs / hourMs, row.writeInt32BE(4, at))
      at = row.writeInt32BE(count, row.writeInt32BE(4, at))
    }
    if (hasHours) {
      at = writeArrayHead(row, at, float8Oid, 8, hours.length * 3)
      for (const { statistics: one } of hours) {
        for (const value of [one!.min, one!.max, one!.sum]) at = row.writeDoubleBE(Number(value.value), row.writeInt32BE(8, at))
      }
    } else at = row.writeInt32BE(-1, at)
    at = row.writeInt32BE(points.length, at)
    this.#parts.push(row.subarray(0, at), points)
    this.sizeBytes += at + points.length
    this.rowCount++
  }

  /** @returns the COPY stream of the rows added so far, and begins anew */
  finish(): Buffer {
    const stream = Buffer.concat([...this.#parts, Buffer.from([0xff, 0xff])])
    this.#parts = [signature]
    this.sizeBytes = signature.length
    this.rowCount = 0
    return stream
  }
}

/** One dimension without NULLs, counted from 1. */
function writeArrayHead(row: Buffer, start: number, elementOid: number, elementBytes: number, length: number): number {
  let at = row.writeInt32BE(20 + length * (4 + elementBytes), start)
  for (const value of [1, 0, elementOid, length, 1]) at = row.writeInt32BE(value, at)
  return at
}
