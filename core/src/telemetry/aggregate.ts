// SPDX-License-Identifier: AGPL-3.0-only
import type { TypedValue } from './points.ts'
import type { StoredPoint } from './store.ts'

export const aggregations = ['MIN', 'MAX', 'AVG', 'SUM', 'COUNT', 'FIRST', 'LAST', 'DELTA', 'RATE'] as const
export type Aggregation = (typeof aggregations)[number]

export type NumericValue = Extract<TypedValue, { kind: 'double' | 'integer' }>

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

/**
 * Aggregates blocks of points, which come in time order and lie in the range, in one pass.
 * Rows come in time order as their buckets are complete. Integers are exact whatever their size.
 */
export async function* aggregate(blocks: AsyncIterable<readonly StoredPoint[]>, options: AggregateOptions): AsyncGenerator<BucketRow[]> {
  const { edges, from, to, aggs } = options
  const bucket = new Bucket(options)
  let index = 0
  const takeRow = (): BucketRow => {
    const seconds = (Math.min(edges[index + 1]!, to) - Math.max(edges[index]!, from)) / 1000
    const row = { ts: edges[index]!, values: aggs.map((agg) => bucket.result(agg, seconds)) }
    bucket.clear()
    return row
  }
  for await (const block of blocks) {
    const rows: BucketRow[] = []
    let end = edges[index + 1]!
    for (const point of block) {
      if (point.ts >= end) {
        if (!bucket.isEmpty) rows.push(takeRow())
        while (point.ts >= edges[index + 1]!) index++
        end = edges[index + 1]!
      }
      bucket.add(point)
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

  #addText(text: string): void {
    if (this.#minText === undefined || isBefore(text, this.#minText)) this.#minText = text
    if (this.#maxText === undefined || isBefore(this.#maxText, text)) this.#maxText = text
  }

  /** A step of the counter; a smaller value means that it began again from zero [N-3]. */
  #grow(value: NumericValue): void {
    const before = this.#previous ?? value
    this.#previous = value
    this.#base ??= before
    if (value.value < before.value) this.#growth.add(value)
    else this.#growth.addDifference(value, before)
  }

  #delta(): ExactSum | undefined {
    if (this.#base === undefined || this.#previous === undefined) return undefined
    if (!this.#isSigned) return this.#growth
    const delta = new ExactSum()
    delta.addDifference(this.#previous, this.#base)
    return delta
  }
}

/**
 * A sum that is exact for integers of any size and compensated for doubles (Neumaier 1974), so that it
 * hardly depends on the order of the points. It is an integer as long as all its parts are.
 */
class ExactSum {
  #small = 0
  #big: bigint | undefined
  #double = 0
  #carry = 0
  #hasDouble = false

  clear(): void {
    this.#small = 0
    this.#big = undefined
    this.#double = 0
    this.#carry = 0
    this.#hasDouble = false
  }

  add({ kind, value }: NumericValue): void {
    if (kind === 'double') this.#addDouble(value)
    else this.#addInteger(value)
  }

  addDifference(value: NumericValue, before: NumericValue): void {
    if (value.kind === 'double' || before.kind === 'double') return this.#addDouble(Number(value.value) - Number(before.value))
    if (typeof value.value === 'number' && typeof before.value === 'number') {
      const difference = value.value - before.value
      if (Number.isSafeInteger(difference)) return this.#addInteger(difference)
    }
    this.#addInteger(BigInt(value.value) - BigInt(before.value))
  }

  result(): NumericValue {
    if (this.#hasDouble) return { kind: 'double', value: this.toNumber() }
    if (this.#big === undefined) return { kind: 'integer', value: this.#small }
    const exact = this.#big + BigInt(this.#small)
    const value = Number(exact)
    return { kind: 'integer', value: Number.isSafeInteger(value) ? value : exact }
  }

  toNumber(): number {
    const integers = this.#big === undefined ? this.#small : Number(this.#big + BigInt(this.#small))
    // Beyond the range of doubles the compensation is meaningless.
    const doubles = Number.isFinite(this.#double) ? this.#double + this.#carry : this.#double
    return integers + doubles
  }

  #addInteger(value: number | bigint): void {
    if (typeof value === 'number') {
      const next = this.#small + value
      if (Number.isSafeInteger(next)) {
        this.#small = next
        return
      }
    }
    this.#big = (this.#big ?? 0n) + BigInt(value)
  }

  #addDouble(value: number): void {
    this.#hasDouble = true
    const next = this.#double + value
    this.#carry += Math.abs(this.#double) >= Math.abs(value) ? this.#double - next + value : value - next + this.#double
    this.#double = next
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
