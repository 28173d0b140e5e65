// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from '../ingest/registry.ts'
import type { Point, TypedValue } from './points.ts'
import type { StoredPoint } from './store.ts'

/**
 * The form of points in a segment (docs/reference/chunk-format.md, "Segment rows"). One after the other:
 * a tag byte, the key's number as varint, the time as float64 LE when it differs from the point before,
 * the value by its tag. Rows start with a time, so the bytes of several rows can be put together.
 */
const tags = { double: 0, int32: 1, int64: 2, false: 3, true: 4, string: 5, json: 6 } as const
const tagMask = 0x0f
const hasTime = 0x80

/** `PGCOPY\n\xff\r\n\0`, flags 0, no header extension (PostgreSQL documentation, COPY, binary format). */
const signature = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex')
const fieldCount = 6
/** Fixed fields with their lengths, up to the length of `points`. */
const rowHeadBytes = 2 + (4 + 4) * 3 + (4 + 8) * 2 + 4
/** Tag, key number, time and a fixed value at their longest. */
const pointBytes = 1 + 5 + 8 + 8 + 5
/** UTF-16 units of a text that is kept as an end of a chunk. */
const longestEnd = 64
const minBufferBytes = 256 * 1024

/**
 * Writes segment rows in PostgreSQL's binary COPY format into one growing buffer that is used again
 * for the next batch: (tenant_no int4, device_no int4, seq int4, first_ts int8, last_ts int8, points bytea).
 */
export class SegmentEncoder {
  #buffer = Buffer.allocUnsafe(minBufferBytes)
  #length = 0
  rowCount = 0

  start(): void {
    this.#length = signature.copy(this.#buffer)
    this.rowCount = 0
  }

  /** One message: all its points in one row. */
  add(device: Device, seq: number, points: readonly Point[]): void {
    this.#ensure(rowHeadBytes)
    const start = this.#length
    let at = start + rowHeadBytes
    let first = Number.POSITIVE_INFINITY
    let last = Number.NEGATIVE_INFINITY
    let ts = Number.NaN
    for (const point of points) {
      const text = point.kind === 'string' || point.kind === 'json' ? point.value.length * 3 : 0
      this.#length = at
      this.#ensure(pointBytes + text)
      const buffer = this.#buffer
      const tagAt = at++
      at = writeVarint(buffer, keyNoOf(device, point.key), at)
      let tag = 0
      if (point.ts !== ts) {
        ts = point.ts
        tag = hasTime
        at = buffer.writeDoubleLE(ts, at)
        if (ts < first) first = ts
        if (ts > last) last = ts
      }
      buffer[tagAt] = tag | tagOf(point)
      at = writeValue(buffer, point, at)
    }
    const buffer = this.#buffer
    let head = buffer.writeInt16BE(fieldCount, start)
    head = buffer.writeInt32BE(device.tenantNo, buffer.writeInt32BE(4, head))
    head = buffer.writeInt32BE(device.no, buffer.writeInt32BE(4, head))
    head = buffer.writeInt32BE(seq, buffer.writeInt32BE(4, head))
    head = writeInt64(buffer, first, buffer.writeInt32BE(8, head))
    head = writeInt64(buffer, last, buffer.writeInt32BE(8, head))
    buffer.writeInt32BE(at - start - rowHeadBytes, head)
    this.#length = at
    this.rowCount++
  }

  /** @returns the finished COPY stream; valid until the next `start` */
  finish(): Buffer {
    this.#ensure(2)
    this.#length = this.#buffer.writeInt16BE(-1, this.#length)
    return this.#buffer.subarray(0, this.#length)
  }

  #ensure(more: number): void {
    if (this.#length + more <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + more))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }
}

/** The bytes of a row's points; used where a row is written anew without some of its points. */
export function encodeRow(points: readonly (StoredPoint & { keyNo: number })[]): Buffer {
  const texts = points.reduce((sum, point) => sum + (point.kind === 'string' || point.kind === 'json' ? point.value.length * 3 : 0), 0)
  const buffer = Buffer.allocUnsafe(points.length * pointBytes + texts)
  let at = 0
  for (const point of points) {
    buffer[at++] = hasTime | tagOf(point)
    at = buffer.writeDoubleLE(point.ts, writeVarint(buffer, point.keyNo, at))
    at = writeValue(buffer, point, at)
  }
  return buffer.subarray(0, at)
}

/** A segment row that is not what the server wrote. */
export class RowDamaged extends Error {}

/**
 * Reads the bytes of one or several segment rows, oldest first.
 * @throws {RowDamaged}
 */
export function* decodeRows(bytes: Buffer): Generator<StoredPoint & { keyNo: number }> {
  const cursor = new RowCursor(bytes)
  while (cursor.next()) yield { ...cursor.point(), keyNo: cursor.keyNo }
}

/** Steps through the points of segment rows; a value is only made when it is asked for. */
export class RowCursor {
  readonly #bytes: Buffer
  #at = 0
  #tag = 0
  #valueAt = 0
  keyNo = 0
  ts = Number.NaN

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** @returns false at the end */
  next(): boolean {
    const bytes = this.#bytes
    if (this.#at >= bytes.length) return false
    const tag = bytes[this.#at++]!
    let number = 0
    let factor = 1
    for (;;) {
      const byte = bytes[this.#at++]
      if (byte === undefined) throw new RowDamaged('a segment row ends within a key')
      number += (byte & 0x7f) * factor
      if (byte < 0x80) break
      factor *= 128
    }
    this.keyNo = number
    if (tag & hasTime) {
      if (this.#at + 8 > bytes.length) throw new RowDamaged('a segment row ends within a time')
      this.ts = bytes.readDoubleLE(this.#at)
      this.#at += 8
    }
    this.#tag = tag & tagMask
    this.#valueAt = this.#at
    this.#at += valueBytes(bytes, this.#tag, this.#at)
    return true
  }

  point(): StoredPoint {
    return readPoint(this.#bytes, this.#tag, this.#valueAt, this.#at, this.ts)
  }
}

/** Length of a value. @throws {RowDamaged} when it reaches past the end */
function valueBytes(bytes: Buffer, tag: number, at: number): number {
  let length = 0
  if (tag === tags.double || tag === tags.int64) length = 8
  else if (tag === tags.int32) length = 4
  else if (tag === tags.string || tag === tags.json) length = at + 4 > bytes.length ? 4 : 4 + bytes.readUInt32LE(at)
  else if (tag !== tags.false && tag !== tags.true) throw new RowDamaged(`a segment row holds the unknown tag ${tag}`)
  if (at + length > bytes.length) throw new RowDamaged('a segment row ends within a value')
  return length
}

function readPoint(bytes: Buffer, tag: number, at: number, end: number, ts: number): StoredPoint {
  switch (tag) {
    case tags.double:
      return { ts, kind: 'double', value: bytes.readDoubleLE(at) }
    case tags.int32:
      return { ts, kind: 'integer', value: bytes.readInt32LE(at) }
    case tags.int64: {
      const value = bytes.readBigInt64LE(at)
      return { ts, kind: 'integer', value: Number.isSafeInteger(Number(value)) ? Number(value) : value }
    }
    case tags.string:
      return { ts, kind: 'string', value: bytes.toString('utf8', at + 4, end) }
    case tags.json:
      return { ts, kind: 'json', value: bytes.toString('utf8', at + 4, end) }
    default:
      return { ts, kind: 'boolean', value: tag === tags.true }
  }
}

function tagOf(value: TypedValue): number {
  switch (value.kind) {
    case 'double':
      return tags.double
    case 'integer':
      return typeof value.value === 'number' && value.value === (value.value | 0) ? tags.int32 : tags.int64
    case 'boolean':
      return value.value ? tags.true : tags.false
    case 'string':
      return tags.string
    case 'json':
      return tags.json
  }
}

function writeValue(buffer: Buffer, value: TypedValue, at: number): number {
  switch (value.kind) {
    case 'double':
      return buffer.writeDoubleLE(value.value, at)
    case 'integer':
      return tagOf(value) === tags.int32 ? buffer.writeInt32LE(Number(value.value), at) : buffer.writeBigInt64LE(BigInt(value.value), at)
    case 'boolean':
      return at
    case 'string':
    case 'json': {
      const written = buffer.write(value.value, at + 4)
      return buffer.writeUInt32LE(written, at) + written
    }
  }
}

function writeVarint(buffer: Buffer, value: number, at: number): number {
  let rest = value
  while (rest >= 0x80) {
    buffer[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  buffer[at++] = rest
  return at
}

/** A safe integer as two halves: several times faster than by way of a bigint. */
function writeInt64(buffer: Buffer, value: number, at: number): number {
  const high = Math.floor(value / 0x1_0000_0000)
  return buffer.writeUInt32BE(value - high * 0x1_0000_0000, buffer.writeInt32BE(high, at))
}

/** A key without a number here would be a point that is acknowledged and not stored. */
function keyNoOf(device: Device, key: string): number {
  const keyNo = device.keyNos?.get(key)
  if (keyNo === undefined) throw new Error(`key ${JSON.stringify(key)} of device ${device.id} was not registered`)
  return keyNo
}

/** First and last value of a chunk without their times; undefined when they are long texts. */
export function encodeEnds({ first, last }: { first: TypedValue; last: TypedValue }): Buffer | undefined {
  const isLong = [first, last].some((value) => (value.kind === 'string' || value.kind === 'json') && value.value.length > longestEnd)
  if (isLong) return undefined
  const buffer = Buffer.allocUnsafe(2 * (5 + longestEnd * 3))
  let at = 0
  for (const value of [first, last]) {
    buffer[at++] = tagOf(value)
    at = writeValue(buffer, value, at)
  }
  return buffer.subarray(0, at)
}

/** @throws {RowDamaged} */
export function decodeEnds(bytes: Buffer, firstTs: number, lastTs: number): { first: StoredPoint; last: StoredPoint } {
  const read = (at: number, ts: number) => {
    const tag = bytes[at] ?? tagMask
    const end = at + 1 + valueBytes(bytes, tag, at + 1)
    return { end, point: readPoint(bytes, tag, at + 1, end, ts) }
  }
  const first = read(0, firstTs)
  return { first: first.point, last: read(first.end, lastTs).point }
}
