// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import { constants, crc32, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { ByteReader, ByteWriter, ChunkDamaged, readColumn, readIntegers, writeIntegers, writeWords } from './chunk-columns.ts'
import { readDoubles, writeDoubles } from './chunk-doubles.ts'
import { valueKinds } from './points.ts'
import type { TypedValue } from './points.ts'
import type { StoredPoint } from './store.ts'

export { ChunkDamaged }

/** Written into the first byte; a change of the format is a new number and keeps the old reader. */
const version = 1
const methods = { raw: 0, zstd: 1 } as const
const crcBytes = 4
const maxPoints = 1_000_000
/** A chunk holds about 1 MiB of text; the bound only keeps damaged or foreign bytes from filling the memory. */
const maxBodyBytes = 2 ** 26
/** Below it a frame and its tables save next to nothing, and calling zstd takes ten times as long as all the rest. */
const minZstdBytes = 96
/** Higher levels save at most 3 % of sensor values and take up to three times as long. */
const zstdLevel = 3
/** Part of the format: `valueKinds` keeps this order. */
const kindCodes = { double: 0, integer: 1, boolean: 2, string: 3, json: 4 } as const satisfies Record<TypedValue['kind'], number>
const mixed = 5

/**
 * Points of one series as one byte string: docs/reference/chunk-format.md. Nothing is rounded.
 * `points`: one key of one device, strictly ascending ts, at least 1.
 * @throws {RangeError} when the points are none, too many, out of order or not what their kind says
 */
export function encodeChunk(points: readonly StoredPoint[]): Buffer {
  const n = points.length
  if (n < 1 || n > maxPoints) throw new RangeError(`a chunk holds 1 to ${maxPoints} points, not ${n}`)
  const out = new ByteWriter(64 + n * 10)
  writeTimes(out, points)
  for (const [code, count] of writeKinds(out, points).entries()) {
    if (count > 0) columns[valueKinds[code]!].write(out, points, count)
  }
  const body = out.written()
  if (body.length > maxBodyBytes) throw new RangeError(`${body.length} bytes are too many for a chunk`)
  const packed = body.length < minZstdBytes ? body : compress(body)
  const isSmaller = packed.length < body.length
  const chunk = new ByteWriter(packed.length + 16)
  chunk.byte(version)
  chunk.byte(isSmaller ? methods.zstd : methods.raw)
  chunk.varint(n)
  chunk.varint(body.length)
  const content = isSmaller ? packed : body
  chunk.room(content.length).set(content)
  const crc = crc32(chunk.written())
  chunk.room(crcBytes).writeUInt32LE(crc)
  return chunk.written()
}

/**
 * The points of a chunk in `from ≤ ts < to`, by default all of them.
 * @throws {ChunkDamaged} when checksum, version or structure are wrong: never returns wrong values.
 */
export function decodeChunk(bytes: Buffer, from = -Infinity, to = Infinity): StoredPoint[] {
  const end = bytes.length - crcBytes
  if (end < 1 || crc32(bytes.subarray(0, end)) !== bytes.readUInt32LE(end)) throw new ChunkDamaged('the checksum of the chunk is wrong')
  const chunk = new ByteReader(bytes.subarray(0, end))
  const found = chunk.byte()
  if (found !== version) throw new ChunkDamaged(`version ${found} of the chunk format is unknown`)
  const method = chunk.byte()
  const n = chunk.varint()
  const size = chunk.varint()
  if (n < 1 || n > maxPoints || size > maxBodyBytes) throw new ChunkDamaged('the chunk is larger than chunks are')
  const content = chunk.take(chunk.left)
  const body = method === methods.zstd ? decompress(content, size) : content
  if (method > methods.zstd || body.length !== size) throw new ChunkDamaged('the content of the chunk has another size')
  const reader = new ByteReader(body)
  const points = readPoints(reader, n, from, to)
  if (reader.left > 0) throw new ChunkDamaged('the chunk holds more than its points')
  return points
}

function compress(body: Buffer): Buffer {
  return zstdCompressSync(body, {
    params: { [constants.ZSTD_c_compressionLevel]: zstdLevel },
    // Known sizes let zstd choose small tables.
    pledgedSrcSize: body.length,
    chunkSize: Math.max(64, body.length),
  })
}

function decompress(content: Buffer, size: number): Buffer {
  try {
    return zstdDecompressSync(content, {
      params: { [constants.ZSTD_d_windowLogMax]: Math.log2(maxBodyBytes) },
      maxOutputLength: Math.max(1, size),
      chunkSize: Math.max(64, size),
    })
  } catch (err) {
    throw new ChunkDamaged('the content of the chunk cannot be decompressed', { cause: err })
  }
}

function writeTimes(out: ByteWriter, points: readonly StoredPoint[]): void {
  const times = new Float64Array(points.length)
  let before = -Infinity
  for (let i = 0; i < points.length; i++) {
    const { ts } = points[i]!
    if (ts <= before || !Number.isSafeInteger(ts)) throw new RangeError(`the time ${ts} does not follow ${before} in a chunk`)
    times[i] = before = ts
  }
  writeIntegers(out, times, true)
}

/** @returns how many points each kind has, in the order of the codes */
function writeKinds(out: ByteWriter, points: readonly StoredPoint[]): number[] {
  const counts = valueKinds.map(() => 0)
  const { kind } = points[0]!
  if (points.every((point) => point.kind === kind)) {
    out.byte(kindCodes[kind])
    counts[kindCodes[kind]] = points.length
    return counts
  }
  out.byte(mixed)
  const codes = Float64Array.from(points, (point) => kindCodes[point.kind])
  for (const code of codes) counts[code]!++
  writeIntegers(out, codes)
  return counts
}

function readPoints(from: ByteReader, n: number, low: number, high: number): StoredPoint[] {
  const times = readIntegers(from, n)
  for (let i = 1; i < n; i++) {
    if (times[i]! <= times[i - 1]!) throw new ChunkDamaged('the times of the chunk are out of order')
  }
  const code = from.byte()
  const kind = valueKinds[code]
  if (kind) {
    // Columns are read as a whole, but what nobody asked for does not become points.
    const found = times.findIndex((ts) => ts >= low)
    return columns[kind].read(from, times, found < 0 ? n : found, times.findLastIndex((ts) => ts < high) + 1)
  }
  if (code !== mixed) throw new ChunkDamaged(`the kind ${code} of the chunk is unknown`)
  const codes = readIntegers(from, n)
  if (!codes.every((item) => item >= 0 && item < mixed)) throw new ChunkDamaged('a kind of the chunk is unknown')
  const parts = valueKinds.map((item) => {
    const own = times.filter((_, i) => codes[i] === kindCodes[item])
    return own.length > 0 ? columns[item].read(from, own, 0, own.length) : []
  })
  const next = valueKinds.map(() => 0)
  const points = Array.from(codes, (item) => parts[item]![next[item]!++]!)
  return points.filter(({ ts }) => ts >= low && ts < high)
}

/**
 * How the values of a kind are stored. `points` also holds points of other kinds, `count` of them are its own.
 * Read are the points at `start ≤ index < end` of a column as long as `times`.
 */
type Column = {
  write(out: ByteWriter, points: readonly StoredPoint[], count: number): void
  read(from: ByteReader, times: Float64Array, start: number, end: number): StoredPoint[]
}

const columns: Record<TypedValue['kind'], Column> = {
  double: { write: writeDoublePoints, read: readDoublePoints },
  integer: { write: writeIntegerPoints, read: readIntegerPoints },
  boolean: { write: writeBooleanPoints, read: readBooleanPoints },
  string: textColumn('string'),
  json: textColumn('json'),
}

function writeDoublePoints(out: ByteWriter, points: readonly StoredPoint[], count: number): void {
  const values = new Float64Array(count)
  let filled = 0
  for (const point of points) if (point.kind === 'double') values[filled++] = point.value
  writeDoubles(out, values)
}

function readDoublePoints(from: ByteReader, times: Float64Array, start: number, end: number): StoredPoint[] {
  const values = readDoubles(from, times.length)
  const points: StoredPoint[] = []
  for (let i = start; i < end; i++) points.push({ ts: times[i]!, kind: 'double', value: values[i]! })
  return points
}

function writeIntegerPoints(out: ByteWriter, points: readonly StoredPoint[], count: number): void {
  const values = new Float64Array(count)
  let filled = 0
  let isWide = false
  for (const point of points) {
    if (point.kind !== 'integer') continue
    const value = Number(point.value)
    const isExact = typeof point.value === 'bigint' ? BigInt.asIntN(64, point.value) === point.value : Number.isSafeInteger(value)
    if (!isExact) throw new RangeError(`${point.value} is not a 64-bit integer`)
    isWide ||= !Number.isSafeInteger(value)
    values[filled++] = value
  }
  if (!isWide) return writeIntegers(out, values)
  const words = new BigInt64Array(count)
  filled = 0
  for (const point of points) if (point.kind === 'integer') words[filled++] = BigInt(point.value)
  writeWords(out, words)
}

function readIntegerPoints(from: ByteReader, times: Float64Array, start: number, end: number): StoredPoint[] {
  const values = readColumn(from, times.length)
  const points: StoredPoint[] = []
  for (let i = start; i < end; i++) {
    const exact = values[i]!
    const value = Number(exact)
    const isSafe = Number.isSafeInteger(value)
    if (!isSafe && typeof exact === 'number') throw new ChunkDamaged('an integer of the chunk is beyond its column')
    points.push({ ts: times[i]!, kind: 'integer', value: isSafe ? value : exact })
  }
  return points
}

function writeBooleanPoints(out: ByteWriter, points: readonly StoredPoint[], count: number): void {
  const bits = out.room(Math.ceil(count / 8)).fill(0)
  let at = 0
  for (const point of points) {
    if (point.kind !== 'boolean') continue
    if (point.value) bits[at >> 3]! |= 1 << (at & 7)
    at++
  }
}

function readBooleanPoints(from: ByteReader, times: Float64Array, start: number, end: number): StoredPoint[] {
  const bits = from.take(Math.ceil(times.length / 8))
  const points: StoredPoint[] = []
  for (let i = start; i < end; i++) points.push({ ts: times[i]!, kind: 'boolean', value: ((bits[i >> 3]! >> (i & 7)) & 1) === 1 })
  return points
}

/** Each text once, in order of appearance, and a number per point; texts that never repeat are numbered for free. */
function textColumn(kind: 'string' | 'json'): Column {
  return {
    write(out, points, count) {
      const numbers = new Map<string, number>()
      const ids = new Float64Array(count)
      let filled = 0
      for (const point of points) {
        if (point.kind !== kind) continue
        const id = numbers.get(point.value) ?? numbers.size
        if (id === numbers.size) numbers.set(point.value, id)
        ids[filled++] = id
      }
      const texts = Array.from(numbers.keys(), (text) => Buffer.from(text))
      out.varint(texts.length)
      writeIntegers(
        out,
        Float64Array.from(texts, (text) => text.length),
      )
      for (const text of texts) out.room(text.length).set(text)
      writeIntegers(out, ids)
    },
    read(from, times, start, end) {
      const size = from.varint()
      if (size < 1 || size > times.length) throw new ChunkDamaged('the chunk has more texts than points')
      const texts = readTexts(from, readIntegers(from, size))
      const ids = readIntegers(from, times.length)
      const points: StoredPoint[] = []
      for (let i = start; i < end; i++) {
        const value = texts[ids[i]!]
        if (value === undefined) throw new ChunkDamaged('a text of the chunk is missing')
        points.push({ ts: times[i]!, kind, value })
      }
      return points
    },
  }
}

function readTexts(from: ByteReader, lengths: Float64Array): string[] {
  const texts: string[] = []
  for (const length of lengths) {
    const bytes = length < 0 ? undefined : from.take(length)
    if (!bytes || !isUtf8(bytes)) throw new ChunkDamaged('a text of the chunk is not UTF-8')
    texts.push(bytes.toString())
  }
  return texts
}
