// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aggregate, aggregations, serves } from './aggregate.ts'
import type { AggregateOptions, Aggregation, BucketRow } from './aggregate.ts'
import { cutRange } from './buckets.ts'
import type { BucketRule } from './buckets.ts'
import { kindBits, restoreHour, restoreStatistics, summarize } from './chunk-summary.ts'
import type { ChunkSummary, Statistics } from './chunk-summary.ts'
import type { TypedValue } from './points.ts'
import type { Piece, StoredPoint } from './store.ts'

const hourMs = 3_600_000
const start = Date.parse('2024-10-26T12:00:00Z')
const spanMs = 40 * hourMs

/** Quarters and moderate integers: sums are exact in any order, so that equal means equal. */
const double = fc.integer({ min: -4e6, max: 4e6 }).map((n): TypedValue => ({ kind: 'double', value: n / 4 }))
const integer = fc.integer({ min: -1e9, max: 1e9 }).map((n): TypedValue => ({ kind: 'integer', value: n }))
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((exact): TypedValue => {
  return { kind: 'integer', value: Number.isSafeInteger(Number(exact)) ? Number(exact) : exact }
})
const boolean = fc.boolean().map((value): TypedValue => ({ kind: 'boolean', value }))
const string = fc.string({ maxLength: 4 }).map((value): TypedValue => ({ kind: 'string', value }))
const long = fc.constantFrom('a', 'b').map((letter): TypedValue => ({ kind: 'string', value: letter.repeat(70) }))
const json = fc.constant<TypedValue>({ kind: 'json', value: '[]' })
/** Kinds as series have them: mostly one, sometimes several. */
const values = fc.constantFrom(
  double,
  integer,
  boolean,
  string,
  int64,
  fc.oneof(double, integer),
  fc.oneof(string, json, long),
  fc.oneof(integer, boolean),
  fc.oneof(double, string),
  fc.oneof(double, integer, int64, boolean, string, json),
)
const points = values.chain((value) =>
  fc
    .uniqueArray(fc.record({ step: fc.integer({ min: 0, max: 2400 }), value }), {
      selector: ({ step }) => step,
      minLength: 1,
      maxLength: 80,
    })
    .map((all) => all.map(({ step, value: one }): StoredPoint => ({ ts: start + step * 60_000, ...one })).sort((a, b) => a.ts - b.ts)),
)
const rule: fc.Arbitrary<BucketRule> = fc.oneof(
  fc.constantFrom(600_000, 1_800_000, hourMs, 3 * hourMs, 86_400_000, 10 * 86_400_000).map((ms): BucketRule => ({ type: 'fixed', ms })),
  fc
    .record({
      type: fc.constantFrom('minute', 'hour', 'day', 'month'),
      count: fc.constantFrom(1, 2),
      timeZone: fc.constantFrom('UTC', 'Europe/Berlin', 'Asia/Shanghai', 'Asia/Kolkata', 'Asia/Kathmandu', 'Australia/Lord_Howe'),
    })
    .map((some): BucketRule => ({ ...some, count: some.type === 'minute' ? some.count * 15 : some.count, weekStart: 'MON' })),
)

/** A summary as it comes back from its row. */
function restore(summary: ChunkSummary): ChunkSummary {
  const plain = (one: Statistics) => ({
    min: Number(one.min.value),
    max: Number(one.max.value),
    sum: Number(one.sum.value),
    growth: Number(one.growth.value),
  })
  return {
    ...summary,
    statistics: summary.statistics && restoreStatistics(summary.kinds, plain(summary.statistics)),
    hours: summary.hours.map(({ statistics, ...hour }) => ({
      ...hour,
      statistics:
        statistics &&
        restoreHour(summary.kinds, {
          min: Number(statistics.min.value),
          max: Number(statistics.max.value),
          sum: Number(statistics.sum.value),
        }),
    })),
  }
}

async function rowsOf(pieces: readonly Piece[], options: AggregateOptions): Promise<BucketRow[]> {
  async function* all() {
    yield* pieces
  }
  return (await Array.fromAsync(aggregate(all(), options))).flat()
}

/** What the answer shows of a value: hours of a mixed chunk do not know whether a whole number was a double. */
const shown = (rows: readonly BucketRow[]) =>
  rows.map(({ ts, values: some }) => [ts, ...some.map((one) => (one?.kind === 'double' && one.value === 0 ? 0 : one?.value))])

describe('statistics of chunks', () => {
  it('answer every aggregation as the points do, where they say that they can', async () => {
    let served = 0
    let hourly = 0
    const sets = fc.oneof(
      fc.constantFrom(...aggregations).map((one): Aggregation[] => [one]),
      fc.subarray(['MIN', 'MAX', 'AVG', 'SUM', 'COUNT'] as Aggregation[], { minLength: 1 }),
      fc.subarray([...aggregations], { minLength: 1 }),
    )
    await fc.assert(
      fc.asyncProperty(
        points,
        fc.array(fc.nat(), { maxLength: 4 }),
        rule,
        sets,
        fc.boolean(),
        fc.boolean(),
        async (all, cuts, bucketRule, aggs, isSigned, isCompat) => {
          const [from, to] = [start - hourMs, start + spanMs + hourMs]
          const options: AggregateOptions = {
            aggs,
            edges: cutRange(bucketRule, from, to, 10_000),
            from,
            to,
            counter: isSigned ? 'signed' : 'monotonic',
            rules: isCompat ? 'compat' : 'native',
          }
          const bounds = [0, ...cuts.map((cut) => cut % all.length).sort((a, b) => a - b), all.length]
          const chunks = bounds.slice(1).flatMap((bound, i) => (bound > bounds[i]! ? [all.slice(bounds[i], bound)] : []))
          const pieces = chunks.map((chunk): Piece => {
            const summary = restore(summarize(chunk))
            if (!serves(options, summary)) return { points: chunk }
            served++
            if (options.edges.some((edge) => edge > summary.firstTs && edge <= summary.lastTs)) hourly++
            return { summary }
          })
          expect(shown(await rowsOf(pieces, options))).toEqual(shown(await rowsOf([{ points: all }], options)))
        },
      ),
      { numRuns: 1500 },
    )
    // The property says something only where statistics were used, as a whole and by their hours.
    expect(served).toBeGreaterThan(400)
    expect(hourly).toBeGreaterThan(100)
  })

  it('keep the kind of the smallest and the greatest number and of the sum', () => {
    const mixed = summarize([
      { ts: 1, kind: 'integer', value: 5 },
      { ts: 2, kind: 'double', value: 2.5 },
    ])
    expect(restore(mixed).statistics).toEqual({
      min: { kind: 'double', value: 2.5 },
      max: { kind: 'integer', value: 5 },
      sum: { kind: 'double', value: 7.5 },
      growth: { kind: 'double', value: 2.5 },
    })
    expect(restore(summarize([{ ts: 1, kind: 'boolean', value: true }])).statistics?.sum).toEqual({ kind: 'integer', value: 1 })
  })

  it('are left out where a double cannot say them exactly, or kinds do not add up', () => {
    const of = (...all: TypedValue[]) => summarize(all.map((one, i): StoredPoint => ({ ts: i + 1, ...one })))
    const large = { kind: 'integer', value: Number.MAX_SAFE_INTEGER } as const
    expect(of(large).statistics).toBeDefined()
    expect(of(large, large).statistics).toBeUndefined()
    expect(of({ kind: 'integer', value: 2n ** 60n }).statistics).toBeUndefined()
    expect(of({ kind: 'double', value: 1e308 }, { kind: 'double', value: 1e308 }).statistics).toBeUndefined()
    expect(of({ kind: 'boolean', value: true }, { kind: 'integer', value: 1 }).statistics).toBeUndefined()
    expect(of({ kind: 'string', value: '' })).toMatchObject({ kinds: kindBits.string, statistics: undefined, count: 1 })
  })

  it('count the points of each hour, also of the last hours there can be', () => {
    const times = [1, hourMs - 1, hourMs, 5 * hourMs + 7]
    const summary = summarize(times.map((ts): StoredPoint => ({ ts, kind: 'integer', value: ts })))
    expect(summary.hours.map(({ startTs, count }) => [startTs, count])).toEqual([
      [0, 2],
      [hourMs, 1],
      [5 * hourMs, 1],
    ])
    // Beyond the year 246,953 an hour's number does not fit its column.
    expect(summarize([{ ts: 8.64e15, kind: 'integer', value: 1 }]).hours).toEqual([])
  })

  it('of hours are not used where only the whole chunk has them', async () => {
    const max = Number.MAX_SAFE_INTEGER
    const all = [max, max, -max, -max].map((value, i): StoredPoint => ({ ts: start + i * (hourMs / 2), kind: 'integer', value }))
    const summary = restore(summarize(all))
    expect(summary.statistics?.sum.value).toBe(0)
    const options: AggregateOptions = {
      aggs: ['SUM'],
      edges: [start, start + hourMs, start + 2 * hourMs],
      from: start,
      to: start + 2 * hourMs,
    }
    expect(serves(options, summary)).toBe(false)
    expect(serves({ ...options, aggs: ['COUNT'] }, summary)).toBe(true)
    expect(serves({ ...options, edges: [start, start + 2 * hourMs] }, summary)).toBe(true)
  })
})
