// SPDX-License-Identifier: AGPL-3.0-only
import { kindBits } from './chunk-summary.ts'
import type { ChunkSummary, HourSummary, Statistics } from './chunk-summary.ts'
import { ExactSum } from './exact-sum.ts'
import type { NumericValue } from './exact-sum.ts'
import type { TypedValue } from './points.ts'
import type { Piece, StoredPoint } from './store.ts'

const hourMs = 3_600_000

export const aggregations = ['MIN', 'MAX', 'AVG', 'SUM', 'COUNT', 'FIRST', 'LAST', 'DELTA', 'RATE'] as const
export type Aggregation = (typeof aggregations)[number]

export type AggregateOptions = {
  aggs: readonly Aggregation[]
  /** Starts of adjoining buckets and the end of the last, as `cutRange` gives them. */
  edges: readonly number[]
  from: number
  to: number
  /** Last number before `from`, for DELTA and RATE [N-3]. */
  base?: NumericValue | undefined
  /** `signed`: a counter may run backwards, DELTA is last − base [N-3]. */
  counter?: 'monotonic' | 'signed'
  /**
   * `native`: booleans count as 0 and 1 in MIN MAX AVG SUM [N-2]. `compat`: they are left out, and
   * MIN/MAX of a bucket with strings but no numbers is a string, by code point [TB-7].
   */
  rules?: 'native' | 'compat'
}

/** A bucket with points: its start, and a value per aggregation where the points have one. */
export type BucketRow = { ts: number; values: (TypedValue | undefined)[] }

/** What the statistics of a chunk or of its hours can answer. */
const hourly: ReadonlySet<Aggregation> = new Set(['MIN', 'MAX', 'AVG', 'SUM', 'COUNT'])
const atEnds: ReadonlySet<Aggregation> = new Set(['FIRST', 'LAST', 'DELTA', 'RATE'])
const textBits = kindBits.string | kindBits.json

/**
 * Whether {@link aggregate} can do with the statistics of a chunk: when it lies in one bucket, or when its
 * hours do and nothing is asked that depends on single points.
 */
export function serves({ aggs, edges, rules }: AggregateOptions, summary: ChunkSummary): boolean {
  const { kinds, statistics, ends, hours, firstTs, lastTs } = summary
  const countsOnly = aggs.every((agg) => agg === 'COUNT')
  const isText = (kinds & ~textBits) === 0
  // Booleans do not count there, and texts are compared.
  if (rules === 'compat' && (isText || kinds === kindBits.boolean)) return countsOnly && areInHours(edges, summary)
  if (!isText && !statistics) return countsOnly && areInHours(edges, summary)
  if (edges[bucketOf(edges, firstTs) + 1]! > lastTs) return ends !== undefined || !aggs.some((agg) => atEnds.has(agg))
  const knowsHours = countsOnly || isText || hours[0]?.statistics !== undefined
  return rules !== 'compat' && knowsHours && aggs.every((agg) => hourly.has(agg)) && areInHours(edges, summary)
}

/** Chunks longer than this, ms, are never served: for those it is better to ask for their points at once. */
export function longestServed({ aggs, edges, rules }: AggregateOptions): number {
  const isHourly = rules !== 'compat' && aggs.every((agg) => hourly.has(agg))
  if (isHourly && edges.slice(1, -1).every((edge) => edge % hourMs === 0)) return Number.POSITIVE_INFINITY
  return edges.reduce((most, edge, i) => Math.max(most, edge - (edges[i - 1] ?? edge)), 0)
}

/** Whether each edge inside a chunk, if there is one, is a full hour UTC that the chunk knows of. */
function areInHours(edges: readonly number[], { firstTs, lastTs, hours }: ChunkSummary): boolean {
  for (let i = bucketOf(edges, firstTs) + 1; edges[i]! <= lastTs; i++) if (edges[i]! % hourMs !== 0 || hours.length === 0) return false
  return true
}

/** Index of the bucket that holds an instant. */
function bucketOf(edges: readonly number[], ts: number): number {
  let [low, high] = [0, edges.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (edges[middle]! <= ts) low = middle
    else high = middle
  }
  return low
}

/**
 * Aggregates pieces of a series, which come in time order and lie in the range, in one pass.
 * Rows come in time order as their buckets are complete. Integers are exact whatever their size.
 *
 * @param pieces points, and summaries of chunks that {@link serves} says yes to
 */
export async function* aggregate(pieces: AsyncIterable<Piece>, options: AggregateOptions): AsyncGenerator<BucketRow[]> {
  const { edges, from, to, aggs } = options
  const bucket = new Bucket(options)
  let index = 0
  const takeRow = (): BucketRow => {
    const seconds = (Math.min(edges[index + 1]!, to) - Math.max(edges[index]!, from)) / 1000
    const row = { ts: edges[index]!, values: aggs.map((agg) => bucket.result(agg, seconds)) }
    bucket.clear()
    return row
  }
  for await (const piece of pieces) {
    const rows: BucketRow[] = []
    let end = edges[index + 1]!
    const goTo = (ts: number) => {
      if (!bucket.isEmpty) rows.push(takeRow())
      while (ts >= edges[index + 1]!) index++
      end = edges[index + 1]!
    }
    if ('points' in piece) {
      for (const point of piece.points) {
        if (point.ts >= end) goTo(point.ts)
        bucket.add(point)
      }
    } else {
      const { summary } = piece
      if (summary.firstTs >= end) goTo(summary.firstTs)
      if (summary.lastTs < end) bucket.addChunk(summary)
      else {
        for (const hour of summary.hours) {
          const ts = Math.max(hour.startTs, summary.firstTs)
          if (ts >= end) goTo(ts)
          bucket.addHour(hour)
        }
      }
    }
    if (rows.length > 0) yield rows
  }
  if (!bucket.isEmpty) yield [takeRow()]
}

/** The points of the bucket being filled. */
class Bucket {
  readonly #isCompat: boolean
  readonly #isSigned: boolean
  readonly #hasCounter: boolean
  #count = 0
  #first: TypedValue | undefined
  #last: TypedValue | undefined
  /** How many values the sum has. */
  #summands = 0
  readonly #sum = new ExactSum()
  #min: NumericValue | undefined
  #max: NumericValue | undefined
  #minText: string | undefined
  #maxText: string | undefined
  readonly #growth = new ExactSum()
  /** What the bucket's first number is compared with; undefined while it has none. */
  #base: NumericValue | undefined
  /** Newest number so far, kept from bucket to bucket. */
  #previous: NumericValue | undefined

  constructor({ aggs, base, counter, rules }: AggregateOptions) {
    this.#hasCounter = aggs.includes('DELTA') || aggs.includes('RATE')
    this.#previous = base
    this.#isSigned = counter === 'signed'
    this.#isCompat = rules === 'compat'
  }

  get isEmpty(): boolean {
    return this.#count === 0
  }

  clear(): void {
    this.#count = 0
    this.#summands = 0
    this.#first = undefined
    this.#last = undefined
    this.#min = undefined
    this.#max = undefined
    this.#minText = undefined
    this.#maxText = undefined
    this.#base = undefined
    this.#sum.clear()
    this.#growth.clear()
  }

  add(point: StoredPoint): void {
    this.#count++
    this.#first ??= point
    this.#last = point
    switch (point.kind) {
      case 'double':
      case 'integer':
        this.#addNumber(point)
        if (this.#hasCounter) this.#grow(point)
        break
      case 'boolean':
        if (!this.#isCompat) this.#addNumber({ kind: 'integer', value: point.value ? 1 : 0 })
        break
      case 'string':
        if (this.#isCompat) this.#addText(point.value)
        break
      case 'json':
        break
    }
  }

  addChunk({ count, kinds, statistics, ends }: ChunkSummary): void {
    this.#count += count
    if (ends) {
      this.#first ??= ends.first
      this.#last = ends.last
    }
    if (!statistics || (this.#isCompat && kinds === kindBits.boolean)) return
    this.#addStatistics(count, statistics)
    if (!this.#hasCounter || kinds === kindBits.boolean || !ends) return
    this.#grow(ends.first as NumericValue)
    this.#growth.add(statistics.growth)
    this.#previous = ends.last as NumericValue
  }

  /** Only where nothing is asked of single points. */
  addHour({ count, statistics }: HourSummary): void {
    this.#count += count
    if (statistics) this.#addStatistics(count, statistics)
  }

  /** `seconds`: length of the bucket inside the range. */
  result(agg: Aggregation, seconds: number): TypedValue | undefined {
    switch (agg) {
      case 'COUNT':
        return { kind: 'integer', value: this.#count }
      case 'FIRST':
        return this.#first
      case 'LAST':
        return this.#last
      case 'MIN':
        return this.#min ?? asString(this.#minText)
      case 'MAX':
        return this.#max ?? asString(this.#maxText)
      case 'SUM':
        return this.#summands > 0 ? this.#sum.result() : undefined
      case 'AVG':
        return this.#summands > 0 ? { kind: 'double', value: this.#sum.toNumber() / this.#summands } : undefined
      case 'DELTA':
        return this.#delta()?.result()
      case 'RATE': {
        const delta = this.#delta()
        return delta && { kind: 'double', value: delta.toNumber() / seconds }
      }
    }
  }

  #addNumber(value: NumericValue): void {
    this.#summands++
    this.#sum.add(value)
    // JavaScript compares numbers with bigints by their exact values.
    if (this.#min === undefined || value.value < this.#min.value) this.#min = value
    if (this.#max === undefined || value.value > this.#max.value) this.#max = value
  }

  #addStatistics(count: number, { min, max, sum }: Omit<Statistics, 'growth'>): void {
    this.#summands += count
    this.#sum.add(sum)
    if (this.#min === undefined || min.value < this.#min.value) this.#min = min
    if (this.#max === undefined || max.value > this.#max.value) this.#max = max
  }

  #addText(text: string): void {
    if (this.#minText === undefined || isBefore(text, this.#minText)) this.#minText = text
    if (this.#maxText === undefined || isBefore(this.#maxText, text)) this.#maxText = text
  }

  /** A step of the counter; a smaller value means that it began again from zero [N-3]. */
  #grow(value: NumericValue): void {
    const before = this.#previous ?? value
    this.#previous = value
    this.#base ??= before
    this.#growth.grow(value, before)
  }

  #delta(): ExactSum | undefined {
    if (this.#base === undefined || this.#previous === undefined) return undefined
    if (!this.#isSigned) return this.#growth
    const delta = new ExactSum()
    delta.addDifference(this.#previous, this.#base)
    return delta
  }
}

function asString(text: string | undefined): TypedValue | undefined {
  return text === undefined ? undefined : { kind: 'string', value: text }
}

/** Order by code point; JavaScript's own goes by UTF-16 unit, which puts U+E000…U+FFFF behind the rest. */
function isBefore(a: string, b: string): boolean {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const [left, right] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (left !== right) return rank(left) < rank(right)
  }
  return a.length < b.length
}

function rank(unit: number): number {
  if (unit < 0xd800) return unit
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800
}
