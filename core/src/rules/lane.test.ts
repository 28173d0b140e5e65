// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DeviceValues } from './device-values.ts'
import type { RulePoint } from './device-values.ts'
import { Lane } from './lane.ts'
import type { Pair } from './lane.ts'
import { adoptRule, clearByHand, closePair, isDefault } from './pair.ts'
import type { PairState, Transition } from './pair.ts'
import { record } from './preview.ts'
import type { Episode } from './preview.ts'
import { compile, emptyScene, toPoints } from './testing.ts'
import type { TestPoint } from './testing.ts'

const hot = { left: { key: 't' }, op: 'gt', right: 5 }
const rules = [
  { levels: [{ severity: 'major', when: { ...hot, hysteresis: 2 }, forMs: 40 }], clear: { forMs: 30 } },
  {
    levels: [
      { severity: 'critical', when: { left: { key: 't' }, op: 'gt', right: 8 } },
      { severity: 'minor', when: hot },
    ],
    clear: { forMs: 25 },
  },
  { levels: [{ severity: 'minor', when: hot, repeat: { count: 3, withinMs: 1000 } }] },
  { levels: [{ severity: 'minor', when: { all: [hot, { left: { key: 'u' }, op: 'gt', right: 3 }] }, forMs: 20 }] },
  { levels: [{ severity: 'minor', when: hot }], clear: { when: { left: { key: 'u' }, op: 'lt', right: 4 }, forMs: 30 } },
  { levels: [{ severity: 'minor', when: { left: { key: 't', staleAfterMs: 1000 }, op: 'gt', right: 5 }, forMs: 60 }] },
  { levels: [{ severity: 'minor', when: { left: { agg: 'avg', over: 't', windowMs: 1000 }, op: 'gt', right: 5 }, forMs: 10 }] },
  { levels: [{ severity: 'minor', when: { any: [{ changed: 'u' }, { left: { expr: 't + u' }, op: 'gt', right: 14 }] } }] },
]
const end = 60_000

/** Points in the order of receipt, some of them late, repeated, or of one instant. */
const histories = fc.array(
  fc.record({
    key: fc.constantFrom('t', 'u'),
    step: fc.oneof(fc.integer({ min: -15, max: 40 }), fc.integer({ min: 300, max: 1200 })),
    value: fc.integer({ min: 0, max: 10 }),
  }),
  { minLength: 1, maxLength: 40 },
)

function toHistory(steps: readonly { key: string; step: number; value: number }[]): RulePoint[] {
  let ts = 100
  return steps.map(({ key, step, value }) => {
    ts = Math.max(1, ts + step)
    // Receipt in order, whatever the device's times are.
    return { key, ts, value, receivedAt: end }
  })
}

describe('the outcome of a rule', () => {
  it('does not depend on batches, on restarts between them, or on points that are delivered again', () => {
    fc.assert(
      fc.property(fc.constantFrom(...rules), histories, fc.infiniteStream(fc.nat(5)), (logic, steps, choices) => {
        const rule = compile(logic)
        const points = toHistory(steps)
        const expected = oneByOne(rule, points)
        const episodes: Episode[] = []
        const tell = (_: Pair, transitions: readonly Transition[]) => transitions.forEach((one) => record(episodes, one))
        const values = new DeviceValues()
        let lane = new Lane({ ...emptyScene(), values }, tell)
        let pair = lane.add(rule, 0)
        const choose = () => choices.next().value ?? 0
        for (let at = 0; at < points.length; at++) {
          lane.apply([points[at]!])
          if (choose() === 0) {
            const state = JSON.parse(JSON.stringify(pair.state)) as PairState
            lane = new Lane({ ...emptyScene(), values }, tell)
            pair = lane.restore({ ...pair, state })
          }
          if (choose() === 0) {
            // Only what is still in its slot, or older, comes again after a restart.
            for (const again of points.slice(Math.max(0, at - choose()), at + 1)) {
              const slot = values.slots.get(again.key)
              if (slot && (again.ts < slot.ts || again.value === slot.value)) lane.apply([again])
            }
          }
        }
        lane.runTimers(end + 1, end + 1)
        expect(episodes).toEqual(expected)
      }),
      { numRuns: 400 },
    )
  })

  it('does not depend on whether timers run early or only when the next point comes', () => {
    fc.assert(
      fc.property(fc.constantFrom(...rules), histories, (logic, steps) => {
        const rule = compile(logic)
        const points = toHistory(steps)
        const episodes: Episode[] = []
        const lane = new Lane(emptyScene(), (_, transitions) => transitions.forEach((one) => record(episodes, one)))
        const pair = lane.add(rule, 0)
        for (const point of points) {
          // An applied point is judged at the later of its own instant and the pair's clock.
          lane.runTimers(Math.max(...[...lane.device.values.slots].filter(([key]) => rule.reads.keys.has(key)).map(([, { ts }]) => ts)), 0)
          lane.apply([point])
        }
        lane.runTimers(end + 1, end + 1)
        expect(pair.due.event).toBeGreaterThan(end)
        expect(episodes).toEqual(oneByOne(rule, points))
      }),
      { numRuns: 200 },
    )
  })
})

function oneByOne(rule: ReturnType<typeof compile>, points: readonly RulePoint[]): Episode[] {
  const episodes: Episode[] = []
  const lane = new Lane(emptyScene(), (_, transitions) => transitions.forEach((one) => record(episodes, one)))
  lane.add(rule, 0)
  for (const point of points) lane.apply([point])
  lane.runTimers(end + 1, end + 1)
  return episodes
}

function laneWith(logic: unknown, points: readonly TestPoint[]): { lane: Lane; pair: Pair; told: Transition[] } {
  const told: Transition[] = []
  const lane = new Lane(emptyScene(), (_, transitions) => told.push(...transitions))
  const pair = lane.add(compile(logic), 0)
  for (const point of toPoints(points)) lane.apply([point])
  return { lane, pair, told }
}

const apply = (lane: Lane, ...points: TestPoint[]) => toPoints(points).forEach((point) => lane.apply([point]))

describe('a pair', () => {
  it('has nothing to remember while its rule is quiet, and again once the alarm is over', () => {
    const { lane, pair } = laneWith(rules[1], [['t', 0, 1]])
    expect(isDefault(pair.state)).toBe(true)
    apply(lane, ['t', 10, 9])
    expect(isDefault(pair.state)).toBe(false)
    apply(lane, ['t', 20, 1], ['t', 100, 1])
    expect(isDefault(pair.state)).toBe(true)
  })

  it('that a person cleared is not raised again until the condition was once not true', () => {
    const { lane, pair, told } = laneWith(rules[1], [['t', 0, 7]])
    expect(clearByHand(pair.rule, pair.state, 5)).toEqual([{ kind: 'cleared', endTs: 5, clearedTs: 5, reason: 'manual' }])
    apply(lane, ['t', 10, 7])
    expect(told).toHaveLength(1)
    apply(lane, ['t', 20, 1], ['t', 30, 7])
    expect(told.at(-1)).toEqual({ kind: 'raised', startTs: 30, confirmedTs: 30, severity: 'minor' })
  })

  it('is raised again with the next evaluation when the rule is to rearm', () => {
    const { lane, pair, told } = laneWith({ ...rules[1], manualClear: 'rearm' }, [['t', 0, 7]])
    clearByHand(pair.rule, pair.state, 5)
    apply(lane, ['t', 10, 7])
    expect(told.at(-1)).toMatchObject({ kind: 'raised', startTs: 10 })
  })

  it('that never was open has nothing to close', () => {
    const { pair } = laneWith(rules[3], [['t', 0, 9]])
    expect(closePair(pair.state, 5, 'rule_deleted')).toEqual([])
    expect(isDefault(pair.state)).toBe(true)
  })
})

describe('a new version of a rule', () => {
  const adopt = (points: readonly TestPoint[], logic: unknown) => {
    const { lane, pair } = laneWith(rules[1], points)
    const rule = compile(logic)
    const moment = {
      device: lane.device,
      at: 50,
      serverNow: 50,
      clock: 50,
      applied: new Set<string>(),
      activeSince: 0,
      readyAt: 0,
      latches: [],
    }
    return adoptRule(pair.rule, pair.state, rule, moment)
  }

  it('keeps an open alarm while its condition is true or unknown', () => {
    expect(adopt([['t', 0, 7]], rules[1])).toMatchObject({ told: [], state: { open: { startTs: 0, severity: 'minor' } } })
    const unknown = { levels: [{ severity: 'minor', when: { left: { key: 'new' }, op: 'gt', right: 5 } }] }
    expect(adopt([['t', 0, 7]], unknown)).toMatchObject({ told: [], state: { open: { startTs: 0 } } })
  })

  it('clears an alarm whose condition is not true any more', () => {
    const stricter = { levels: [{ severity: 'minor', when: { left: { key: 't' }, op: 'gt', right: 9 } }] }
    expect(adopt([['t', 0, 7]], stricter).told).toEqual([{ kind: 'cleared', endTs: 50, clearedTs: 50, reason: 'rule_changed' }])
  })

  it('tells of another severity', () => {
    const worse = { levels: [{ severity: 'critical', when: hot }] }
    expect(adopt([['t', 0, 7]], worse).told).toMatchObject([{ kind: 'severity', severity: 'critical' }])
  })
})

describe('connectivity', () => {
  it('raises once the device was away for the time given, and ends with its return', () => {
    const told: Transition[] = []
    const lane = new Lane(emptyScene(), (_, transitions) => told.push(...transitions))
    lane.add(compile({ levels: [{ severity: 'major', when: { connection: 'offline', forMs: 1000 } }] }), 0)
    lane.change(
      100,
      () => true,
      () => (lane.device.connection = { isOnline: false, since: 100 }),
    )
    lane.runTimers(1100, 1100)
    expect(told).toEqual([])
    lane.runTimers(1101, 1101)
    expect(told).toEqual([{ kind: 'raised', startTs: 1100, confirmedTs: 1100, severity: 'major' }])
    lane.change(
      5000,
      () => true,
      () => (lane.device.connection = { isOnline: true, since: 5000 }),
    )
    expect(told.at(-1)).toMatchObject({ kind: 'cleared', endTs: 5000 })
  })

  it('of a device that never came is unknown', () => {
    const told: Transition[] = []
    const lane = new Lane(emptyScene(), (_, transitions) => told.push(...transitions))
    lane.add(compile({ levels: [{ severity: 'major', when: { not: { connection: 'online' } } }] }), 0)
    expect(told).toEqual([])
  })
})
