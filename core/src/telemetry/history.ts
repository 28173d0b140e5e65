// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { Aggregation } from './aggregate.ts'
import { cutRange, parseTimeZone } from './buckets.ts'
import type { BucketRule } from './buckets.ts'
import { readFilled } from './fill.ts'
import type { FillMode } from './fill.ts'
import type { HistoryQuery } from './schemas.ts'
import { readKey, createTally } from './series.ts'
import type { KeyRange, Order, Reading, Source, Tally } from './series.ts'
import { isBeyondJsonNumbers, toJsonText } from './values.ts'

/** Keys of one question [§17.2]. */
export const maxHistoryKeys = 50
const maxKeyLength = 255
/** Buckets of one series, and of all series of an answer together. */
const maxBuckets = 10_000
const maxBucketsInAll = 500_000
const defaultLimit = 1000
const defaultPoints = 1000
/** Largest instant of ECMAScript. */
export const maxTs = 8_640_000_000_000_000

/** A question about history, checked. */
export type HistoryPlan = {
  keys: string[]
  from: number
  to: number
  timeZone: string
  order: Order
  reading: Reading
  /** For buckets. */
  fill: FillMode
  /** Where each key goes on in a later page of raw points; null when it is finished. */
  resume: (number | null)[] | undefined
}

export type HistoryParameters = Omit<HistoryQuery, 'cursor'> & { cursor?: string }

/** `limit` bounds raw points per key where the question does not; `devices`: how many it is about. */
type PlanOptions = { limit?: number; devices?: number }

/**
 * Checks a question. `zone` is the device's own zone.
 * @throws {ProblemError} `VALIDATION_FAILED` for what is malformed, `UNPROCESSABLE`, `RANGE_TOO_LARGE`,
 *   `TIME_ZONE_UNKNOWN` for what makes no sense, `CURSOR_INVALID`
 */
export function planHistory(query: HistoryParameters, zone: string, { limit = defaultLimit, devices = 1 }: PlanOptions = {}): HistoryPlan {
  const keys = parseKeys(query) ?? fail('VALIDATION_FAILED', '?keys', 'at least one key is needed')
  if (keys.length > maxHistoryKeys) fail('VALIDATION_FAILED', '?keys', `at most ${maxHistoryKeys} keys at once`)
  const { from, to } = parseRange(query)
  const timeZone = parseTimeZone(query.timeZone ?? zone)
  const order = query.order ?? 'asc'
  const fill = query.fill ?? 'none'
  const aggs = query.agg === undefined || query.agg === 'NONE' ? [] : ([...new Set(query.agg.split(','))] as Aggregation[])
  const asked = { keys, from, to, timeZone, order, fill }

  if (aggs.length > 0) {
    if (query.downsample !== undefined) fail('UNPROCESSABLE', '?downsample', 'only raw points are downsampled: leave out agg')
    if (query.cursor !== undefined) fail('UNPROCESSABLE', '?cursor', 'only raw points are paged')
    const most = Math.min(maxBuckets, Math.floor(maxBucketsInAll / (keys.length * aggs.length * devices)))
    const edges = cutRange(parseRule(query, timeZone), from, to, most)
    return { ...asked, reading: { form: 'buckets', aggs, edges, counter: query.counter ?? 'monotonic' }, resume: undefined }
  }
  if (fill !== 'none') fail('UNPROCESSABLE', '?fill', 'only buckets can be filled: name an agg')
  if (query.downsample !== undefined) {
    if (query.cursor !== undefined) fail('UNPROCESSABLE', '?cursor', 'only raw points are paged')
    return { ...asked, reading: { form: 'sampled', mode: query.downsample, points: query.points ?? defaultPoints }, resume: undefined }
  }
  const resume = query.cursor === undefined ? undefined : parseResume(query.cursor, keys.length, from, to)
  return { ...asked, reading: { form: 'raw', limit: query.limit ?? limit }, resume }
}

/** The answer of §17.2 as pieces of JSON text, made while the points are read: never all of it in memory. */
export async function* streamHistory(source: Source, plan: HistoryPlan): AsyncGenerator<string> {
  const { from, to, timeZone } = plan
  const tally = createTally()
  yield `{"from":${from},"to":${to},"timeZone":${JSON.stringify(timeZone)},"series":[`
  const next = yield* streamSeries(source, plan, tally)
  const nextCursor = next.some((at) => at !== null) ? JSON.stringify(formatCursor(next)) : 'null'
  yield `],"sourcePoints":${tally.sourcePoints},"downsampled":${tally.isDownsampled},"nextCursor":${nextCursor}${damagedMember(tally)}}`
}

/**
 * The series of one device, without the brackets.
 * @returns where each raw key goes on in a next page, null when this was its last
 */
export async function* streamSeries(source: Source, plan: HistoryPlan, tally: Tally): AsyncGenerator<string, (number | null)[]> {
  const { keys, from, to, order, reading, fill } = plan
  const next: (number | null)[] = []
  for (const [index, key] of keys.entries()) {
    if (index > 0) yield ','
    const range: KeyRange = { key, from, to, order }
    if (reading.form === 'buckets') yield* bucketSeries(source, range, reading, tally, fill)
    else next.push(yield* pointSeries(source, resumed(range, plan.resume?.[index]), reading, tally))
  }
  return next
}

/** What could not be read any more, when there is such: an answer that lacks points must not look whole. */
export function damagedMember({ damaged }: Tally): string {
  return damaged.length > 0 ? `,"damaged":${JSON.stringify(damaged.map(({ key, from, to }) => ({ key, from, to })))}` : ''
}

/** @returns where the key goes on in the next page, null when this was its last */
async function* pointSeries(
  source: Source,
  range: KeyRange,
  reading: Exclude<Reading, { form: 'buckets' }>,
  tally: Tally,
): AsyncGenerator<string, number | null> {
  const limit = reading.form === 'raw' ? reading.limit : Number.POSITIVE_INFINITY
  let separator = ''
  let count = 0
  let isInt64 = false
  let next: number | null = null
  yield `{"key":${JSON.stringify(range.key)},"agg":"NONE","points":[`
  // One more than asked for tells whether there is another page.
  const wanted: typeof reading = reading.form === 'raw' ? { form: 'raw', limit: limit + 1 } : reading
  for await (const block of readKey(source, range, wanted, tally)) {
    let text = ''
    for (const point of block) {
      if (count === limit) {
        next = range.order === 'desc' ? point.ts + 1 : point.ts
        tally.sourcePoints--
        break
      }
      text += `${separator}[${point.ts},${toJsonText(point)}]`
      separator = ','
      isInt64 ||= isBeyondJsonNumbers(point)
      count++
    }
    yield text
  }
  yield isInt64 ? '],"int64":true}' : ']}'
  return next
}

async function* bucketSeries(
  source: Source,
  range: KeyRange,
  reading: Extract<Reading, { form: 'buckets' }>,
  tally: Tally,
  fill: FillMode,
): AsyncGenerator<string> {
  const series = reading.aggs.map((agg) => ({ agg, points: [] as string[], isInt64: false }))
  for await (const rows of readFilled(source, range, reading, tally, fill)) {
    for (const row of rows) {
      for (const [index, one] of series.entries()) {
        const value = row.values[index]
        if (value !== undefined) {
          one.points.push(`[${row.ts},${toJsonText(value)}]`)
          one.isInt64 ||= isBeyondJsonNumbers(value)
        } else if (fill !== 'none') one.points.push(`[${row.ts},null]`)
      }
    }
  }
  const key = JSON.stringify(range.key)
  yield series
    .map(({ agg, points, isInt64 }) => `{"key":${key},"agg":"${agg}","points":[${points.join(',')}]${isInt64 ? ',"int64":true' : ''}}`)
    .join(',')
}

function resumed(range: KeyRange, at: number | null | undefined): KeyRange {
  if (at === undefined) return range
  if (at === null) return { ...range, to: range.from }
  return range.order === 'desc' ? { ...range, to: at } : { ...range, from: at }
}

function parseResume(cursor: string, length: number, from: number, to: number): (number | null)[] {
  return parseCursor(cursor, length).map((at) => {
    if (at !== null && (typeof at !== 'number' || !Number.isInteger(at) || at < from || at > to)) throw new ProblemError('CURSOR_INVALID')
    return at
  })
}

/** Keys of a query in their order, each once; undefined when none is named. @throws {ProblemError} `VALIDATION_FAILED` */
export function parseKeys({ keys, key }: { keys?: string | undefined; key?: string | string[] | undefined }): string[] | undefined {
  const named = key === undefined ? keys?.split(',') : [key].flat()
  if (named === undefined) return undefined
  if (!named.every(isKey)) {
    fail('VALIDATION_FAILED', key === undefined ? '?keys' : '?key', `a key has 1 to ${maxKeyLength} characters and no controls`)
  }
  return [...new Set(named)]
}

/** [V-14] */
function isKey(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- controls are what is being refused
  return text !== '' && text.length <= maxKeyLength && text.isWellFormed() && !/[\u0000-\u001f\u007f]/.test(text)
}

/** @throws {ProblemError} `VALIDATION_FAILED`, `UNPROCESSABLE` for an empty range */
export function parseRange(query: { from: string; to: string }): { from: number; to: number } {
  const from = parseTime(query.from, '?from')
  const to = parseTime(query.to, '?to')
  if (from >= to) fail('UNPROCESSABLE', '?to', '"to" must be later than "from"')
  return { from, to }
}

function parseTime(text: string, pointer: string): number {
  if (/^\d{1,16}$/.test(text) && Number(text) <= maxTs) return Number(text)
  if (/^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/.test(text)) {
    try {
      return Math.max(0, Temporal.Instant.from(text.toUpperCase()).epochMilliseconds)
    } catch {
      // A date that is in no calendar is as wrong as any other text.
    }
  }
  return fail('VALIDATION_FAILED', pointer, 'expected ms since 1970 or an RFC 3339 instant')
}

function parseRule({ intervalType = 'fixed', interval, weekStart = 'MON' }: HistoryParameters, timeZone: string): BucketRule {
  if (intervalType === 'fixed') {
    if (interval === undefined || interval < 1000) fail('UNPROCESSABLE', '?interval', 'a fixed interval is needed, of at least 1000 ms')
    return { type: 'fixed', ms: interval }
  }
  const count = interval ?? 1
  if (intervalType === 'minute' && 60 % count !== 0) fail('UNPROCESSABLE', '?interval', 'a number of minutes must divide 60')
  if (intervalType === 'hour' && 24 % count !== 0) fail('UNPROCESSABLE', '?interval', 'a number of hours must divide 24')
  if (count > maxBuckets) fail('UNPROCESSABLE', '?interval', `at most ${maxBuckets} units`)
  return { type: intervalType, count, weekStart, timeZone }
}

function fail(code: 'VALIDATION_FAILED' | 'UNPROCESSABLE', pointer: string, detail: string): never {
  throw new ProblemError(code, { errors: [{ pointer, detail }] })
}
