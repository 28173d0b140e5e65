// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { alignSeries, appendPoints, gapMs, maxLivePoints, segmentsOf, summarize, tabulate, toCsvRows } from './series.ts'
import type { NumberPoint } from './series.ts'

const series = (id: string, points: NumberPoint[]) => ({ id, label: id, points })
const every = (step: number, count: number, from = 0): NumberPoint[] => Array.from({ length: count }, (_, at) => [from + at * step, at])

describe('series of a chart', () => {
  it('break a line where two points are farther apart than three usual intervals', () => {
    const points: NumberPoint[] = [...every(10, 5), [100, 9], [110, 8]]
    expect(gapMs(points)).toBe(30)
    const { x, columns } = alignSeries([series('a', points)])
    expect(columns[0]![x.indexOf(41)]).toBeNull()
    expect(alignSeries([series('a', points)], 1000).columns[0]).not.toContain(null)
  })

  it('share the union of their times, with undefined where only another one has a point', () => {
    const { x, columns } = alignSeries([
      series('a', [
        [1, 1],
        [3, 3],
      ]),
      series('b', [[2, 2]]),
    ])
    expect(x).toEqual([1, 2, 3])
    expect(columns).toEqual([
      [1, undefined, 3],
      [undefined, 2, undefined],
    ])
  })

  it('draw a band as two more columns', () => {
    const { columns } = alignSeries([{ ...series('a', [[1, 5]]), band: [[1, 2, 9]] }])
    expect(columns).toEqual([[5], [9], [2]])
  })

  it('take live points in order, drop older and repeated ones, and stay bounded', () => {
    expect(
      appendPoints(
        [[5, 'a']],
        [
          [7, 'c'],
          [6, 'b'],
          [5, 'x'],
          [4, 'y'],
        ],
      ),
    ).toEqual([
      [5, 'a'],
      [6, 'b'],
      [7, 'c'],
    ])
    expect(appendPoints(every(1, maxLivePoints), [[maxLivePoints + 10, 1]])).toHaveLength(maxLivePoints)
  })

  it('are told in words, as rows newest first, and as a file oldest first', () => {
    const two = [
      series('a', [
        [1, 4],
        [2, -1],
      ]),
      { ...series('b', [[2, 7]]), unit: '°C' },
    ]
    expect(summarize(two[0]!.points)).toEqual({ count: 2, min: -1, max: 4, last: -1, lastTs: 2 })
    expect(summarize([])).toBeUndefined()
    expect(tabulate(two)).toEqual([
      { ts: 2, values: [-1, 7] },
      { ts: 1, values: [4, null] },
    ])
    expect(toCsvRows(two, ['time', 'offset'], (ts) => [String(ts), '+00:00'])).toEqual([
      ['time', 'offset', 'a', 'b (°C)'],
      ['1', '+00:00', 4, null],
      ['2', '+00:00', -1, 7],
    ])
  })

  it('become runs of equal values that end where data ends', () => {
    expect(
      segmentsOf(
        [
          [0, true],
          [10, true],
          [20, false],
          [40, true],
        ],
        5,
        100,
        60,
      ),
    ).toEqual([
      { from: 5, to: 20, value: true },
      { from: 20, to: 40, value: false },
      { from: 40, to: 60, value: true },
    ])
  })
})
