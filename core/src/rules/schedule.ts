// SPDX-License-Identifier: AGPL-3.0-only

export const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
export type Weekday = (typeof weekdays)[number]
/** `from` after `to` crosses midnight and belongs to the day it starts on; `to` may be `24:00`. */
export type Window = { days: readonly Weekday[]; from: string; to: string }

type Span = { from: number; to: number }

/** Days of which the spans are worked out at once. */
const spanDays = 9
const dayMs = 86_400_000

/** When a rule is in force, on the wall clock of a zone [2 `schedule`]. */
export class Schedule {
  readonly #zone: string
  readonly #windows: readonly Window[]
  /** Spans from `#from` until before `#until`, ascending and apart. */
  #spans: readonly Span[] = []
  #from = Number.POSITIVE_INFINITY
  #until = Number.NEGATIVE_INFINITY

  /** `zone` is an IANA name. */
  constructor(zone: string, windows: readonly Window[]) {
    this.#zone = zone
    this.#windows = windows
  }

  isOpen(at: number): boolean {
    return this.#spansAround(at).some(({ from, to }) => from <= at && at < to)
  }

  /** The next instant after `at` at which it opens or closes; infinity when it never does. */
  nextEdge(at: number): number {
    for (const { from, to } of this.#spansAround(at)) {
      if (from > at) return from
      // A span that goes on at the edge of what is worked out may well go on behind it.
      if (to > at) return to < this.#until ? to : this.#edgeBehind(to)
    }
    return Number.POSITIVE_INFINITY
  }

  #edgeBehind(to: number): number {
    const span = this.#spansAround(to).find(({ from }) => from <= to)
    // Open all the time: it has no edge worth waking for; the week after is looked at then.
    return span && span.to > to ? span.to : to
  }

  #spansAround(at: number): readonly Span[] {
    if (at >= this.#from && at < this.#until - dayMs) return this.#spans
    const today = Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(this.#zone).toPlainDate()
    const spans: Span[] = []
    for (let day = -1; day < spanDays; day++) {
      const date = today.add({ days: day })
      for (const window of this.#windows) {
        if (window.days.includes(weekdays[date.dayOfWeek - 1]!)) spans.push(this.#spanOf(date, window))
      }
    }
    this.#from = this.#startOf(today, 0)
    this.#until = this.#startOf(today.add({ days: spanDays - 1 }), 0)
    return (this.#spans = unite(spans))
  }

  #spanOf(date: Temporal.PlainDate, { from, to }: Window): Span {
    const start = minutesOf(from)
    const end = minutesOf(to)
    return { from: this.#startOf(date, start), to: this.#startOf(date, end > start ? end : end + 1440) }
  }

  /** A time the zone skips is the one after the gap, one it has twice is the first of the two. */
  #startOf(date: Temporal.PlainDate, minutes: number): number {
    const day = date.add({ days: Math.floor(minutes / 1440) })
    const time = new Temporal.PlainTime(Math.floor((minutes % 1440) / 60), minutes % 60)
    return day.toZonedDateTime({ timeZone: this.#zone, plainTime: time }).epochMilliseconds
  }
}

/** Minutes since midnight of `HH:MM`. */
export function minutesOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5))
}

function unite(spans: Span[]): Span[] {
  const united: Span[] = []
  for (const span of spans.filter(({ from, to }) => to > from).sort((one, other) => one.from - other.from)) {
    const last = united.at(-1)
    if (last && span.from <= last.to) last.to = Math.max(last.to, span.to)
    else united.push({ ...span })
  }
  return united
}
