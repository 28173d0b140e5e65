// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { isInside } from './intervals.ts'
import { LinearRegex } from './linear-regex.ts'
import { parseMatcher } from './matchers.ts'
import { matchRoutes } from './route-tree.ts'
import { routingProblems } from './routing-document.ts'
import type { Routing } from './routing-document.ts'
import { simulate } from './simulate.ts'
import type { SimulatedEvent } from './simulate.ts'

/** The public test tree of Alertmanager. */
const tree: Routing = {
  route: {
    receiver: 'notify-def',
    routes: [
      {
        matchers: ['owner="team-A"'],
        receiver: 'notify-A',
        routes: [
          { matchers: ['env="testing"'], receiver: 'notify-testing', groupBy: ['...'] },
          { matchers: ['env="production"'], receiver: 'notify-productionA', groupWaitMs: 60_000, continue: true },
          {
            matchers: ['env=~"produ.*"'],
            receiver: 'notify-productionB',
            groupWaitMs: 30_000,
            groupIntervalMs: 300_000,
            repeatIntervalMs: 3_600_000,
            groupBy: ['job'],
          },
        ],
      },
      { matchers: ['owner=~"team-(B|C)"'], groupBy: ['foo', 'bar'], groupWaitMs: 120_000, receiver: 'notify-BC' },
      {
        matchers: ['group_by="role"'],
        groupBy: ['role'],
        routes: [
          { matchers: ['env="testing"'], receiver: 'notify-testing', routes: [{ matchers: ['wait="long"'], groupWaitMs: 120_000 }] },
        ],
      },
    ],
  },
  receivers: ['notify-def', 'notify-A', 'notify-testing', 'notify-productionA', 'notify-productionB', 'notify-BC'].map((name) => ({
    name,
    targets: [],
  })),
}
const usual = { groupWaitMs: 30_000, groupIntervalMs: 300_000, repeatIntervalMs: 14_400_000 }

describe('the routing tree', () => {
  it.each([
    [{ owner: 'team-A' }, [{ path: '0.0', receiver: 'notify-A', groupBy: [], ...usual }]],
    [{ owner: 'team-C' }, [{ path: '0.1', receiver: 'notify-BC', groupBy: ['foo', 'bar'], ...usual, groupWaitMs: 120_000 }]],
    [{ owner: 'team-A', env: 'unset' }, [{ path: '0.0', receiver: 'notify-A' }]],
    [{ owner: 'team-A', env: 'testing' }, [{ path: '0.0.0', groupBy: ['...'] }]],
    [
      { owner: 'team-A', env: 'production' },
      [
        { path: '0.0.1', receiver: 'notify-productionA', groupWaitMs: 60_000 },
        { path: '0.0.2', groupBy: ['job'], repeatIntervalMs: 3_600_000 },
      ],
    ],
    [{ group_by: 'role' }, [{ path: '0.2', receiver: 'notify-def', groupBy: ['role'] }]],
    [{ env: 'testing', group_by: 'role', wait: 'long' }, [{ path: '0.2.0.0', receiver: 'notify-testing', groupWaitMs: 120_000 }]],
    [{}, [{ path: '0', receiver: 'notify-def' }]],
  ])('answers %j', (labels, expected) => {
    expect(matchRoutes(tree, labels)).toMatchObject(expected)
  })

  it('names everything that is wrong with it at once', () => {
    const bad: Routing = {
      route: {
        matchers: ['a="b"'],
        routes: [{ receiver: 'nobody', matchers: ['a~"b"', 'a=~"("'], activeIntervals: ['never'], repeatIntervalMs: 2000 }],
      },
      inhibit: [{ source: ['x'], target: [] }],
      intervals: { x: [{ weekdays: ['someday'] }] },
      receivers: [
        { name: 'r', targets: [] },
        { name: 'r', targets: [] },
      ],
    }
    expect(
      routingProblems(bad)
        .map((one) => one.pointer)
        .sort(),
    ).toEqual([
      '/inhibit/0/source/0',
      '/intervals/x',
      '/receivers',
      '/route/matchers',
      '/route/receiver',
      '/route/routes/0',
      '/route/routes/0/matchers/0',
      '/route/routes/0/matchers/1',
      '/route/routes/0/receiver',
      '/route/routes/0/repeatIntervalMs',
    ])
    expect(routingProblems(tree)).toEqual([])
  })
})

describe('a matcher', () => {
  it('matches whole values, a missing label being empty', () => {
    expect(parseMatcher('a=~"b|c.*"').matches('cd')).toBe(true)
    expect(parseMatcher('a=~"b"').matches('ab')).toBe(false)
    expect(parseMatcher('a!="b"').matchesEmpty).toBe(true)
    expect(parseMatcher('组=~"冷库.*"').matches('冷库一')).toBe(true)
    expect(parseMatcher('a="say \\"hi\\""').matches('say "hi"')).toBe(true)
    for (const bad of ['a', 'a=b', '"a"="b"', 'a=~"("', 'a=~"(?=x)"', 'a=~"\\\\1"', `a=~"${'x'.repeat(201)}"`]) {
      expect(() => parseMatcher(bad), bad).toThrow(SyntaxError)
    }
  })
})

describe('a linear expression', () => {
  const cases = [
    'a*b',
    '(a|b)+c?',
    '[a-c]{2,3}',
    '[^x]y',
    'a{2}',
    '(ab|a)(c|bcd)',
    '\\d+\\.\\w*',
    '.*z',
    '(a?){3}a{3}',
    '',
    'x|',
    '[]a]+',
    'a{,2}',
  ]
  const texts = [
    '',
    'a',
    'b',
    'aab',
    'abab',
    'abcd',
    'abc',
    'aa',
    'aaa',
    'cab',
    'zy',
    'xy',
    '1.a',
    '12.',
    'a\nz',
    'xyz',
    ']a',
    'x',
    'a{,2}',
  ]

  it('finds what the usual engine finds', () => {
    for (const source of cases) {
      const usualEngine = source === '[]a]+' ? /^(?:[\]a]+)$/ : new RegExp(`^(?:${source})$`)
      for (const text of texts) {
        expect(new LinearRegex(source).test(text), `${source} on ${JSON.stringify(text)}`).toBe(usualEngine.test(text))
      }
    }
  })

  it('is not slowed down by what slows others down', () => {
    const text = 'a'.repeat(5000)
    expect(new LinearRegex('(a*)*b').test(text)).toBe(false)
    expect(new LinearRegex('(a|aa)+$').test(text)).toBe(true)
    expect(new LinearRegex('(a?){100}a{100}').test('a'.repeat(100))).toBe(true)
    expect(() => new LinearRegex('((a{200}){200}){200}')).toThrow('too large')
  })
})

describe('an interval', () => {
  it('is on the clock of its zone, all that is given must hold', () => {
    const office = [{ times: [{ from: '09:00', to: '17:00' }], weekdays: ['mon:fri'], zone: 'Australia/Sydney' }]
    expect(isInside(office, new Date('2021-04-06T13:00:00+10:00'))).toBe(true)
    expect(isInside(office, new Date('2021-04-06T17:00:00+10:00'))).toBe(false)
    expect(isInside(office, new Date('2021-04-10T13:00:00+10:00'))).toBe(false)
    expect(isInside([{ daysOfMonth: ['-3:-1'] }], new Date('2020-02-29T23:05:00Z'))).toBe(true)
    expect(isInside([{ daysOfMonth: ['-3:-1'] }], new Date('2020-02-26T23:05:00Z'))).toBe(false)
    expect(isInside([{ months: ['dec', 'january'], years: ['2026:2027'] }], new Date('2026-12-31T00:00:00Z'))).toBe(true)
    expect(isInside([{ weekdays: ['sat:mon'] }], new Date('2026-11-22T00:00:00Z'))).toBe(true)
    expect(isInside([{ times: [{ from: '00:00', to: '24:00' }] }], new Date('2026-11-22T23:59:59Z'))).toBe(true)
  })
})

describe('groups in virtual time', () => {
  const routing = (route: Partial<Routing['route']>, more: Partial<Routing> = {}): Routing => ({
    route: { receiver: 'ops', ...route },
    receivers: [
      { name: 'ops', sendResolved: true, targets: [] },
      { name: 'day', sendResolved: true, targets: [] },
    ],
    ...more,
  })
  const quick = { groupBy: ['rule_id'], groupWaitMs: 10_000, groupIntervalMs: 60_000, repeatIntervalMs: 600_000 }
  const fire = (atMs: number, alert: string, labels: Record<string, string> = { rule_id: 'r' }): SimulatedEvent => ({
    atMs,
    alert,
    status: 'firing',
    labels,
  })
  const end = (atMs: number, alert: string): SimulatedEvent => ({ atMs, alert, status: 'resolved' })
  const run = (
    given: Routing,
    events: SimulatedEvent[],
    untilMs: number,
    silences: { matchers: string[]; startsAt: number; endsAt: number }[] = [],
  ) => simulate({ routing: given, silences, startAt: 0, untilMs, events })

  it('say nothing of what ends inside the group wait', () => {
    expect(run(routing({ groupBy: ['cluster'] }), [fire(0, 'A', { cluster: 'a' }), end(20_000, 'A')], 1_000_000)).toEqual([])
  })

  it('tell what is new, what has ended, and repeat', () => {
    expect(run(routing(quick), [fire(0, 'A'), fire(15_000, 'B'), end(100_000, 'B')], 800_000)).toEqual([
      { atMs: 10_000, route: '0', receiver: 'ops', reason: 'first', firing: ['A'], resolved: [] },
      { atMs: 70_000, route: '0', receiver: 'ops', reason: 'new', firing: ['A', 'B'], resolved: [] },
      { atMs: 130_000, route: '0', receiver: 'ops', reason: 'resolved', firing: ['A'], resolved: ['B'] },
      { atMs: 730_000, route: '0', receiver: 'ops', reason: 'repeat', firing: ['A'], resolved: [] },
    ])
  })

  it('are apart by their labels', () => {
    const events = [fire(0, 'A', { rule_id: 'r1' }), fire(1000, 'B', { rule_id: 'r2' }), end(30_000, 'A'), end(30_000, 'B')]
    expect(run(routing(quick), events, 300_000).map((one) => [one.atMs, one.reason, one.firing.join(), one.resolved.join()])).toEqual([
      [10_000, 'first', 'A', ''],
      [11_000, 'first', 'B', ''],
      [70_000, 'all_resolved', '', 'A'],
      [71_000, 'all_resolved', '', 'B'],
    ])
  })

  it('tell again what was silenced meanwhile, and not what ended under the silence', () => {
    const silence = { matchers: ['rule_id="r"'], startsAt: 60_000, endsAt: 200_000 }
    const told = run(routing(quick), [fire(0, 'A'), fire(0, 'B'), end(100_000, 'B')], 300_000, [silence])
    expect(told.map((one) => [one.atMs, one.reason, one.firing.join(), one.resolved.join()])).toEqual([
      [10_000, 'first', 'A,B', ''],
      [250_000, 'first', 'A', ''],
    ])
  })

  it('tell what has become worse, and move what another route wants, without a word in the old group', () => {
    const given = routing({ ...quick, routes: [{ matchers: ['severity="critical"'], receiver: 'day' }] })
    const told = run(
      given,
      [
        fire(0, 'A', { rule_id: 'r', severity: 'minor' }),
        fire(20_000, 'A', { rule_id: 'r', severity: 'major' }),
        fire(80_000, 'A', { rule_id: 'r', severity: 'critical' }),
      ],
      400_000,
    )
    expect(told.map((one) => [one.atMs, one.receiver, one.reason])).toEqual([
      [10_000, 'ops', 'first'],
      [70_000, 'ops', 'first'],
      [90_000, 'day', 'first'],
    ])
  })

  it('mute what a worse alert of the same device explains, but no alert itself', () => {
    const inhibit = [{ source: ['severity="critical"'], target: ['severity=~"major|critical"'], equal: ['device_id'] }]
    const given = routing({ ...quick, groupBy: ['device_id'] }, { inhibit })
    const told = run(
      given,
      [
        fire(0, 'A', { severity: 'critical', device_id: 'd' }),
        fire(0, 'B', { severity: 'major', device_id: 'd' }),
        fire(0, 'C', { severity: 'major', device_id: 'e' }),
      ],
      50_000,
    )
    expect(told.map((one) => one.firing.join()).sort()).toEqual(['A', 'C'])
  })

  it('keep quiet outside their intervals', () => {
    const given = routing(
      { ...quick, routes: [{ receiver: 'day', activeIntervals: ['office'] }] },
      { intervals: { office: [{ times: [{ from: '00:02', to: '24:00' }] }] } },
    )
    expect(run(given, [fire(0, 'A')], 200_000).map((one) => [one.atMs, one.reason])).toEqual([[130_000, 'first']])
  })
})
