// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aggregate, aggregations } from './aggregate.ts'
import type { AggregateOptions, Aggregation } from './aggregate.ts'
import type { NumericValue } from './exact-sum.ts'
import type { TypedValue } from './points.ts'
import type { Piece, StoredPoint } from './store.ts'

const double = (ts: number, value: number): StoredPoint => ({ ts, kind: 'double', value })
const integer = (ts: number, value: number | bigint): StoredPoint => ({ ts, kind: 'integer', value })
const boolean = (ts: number, value: boolean): StoredPoint => ({ ts, kind: 'boolean', value })
const string = (ts: number, value: string): StoredPoint => ({ ts, kind: 'string', value })

async function* inBlocks(points: readonly StoredPoint[], size: number): AsyncGenerator<Piece> {
  for (let i = 0; i < points.length; i += size) yield { points: points.slice(i, i + size) }
}

type Options = Partial<AggregateOptions>

/** Rows as `[bucket start, value per aggregation]`. */
async function rowsOf(points: StoredPoint[], aggs: Aggregation[], options: Options = {}, blockSize = 2): Promise<unknown[][]> {
  const edges = options.edges ?? [0, 10, 20, 30]
  const rows: unknown[][] = []
  for await (const block of aggregate(inBlocks(points, blockSize), { aggs, edges, from: edges[0]!, to: edges.at(-1)!, ...options })) {
    for (const row of block) rows.push([row.ts, ...row.values.map((value) => value?.value)])
  }
  return rows
}

/** Kinds of the values of the only row. */
async function kindsOf(points: StoredPoint[], aggs: Aggregation[], options: Options = {}): Promise<(string | undefined)[]> {
  for await (const [row] of aggregate(inBlocks(points, 100), { aggs, edges: [0, 10], from: 0, to: 10, ...options })) {
    return row!.values.map((value) => value?.kind)
  }
  return []
}

describe('aggregation', () => {
  it('leaves out empty buckets and gives each its start, also before the range', async () => {
    const points = [integer(5, 1), integer(21, 2), integer(29, 4)]
    expect(await rowsOf(points, ['COUNT', 'SUM', 'AVG'], { from: 4 })).toEqual([
      [0, 1, 1, 1],
      [20, 2, 6, 3],
    ])
    expect(await rowsOf([], ['COUNT'])).toEqual([])
  })

  it('keeps integers integers and exact beyond 53 and 64 bits', async () => {
    const max = 2n ** 63n - 1n
    expect(await rowsOf([integer(0, max), integer(1, max), integer(2, 1)], ['SUM', 'MIN', 'MAX'])).toEqual([[0, 2n * max + 1n, 1, max]])
    expect(await rowsOf([integer(0, 9007199254740991), integer(1, 2)], ['SUM'])).toEqual([[0, 9007199254740993n]])
    expect(await rowsOf([integer(0, max), integer(1, -max), integer(2, 3)], ['SUM'])).toEqual([[0, 3]])
    expect(await rowsOf([integer(0, 9007199254740993n), double(1, 9007199254740992)], ['MIN', 'MAX'])).toEqual([
      [0, 9007199254740992, 9007199254740993n],
    ])
    expect(await kindsOf([integer(0, 1), integer(1, 2)], ['SUM', 'MIN', 'AVG'])).toEqual(['integer', 'integer', 'double'])
    expect(await kindsOf([integer(0, 1), double(1, 2)], ['SUM', 'MIN', 'MAX'])).toEqual(['double', 'integer', 'double'])
  })

  it('rounds a sum of large integers and doubles once, so that it says nothing of which was which', async () => {
    // 4610495651593847040 lies in the middle of two doubles.
    const large = 4610495651593847041n
    const below = 4610495651593846784
    expect(await rowsOf([integer(0, large), integer(1, -1), double(2, 0)], ['SUM'])).toEqual([[0, below]])
    expect(await rowsOf([integer(0, large), double(1, -1)], ['SUM'])).toEqual([[0, below]])
    expect(await rowsOf([integer(0, large), double(1, -0.5)], ['SUM'])).toEqual([[0, below + 512]])
    expect(await rowsOf([integer(0, large), double(1, -1.5)], ['SUM'])).toEqual([[0, below]])
    expect(await rowsOf([integer(0, large), double(1, 1e300)], ['SUM'])).toEqual([[0, 1e300]])
  })

  it('does not lose small doubles beside large ones', async () => {
    expect(await rowsOf([double(0, 1), double(1, 1e100), double(2, 1), double(3, -1e100)], ['SUM'])).toEqual([[0, 2]])
    expect(
      await rowsOf(
        Array.from({ length: 10 }, (_, i) => double(i, 0.1)),
        ['SUM'],
      ),
    ).toEqual([[0, 1]])
    expect(await rowsOf([double(0, 1e308), double(1, 1e308), double(2, 5)], ['SUM'])).toEqual([[0, Infinity]])
  })

  it('counts every point but calculates with numbers and booleans only [N-2]', async () => {
    const points = [string(0, 'off'), boolean(1, true), boolean(2, false), integer(3, 5), { ts: 4, kind: 'json', value: '{}' } as const]
    expect(await rowsOf(points, ['COUNT', 'SUM', 'AVG', 'MIN', 'MAX', 'FIRST', 'LAST'])).toEqual([[0, 5, 6, 2, 0, 5, 'off', '{}']])
    expect(await rowsOf([string(0, 'a')], ['COUNT', 'SUM', 'AVG', 'MIN', 'MAX', 'DELTA', 'RATE'])).toEqual([
      [0, 1, undefined, undefined, undefined, undefined, undefined, undefined],
    ])
  })

  it('by the compatibility rules leaves booleans out and orders texts by code point [TB-7]', async () => {
    const rules = { rules: 'compat' } as const
    expect(await rowsOf([boolean(0, true), integer(1, 5)], ['COUNT', 'SUM', 'AVG', 'MIN', 'MAX'], rules)).toEqual([[0, 2, 5, 5, 5, 5]])
    expect(await rowsOf([boolean(0, true)], ['COUNT', 'SUM', 'MIN'], rules)).toEqual([[0, 1, undefined, undefined]])
    expect(await rowsOf([string(0, 'b'), string(1, 'a'), string(2, 'ab')], ['MIN', 'MAX'], rules)).toEqual([[0, 'a', 'b']])
    expect(await rowsOf([string(0, '\uff5e'), string(1, '😀')], ['MIN', 'MAX'], rules)).toEqual([[0, '\uff5e', '😀']])
    expect(await rowsOf([string(0, 'z'), integer(1, 5)], ['MIN', 'MAX'], rules)).toEqual([[0, 5, 5]])
  })
})

describe('DELTA and RATE', () => {
  const base: NumericValue = { kind: 'integer', value: 100 }

  it('grow from the last point before the bucket, or from its first point', async () => {
    const points = [integer(1, 105), integer(9, 110), integer(25, 130)]
    expect(await rowsOf(points, ['DELTA'], { base })).toEqual([
      [0, 10],
      [20, 20],
    ])
    expect(await rowsOf(points, ['DELTA'])).toEqual([
      [0, 5],
      [20, 20],
    ])
    expect(await rowsOf([integer(1, 105)], ['DELTA', 'RATE'])).toEqual([[0, 0, 0]])
  })

  it('take a smaller value as a new beginning from zero', async () => {
    expect(await rowsOf([integer(1, 110), integer(2, 4), integer(3, 7), integer(12, 3)], ['DELTA'], { base })).toEqual([
      [0, 10 + 4 + 3],
      [10, 3],
    ])
  })

  it('are last − base for a signed counter', async () => {
    const points = [integer(1, 90), integer(9, 95), double(15, 80.5)]
    expect(await rowsOf(points, ['DELTA'], { base, counter: 'signed' })).toEqual([
      [0, -5],
      [10, -14.5],
    ])
    expect(await rowsOf(points, ['DELTA'], { counter: 'signed' })).toEqual([
      [0, 5],
      [10, -14.5],
    ])
  })

  it('pass over values that are no numbers and stay exact', async () => {
    const large = 9007199254740993n
    expect(await rowsOf([integer(0, large), string(1, 'gap'), boolean(2, true), integer(3, large + 4n)], ['DELTA'])).toEqual([[0, 4]])
    expect(await rowsOf([integer(0, -9007199254740991), integer(1, 9007199254740991)], ['DELTA'])).toEqual([[0, 18014398509481982n]])
  })

  it('RATE divides by the seconds of the bucket inside the range', async () => {
    const edges = [0, 10_000, 20_000]
    const points = [integer(5000, 1), integer(9000, 3), integer(11_000, 9)]
    expect(await rowsOf(points, ['RATE'], { edges, from: 5000, to: 12_000 })).toEqual([
      [0, 2 / 5],
      [10_000, 6 / 2],
    ])
  })
})

describe('any aggregation', () => {
  /** Quarters of moderate size: every sum of them is exact whatever the order. */
  const value = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: -4e9, max: 4e9 }).map((n): TypedValue => ({ kind: 'double', value: n / 4 })) },
    { weight: 4, arbitrary: fc.integer({ min: -1e9, max: 1e9 }).map((n): TypedValue => ({ kind: 'integer', value: n })) },
    fc.boolean().map((flag): TypedValue => ({ kind: 'boolean', value: flag })),
    fc.string({ maxLength: 3 }).map((text): TypedValue => ({ kind: 'string', value: text })),
    fc.constant<TypedValue>({ kind: 'json', value: '[]' }),
  )
  const series = (one: fc.Arbitrary<TypedValue>) =>
    fc
      .uniqueArray(fc.record({ ts: fc.integer({ min: 0, max: 999 }), one }), { selector: ({ ts }) => ts, maxLength: 60 })
      .map((items) => items.sort((a, b) => a.ts - b.ts).map(({ ts, one: typed }): StoredPoint => ({ ts, ...typed })))
  const edgesOf = (step: number) => Array.from({ length: Math.ceil(1000 / step) + 1 }, (_, i) => i * step)

  it('equals a naive recomputation from the points', async () => {
    await fc.assert(
      fc.asyncProperty(
        series(value),
        fc.integer({ min: 7, max: 400 }),
        fc.integer({ min: 1, max: 20 }),
        fc.boolean(),
        async (points, step, blockSize, isSigned) => {
          const edges = edgesOf(step)
          const options = { edges, from: 0, to: 1000, counter: isSigned ? ('signed' as const) : ('monotonic' as const) }
          expect(await rowsOf(points, [...aggregations], options, blockSize)).toEqual(naive(points, edges, 1000, isSigned))
        },
      ),
      { numRuns: 300 },
    )
  })

  it('of integers equals a recomputation with bigints', async () => {
    const integers = series(
      fc
        .bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
        .map((n): TypedValue => ({ kind: 'integer', value: Number.isSafeInteger(Number(n)) ? Number(n) : n })),
    )
    await fc.assert(
      fc.asyncProperty(integers, async (points) => {
        fc.pre(points.length > 0)
        const [row] = await rowsOf(points, ['SUM', 'MIN', 'MAX', 'DELTA'], { edges: [0, 1000], from: 0, to: 1000 })
        const all = points.map((point) => BigInt(point.value as number | bigint))
        const sorted = all.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0))
        const delta = all.slice(1).reduce((sum, one, i) => sum + (one < all[i]! ? one : one - all[i]!), 0n)
        expect(row!.slice(1).map((one) => BigInt(one as number | bigint))).toEqual([
          all.reduce((a, b) => a + b, 0n),
          sorted[0],
          sorted.at(-1),
          delta,
        ])
      }),
      { numRuns: 200 },
    )
  })

  function naive(points: StoredPoint[], edges: number[], to: number, isSigned: boolean): unknown[][] {
    const isNumber = (point: StoredPoint) => point.kind === 'double' || point.kind === 'integer'
    const rows: unknown[][] = []
    for (const [i, start] of edges.slice(0, -1).entries()) {
      const inside = points.filter(({ ts }) => ts >= start && ts < edges[i + 1]!)
      if (inside.length === 0) continue
      const summands = inside.filter((point) => isNumber(point) || point.kind === 'boolean').map((point) => Number(point.value))
      const counters = inside.filter(isNumber).map((point) => Number(point.value))
      const before = points.filter((point) => isNumber(point) && point.ts < start).at(-1)
      const chain = before ? [Number(before.value), ...counters] : counters
      const signed = chain.length > 0 ? chain.at(-1)! - chain[0]! : 0
      const growth = chain.slice(1).reduce((total, one, at) => total + (one < chain[at]! ? one : one - chain[at]!), 0)
      const delta = counters.length === 0 ? undefined : isSigned ? signed : growth
      const sum = summands.length === 0 ? undefined : summands.reduce((a, b) => a + b, 0)
      const seconds = (Math.min(edges[i + 1]!, to) - start) / 1000
      rows.push([
        start,
        summands.length === 0 ? undefined : Math.min(...summands),
        summands.length === 0 ? undefined : Math.max(...summands),
        sum === undefined ? undefined : sum / summands.length,
        sum,
        inside.length,
        inside[0]!.value,
        inside.at(-1)!.value,
        delta,
        delta === undefined ? undefined : delta / seconds,
      ])
    }
    return rows
  }
})
