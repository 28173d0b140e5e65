// SPDX-License-Identifier: AGPL-3.0-only
import type { Interval } from './routing-document.ts'

export const days = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
const months = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const time = /^([01]\d|2[0-4]):([0-5]\d)$/

type Local = { minute: number; weekday: number; day: number; month: number; year: number; daysInMonth: number }

/** What is wrong with one part of an interval; undefined when it is right. */
export function intervalProblem(part: Interval): string | undefined {
  if (part.zone !== undefined && !isZone(part.zone)) return `Unknown time zone ${part.zone}.`
  for (const { from, to } of part.times ?? []) {
    const [start, end] = [minuteOf(from), minuteOf(to)]
    if (Number.isNaN(start) || Number.isNaN(end) || end > 1440 || start >= end) return `${from} to ${to} is no time of one day.`
  }
  const lists: [readonly string[] | undefined, (text: string) => number, number, number][] = [
    [part.weekdays, (text) => days.indexOf(text), 0, 6],
    [part.daysOfMonth, Number, -31, 31],
    [part.months, monthOf, 1, 12],
    [part.years, Number, 1970, 9999],
  ]
  for (const [list, read, least, most] of lists) {
    for (const text of list ?? []) {
      const [from, to] = rangeOf(text, read)
      const isWrong = [from, to].some((one) => !Number.isInteger(one) || one < least || one > most || (least < 0 && one === 0))
      if (isWrong) return `${text} is no range.`
    }
  }
  return undefined
}

/** Whether the instant lies in any of the parts; in a part all that is given must hold. */
export function isInside(parts: readonly Interval[], at: Date): boolean {
  return parts.some((part) => {
    const local = localOf(at, part.zone ?? 'UTC')
    const inRange = (list: readonly string[] | undefined, value: number, read: (text: string) => number) =>
      list === undefined || list.some((text) => isBetween(value, ...rangeOf(text, read)))
    return (
      (part.times === undefined || part.times.some(({ from, to }) => local.minute >= minuteOf(from) && local.minute < minuteOf(to))) &&
      (part.weekdays === undefined ||
        part.weekdays.some((text) => isInWeek(local.weekday, ...rangeOf(text, (one) => days.indexOf(one))))) &&
      (part.daysOfMonth === undefined ||
        part.daysOfMonth.some((text) => {
          const [from, to] = rangeOf(text, Number).map((one) => (one < 0 ? local.daysInMonth + one + 1 : one)) as [number, number]
          return isBetween(local.day, Math.max(1, from), Math.min(local.daysInMonth, to))
        })) &&
      inRange(part.months, local.month, monthOf) &&
      inRange(part.years, local.year, Number)
    )
  })
}

const isBetween = (value: number, from: number, to: number) => value >= from && value <= to
/** `sat:mon` goes over the end of the week. */
const isInWeek = (value: number, from: number, to: number) => (from <= to ? isBetween(value, from, to) : value >= from || value <= to)

function rangeOf(text: string, read: (text: string) => number): [number, number] {
  const [from = '', to = from] = text.toLowerCase().split(':')
  return [read(from), read(to)]
}

function monthOf(text: string): number {
  const index = months.findIndex((name) => text.startsWith(name))
  return index === -1 ? Number(text) : index + 1
}

export function minuteOf(text: string): number {
  const [, hours, minutes] = time.exec(text) ?? []
  return Number(hours) * 60 + Number(minutes)
}

const formats = new Map<string, Intl.DateTimeFormat>()

export function localOf(at: Date, zone: string): Local {
  const format =
    formats.get(zone) ??
    new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      weekday: 'short',
    })
  formats.set(zone, format)
  const parts = Object.fromEntries(format.formatToParts(at).map((one) => [one.type, one.value]))
  const [year, month, day] = [Number(parts['year']), Number(parts['month']), Number(parts['day'])]
  return {
    year,
    month,
    day,
    minute: Number(parts['hour']) * 60 + Number(parts['minute']),
    weekday: days.indexOf((parts['weekday'] ?? '').toLowerCase().slice(0, 3)),
    daysInMonth: new Date(Date.UTC(year, month, 0)).getUTCDate(),
  }
}

export function isZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
