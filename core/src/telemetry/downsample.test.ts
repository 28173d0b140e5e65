// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { downsample } from './downsample.ts'
import type { DownsampleMode } from './downsample.ts'
import type { StoredPoint } from './store.ts'

async function* inBlocks(points: readonly StoredPoint[], size: number): AsyncGenerator<StoredPoint[]> {
  for (let i = 0; i < points.length; i += size) yield points.slice(i, i + size)
}

async function pick(
  points: StoredPoint[],
  mode: DownsampleMode,
  limit: number,
  { blockSize = 7, count = points.length } = {},
): Promise<StoredPoint[]> {
  const picked: StoredPoint[] = []
  for await (const block of downsample(inBlocks(points, blockSize), mode, count, limit)) picked.push(...block)
  return picked
}

const series = fc
  .uniqueArray(
    fc.record({
      ts: fc.integer({ min: 1_760_000_000_000, max: 1_760_000_900_000 }),
      y: fc.oneof(fc.integer({ min: -50, max: 50 }), fc.double({ min: -1e6, max: 1e6, noNaN: true })),
    }),
    {
      selector: ({ ts }) => ts,
      minLength: 11,
      maxLength: 300,
    },
  )
  .map((items) => items.sort((a, b) => a.ts - b.ts).map(({ ts, y }): StoredPoint => ({ ts, kind: 'double', value: y })))
const mixed = fc.array(fc.oneof(fc.integer(), fc.boolean(), fc.string({ maxLength: 2 })), { minLength: 11, maxLength: 200 }).map((values) =>
  values.map((value, i): StoredPoint => {
    const ts = 1_760_000_000_000 + i * 1000
    if (typeof value === 'number') return { ts, kind: 'integer', value }
    return typeof value === 'boolean' ? { ts, kind: 'boolean', value } : { ts, kind: 'string', value }
  }),
)
const limits = fc.integer({ min: 3, max: 30 })

/** The algorithm as published, over the whole array. */
function textbook(points: StoredPoint[], limit: number): StoredPoint[] {
  const y = (point: StoredPoint) => Number(point.value)
  const start = (k: number) => Math.floor((k * (points.length - 2)) / (limit - 2)) + 1
  const bucket = (k: number) => points.slice(start(k), k === limit - 2 ? points.length : start(k + 1))
  const picked = [points[0]!]
  for (let k = 0; k < limit - 2; k++) {
    const before = picked.at(-1)!
    const next = bucket(k + 1)
    const mean = {
      t: next.reduce((sum, point) => sum + point.ts - before.ts, 0) / next.length,
      y: next.reduce((sum, point) => sum + y(point), 0) / next.length,
    }
    const area = (point: StoredPoint) => Math.abs((point.ts - before.ts) * (mean.y - y(before)) - mean.t * (y(point) - y(before)))
    picked.push(bucket(k).reduce((best, point) => (area(point) > area(best) ? point : best)))
  }
  return [...picked, points.at(-1)!]
}

describe('largest triangle three buckets', () => {
  it('picks what the published algorithm picks, whatever the blocks', async () => {
    await fc.assert(
      fc.asyncProperty(series, limits, fc.integer({ min: 1, max: 50 }), async (points, limit, blockSize) => {
        fc.pre(points.length > limit)
        expect(await pick(points, 'lttb', limit, { blockSize })).toEqual(textbook(points, limit))
      }),
      { numRuns: 300 },
    )
  })

  it('keeps a lone peak', async () => {
    const points = Array.from({ length: 10_000 }, (_, i): StoredPoint => ({
      ts: i * 1000 + 1,
      kind: 'integer',
      value: i === 4321 ? 1000 : 0,
    }))
    const picked = await pick(points, 'lttb', 50)
    expect(picked).toHaveLength(50)
    expect(picked).toContain(points[4321])
  })

  it('thins a series of texts evenly', async () => {
    const points = Array.from({ length: 1000 }, (_, i): StoredPoint => ({ ts: i + 1, kind: 'string', value: `s${i}` }))
    const picked = await pick(points, 'lttb', 11)
    expect(picked).toHaveLength(11)
    const gaps = picked.slice(2, -1).map((point, i) => point.ts - picked[i + 1]!.ts)
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1)
  })
})

describe('minimum and maximum', () => {
  it('are those of buckets of equally many points, in time order', async () => {
    const values = [3, 1, 2, 5, 5, 5, 9, 0, 4]
    const points = values.map((value, i): StoredPoint => ({ ts: i + 1, kind: 'integer', value }))
    expect((await pick(points, 'minmax', 6)).map((point) => point.value)).toEqual([3, 1, 5, 9, 0])
  })

  it('keep the extremes of the whole series', async () => {
    await fc.assert(
      fc.asyncProperty(series, limits, async (points, limit) => {
        const picked = (await pick(points, 'minmax', limit)).map((point) => Number(point.value))
        const all = points.map((point) => Number(point.value))
        expect(Math.min(...picked)).toBe(Math.min(...all))
        expect(Math.max(...picked)).toBe(Math.max(...all))
      }),
    )
  })
})

describe('any downsampling', () => {
  const modes = fc.constantFrom<DownsampleMode>('lttb', 'minmax')

  it('gives stored points in time order, at most as many as asked for', async () => {
    await fc.assert(
      fc.asyncProperty(mixed, modes, limits, async (points, mode, limit) => {
        fc.pre(points.length > limit)
        const picked = await pick(points, mode, limit)
        expect(picked.length).toBeLessThanOrEqual(limit)
        expect(picked.length).toBeGreaterThanOrEqual(mode === 'lttb' ? limit : Math.floor(limit / 2))
        for (const point of picked) expect(points).toContain(point)
        picked.slice(1).forEach((point, i) => expect(point.ts).toBeGreaterThan(picked[i]!.ts))
        if (mode === 'lttb') expect([picked[0], picked.at(-1)]).toEqual([points[0], points.at(-1)])
      }),
      { numRuns: 300 },
    )
  })

  it('stands more or fewer points than were counted', async () => {
    await fc.assert(
      fc.asyncProperty(mixed, modes, limits, fc.integer({ min: 0, max: 400 }), async (points, mode, limit, count) => {
        const picked = await pick(points, mode, limit, { count })
        expect(picked.length).toBeLessThanOrEqual(limit)
        picked.slice(1).forEach((point, i) => expect(point.ts).toBeGreaterThan(picked[i]!.ts))
        if (mode === 'lttb') expect(picked.at(-1)).toBe(points.at(-1))
      }),
    )
    expect(await pick([], 'lttb', 10, { count: 100 })).toEqual([])
    expect(await pick([], 'minmax', 10, { count: 100 })).toEqual([])
    const one: StoredPoint = { ts: 1, kind: 'integer', value: 1 }
    expect(await pick([one], 'lttb', 10, { count: 100 })).toEqual([one])
  })
})
