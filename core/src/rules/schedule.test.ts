// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { Schedule, weekdays } from './schedule.ts'

const at = (text: string) => Date.parse(text)
const shown = (ms: number) => new Date(ms).toISOString()

describe('a schedule', () => {
  it('is open from its first minute until before its last, on its days, by the clock of its zone', () => {
    const schedule = new Schedule('Asia/Shanghai', [{ days: ['mon'], from: '08:00', to: '20:00' }])
    // 2026-03-02 is a Monday; Shanghai is 8 h ahead.
    expect(schedule.isOpen(at('2026-03-01T23:59:59.999Z'))).toBe(false)
    expect(schedule.isOpen(at('2026-03-02T00:00:00Z'))).toBe(true)
    expect(schedule.isOpen(at('2026-03-02T12:00:00Z'))).toBe(false)
    expect(schedule.isOpen(at('2026-03-03T02:00:00Z'))).toBe(false)
  })

  it('that crosses midnight belongs to the day it starts on', () => {
    const schedule = new Schedule('UTC', [{ days: ['fri'], from: '22:00', to: '06:00' }])
    expect(schedule.isOpen(at('2026-03-07T05:59:00Z'))).toBe(true)
    expect(schedule.isOpen(at('2026-03-06T05:59:00Z'))).toBe(false)
    expect(schedule.isOpen(at('2026-03-08T05:59:00Z'))).toBe(false)
  })

  it('names its next edge, windows that touch being one', () => {
    const schedule = new Schedule('UTC', [
      { days: ['mon'], from: '08:00', to: '12:00' },
      { days: ['mon'], from: '12:00', to: '24:00' },
    ])
    expect(shown(schedule.nextEdge(at('2026-03-01T00:00:00Z')))).toBe('2026-03-02T08:00:00.000Z')
    expect(shown(schedule.nextEdge(at('2026-03-02T08:00:00Z')))).toBe('2026-03-03T00:00:00.000Z')
    expect(shown(schedule.nextEdge(at('2026-03-03T00:00:00Z')))).toBe('2026-03-09T08:00:00.000Z')
  })

  it('begins an hour later by the wall where that hour is skipped, and once where it comes twice', () => {
    const schedule = new Schedule('Europe/Berlin', [{ days: ['sun'], from: '02:30', to: '04:00' }])
    expect(shown(schedule.nextEdge(at('2026-03-28T12:00:00Z')))).toBe('2026-03-29T01:30:00.000Z')
    expect(schedule.isOpen(at('2026-03-29T01:45:00Z'))).toBe(true)
    expect(shown(schedule.nextEdge(at('2026-10-24T12:00:00Z')))).toBe('2026-10-25T00:30:00.000Z')
    expect(shown(schedule.nextEdge(at('2026-10-25T00:30:00Z')))).toBe('2026-10-25T03:00:00.000Z')
  })

  it('that is always open stays open, and its edges always lie ahead', () => {
    const schedule = new Schedule('UTC', [{ days: weekdays, from: '00:00', to: '24:00' }])
    for (let now = at('2026-01-01T00:00:00Z'), i = 0; i < 20; i++) {
      expect(schedule.isOpen(now)).toBe(true)
      const edge = schedule.nextEdge(now)
      expect(edge).toBeGreaterThan(now)
      now = edge
    }
  })
})
