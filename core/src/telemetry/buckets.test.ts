// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ZoneOffsets, calendarUnits, cutRange, parseTimeZone } from './buckets.ts'
import type { BucketRule, CalendarUnit, WeekStart } from './buckets.ts'

const hour = 3_600_000
const limit = 10_000

function calendar(type: CalendarUnit, timeZone: string, count = 1, weekStart: WeekStart = 'MON'): BucketRule {
  return { type, count, timeZone, weekStart }
}

/** Edges of the range as `local wall clock + offset`; `from` and `to` are RFC 3339. */
function edges(rule: BucketRule, from: string, to: string): string[] {
  const timeZone = rule.type === 'fixed' ? 'UTC' : rule.timeZone
  return cutRange(rule, Date.parse(from), Date.parse(to), limit).map((ms) =>
    Temporal.Instant.fromEpochMilliseconds(ms).toZonedDateTimeISO(timeZone).toString({ smallestUnit: 'minute', timeZoneName: 'never' }),
  )
}

function hoursPerBucket(rule: BucketRule, from: string, to: string): number[] {
  const found = cutRange(rule, Date.parse(from), Date.parse(to), limit)
  return found.slice(1).map((edge, i) => (edge - found[i]!) / hour)
}

describe('fixed buckets', () => {
  it('start at multiples of the interval since 1970 and take in the whole range', () => {
    expect(cutRange({ type: 'fixed', ms: 1000 }, 1500, 3500, limit)).toEqual([1000, 2000, 3000, 4000])
    expect(cutRange({ type: 'fixed', ms: 1000 }, 2000, 3000, limit)).toEqual([2000, 3000])
    expect(cutRange({ type: 'fixed', ms: 7000 }, 0, 1, limit)).toEqual([0, 7000])
  })

  it('are refused above the limit, at once even for an endless range', () => {
    expect(cutRange({ type: 'fixed', ms: 1000 }, 0, 10_000_000, limit)).toHaveLength(limit + 1)
    expect(() => cutRange({ type: 'fixed', ms: 1000 }, 0, 10_000_001, limit)).toThrow(
      expect.objectContaining({ code: 'RANGE_TOO_LARGE', params: { limit } }),
    )
    expect(() => cutRange({ type: 'fixed', ms: 1000 }, 0, 8.64e15, limit)).toThrow(expect.objectContaining({ code: 'RANGE_TOO_LARGE' }))
  })
})

describe('days', () => {
  it.each([
    ['Europe/Berlin', '2024-03-30T12:00Z', '2024-04-01T12:00Z', [24, 23, 24]],
    ['Europe/Berlin', '2024-10-26T12:00Z', '2024-10-28T12:00Z', [24, 25, 24]],
    ['America/New_York', '2024-03-09T12:00Z', '2024-03-11T12:00Z', [24, 23, 24]],
    ['America/New_York', '2024-11-02T12:00Z', '2024-11-04T12:00Z', [24, 25, 24]],
    ['Australia/Lord_Howe', '2024-04-06T00:00Z', '2024-04-08T00:00Z', [24, 24.5, 24]],
    ['Australia/Lord_Howe', '2024-10-05T00:00Z', '2024-10-07T00:00Z', [24, 23.5, 24]],
    ['Asia/Shanghai', '1986-05-03T00:00Z', '1986-05-05T00:00Z', [24, 23, 24]],
    ['Asia/Shanghai', '1991-09-14T00:00Z', '1991-09-16T00:00Z', [24, 25, 24]],
    ['Asia/Shanghai', '2024-03-09T12:00Z', '2024-03-11T12:00Z', [24, 24, 24]],
    ['Asia/Kathmandu', '2024-03-09T12:00Z', '2024-03-11T12:00Z', [24, 24, 24]],
    ['Asia/Kathmandu', '1985-12-31T00:00Z', '1986-01-01T12:00Z', [24, 23.75]],
    ['America/Sao_Paulo', '2018-11-03T12:00Z', '2018-11-05T12:00Z', [24, 23, 24]],
    ['America/Havana', '2023-11-04T12:00Z', '2023-11-06T12:00Z', [24, 25, 24]],
    ['UTC', '2024-03-30T12:00Z', '2024-04-01T12:00Z', [24, 24, 24]],
  ])('in %s between %s and %s last %j hours', (timeZone, from, to, hours) => {
    expect(hoursPerBucket(calendar('day', timeZone), from, to)).toEqual(hours)
  })

  it('leave out the one that Samoa skipped', () => {
    expect(edges(calendar('day', 'Pacific/Apia'), '2011-12-29T12:00Z', '2012-01-01T00:00Z')).toEqual([
      '2011-12-29T00:00-10:00',
      '2011-12-31T00:00+14:00',
      '2012-01-01T00:00+14:00',
      '2012-01-02T00:00+14:00',
    ])
    expect(hoursPerBucket(calendar('day', 'Pacific/Apia'), '2011-12-29T12:00Z', '2011-12-31T00:00Z')).toEqual([24, 24])
  })

  it('begin at the first instant of the day where midnight does not exist', () => {
    expect(edges(calendar('day', 'America/Sao_Paulo'), '2018-11-04T12:00Z', '2018-11-04T13:00Z')).toEqual([
      '2018-11-04T01:00-02:00',
      '2018-11-05T00:00-02:00',
    ])
  })

  it('counted by several go from local 1970-01-01', () => {
    expect(edges(calendar('day', 'Asia/Shanghai', 10), '1970-01-15T00:00Z', '1970-01-31T00:00Z')).toEqual([
      '1970-01-11T00:00+08:00',
      '1970-01-21T00:00+08:00',
      '1970-01-31T00:00+08:00',
      '1970-02-10T00:00+08:00',
    ])
    expect(edges(calendar('day', 'America/New_York', 10), '1970-01-01T01:00Z', '1970-01-01T02:00Z')).toEqual([
      '1969-12-22T00:00-05:00',
      '1970-01-01T00:00-05:00',
    ])
  })
})

describe('weeks', () => {
  it('begin on Monday, or on Sunday when asked', () => {
    expect(edges(calendar('week', 'Europe/Berlin'), '2024-03-30T12:00Z', '2024-04-02T00:00Z')).toEqual([
      '2024-03-25T00:00+01:00',
      '2024-04-01T00:00+02:00',
      '2024-04-08T00:00+02:00',
    ])
    expect(edges(calendar('week', 'Europe/Berlin', 1, 'SUN'), '2024-03-30T12:00Z', '2024-04-02T00:00Z')).toEqual([
      '2024-03-24T00:00+01:00',
      '2024-03-31T00:00+01:00',
      '2024-04-07T00:00+02:00',
    ])
  })

  it('counted by several go from Monday 1969-12-29, or from the Sunday before', () => {
    expect(edges(calendar('week', 'UTC', 2), '1970-01-01T00:00Z', '1970-01-02T00:00Z')).toEqual([
      '1969-12-29T00:00+00:00',
      '1970-01-12T00:00+00:00',
    ])
    expect(edges(calendar('week', 'UTC', 2, 'SUN'), '1970-01-01T00:00Z', '1970-01-02T00:00Z')).toEqual([
      '1969-12-28T00:00+00:00',
      '1970-01-11T00:00+00:00',
    ])
  })
})

describe('months, quarters and years', () => {
  it('begin on their first day in the zone', () => {
    expect(edges(calendar('month', 'America/New_York'), '2024-02-10T00:00Z', '2024-04-01T00:00Z')).toEqual([
      '2024-02-01T00:00-05:00',
      '2024-03-01T00:00-05:00',
      '2024-04-01T00:00-04:00',
    ])
    expect(edges(calendar('quarter', 'Asia/Shanghai'), '2023-12-31T16:00Z', '2024-07-01T00:00Z')).toEqual([
      '2024-01-01T00:00+08:00',
      '2024-04-01T00:00+08:00',
      '2024-07-01T00:00+08:00',
      '2024-10-01T00:00+08:00',
    ])
    expect(edges(calendar('year', 'Asia/Kathmandu'), '2023-12-31T18:14:59.999Z', '2024-01-01T00:00Z')).toEqual([
      '2023-01-01T00:00+05:45',
      '2024-01-01T00:00+05:45',
      '2025-01-01T00:00+05:45',
    ])
  })

  it('counted by several go from 1970', () => {
    expect(edges(calendar('month', 'UTC', 5), '2024-01-01T00:00Z', '2024-01-02T00:00Z')).toEqual([
      '2023-10-01T00:00+00:00',
      '2024-03-01T00:00+00:00',
    ])
    expect(edges(calendar('quarter', 'UTC', 2), '2024-08-01T00:00Z', '2024-08-02T00:00Z')).toEqual([
      '2024-07-01T00:00+00:00',
      '2025-01-01T00:00+00:00',
    ])
    expect(edges(calendar('year', 'UTC', 10), '2024-08-01T00:00Z', '2024-08-02T00:00Z')).toEqual([
      '2020-01-01T00:00+00:00',
      '2030-01-01T00:00+00:00',
    ])
  })
})

describe('hours and minutes', () => {
  it('give the repeated hour two buckets', () => {
    expect(edges(calendar('hour', 'Europe/Berlin'), '2024-10-26T23:30Z', '2024-10-27T02:00Z')).toEqual([
      '2024-10-27T01:00+02:00',
      '2024-10-27T02:00+02:00',
      '2024-10-27T02:00+01:00',
      '2024-10-27T03:00+01:00',
    ])
  })

  it('go on after a skipped hour', () => {
    expect(edges(calendar('hour', 'America/New_York'), '2024-03-10T06:00Z', '2024-03-10T08:00Z')).toEqual([
      '2024-03-10T01:00-05:00',
      '2024-03-10T03:00-04:00',
      '2024-03-10T04:00-04:00',
    ])
  })

  it('start at local hours also where the offset is no whole hour', () => {
    expect(edges(calendar('hour', 'Asia/Kathmandu'), '2024-01-01T00:00Z', '2024-01-01T01:00Z')).toEqual([
      '2024-01-01T05:00+05:45',
      '2024-01-01T06:00+05:45',
      '2024-01-01T07:00+05:45',
    ])
  })

  it('follow a clock that changes by half an hour', () => {
    expect(edges(calendar('hour', 'Australia/Lord_Howe'), '2024-04-06T14:00Z', '2024-04-06T16:00Z')).toEqual([
      '2024-04-07T01:00+11:00',
      '2024-04-07T02:00+10:30',
      '2024-04-07T03:00+10:30',
    ])
    expect(edges(calendar('hour', 'Australia/Lord_Howe'), '2024-10-05T14:30Z', '2024-10-05T16:30Z')).toEqual([
      '2024-10-06T01:00+10:30',
      '2024-10-06T02:30+11:00',
      '2024-10-06T03:00+11:00',
      '2024-10-06T04:00+11:00',
    ])
  })

  it('with a count start at local midnight and keep to the wall clock', () => {
    expect(hoursPerBucket(calendar('hour', 'Europe/Berlin', 6), '2024-03-30T23:00Z', '2024-03-31T22:00Z')).toEqual([5, 6, 6, 6])
    expect(hoursPerBucket(calendar('hour', 'Europe/Berlin', 6), '2024-10-26T22:00Z', '2024-10-27T23:00Z')).toEqual([7, 6, 6, 6])
    expect(edges(calendar('hour', 'Europe/Berlin', 2), '2024-03-31T00:30Z', '2024-03-31T03:00Z')).toEqual([
      '2024-03-31T00:00+01:00',
      '2024-03-31T03:00+02:00',
      '2024-03-31T04:00+02:00',
      '2024-03-31T06:00+02:00',
    ])
    expect(edges(calendar('minute', 'Asia/Kathmandu', 30), '2024-01-01T00:00Z', '2024-01-01T00:50Z')).toEqual([
      '2024-01-01T05:30+05:45',
      '2024-01-01T06:00+05:45',
      '2024-01-01T06:30+05:45',
      '2024-01-01T07:00+05:45',
    ])
  })
})

describe('any cut', () => {
  const zones = [
    'Europe/Berlin',
    'America/New_York',
    'Australia/Lord_Howe',
    'Asia/Shanghai',
    'Asia/Kathmandu',
    'Pacific/Apia',
    'America/St_Johns',
    'Africa/Cairo',
    'UTC',
  ]
  const counts: Record<CalendarUnit, number[]> = {
    minute: [1, 5, 15, 60],
    hour: [1, 2, 8, 24],
    day: [1, 2, 10],
    week: [1, 3],
    month: [1, 5],
    quarter: [1, 2],
    year: [1, 10],
  }
  const lengths: Record<CalendarUnit, number> = {
    minute: 2 * hour,
    hour: 72 * hour,
    day: 300 * hour,
    week: 2000 * hour,
    month: 9000 * hour,
    quarter: 20_000 * hour,
    year: 90_000 * hour,
  }
  const cuts = fc.record({
    timeZone: fc.constantFrom(...zones),
    type: fc.constantFrom(...calendarUnits),
    pick: fc.nat(3),
    weekStart: fc.constantFrom<WeekStart>('MON', 'SUN'),
    from: fc.integer({ min: 0, max: Date.parse('2045-01-01T00:00Z') }),
    part: fc.double({ min: 0.001, max: 1, noNaN: true }),
  })

  it('ascends, takes in the range, and has no bucket more than needed', () => {
    fc.assert(
      fc.property(cuts, ({ timeZone, type, pick, weekStart, from, part }) => {
        const count = counts[type][pick % counts[type].length]!
        const to = from + Math.max(1, Math.floor(lengths[type] * part))
        const found = cutRange({ type, count, weekStart, timeZone }, from, to, limit)
        expect(found.length).toBeGreaterThan(1)
        found.slice(1).forEach((edge, i) => expect(edge).toBeGreaterThan(found[i]!))
        expect(found[0]).toBeLessThanOrEqual(from)
        expect(found[1]).toBeGreaterThan(from)
        expect(found.at(-1)).toBeGreaterThanOrEqual(to)
        expect(found.at(-2)).toBeLessThan(to)
      }),
      { numRuns: 500 },
    )
  })

  it('by hour and minute has the edges that stepping through time finds', () => {
    const arbitrary = fc.record({
      timeZone: fc.constantFrom(...zones),
      type: fc.constantFrom('minute' as const, 'hour' as const),
      pick: fc.nat(3),
      near: fc.nat(),
      shift: fc.integer({ min: -30 * hour, max: 30 * hour }),
    })
    fc.assert(
      fc.property(arbitrary, ({ timeZone, type, pick, near, shift }) => {
        const transitions = transitionsOf(timeZone)
        const from = Math.max(0, (transitions[near % transitions.length] ?? 1e12) + shift)
        const to = from + 6 * hour
        const count = counts[type][pick]!
        const found = cutRange({ type, count, weekStart: 'MON', timeZone }, from, to, limit)
        expect(found.slice(1, -1)).toEqual(stepThrough(timeZone, count * (type === 'hour' ? hour : 60_000), from, to))
      }),
      { numRuns: 200 },
    )
  })

  /** Every minute of the range whose wall clock reached or jumped over a multiple of the step, by the definition. */
  function stepThrough(timeZone: string, step: number, from: number, to: number): number[] {
    const wall = (ts: number) => {
      const zoned = Temporal.Instant.fromEpochMilliseconds(ts).toZonedDateTimeISO(timeZone)
      return ts + zoned.offsetNanoseconds / 1e6
    }
    const found: number[] = []
    for (let ts = Math.floor(from / 60_000) * 60_000 + 60_000; ts < to; ts += 60_000) {
      const [before, here] = [wall(ts - 60_000), wall(ts)]
      if (here % step === 0 || Math.floor(here / step) > Math.floor(before / step)) found.push(ts)
    }
    return found
  }

  function transitionsOf(timeZone: string): number[] {
    const found: number[] = []
    let at = Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(timeZone).getTimeZoneTransition('next')
    for (; at && at.year < 2040; at = at.getTimeZoneTransition('next')) found.push(at.epochMilliseconds)
    return found
  }

  it('ends with the range at the end of time', () => {
    const end = 8.64e15
    expect(new ZoneOffsets('Asia/Shanghai').at(end).offsetMs).toBe(8 * hour)
    for (const unit of calendarUnits) {
      const count = unit === 'hour' ? 24 : unit === 'minute' ? 60 : 10_000
      expect(cutRange(calendar(unit, 'Asia/Shanghai', count), end - 1, end, limit).at(-1)).toBeGreaterThanOrEqual(end)
    }
  })

  it('by day is refused above the limit', () => {
    expect(() => cutRange(calendar('day', 'Europe/Berlin'), 0, Date.parse('2024-01-01T00:00Z'), limit)).toThrow(
      expect.objectContaining({ code: 'RANGE_TOO_LARGE' }),
    )
  })
})

describe('a zone', () => {
  it('is known by its IANA name in any case', () => {
    expect(parseTimeZone('asia/shanghai')).toBe('Asia/Shanghai')
    expect(parseTimeZone('UTC')).toBe('UTC')
  })

  it.each(['', '+08:00', 'Mars/Olympus', '2024', 'Asia/Shanghai ', 'x'.repeat(1000)])('is refused as %j', (name) => {
    expect(() => parseTimeZone(name)).toThrow(expect.objectContaining({ code: 'TIME_ZONE_UNKNOWN' }))
  })

  it('tells the offset before and at the very change', () => {
    const offsets = new ZoneOffsets('Europe/Berlin')
    const change = Date.parse('2024-03-31T01:00Z')
    expect(offsets.at(change)).toMatchObject({ offsetMs: 2 * hour, previousMs: hour, since: change })
    expect(offsets.at(change - 1)).toMatchObject({ offsetMs: hour, previousMs: 2 * hour, until: change })
    expect(new ZoneOffsets('UTC').at(0)).toEqual({
      offsetMs: 0,
      previousMs: 0,
      since: Number.NEGATIVE_INFINITY,
      until: Number.POSITIVE_INFINITY,
    })
  })
})
