// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutChunks, maxChunkPoints, planRuns } from './chunk-plan.ts'
import { overlay } from './overlay.ts'
import type { StoredPoint } from './store.ts'

const weekMs = 7 * 86_400_000
const start = Date.parse('2026-01-01T00:00:00Z')

type Chunk = { firstTs: number; lastTs: number; count: number; points: StoredPoint[] }

/** Chunks of one series, changed as the merger does it; `rewritten` counts points of chunks that were replaced. */
class Series {
  chunks: Chunk[] = []
  readonly plain = new Map<number, StoredPoint>()
  rewritten = 0

  /** @returns how many chunks were replaced */
  merge(points: readonly StoredPoint[]): number {
    const ascending = [...new Map(points.map((point) => [point.ts, point])).values()].sort((a, b) => a.ts - b.ts)
    let replaced = 0
    for (const run of planRuns(ascending, this.chunks)) {
      const old = run.heads.flatMap((head) => head.points)
      const isAppended = old.length === 0 || old.at(-1)!.ts < run.points[0]!.ts
      const added = cutChunks(overlay(run.points, old), isAppended).map((some): Chunk => ({
        firstTs: some[0]!.ts,
        lastTs: some.at(-1)!.ts,
        count: some.length,
        points: some,
      }))
      this.chunks = [...this.chunks.filter((chunk) => !run.heads.includes(chunk)), ...added].sort((a, b) => a.firstTs - b.firstTs)
      this.rewritten += old.length
      replaced += run.heads.length
    }
    for (const point of ascending) this.plain.set(point.ts, point)
    return replaced
  }
}

/** What the chunks hold is what the map holds, within the bounds. */
function expectSound(series: Series): void {
  expect(series.chunks.flatMap((chunk) => chunk.points)).toEqual([...series.plain.values()].sort((a, b) => a.ts - b.ts))
  for (const [i, chunk] of series.chunks.entries()) {
    expect(chunk.count).toBeLessThanOrEqual(maxChunkPoints)
    expect(chunk.lastTs - chunk.firstTs).toBeLessThanOrEqual(weekMs)
    if (i > 0) expect(chunk.firstTs).toBeGreaterThan(series.chunks[i - 1]!.lastTs)
  }
}

const number = (ts: number, value = ts): StoredPoint => ({ ts, kind: 'double', value })
const regular = (n: number, from: number, stepMs: number) => Array.from({ length: n }, (_, i) => number(from + i * stepMs))

/** A round: what came since the last one; times go on, come late, or repeat. */
const round = fc.record({
  appended: fc.integer({ min: 0, max: 1500 }),
  stepMs: fc.constantFrom(1, 1000, 600_000, 86_400_000),
  late: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean()), { maxLength: 10 }),
})

describe('the plan of chunks', () => {
  it('holds what a plain map holds, within its bounds, whatever comes in whatever order', () => {
    fc.assert(
      fc.property(fc.array(round, { minLength: 1, maxLength: 12 }), (rounds) => {
        const series = new Series()
        let end = start
        for (const [no, { appended, stepMs, late }] of rounds.entries()) {
          const known = [...series.plain.keys()]
          const points = regular(appended, end, stepMs).map((point) => ({ ...point, value: no }) as StoredPoint)
          end += appended * stepMs
          for (const [place, isRepeated] of late) {
            const ts = isRepeated
              ? known[Math.floor(place * (known.length - 1))]
              : Math.floor(start - weekMs + place * (end - start + weekMs))
            if (ts !== undefined) points.push(number(ts, no))
          }
          if (points.length > 0) series.merge(points)
          expectSound(series)
        }
      }),
      { numRuns: 60 },
    )
  })

  it('keeps few chunks after many small appends, and writes each point anew a few times', () => {
    for (const size of [1, 3, 10, 100]) {
      const series = new Series()
      for (let i = 0; i < 1000; i++) series.merge(regular(size, start + i * size * 10, 10))
      expectSound(series)
      const total = 1000 * size
      // Full ones, and behind them a handful whose sizes fall by more than half each.
      expect(series.chunks.length).toBeLessThanOrEqual(1.6 * Math.ceil(total / maxChunkPoints) + Math.log2(maxChunkPoints))
      expect(series.rewritten / total).toBeLessThan(1.5 * Math.log2(maxChunkPoints))
    }
  })

  it('rewrites one chunk for a late point, and none for one between chunks', () => {
    const series = new Series()
    series.merge(regular(5 * maxChunkPoints, start, 1000))
    expect(series.chunks).toHaveLength(5)
    expect(series.merge([number(start + 3 * maxChunkPoints * 1000 - 5500)])).toBe(1)
    expect(series.merge([number(start + 1500)])).toBe(1)
    expectSound(series)
    const [first, second] = series.chunks.filter(({ count }) => count === maxChunkPoints).slice(-2)
    expect(series.merge([number(first!.lastTs + 500)])).toBe(0)
    expect(second!.firstTs).toBeGreaterThan(first!.lastTs)
    expectSound(series)
  })

  it('finds room for the next late points in a chunk that was cut in two', () => {
    const series = new Series()
    series.merge(regular(3 * maxChunkPoints, start, 1000))
    for (let i = 0; i < 500; i++) series.merge([number(start + i * 1000 + 500)])
    expectSound(series)
    expect(series.chunks.length).toBeLessThanOrEqual(5)
  })

  it('never makes a chunk that is longer than a week, however slow the series', () => {
    const series = new Series()
    for (let i = 0; i < 400; i++) series.merge([number(start + i * 86_400_000)])
    expectSound(series)
    expect(series.chunks.length).toBeLessThanOrEqual(400 / 3)
  })

  it('cuts long texts apart', () => {
    const points = Array.from({ length: 20 }, (_, i): StoredPoint => ({ ts: start + i, kind: 'string', value: 'x'.repeat(100_000) }))
    expect(cutChunks(points, true).map((chunk) => chunk.length)).toEqual(Array.from({ length: 10 }, () => 2))
    const huge: StoredPoint = { ts: start, kind: 'json', value: `"${'x'.repeat(1e6)}"` }
    expect(cutChunks([huge], true)).toEqual([[huge]])
  })
})
