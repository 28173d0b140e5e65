// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { maxSamples } from './device-values.ts'
import { previewRule } from './preview.ts'
import { compile, preview, toPoints } from './testing.ts'
import type { TestPoint } from './testing.ts'
import { isLike } from './values.ts'
import type { Known } from './values.ts'

const second = 1000

/** Starts and ends of the episodes of a condition. */
function spans(when: unknown, points: readonly TestPoint[], attributes: Readonly<Record<string, Known>> = {}): (number | null)[][] {
  const rule = compile({ levels: [{ severity: 'major', when }] })
  const history = { from: 0, to: 1_000_000, points: toPoints(points), attributes: new Map(Object.entries(attributes)) }
  return previewRule(rule, history).episodes.map(({ startTs, endTs }) => [startTs, endTs])
}

/** [key t, value] one second after the other. */
const series = (...values: TestPoint[2][]): TestPoint[] => values.map((value, index) => ['t', index * second, value])
const t = { key: 't' }

describe('a comparison', () => {
  it.each<[string, object, TestPoint[2][], (number | null)[][]]>([
    ['gt with hysteresis', { op: 'gt', right: 80, hysteresis: 2 }, [81, 79, 78, 79], [[0, 2000]]],
    ['ge with hysteresis', { op: 'ge', right: 80, hysteresis: 2 }, [80, 78, 77], [[0, 2000]]],
    ['lt with hysteresis', { op: 'lt', right: 5, hysteresis: 1 }, [4, 5, 6, 5], [[0, 2000]]],
    ['le with hysteresis', { op: 'le', right: 5, hysteresis: 1 }, [5, 6, 7], [[0, 2000]]],
    ['between with hysteresis', { op: 'between', right: 2, right2: 4, hysteresis: 1 }, [2, 5, 1, 0, 1], [[0, 3000]]],
    [
      'outside with hysteresis',
      { op: 'outside', right: 2, right2: 8, hysteresis: 1 },
      [9, 8, 7, 8, 1],
      [
        [0, 2000],
        [4000, null],
      ],
    ],
    ['between with both ends', { op: 'between', right: 2, right2: 4 }, [1, 2, 4, 5], [[1000, 3000]]],
    ['eq of texts', { op: 'eq', right: 'open' }, ['shut', 'open', 'shut'], [[1000, 2000]]],
    ['ne of booleans', { op: 'ne', right: true }, [true, false, true], [[1000, 2000]]],
    ['in', { op: 'in', right: [1, 3] }, [2, 3, 2], [[1000, 2000]]],
    ['notIn', { op: 'notIn', right: ['a', 'b'] }, ['a', 'c', 'b'], [[1000, 2000]]],
    ['contains', { op: 'contains', right: 'err' }, ['ok', 'an error', 'ok'], [[1000, 2000]]],
    ['startsWith', { op: 'startsWith', right: 'E' }, ['1E', 'E1', '1E'], [[1000, 2000]]],
    ['endsWith', { op: 'endsWith', right: 'E' }, ['E1', '1E', 'E1'], [[1000, 2000]]],
    ['like', { op: 'like', right: 'E?*7' }, ['E7', 'E127', 'X'], [[1000, 2000]]],
    ['isNull', { op: 'isNull' }, [1, null, 1], [[1000, 2000]]],
  ])('%s', (_, leaf, values, expected) => {
    expect(spans({ left: t, ...leaf }, series(...values))).toEqual(expected)
  })

  it('is exact for integers beyond 2⁵³, with hysteresis too', () => {
    const big = 9_007_199_254_740_993n
    expect(spans({ left: t, op: 'gt', right: { attr: 'max' } }, series(big, big - 1n), { max: big - 1n })).toEqual([[0, 1000]])
    const latched = { left: t, op: 'gt', right: { attr: 'max' }, hysteresis: 1 }
    expect(spans(latched, series(big + 1n, big, big - 1n), { max: big })).toEqual([[0, 2000]])
  })

  it('between types is unknown: it raises nothing and ends nothing', () => {
    expect(spans({ left: t, op: 'eq', right: 5 }, series('5'))).toEqual([])
    expect(spans({ left: t, op: 'gt', right: 5 }, series(9, 'n/a', { json: '{}' }, 1))).toEqual([[0, 3000]])
  })

  it('follows a threshold of the device, and its default', () => {
    const leaf = { left: t, op: 'gt', right: { attr: 'max', default: 50 } }
    expect(spans(leaf, series(60))).toEqual([[0, null]])
    expect(spans(leaf, series(60), { max: 70 })).toEqual([])
    expect(spans(leaf, series(60), { max: 'high' })).toEqual([])
  })
})

describe('a tree', () => {
  const a = { left: { key: 'a' }, op: 'gt', right: 0 }
  const b = { left: { key: 'b' }, op: 'gt', right: 0 }
  const unknown = { left: { key: 'never' }, op: 'gt', right: 0 }
  const points: TestPoint[] = [
    ['a', 0, 1],
    ['b', 1000, 1],
    ['b', 2000, 0],
    ['a', 3000, 0],
  ]

  it.each<[string, unknown, (number | null)[][]]>([
    ['all of both', { all: [a, b] }, [[1000, 2000]]],
    ['any of both', { any: [a, b] }, [[0, 3000]]],
    ['not', { not: a }, [[3000, null]]],
    ['any with something unknown', { any: [unknown, a] }, [[0, null]]],
    ['all with something unknown', { all: [unknown, a] }, []],
    ['not unknown', { not: unknown }, []],
    ['false decides over unknown', { not: { all: [unknown, a] } }, [[3000, null]]],
  ])('%s', (_, when, expected) => {
    expect(spans(when, points)).toEqual(expected)
  })
})

describe('an operand', () => {
  it('prev is the value before the newest, and unknown before there are two', () => {
    expect(spans({ left: t, op: 'gt', right: { prev: 't' } }, series(1, 2, 2, 3, 1))).toEqual([
      [1000, 2000],
      [3000, 4000],
    ])
  })

  it('rate is the change over the window, in the unit asked for', () => {
    const leaf = { left: { rate: 't', windowMs: 2000, per: 'minute' }, op: 'gt', right: 60 }
    // 0 → 2 in 2 s are 60 a minute, 1 → 5 are 120, 2 → 5 are 90, 5 → 5 are none.
    expect(spans(leaf, series(0, 1, 2, 5, 5, 5))).toEqual([[3000, 5000]])
  })

  it('rate and delta are unknown over less than half of the window', () => {
    expect(spans({ left: { delta: 't', windowMs: 10_000 }, op: 'gt', right: 0 }, series(0, 1, 2, 3, 4, 5))).toEqual([[5000, null]])
  })

  it.each([
    ['avg', 3, [[2000, null]]],
    ['max', 4, [[2000, null]]],
    ['sum', 7, [[2000, null]]],
    ['count', 1, [[1000, null]]],
  ])('%s is that of the samples in the window, without the one at its beginning', (agg, right, expected) => {
    expect(spans({ left: { agg, over: 't', windowMs: 2000 }, op: 'gt', right }, series(1, 3, 5, 7))).toEqual(expected)
  })

  it('an aggregate of too few samples is unknown', () => {
    expect(spans({ left: { agg: 'min', over: 't', windowMs: 5000, minCount: 3 }, op: 'gt', right: 0 }, series(1, 1, 1))).toEqual([
      [2000, null],
    ])
  })

  it('an expression reads keys, previous values and attributes', () => {
    const leaf = { left: { expr: 't * attr("k", 1) - prev(t)' }, op: 'gt', right: 10 }
    expect(spans(leaf, series(1, 6), { k: 2 })).toEqual([[1000, null]])
    expect(spans(leaf, series(1, 6))).toEqual([])
  })

  it('holds the newest samples only, and says that its window was cut', () => {
    const rule = compile({
      levels: [{ severity: 'minor', when: { left: { agg: 'count', over: 't', windowMs: 86_400_000 }, op: 'gt', right: maxSamples } }],
    })
    const points = toPoints(Array.from({ length: 2 * maxSamples + 10 }, (_, index) => ['t', index * 10, 1] as const))
    expect(previewRule(rule, { from: 0, to: 100_000, points })).toMatchObject({ episodes: [], isTruncated: true })
  })
})

describe('a change', () => {
  it('is true on the evaluation that applied it, and false on the next', () => {
    expect(spans({ changed: 't' }, series(1, 1, 2, 2, 3))).toEqual([
      [2000, 3000],
      [4000, null],
    ])
  })
})

describe('like', () => {
  it('takes * for any text and ? for one character, and no time that grows beyond all bounds', () => {
    expect(isLike('温度A', '温?*')).toBe(true)
    expect(isLike('', '*')).toBe(true)
    expect(isLike('😀', '?')).toBe(true)
    expect(isLike('a'.repeat(5000), `${'*a'.repeat(40)}b`)).toBe(false)
  })
})

describe('a hysteresis latch', () => {
  it('survives what is unknown in between', () => {
    const when = { left: { key: 't', staleAfterMs: 1000 }, op: 'gt', right: 80, hysteresis: 5 }
    // The alarm stays open over the unknown, and 78 is still within the band.
    expect(
      preview(
        { levels: [{ severity: 'minor', when }] },
        [
          ['t', 0, 90],
          ['t', 10_000, 78],
          ['t', 20_000, 70],
        ],
        30_000,
      ),
    ).toMatchObject([{ startTs: 0, endTs: 20_000 }])
  })
})
