// SPDX-License-Identifier: AGPL-3.0-only
import { ExactSum } from './exact-sum.ts'
import type { NumericValue } from './exact-sum.ts'
import type { StoredPoint } from './store.ts'

const hourMs = 3_600_000
/** Greatest hour since 1970 that its column (int4) holds; a device's clock may say a later one. */
const maxHour = 2 ** 31 - 1

/** Bits of `kinds`; the last two say what the smallest and the greatest number of a mixed chunk are. */
export const kindBits = { double: 1, integer: 2, boolean: 4, string: 8, json: 16 } as const
const minIsDouble = 32
const maxIsDouble = 64
const numberBits = kindBits.double | kindBits.integer

/** Statistics over the values of a stretch of a series: numbers only, or booleans only as 0 and 1. */
export type Statistics = {
  min: NumericValue
  max: NumericValue
  sum: NumericValue
  /** Sum of the increases of a counter from its first to its last value [N-3]; 0 of booleans. */
  growth: NumericValue
}

/** One hour of a chunk. */
export type HourSummary = { startTs: number; count: number; statistics: Omit<Statistics, 'growth'> | undefined }

/** What is known of a chunk without decoding it. */
export type ChunkSummary = {
  firstTs: number
  lastTs: number
  count: number
  /** {@link kindBits} */
  kinds: number
  /** Undefined where a double cannot say them exactly, or kinds are mixed beyond numbers. */
  statistics: Statistics | undefined
  /** First and last value; undefined when they are too long to be kept apart. */
  ends: { first: StoredPoint; last: StoredPoint } | undefined
  /** None after the year 246,953. */
  hours: readonly HourSummary[]
}

/** Looks at the points of a chunk: ascending, at least one. */
export function summarize(points: readonly StoredPoint[]): ChunkSummary {
  const first = points[0]!
  const last = points.at(-1)!
  let kinds = 0
  for (const { kind } of points) kinds |= kindBits[kind]
  const canCount = (kinds & ~numberBits) === 0 || kinds === kindBits.boolean
  const whole = new Gathered()
  const hour = new Gathered()
  const hours: HourSummary[] = []
  let hourNo = Math.floor(first.ts / hourMs)
  let count = 0
  const closeHour = () => {
    hours.push({ startTs: hourNo * hourMs, count, statistics: canCount ? hour.statistics() : undefined })
    hour.clear()
    count = 0
  }
  for (const point of points) {
    const no = Math.floor(point.ts / hourMs)
    if (no !== hourNo) {
      closeHour()
      hourNo = no
    }
    count++
    if (!canCount) continue
    const value = numberOf(point)
    hour.add(value)
    whole.add(value)
  }
  closeHour()
  const statistics = canCount ? whole.statistics() : undefined
  if (statistics?.min.kind === 'double') kinds |= minIsDouble
  if (statistics?.max.kind === 'double') kinds |= maxIsDouble
  // Where one hour has no exact statistics, none is kept: readers of the table need no exceptions.
  const areExact = statistics !== undefined && hours.every((one) => one.statistics)
  const isBeyond = Math.floor(last.ts / hourMs) > maxHour
  return {
    firstTs: first.ts,
    lastTs: last.ts,
    count: points.length,
    kinds,
    statistics,
    ends: { first, last },
    hours: isBeyond ? [] : areExact ? hours : hours.map(({ startTs, count: n }) => ({ startTs, count: n, statistics: undefined })),
  }
}

/** Numbers of a chunk's row as typed values again. */
export function restoreStatistics(kinds: number, row: Record<keyof Statistics, number>): Statistics {
  const kind = kinds & kindBits.double ? 'double' : 'integer'
  const extreme = (value: number, isDouble: boolean): NumericValue => ({ kind: isDouble ? 'double' : 'integer', value })
  return {
    min: extreme(row.min, (kinds & minIsDouble) !== 0),
    max: extreme(row.max, (kinds & maxIsDouble) !== 0),
    sum: { kind, value: row.sum },
    growth: { kind, value: row.growth },
  }
}

/** Numbers of one hour; of a mixed chunk whole numbers count as integers. */
export function restoreHour(kinds: number, row: { min: number; max: number; sum: number }): HourSummary['statistics'] {
  const isMixed = (kinds & numberBits) === numberBits
  const kindOf = (value: number) => ((isMixed ? !Number.isInteger(value) : kinds & kindBits.double) ? 'double' : 'integer')
  return {
    min: { kind: kindOf(row.min), value: row.min },
    max: { kind: kindOf(row.max), value: row.max },
    sum: { kind: kinds & kindBits.double ? 'double' : 'integer', value: row.sum },
  }
}

function numberOf(point: StoredPoint): NumericValue {
  if (point.kind === 'boolean') return { kind: 'integer', value: point.value ? 1 : 0 }
  return point as NumericValue
}

/** Statistics of the values added so far. */
class Gathered {
  readonly #sum = new ExactSum()
  readonly #growth = new ExactSum()
  #min: NumericValue | undefined
  #max: NumericValue | undefined
  #previous: NumericValue | undefined

  clear(): void {
    this.#sum.clear()
    this.#growth.clear()
    this.#min = undefined
    this.#max = undefined
    this.#previous = undefined
  }

  add(value: NumericValue): void {
    this.#sum.add(value)
    if (this.#min === undefined || value.value < this.#min.value) this.#min = value
    if (this.#max === undefined || value.value > this.#max.value) this.#max = value
    if (this.#previous !== undefined) this.#growth.grow(value, this.#previous)
    this.#previous = value
  }

  /** @returns undefined unless a float8 holds all of them exactly */
  statistics(): Statistics | undefined {
    if (!this.#min || !this.#max) return undefined
    const found = { min: this.#min, max: this.#max, sum: this.#sum.result(), growth: this.#growth.result() }
    return Object.values(found).every(({ value }) => typeof value === 'number' && Number.isFinite(value)) ? found : undefined
  }
}
