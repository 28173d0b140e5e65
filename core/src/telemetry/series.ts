// SPDX-License-Identifier: AGPL-3.0-only
import type { Scope } from '../db/client.ts'
import { aggregate, longestServed, serves } from './aggregate.ts'
import type { AggregateOptions, Aggregation, BucketRow } from './aggregate.ts'
import type { ChunkSummary } from './chunk-summary.ts'
import { downsample } from './downsample.ts'
import type { DownsampleMode } from './downsample.ts'
import type { NumericValue } from './exact-sum.ts'
import type { Piece, StoredPoint, TelemetryStore } from './store.ts'

/** Whose points are read. */
export type Source = { store: TelemetryStore; scope: Scope; deviceId: string }

/** What becomes of the points of each key. */
export type Reading =
  | { form: 'raw'; limit: number }
  | { form: 'sampled'; mode: DownsampleMode; points: number }
  | {
      form: 'buckets'
      aggs: readonly Aggregation[]
      edges: readonly number[]
      counter: 'monotonic' | 'signed'
      rules?: 'native' | 'compat'
    }

export type Order = 'asc' | 'desc'
export type KeyRange = { key: string; from: number; to: number; order: Order }

/** What was found out on the way, for the end of the answer. */
export type Tally = { sourcePoints: number; isDownsampled: boolean; damaged: (DamagedRange & { key: string })[] }

export function createTally(): Tally {
  return { sourcePoints: 0, isDownsampled: false, damaged: [] }
}

/** Stored points that cannot be read any more, both ends included. */
type DamagedRange = { from: number; to: number }

const noLimit = Number.POSITIVE_INFINITY

/** Rows of one key in the asked order; a raw or sampled point is a row with one value. */
export async function* readRows(source: Source, range: KeyRange, reading: Reading, tally: Tally): AsyncGenerator<BucketRow[]> {
  if (reading.form === 'buckets') {
    const base = reading.aggs.some((agg) => agg === 'DELTA' || agg === 'RATE')
      ? await findNumberBefore(source, range.key, range.from)
      : undefined
    const options = { ...reading, from: range.from, to: range.to, base }
    yield* ordered(aggregate(readPieces(source, range, options, tally), options), range.order)
    return
  }
  for await (const block of readKey(source, range, reading, tally)) {
    yield block.map((point) => ({ ts: point.ts, values: [point] }))
  }
}

/** Raw or sampled points of one key in the asked order. */
export async function* readKey(
  source: Source,
  range: KeyRange,
  reading: Exclude<Reading, { form: 'buckets' }>,
  tally: Tally,
): AsyncGenerator<StoredPoint[]> {
  if (reading.form === 'raw') {
    yield* counted(readPoints(source, range, tally, reading.limit), tally)
    return
  }
  const { store, scope, deviceId } = source
  const count = await store.count(scope, deviceId, [range.key], range.from, range.to)
  if (count <= reading.points) {
    yield* counted(readPoints(source, range, tally), tally)
    return
  }
  tally.isDownsampled = true
  const points = counted(readPoints(source, { ...range, order: 'asc' }, tally), tally)
  yield* ordered(downsample(points, reading.mode, count, reading.points), range.order)
}

/** Points of one key in blocks of a chunk or so. */
function readPoints(source: Source, range: KeyRange, tally: Tally | undefined, limit = noLimit): AsyncGenerator<StoredPoint[]> {
  const { store, scope, deviceId } = source
  const { key, from, to, order } = range
  const onDamaged = tally && ((damaged: DamagedRange) => tally.damaged.push({ key, ...damaged }))
  return store.read(scope, { deviceId, key, from, to }, { newestFirst: order === 'desc', limit, ...(onDamaged ? { onDamaged } : {}) })
}

/** Newest number of a key before an instant, of any age [N-3]. */
async function findNumberBefore(source: Source, key: string, before: number): Promise<NumericValue | undefined> {
  const isNumber = (point: StoredPoint): point is StoredPoint & NumericValue => point.kind === 'double' || point.kind === 'integer'
  const range: KeyRange = { key, from: 0, to: before, order: 'desc' }
  // Nearly always the first one is a number.
  const [newest] = await Array.fromAsync(readPoints(source, range, undefined, 1))
  if (!newest?.[0]) return undefined
  if (isNumber(newest[0])) return newest[0]
  for await (const block of readPoints(source, { ...range, to: newest[0].ts }, undefined)) {
    const found = block.find(isNumber)
    if (found) return found
  }
  return undefined
}

/** What the aggregations need of a key: the statistics of chunks where those do, else points. */
async function* readPieces(
  { store, scope, deviceId }: Source,
  { key, from, to }: KeyRange,
  options: AggregateOptions,
  tally: Tally,
): AsyncGenerator<Piece> {
  const summaries = { accepts: (summary: ChunkSummary) => serves(options, summary), longestMs: longestServed(options) }
  const pieces = store.summarize(scope, { deviceId, key, from, to }, summaries, {
    onDamaged: (damaged) => tally.damaged.push({ key, ...damaged }),
  })
  for await (const piece of pieces) {
    tally.sourcePoints += 'points' in piece ? piece.points.length : piece.summary.count
    yield piece
  }
}

async function* counted(blocks: AsyncIterable<StoredPoint[]>, tally: Tally): AsyncGenerator<StoredPoint[]> {
  for await (const block of blocks) {
    tally.sourcePoints += block.length
    yield block
  }
}

/** Reverses what comes ascending: a bounded number of buckets or sampled points. */
async function* ordered<T>(blocks: AsyncIterable<T[]>, order: Order): AsyncGenerator<T[]> {
  if (order === 'asc') yield* blocks
  else yield (await Array.fromAsync(blocks)).flat().toReversed()
}
