// SPDX-License-Identifier: AGPL-3.0-only
import type { StoredPoint } from './store.ts'

export const downsampleModes = ['lttb', 'minmax'] as const
export type DownsampleMode = (typeof downsampleModes)[number]

/**
 * Picks at most `limit` (≥ 3) of the points, which come in time order in blocks; `count` says how many
 * will come. Only the points of two buckets are held at a time. Should a few more or fewer come than
 * were counted, since devices go on sending, the last buckets take the difference.
 */
export function downsample(
  blocks: AsyncIterable<readonly StoredPoint[]>,
  mode: DownsampleMode,
  count: number,
  limit: number,
): AsyncGenerator<StoredPoint[]> {
  return mode === 'lttb' ? pickTriangles(blocks, count, limit) : pickExtremes(blocks, count, limit)
}

/**
 * Largest triangle three buckets (Steinarsson 2013) [N-5]: the first and the last point, and of each
 * bucket of equally many points between them the one whose triangle with the point picked before and
 * the mean of the next bucket is largest. A bucket without numbers gives its middle point, so that a
 * series of texts is evenly thinned.
 */
async function* pickTriangles(blocks: AsyncIterable<readonly StoredPoint[]>, count: number, limit: number): AsyncGenerator<StoredPoint[]> {
  const buckets = limit - 2
  const total = Math.max(count - 2, buckets)
  let picked: StoredPoint | undefined
  let held: StoredPoint | undefined
  let current: StoredPoint[] = []
  let next: StoredPoint[] = []
  let index = 0
  let bucket = 0
  let bucketEnd = Math.floor(total / buckets)

  for await (const block of blocks) {
    const found: StoredPoint[] = []
    for (const point of block) {
      if (!picked) {
        picked = point
        found.push(point)
        continue
      }
      // One point is held back: it may be the last, which belongs to no bucket.
      const before = held
      held = point
      if (!before) continue
      if (index === bucketEnd && bucket < buckets - 1) {
        if (current.length > 0) found.push((picked = largestTriangle(picked, current, next)))
        current = next
        next = []
        bucket++
        bucketEnd = Math.floor(((bucket + 1) * total) / buckets)
      }
      next.push(before)
      index++
    }
    if (found.length > 0) yield found
  }
  if (!picked || !held) return
  const rest: StoredPoint[] = []
  if (current.length > 0) rest.push((picked = largestTriangle(picked, current, next)))
  if (next.length > 0) rest.push(largestTriangle(picked, next, [held]))
  yield [...rest, held]
}

function largestTriangle(before: StoredPoint, bucket: readonly StoredPoint[], next: readonly StoredPoint[]): StoredPoint {
  const middle = bucket[bucket.length >> 1]!
  // Times relative to the triangle: products of whole epochs would lose the digits that matter.
  const origin = before.ts
  let nextTime = 0
  let nextSum = 0
  let nextNumbers = 0
  for (const point of next) {
    nextTime += point.ts - origin
    const y = heightOf(point)
    if (y === undefined) continue
    nextSum += y
    nextNumbers++
  }
  nextTime /= next.length || 1
  const beforeHeight = heightOf(before)
  const nextHeight = nextNumbers > 0 ? nextSum / nextNumbers : (beforeHeight ?? 0)
  const height = beforeHeight ?? nextHeight

  let best: StoredPoint | undefined
  let bestArea = -1
  for (const point of bucket) {
    const y = heightOf(point)
    if (y === undefined) continue
    const area = Math.abs((point.ts - origin) * (nextHeight - height) - nextTime * (y - height))
    if (area > bestArea) {
      best = point
      bestArea = area
    }
  }
  return best ?? middle
}

/**
 * The lowest and the highest point of each bucket of equally many points, in time order [N-5].
 * A bucket without numbers gives its first and its middle point.
 */
async function* pickExtremes(blocks: AsyncIterable<readonly StoredPoint[]>, count: number, limit: number): AsyncGenerator<StoredPoint[]> {
  const buckets = Math.floor(limit / 2)
  const total = Math.max(count, buckets)
  let bucket: StoredPoint[] = []
  let index = 0
  let done = 0
  let bucketEnd = Math.floor(total / buckets)

  for await (const block of blocks) {
    const found: StoredPoint[] = []
    for (const point of block) {
      if (index === bucketEnd && done < buckets - 1) {
        found.push(...extremes(bucket))
        bucket = []
        done++
        bucketEnd = Math.floor(((done + 1) * total) / buckets)
      }
      bucket.push(point)
      index++
    }
    if (found.length > 0) yield found
  }
  if (bucket.length > 0) yield extremes(bucket)
}

function extremes(bucket: readonly StoredPoint[]): StoredPoint[] {
  let low: StoredPoint | undefined
  let high: StoredPoint | undefined
  let lowest = Number.POSITIVE_INFINITY
  let highest = Number.NEGATIVE_INFINITY
  for (const point of bucket) {
    const y = heightOf(point)
    if (y === undefined) continue
    if (low === undefined || y < lowest) [low, lowest] = [point, y]
    if (high === undefined || y > highest) [high, highest] = [point, y]
  }
  const [one, other] = low && high ? [low, high] : [bucket[0]!, bucket[bucket.length >> 1]!]
  if (one === other) return [one]
  return one.ts < other.ts ? [one, other] : [other, one]
}

/** Where a chart draws the point: booleans as 0 and 1, other kinds nowhere. */
function heightOf(point: StoredPoint): number | undefined {
  return point.kind === 'string' || point.kind === 'json' ? undefined : Number(point.value)
}
