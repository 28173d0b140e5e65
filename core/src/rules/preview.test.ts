// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { compileRule } from './compile-rule.ts'
import { previewRule } from './preview.ts'
import { preview } from './testing.ts'
import { ruleVectors } from './testing-vectors.ts'

const minute = 60_000

describe('rules over points', () => {
  it.each(ruleVectors)('$id: $title', (vector) => {
    const rule = compileRule(vector.rule)
    if (!('levels' in rule)) throw new Error(JSON.stringify(rule))
    const { episodes, late } = previewRule(rule, {
      from: 0,
      to: vector.to,
      points: vector.points.map(([key, ts, value, receivedAt = ts]) => ({ key, ts, value, receivedAt })),
      attributes: new Map(Object.entries(vector.attributes ?? {})),
      attributeChanges: (vector.attributeChanges ?? []).map(([at, name, value]) => ({ at, name, value })),
    })
    expect({ episodes, late }).toEqual({ episodes: vector.episodes, late: vector.late })
  })
})

describe('silence', () => {
  const silent = { levels: [{ severity: 'major', when: { noData: { forMs: 10 * minute } } }] }

  it('of a device that never sent counts from the activation of the rule', () => {
    expect(preview(silent, [], 20 * minute).map(({ startTs }) => startTs)).toEqual([10 * minute])
  })

  it('of a device that never sent is unknown when the rule says so', () => {
    const rule = { levels: [{ severity: 'major', when: { noData: { forMs: 10 * minute, includeNever: false } } }] }
    expect(preview(rule, [], 20 * minute)).toEqual([])
  })

  it('is ended by a late point too: something came', () => {
    const found = preview(
      silent,
      [
        ['a', minute, 1],
        ['a', 0, 1, 9 * minute],
      ],
      15 * minute,
    )
    expect(found).toEqual([])
  })
})

describe('values that grow old', () => {
  it('are unknown from the moment on: a dwell is dropped, an open alarm stays', () => {
    const when = { left: { key: 't', staleAfterMs: 2 * minute }, op: 'gt', right: 5 }
    const dwelling = { levels: [{ severity: 'minor', when, forMs: 3 * minute }] }
    expect(preview(dwelling, [['t', 0, 9]], 60 * minute)).toEqual([])
    expect(preview({ levels: [{ severity: 'minor', when }] }, [['t', 0, 9]], 60 * minute)).toMatchObject([{ startTs: 0, endTs: null }])
  })
})

describe('a schedule', () => {
  const schedule = { zone: 'UTC', windows: [{ days: ['thu'], from: '01:00', to: '02:00' }] }
  const hour = 60 * minute
  const hot = { left: { key: 't' }, op: 'gt', right: 5 }

  it('evaluates with the current values when it opens, and a dwell begins then', () => {
    const rule = { levels: [{ severity: 'minor', when: hot, forMs: 10 * minute }], schedule }
    expect(preview(rule, [['t', 0, 9]], hour + 20 * minute)).toMatchObject([{ startTs: hour, confirmedTs: hour + 10 * minute }])
  })

  it('holds an open alarm when it closes, or clears it if it is to', () => {
    const rule = { levels: [{ severity: 'minor', when: hot }], schedule }
    expect(
      preview(
        rule,
        [
          ['t', 0, 9],
          ['t', 3 * hour, 1],
        ],
        5 * hour,
      ),
    ).toMatchObject([{ startTs: hour, endTs: null }])
    const clearing = { ...rule, schedule: { ...schedule, outside: 'clear' } }
    expect(preview(clearing, [['t', 0, 9]], 5 * hour)).toMatchObject([{ startTs: hour, endTs: 2 * hour, clearedTs: 2 * hour }])
  })
})

describe('repetition', () => {
  const shaking = { left: { key: 'v' }, op: 'gt', right: 5 }

  it('counts an instant once, and only points of keys that the level reads', () => {
    const rule = { levels: [{ severity: 'minor', when: shaking, repeat: { count: 3, withinMs: 10 * minute } }] }
    const points = [
      ['v', 0, 6],
      ['v', 0, 7, 1],
      ['other', 1000, 1],
      ['other', 2000, 1],
    ] as const
    expect(preview(rule, points, minute)).toEqual([])
    expect(preview(rule, [...points, ['v', 3000, 6], ['v', 4000, 6]], minute)).toMatchObject([{ startTs: 0, confirmedTs: 4000 }])
  })

  it('that is to be consecutive begins anew after a false evaluation', () => {
    const rule = { levels: [{ severity: 'minor', when: shaking, repeat: { count: 2, withinMs: 10 * minute, consecutive: true } }] }
    expect(
      preview(
        rule,
        [
          ['v', 0, 6],
          ['v', 1000, 1],
          ['v', 2000, 6],
        ],
        minute,
      ),
    ).toEqual([])
    expect(
      preview(
        rule,
        [
          ['v', 0, 6],
          ['v', 1000, 6],
        ],
        minute,
      ),
    ).toHaveLength(1)
  })
})

describe('a message', () => {
  it('with several times is taken in the order of time, however it is written', () => {
    const rule = { levels: [{ severity: 'minor', when: { left: { key: 't' }, op: 'gt', right: 5 } }] }
    const points = [
      ['t', 2000, 1, 5000],
      ['t', 1000, 9, 5000],
    ] as const
    expect(preview(rule, points, 9000, { isOneMessage: true })).toMatchObject([{ startTs: 1000, endTs: 2000 }])
  })

  it('from the future counts as of its receipt', () => {
    const rule = { levels: [{ severity: 'minor', when: { left: { key: 't' }, op: 'gt', right: 5 } }] }
    expect(
      preview(
        rule,
        [
          ['t', 10 * minute, 9, 1000],
          ['t', 2000, 1],
        ],
        minute,
      ),
    ).toMatchObject([{ startTs: 1000, endTs: 2000 }])
  })
})
