// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { days, localOf, minuteOf } from './intervals.ts'

const Time = Type.String({ pattern: '^([01]\\d|2[0-3]):[0-5]\\d$' })
const Day = Type.String({ pattern: '^(sun|mon|tue|wed|thu|fri|sat)$' })

export const QuietHours = Type.Object(
  {
    from: Time,
    /** Of the next day when it is not after `from`. */
    to: Time,
    /** Days on which they begin; every day when absent. */
    days: Type.Optional(Type.Array(Day, { minItems: 1, maxItems: 7 })),
    zone: Type.Optional(Type.String({ maxLength: 64 })),
    /** What comes meanwhile waits for their end, or is not said at all. */
    mode: Type.Union([Type.Literal('hold'), Type.Literal('drop')]),
    /** Priorities up to this one come through; 1 (urgent) when absent. */
    breakThrough: Type.Optional(Type.Integer({ minimum: 0, maximum: 5 })),
  },
  { additionalProperties: false },
)
export type QuietHours = Static<typeof QuietHours>

const minuteMs = 60_000
const dayMinutes = 1440

/**
 * The end of the quiet hours that hold at this instant [notifications 7.5].
 *
 * @param zone of the person, where the quiet hours name none
 * @returns undefined when they do not hold
 */
export function quietUntil(quiet: QuietHours, zone: string, at: Date): Date | undefined {
  const own = quiet.zone ?? zone
  const { minute, weekday } = localOf(at, own)
  const [from, to] = [minuteOf(quiet.from), minuteOf(quiet.to)]
  const beginsOn = (day: number) => quiet.days === undefined || quiet.days.some((one) => days.indexOf(one) === (day + 7) % 7)
  const isOverMidnight = to <= from
  const isEvening = minute >= from && (isOverMidnight || minute < to) && beginsOn(weekday)
  const isMorning = isOverMidnight && minute < to && beginsOn(weekday - 1)
  if (!isEvening && !isMorning) return undefined
  const wait = isEvening && isOverMidnight ? dayMinutes - minute + to : to - minute
  const start = Math.floor(at.getTime() / minuteMs) * minuteMs
  const end = new Date(start + wait * minuteMs)
  // Where the clock was changed in between, the end is at the wrong minute of the day by as much.
  const off = ((localOf(end, own).minute - to + dayMinutes * 1.5) % dayMinutes) - dayMinutes / 2
  return new Date(end.getTime() - off * minuteMs)
}
