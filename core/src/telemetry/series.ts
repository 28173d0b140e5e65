// SPDX-License-Identifier: AGPL-3.0-only
import type { Scope } from '../db/client.ts'
import { aggregate } from './aggregate.ts'
import type { Aggregation, BucketRow, NumericValue } from './aggregate.ts'
import { downsample } from './downsample.ts'
import type { DownsampleMode } from './downsample.ts'
import type { StoredPoint, TelemetryStore } from './store.ts'

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
export type Tally = { sourcePoints: number; isDownsampled: boolean }

/** The first page is small: nobody knows yet how long the values are. */
const firstPageRows = 500
const fewestPageRows = 50
const pageTextLength = 1_048_576
/** Rows that may be in memory at a time, over all keys that are read side by side. */
const heldRows = 20_000
const noLimit = Number.POSITIVE_INFINITY

/** Rows of one key in the asked order; a raw or sampled point is a row with one value. */
export async function* readRows(
  source: Source,
  range: KeyRange,
  reading: Reading,
  tally: Tally,
  sideBySide = 1,
): AsyncGenerator<BucketRow[]> {
  if (reading.form === 'buckets') {
    const base = reading.aggs.some((agg) => agg === 'DELTA' || agg === 'RATE')
      ? await findNumberBefore(source, range.key, range.from)
      : undefined
    const points = counted(readPoints(source, { ...range, order: 'asc' }, noLimit, sideBySide), tally)
    yield* ordered(aggregate(points, { ...reading, from: range.from, to: range.to, base }), range.order)
    return
  }
  for await (const block of readKey(source, range, reading, tally, sideBySide)) {
    yield block.map((point) => ({ ts: point.ts, values: [point] }))
  }
}

/** Raw or sampled points of one key in the asked order. */
export async function* readKey(
  source: Source,
  range: KeyRange,
  reading: Exclude<Reading, { form: 'buckets' }>,
  tally: Tally,
  sideBySide = 1,
): AsyncGenerator<StoredPoint[]> {
  if (reading.form === 'raw') {
    yield* counted(readPoints(source, range, reading.limit, sideBySide), tally)
    return
  }
  const { store, scope, deviceId } = source
  const count = await store.count(scope, deviceId, [range.key], range.from, range.to)
  if (count <= reading.points) {
    yield* counted(readPoints(source, range, noLimit, sideBySide), tally)
    return
  }
  tally.isDownsampled = true
  const points = counted(readPoints(source, { ...range, order: 'asc' }, noLimit, sideBySide), tally)
  yield* ordered(downsample(points, reading.mode, count, reading.points), range.order)
}

/**
 * Points of one key, page by page. The size of a page follows the size of the values, so that what is
 * held stays small whatever a device has sent; `sideBySide` tells how many keys are read in turns.
 */
async function* readPoints(
  { store, scope, deviceId }: Source,
  range: KeyRange,
  limit: number,
  sideBySide: number,
): AsyncGenerator<StoredPoint[]> {
  const most = Math.max(fewestPageRows, Math.floor(heldRows / sideBySide))
  const newestFirst = range.order === 'desc'
  let { from, to } = range
  let left = limit
  let pageRows = Math.min(firstPageRows, most)
  while (left > 0 && from < to) {
    const wanted = Math.min(pageRows, left)
    let rows = 0
    let textLength = 0
    let lastTs = 0
    for await (const block of store.read(scope, { deviceId, key: range.key, from, to }, { newestFirst, limit: wanted })) {
      rows += block.length
      lastTs = block.at(-1)?.ts ?? lastTs
      for (const point of block) if (point.kind === 'string' || point.kind === 'json') textLength += point.value.length
      yield block
    }
    if (rows < wanted) return
    left -= rows
    if (newestFirst) to = lastTs
    else from = lastTs + 1
    const fitting = textLength === 0 ? most : Math.floor((rows * pageTextLength) / textLength / sideBySide)
    pageRows = Math.max(fewestPageRows, Math.min(fitting, pageRows * 4, most))
  }
}

/** Newest number of a key before an instant, of any age [N-3]. */
async function findNumberBefore(source: Source, key: string, before: number): Promise<NumericValue | undefined> {
  const isNumber = (point: StoredPoint): point is StoredPoint & NumericValue => point.kind === 'double' || point.kind === 'integer'
  const range: KeyRange = { key, from: 0, to: before, order: 'desc' }
  // Nearly always the first one is a number.
  const [newest] = await Array.fromAsync(readPoints(source, range, 1, 1))
  if (!newest?.[0]) return undefined
  if (isNumber(newest[0])) return newest[0]
  for await (const block of readPoints(source, { ...range, to: newest[0].ts }, noLimit, 1)) {
    const found = block.find(isNumber)
    if (found) return found
  }
  return undefined
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
