// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import {
  ageOf,
  daysUntil,
  formatInstant,
  formatOffset,
  formatTick,
  formatWithZone,
  fromInput,
  fromLocal,
  isRepeated,
  isZone,
  listZones,
  readBound,
  startOfDay,
  toInput,
  toLocal,
} from './time.ts'

const hourMs = 3_600_000
const at = (iso: string) => Date.parse(iso)

describe('times in a zone', () => {
  it.each([
    ['Asia/Shanghai', '2026-11-21 10:32:05', '+08:00'],
    ['UTC', '2026-11-21 02:32:05', '+00:00'],
    ['Asia/Kathmandu', '2026-11-21 08:17:05', '+05:45'],
    ['America/New_York', '2026-11-20 21:32:05', '-05:00'],
  ])('formats one instant in %s', (zone, text, offset) => {
    const ts = at('2026-11-21T02:32:05Z')
    expect(formatInstant(ts, zone, 'zh')).toBe(text)
    expect(formatOffset(ts, zone)).toBe(offset)
    expect(formatWithZone(ts, zone, 'zh')).toBe(`${text} UTC${offset} ${zone}`)
  })

  it('formats English dates, milliseconds and times before 1970', () => {
    expect(formatInstant(at('2026-11-21T02:32:05.007Z'), 'Asia/Shanghai', 'en', { ms: true })).toBe('21 Nov 2026, 10:32:05.007')
    expect(formatInstant(-1, 'UTC', 'zh', { ms: true })).toBe('1969-12-31 23:59:59.999')
  })

  it.each([
    ['Europe/Berlin', '2026-03-28T23:00:00Z', 23],
    ['Europe/Berlin', '2026-10-24T22:00:00Z', 25],
    ['America/New_York', '2026-03-08T05:00:00Z', 23],
    ['America/New_York', '2026-11-01T04:00:00Z', 25],
    ['Australia/Lord_Howe', '2026-10-03T13:30:00Z', 23.5],
    ['Australia/Lord_Howe', '2026-04-04T13:00:00Z', 24.5],
    ['Asia/Shanghai', '2026-03-28T16:00:00Z', 24],
  ])('gives the day of the clock change in %s from %s its %s hours', (zone, iso, hours) => {
    const start = at(iso)
    expect(startOfDay(start + 12 * hourMs, zone)).toBe(start)
    expect((startOfDay(start, zone, 1) - start) / hourMs).toBe(hours)
  })

  it('takes the earlier instant of a repeated hour, and goes on where an hour is skipped', () => {
    const berlin = (hour: number, month: number, day: number) =>
      fromLocal({ year: 2026, month, day, hour, minute: 30, second: 0, ms: 0 }, 'Europe/Berlin')
    expect(berlin(2, 10, 25)).toBe(at('2026-10-25T00:30:00Z'))
    expect(berlin(2, 3, 29)).toBe(at('2026-03-29T01:30:00Z'))
    expect(toLocal(berlin(2, 3, 29), 'Europe/Berlin').hour).toBe(3)
  })

  it('labels both instants of a repeated hour with their offsets', () => {
    const first = at('2026-10-25T00:30:00Z')
    expect(formatTick(first, 1_800_000, 'Europe/Berlin', 'zh')).toBe('02:30 +02:00')
    expect(formatTick(first + hourMs, 1_800_000, 'Europe/Berlin', 'zh')).toBe('02:30 +01:00')
    expect(formatTick(first + 2 * hourMs, 1_800_000, 'Europe/Berlin', 'zh')).toBe('03:30')
    expect(isRepeated(at('2026-04-04T14:45:00Z'), 'Australia/Lord_Howe')).toBe(true)
    expect(isRepeated(at('2026-04-04T16:45:00Z'), 'Australia/Lord_Howe')).toBe(false)
  })

  it('labels midnight with the day and longer steps with day or month', () => {
    const midnight = at('2026-11-20T16:00:00Z')
    expect(formatTick(midnight, hourMs, 'Asia/Shanghai', 'zh')).toBe('11-21')
    expect(formatTick(midnight, hourMs, 'Asia/Shanghai', 'en')).toBe('21 Nov')
    expect(formatTick(midnight + 5000, 5000, 'Asia/Shanghai', 'zh')).toBe('00:00:05')
    expect(formatTick(midnight, 86_400_000 * 31, 'Asia/Shanghai', 'zh')).toBe('2026-11')
  })

  it('reads back what it writes into a date field, in every zone', () => {
    for (const zone of ['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Pacific/Apia']) {
      for (let day = 0; day < 365; day += 7) {
        const ts = at('2026-01-01T03:00:00Z') + day * 86_400_000
        expect(fromInput(toInput(ts, zone), zone)).toBe(ts)
      }
    }
    expect(fromInput('yesterday', 'UTC')).toBeUndefined()
  })
})

describe('ages and ranges', () => {
  const now = at('2026-11-21T02:00:00Z')

  it.each([
    [0, { unit: 'now' }],
    [4_999, { unit: 'now' }],
    [5_000, { unit: 'second', count: 5 }],
    [59_999, { unit: 'second', count: 59 }],
    [180_000, { unit: 'minute', count: 3 }],
    [hourMs * 23, { unit: 'hour', count: 23 }],
    [hourMs * 24, { unit: 'absolute' }],
    [-3_600_000, { unit: 'absolute' }],
  ])('tells an age of %s ms', (ms, age) => {
    expect(ageOf(now - ms, now)).toEqual(age)
  })

  it.each([
    ['now', now],
    ['now-15m', now - 900_000],
    ['now-7d', now - 604_800_000],
    ['1763690000000', 1_763_690_000_000],
    ['now-7y', undefined],
    ['', undefined],
    ['-5', undefined],
  ])('reads the bound %s', (text, ts) => {
    expect(readBound(text, now)).toBe(ts)
  })

  it('counts begun days until an instant, and none once it has passed', () => {
    expect(daysUntil('2026-11-22T00:00:01Z', '2026-11-21T00:00:00Z')).toBe(2)
    expect(daysUntil('2026-11-22T00:00:00Z', '2026-11-21T00:00:00Z')).toBe(1)
    expect(daysUntil('2026-11-20T00:00:00Z', '2026-11-21T00:00:00Z')).toBe(0)
  })

  it('knows the zones of the browser and keeps the one in use', () => {
    expect(listZones('Etc/GMT+5')).toEqual(expect.arrayContaining(['UTC', 'Asia/Shanghai', 'Etc/GMT+5']))
    expect(isZone('Asia/Shanghai')).toBe(true)
    expect(isZone('Moon/Base')).toBe(false)
    expect(isZone('')).toBe(false)
  })
})
