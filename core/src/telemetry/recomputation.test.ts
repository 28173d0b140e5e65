// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point, TypedValue } from './points.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

/** Every read form against a naive recomputation from what was written, in whatever order it came [N-4]. */

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const start = Date.parse('2024-10-26T12:00:00Z')
const spanMs = 36 * 3_600_000
const keys = ['a', 'b', '键,3']
const zones = ['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Shanghai', 'Asia/Kathmandu']

/** Quarters and moderate integers: every sum of them is exact, so that equal means equal. */
const value = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: -4e6, max: 4e6 }).map((n): TypedValue => ({ kind: 'double', value: n / 4 })) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 1e9 }).map((n): TypedValue => ({ kind: 'integer', value: n })) },
  fc.boolean().map((flag): TypedValue => ({ kind: 'boolean', value: flag })),
  fc.constantFrom<TypedValue>({ kind: 'string', value: '=x"' }, { kind: 'string', value: '开' }, { kind: 'json', value: '[1,"a"]' }),
)
/** Few times for many points: late ones, repeated ones, and ones that overwrite another kind. */
const point = fc
  .record({ key: fc.constantFrom(...keys), step: fc.nat(120), one: value })
  .map(({ key, step, one }): Point => ({ key, ts: start + step * 1_080_000 + (step % 3), ...one }))
const batches = fc.array(fc.array(point, { minLength: 1, maxLength: 60 }), { minLength: 1, maxLength: 4 })
const range = fc
  .record({ from: fc.integer({ min: -3_600_000, max: spanMs / 2 }), length: fc.integer({ min: 1, max: spanMs }) })
  .map(({ from, length }) => ({ from: start + from, to: start + from + length }))

type Model = Map<string, (TypedValue & { ts: number })[]>
const keyQuery = keys.map((key) => `key=${encodeURIComponent(key)}`).join('&')

async function write(all: Point[][]): Promise<{ device: Device; model: Model }> {
  const device = await server.createDevice()
  const byTime = new Map(keys.map((key) => [key, new Map<number, TypedValue & { ts: number }>()]))
  for (const [index, batch] of all.entries()) {
    await server.write(device, batch)
    // Some of it in chunks, merged over and over, the rest in segments.
    if (index < all.length - 1 || batch.length % 2 === 0) await server.store.compact()
    for (const { key, ...rest } of batch) byTime.get(key)!.set(rest.ts, rest)
  }
  return { device, model: new Map([...byTime].map(([key, points]) => [key, [...points.values()].sort((a, b) => a.ts - b.ts)])) }
}

async function get<T>(device: Device, path: string): Promise<T> {
  const answer = await server.call('GET', `/api/${path.replace('ID', device.id)}`)
  expect(answer.status, answer.text).toBe(200)
  return answer.json<T>()
}

const inside = (model: Model, key: string, from: number, to: number) => model.get(key)!.filter(({ ts }) => ts >= from && ts < to)
const shown = (one: TypedValue): unknown => (one.kind === 'json' ? JSON.parse(one.value) : one.value)
const isNumber = (one: TypedValue) => one.kind === 'double' || one.kind === 'integer'

/** Values of all aggregations over one bucket, undefined where it has none. */
function recompute(
  points: (TypedValue & { ts: number })[],
  all: (TypedValue & { ts: number })[],
  begin: number,
  seconds: number,
): Record<string, unknown> {
  const summands = points.filter((one) => isNumber(one) || one.kind === 'boolean').map((one) => Number(one.value))
  const counters = points.filter(isNumber).map((one) => Number(one.value))
  const before = all.filter((one) => isNumber(one) && one.ts < begin).at(-1)
  const chain = before ? [Number(before.value), ...counters] : counters
  const delta = chain.slice(1).reduce((sum, one, i) => sum + (one < chain[i]! ? one : one - chain[i]!), 0)
  const sum = summands.reduce((a, b) => a + b, 0)
  const numeric =
    summands.length === 0 ? {} : { MIN: Math.min(...summands), MAX: Math.max(...summands), AVG: sum / summands.length, SUM: sum }
  return {
    ...numeric,
    COUNT: points.length,
    FIRST: shown(points[0]!),
    LAST: shown(points.at(-1)!),
    ...(counters.length === 0 ? {} : { DELTA: delta, RATE: delta / seconds }),
  }
}

type History = { series: { key: string; agg: string; points: [number, unknown][] }[]; sourcePoints: number }
const aggs = ['MIN', 'MAX', 'AVG', 'SUM', 'COUNT', 'FIRST', 'LAST', 'DELTA', 'RATE']

/** Buckets by stepping through local time, the slow and plain way. */
function bucketOf(ts: number, rule: { type: string; ms: number; timeZone: string }): number {
  if (rule.type === 'fixed') return Math.floor(ts / rule.ms) * rule.ms
  const local = Temporal.Instant.fromEpochMilliseconds(ts).toZonedDateTimeISO(rule.timeZone)
  if (rule.type === 'hour') return local.round({ smallestUnit: 'hour', roundingMode: 'floor' }).epochMilliseconds
  const day = local.toPlainDate()
  const first = rule.type === 'day' ? day : rule.type === 'week' ? day.subtract({ days: day.dayOfWeek - 1 }) : day.with({ day: 1 })
  return first.toZonedDateTime(rule.timeZone).epochMilliseconds
}

describe('what is read', () => {
  it('raw equals what was written last', async () => {
    await fc.assert(
      fc.asyncProperty(batches, range, fc.constantFrom('asc', 'desc'), async (all, { from, to }, order) => {
        const { device, model } = await write(all)
        const found = await get<History>(
          device,
          `v1/devices/ID/telemetry/history?${keyQuery}&from=${from}&to=${to}&limit=1000&order=${order}`,
        )
        for (const { key, points } of found.series) {
          const expected = inside(model, key, from, to).map((one) => [one.ts, shown(one)])
          expect(points).toEqual(order === 'asc' ? expected : expected.toReversed())
        }
      }),
      { numRuns: 25 },
    )
  })

  it('aggregated equals a recomputation from the points', async () => {
    const rules = fc.record({
      type: fc.constantFrom('fixed', 'hour', 'day', 'week', 'month'),
      ms: fc.integer({ min: 600_000, max: 20_000_000 }),
      timeZone: fc.constantFrom(...zones),
    })
    await fc.assert(
      fc.asyncProperty(batches, range, rules, async (all, { from, to }, rule) => {
        const { device, model } = await write(all)
        const query = `${keyQuery}&from=${from}&to=${to}&timeZone=${rule.timeZone}&intervalType=${rule.type}${rule.type === 'fixed' ? `&interval=${rule.ms}` : ''}`
        const found = [
          ...(await get<History>(device, `v1/devices/ID/telemetry/history?${query}&agg=${aggs.slice(0, 5).join(',')}`)).series,
          ...(await get<History>(device, `v1/devices/ID/telemetry/history?${query}&agg=${aggs.slice(5).join(',')}`)).series,
        ]
        for (const { key, agg, points } of found) {
          const buckets = Map.groupBy(inside(model, key, from, to), ({ ts }) => bucketOf(ts, rule))
          const expected = [...buckets].flatMap(([bucket, some]) => {
            const end = nextBucket(bucket, rule)
            const seconds = (Math.min(end, to) - Math.max(bucket, from)) / 1000
            const result = recompute(some, model.get(key)!, Math.max(bucket, from), seconds)[agg]
            return result === undefined ? [] : [[bucket, result]]
          })
          expect(points, `${key} ${agg}`).toEqual(expected)
        }
      }),
      { numRuns: 25 },
    )
  })

  function nextBucket(bucket: number, rule: { type: string; ms: number; timeZone: string }): number {
    if (rule.type === 'fixed') return bucket + rule.ms
    let ts = bucket
    while (bucketOf(ts, rule) === bucket) ts += rule.type === 'hour' ? 600_000 : 1_800_000
    return bucketOf(ts, rule)
  }

  it('as compatibility history equals a recomputation by its own rules', async () => {
    await fc.assert(
      fc.asyncProperty(
        batches,
        range,
        fc.integer({ min: 600_000, max: 20_000_000 }),
        fc.constantFrom('MIN', 'MAX', 'AVG', 'SUM', 'COUNT'),
        async (all, { from, to }, interval, agg) => {
          const { device, model } = await write(all)
          const found = await get<Record<string, { ts: number; value: unknown }[]>>(
            device,
            `plugins/telemetry/DEVICE/ID/values/timeseries?${keyQuery}&startTs=${from}&endTs=${to}&interval=${interval}&agg=${agg}&useStrictDataTypes=true`,
          )
          for (const key of keys) {
            const buckets = Map.groupBy(inside(model, key, from, to), ({ ts }) => from + Math.floor((ts - from) / interval) * interval)
            const expected = [...buckets].flatMap(([bucket, some]) => {
              const ts = bucket + Math.floor((Math.min(bucket + interval, to) - bucket) / 2)
              const numbers = some.filter(isNumber)
              const texts = some.flatMap((one) => (one.kind === 'string' ? [one.value] : [])).sort()
              if (numbers.length === 0 && agg !== 'COUNT') {
                if (texts.length === 0 || agg === 'AVG' || agg === 'SUM') return []
                return [{ ts, value: agg === 'MIN' ? texts[0] : texts.at(-1) }]
              }
              return [{ ts, value: recompute(agg === 'COUNT' ? some : numbers, [], 0, 1)[agg] }]
            })
            expect(found[key] ?? []).toEqual(expected)
          }
        },
      ),
      { numRuns: 25 },
    )
  })

  it('as CSV equals what was written, in time order, long and wide', async () => {
    await fc.assert(
      fc.asyncProperty(batches, range, fc.constantFrom(...zones), async (all, { from, to }, timeZone) => {
        const { device, model } = await write(all)
        const url = `/api/v1/devices/${device.id}/telemetry/export?format=csv&lang=en&${keyQuery}&from=${from}&to=${to}&timeZone=${timeZone}`
        const local = (ts: number) => {
          const zoned = Temporal.Instant.fromEpochMilliseconds(ts).toZonedDateTimeISO(timeZone)
          return `${zoned.toPlainDateTime().toString({ smallestUnit: 'millisecond' }).replace('T', ' ')},${zoned.offset}`
        }
        const cell = ({ value: plain }: TypedValue) =>
          typeof plain !== 'string' ? String(plain) : `"${plain.replace(/^=/, "'=").replaceAll('"', '""')}"`
        const rows = keys.flatMap((key) => inside(model, key, from, to).map((one) => ({ key, one })))
        rows.sort((a, b) => a.one.ts - b.one.ts || keys.indexOf(a.key) - keys.indexOf(b.key))

        const long = (await server.call('GET', url)).text
        expect(long.split('\r\n').slice(1, -1)).toEqual(
          rows.map(({ key, one }) => `${local(one.ts)},"${device.name}","${key}",${cell(one)}`),
        )

        const wide = (await server.call('GET', `${url}&layout=wide`)).text
        const byTime = Map.groupBy(rows, ({ one }) => one.ts)
        const expected = [...byTime].map(([ts, some]) =>
          [local(ts), ...keys.map((key) => some.filter((row) => row.key === key).map(({ one }) => cell(one))[0] ?? '')].join(','),
        )
        expect(wide.split('\r\n').slice(1, -1)).toEqual(expected)
      }),
      { numRuns: 25 },
    )
  })
})
