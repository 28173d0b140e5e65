// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'

/** Units of calendar buckets (device API §17.2). */
export const calendarUnits = ['minute', 'hour', 'day', 'week', 'month', 'quarter', 'year'] as const
export type CalendarUnit = (typeof calendarUnits)[number]
export type WeekStart = 'MON' | 'SUN'

/** How a range is cut: every so many ms since 1970 UTC, or by `count` calendar units of a zone. */
export type BucketRule = { type: 'fixed'; ms: number } | { type: CalendarUnit; count: number; weekStart: WeekStart; timeZone: string }
type CalendarRule = Exclude<BucketRule, { type: 'fixed' }>

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/** Days from 1970-01-01 to the first day that weeks are counted from: 1969-12-29 or the Sunday before [N-1]. */
const weekOrigins = { MON: -3, SUN: -4 } as const
/** Temporal ends 100,000,000 days after 1970, in the year 275760. */
const lastDay = 99_999_000
const lastMonth = 273_000 * 12
const lastInstant = 8_640_000_000_000_000

/**
 * Cuts `from ≤ ts < to` into adjoining buckets [N-1].
 * @returns the start of each bucket and the end of the last, ascending, ms; the first start is ≤ `from`, the end ≥ `to`
 * @throws {ProblemError} `RANGE_TOO_LARGE` above `limit` buckets
 */
export function cutRange(rule: BucketRule, from: number, to: number, limit: number): number[] {
  const edges: number[] = []
  for (const edge of edgesAround(rule, from)) {
    if (edge <= from) edges[0] = edge
    // A day that a zone skipped (Samoa, 30 December 2011) has no length and is no bucket.
    else if (edge !== edges.at(-1)) edges.push(edge)
    if (edge >= to) return edges
    if (edges.length > limit) throw new ProblemError('RANGE_TOO_LARGE', { params: { limit } })
  }
  edges.push(to)
  return edges
}

/** Ascending edges, beginning with one at or before `from`; a few may come twice. */
function edgesAround(rule: BucketRule, from: number): Iterable<number> {
  switch (rule.type) {
    case 'fixed':
      return fixedEdges(rule.ms, from)
    case 'minute':
      return clockEdges(rule.count * minuteMs, rule.timeZone, from)
    case 'hour':
      return clockEdges(rule.count * hourMs, rule.timeZone, from)
    case 'day':
    case 'week':
    case 'month':
    case 'quarter':
    case 'year':
      return dateEdges(rule, from)
  }
}

function* fixedEdges(ms: number, from: number): Generator<number> {
  for (let edge = Math.floor(from / ms) * ms; ; edge += ms) yield edge
}

/**
 * Minutes and hours are instants: an edge wherever the zone's wall clock shows a multiple of the step
 * since midnight. A repeated hour has two; where the clock jumps over a multiple, the jump is the edge.
 */
function* clockEdges(stepMs: number, timeZone: string, from: number): Generator<number> {
  const zone = new ZoneOffsets(timeZone)
  // Steps reach up to a day and so do the jumps of zones: an edge before `from` lies in here.
  let at = from - 3 * dayMs
  for (;;) {
    const { offsetMs, previousMs, since, until } = zone.at(at)
    if (at === since && Math.ceil((since + previousMs) / stepMs) < Math.ceil((since + offsetMs) / stepMs)) yield since
    for (let edge = Math.ceil((at + offsetMs) / stepMs) * stepMs - offsetMs; edge < until; edge += stepMs) yield edge
    at = until
  }
}

/** Local starts of every so many days, weeks, months, quarters or years, counted from 1970. */
function* dateEdges(rule: CalendarRule, from: number): Generator<number> {
  const { timeZone } = rule
  const local = Temporal.Instant.fromEpochMilliseconds(from).toZonedDateTimeISO(timeZone).toPlainDate()
  const { step, index, last, toDate } = dateSteps(rule, local)
  for (let at = Math.floor(index / step) * step; at < last; at += step) {
    // Without a time of day this is the first instant of the day, also where midnight is skipped.
    yield toDate(at).toZonedDateTime(timeZone).epochMilliseconds
  }
}

type DateSteps = { step: number; index: number; last: number; toDate: (index: number) => Temporal.PlainDate }

function dateSteps({ type, count, weekStart }: CalendarRule, local: Temporal.PlainDate): DateSteps {
  const epoch = Temporal.PlainDate.from('1970-01-01')
  if (type === 'day' || type === 'week') {
    const origin = type === 'week' ? epoch.add({ days: weekOrigins[weekStart] }) : epoch
    const step = type === 'week' ? 7 * count : count
    return { step, index: origin.until(local, { largestUnit: 'days' }).days, last: lastDay, toDate: (days) => origin.add({ days }) }
  }
  const months = { month: 1, quarter: 3, year: 12, minute: 0, hour: 0 }[type]
  const index = (local.year - epoch.year) * 12 + local.month - 1
  return { step: months * count, index, last: lastMonth, toDate: (n) => epoch.add({ months: n }) }
}

/** A stretch of a zone's time with one offset: `since ≤ ts < until`; local time = ts + `offsetMs`. */
export type OffsetSpan = {
  offsetMs: number
  /** The offset before `since`. */
  previousMs: number
  since: number
  until: number
}

/** Looks up offsets of one zone, quickly for instants near each other. */
export class ZoneOffsets {
  readonly #timeZone: string
  #span: OffsetSpan | undefined

  constructor(timeZone: string) {
    this.#timeZone = timeZone
  }

  at(ts: number): OffsetSpan {
    if (this.#span && ts >= this.#span.since && ts < this.#span.until) return this.#span
    const here = this.#zoned(ts)
    // "previous" is strictly before, and a change at `ts` itself belongs to this span.
    const change = this.#zoned(Math.min(ts + 1, lastInstant)).getTimeZoneTransition('previous')
    const next = here.getTimeZoneTransition('next')
    const offsetMs = here.offsetNanoseconds / 1e6
    this.#span = {
      offsetMs,
      previousMs: change ? this.#zoned(change.epochMilliseconds - 1).offsetNanoseconds / 1e6 : offsetMs,
      since: change?.epochMilliseconds ?? Number.NEGATIVE_INFINITY,
      until: next?.epochMilliseconds ?? Number.POSITIVE_INFINITY,
    }
    return this.#span
  }

  #zoned(ts: number): Temporal.ZonedDateTime {
    return Temporal.Instant.fromEpochMilliseconds(ts).toZonedDateTimeISO(this.#timeZone)
  }
}

/**
 * @returns the name in its usual spelling
 * @throws {ProblemError} `TIME_ZONE_UNKNOWN` unless it is an IANA name; offsets are none
 */
export function parseTimeZone(name: string): string {
  try {
    if (/^[A-Za-z]/.test(name)) return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name).timeZoneId
  } catch {
    // Temporal's RangeError says no more than our own code does.
  }
  throw new ProblemError('TIME_ZONE_UNKNOWN', { params: { timeZone: name.slice(0, 100) } })
}
