// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

type Series = { key: string; agg: string; points: [number, unknown][]; int64?: true }
type History = {
  from: number
  to: number
  timeZone: string
  series: Series[]
  sourcePoints: number
  downsampled: boolean
  nextCursor: string | null
}

const t0 = 1_760_000_000_000
const integer = (key: string, ts: number, value: number | bigint): Point => ({ key, ts, kind: 'integer', value })

async function history(device: Device, query: string): Promise<History> {
  const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/history?${query}`)
  expect(answer.status, answer.text).toBe(200)
  return answer.json<History>()
}

async function refusal(query: string, path = 'history'): Promise<[number, unknown]> {
  const device = await server.createDevice()
  const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/${path}?${query}`)
  return [answer.status, answer.json()['code']]
}

describe('raw history', () => {
  it('answers points of each key in the order of the keys, the range half open', async () => {
    const device = await server.createDevice({ timeZone: 'Asia/Shanghai' })
    await server.write(device, [integer('a', t0, 1), integer('a', t0 + 5, 2), integer('a', t0 + 10, 3), integer('b', t0 + 5, 9)])
    expect(await history(device, `keys=b,a,none&from=${t0}&to=${t0 + 10}`)).toEqual({
      from: t0,
      to: t0 + 10,
      timeZone: 'Asia/Shanghai',
      series: [
        { key: 'b', agg: 'NONE', points: [[t0 + 5, 9]] },
        {
          key: 'a',
          agg: 'NONE',
          points: [
            [t0, 1],
            [t0 + 5, 2],
          ],
        },
        { key: 'none', agg: 'NONE', points: [] },
      ],
      sourcePoints: 3,
      downsampled: false,
      nextCursor: null,
    })
  })

  it('keeps every kind of value exact, large integers as strings', async () => {
    const device = await server.createDevice()
    await server.write(device, [
      { key: 'x', ts: t0, kind: 'double', value: 42 },
      { key: 'x', ts: t0 + 1, kind: 'boolean', value: true },
      { key: 'x', ts: t0 + 2, kind: 'string', value: '"温度\n' },
      { key: 'x', ts: t0 + 3, kind: 'json', value: '{"a":[1.0,9007199254740993]}' },
      integer('x', t0 + 4, 9007199254740991),
      integer('big', t0, -9223372036854775808n),
    ])
    const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/history?keys=x,big&from=${t0}&to=${t0 + 10}`)
    expect(answer.text).toContain(
      `"series":[{"key":"x","agg":"NONE","points":[[${t0},42],[${t0 + 1},true],[${t0 + 2},"\\"温度\\n"],[${t0 + 3},{"a":[1.0,9007199254740993]}],[${t0 + 4},9007199254740991]]},` +
        `{"key":"big","agg":"NONE","points":[[${t0},"-9223372036854775808"]],"int64":true}]`,
    )
  })

  it('takes keys with commas when they are named one by one, and times as RFC 3339', async () => {
    const device = await server.createDevice()
    await server.write(device, [integer('a,b', t0, 1), integer('c', t0, 2), integer('d e', t0, 3)])
    const found = await history(device, `key=a%2Cb&key=d%20e&key=a%2Cb&keys=c&from=2025-10-09T08:53:20Z&to=2025-10-09T16:53:20.001%2B08:00`)
    expect(found).toMatchObject({
      from: t0,
      to: t0 + 1,
      series: [
        { key: 'a,b', points: [[t0, 1]] },
        { key: 'd e', points: [[t0, 3]] },
      ],
    })
    expect(found.series).toHaveLength(2)
  })

  it.each(['asc', 'desc'])('pages through several keys without a gap or a repeat, %s', async (order) => {
    const device = await server.createDevice()
    const points = [...Array(25).keys()].flatMap((i) => [integer('a', t0 + i, i), ...(i % 5 === 0 ? [integer('b', t0 + i, 100 - i)] : [])])
    await server.write(device, points)
    const collected: Record<string, unknown[]> = { a: [], b: [], c: [] }
    let cursor: string | null = null
    let pages = 0
    do {
      const page: History = await history(
        device,
        `keys=a,b,c&from=${t0}&to=${t0 + 24}&limit=4&order=${order}${cursor ? `&cursor=${cursor}` : ''}`,
      )
      for (const { key, points: some } of page.series) {
        expect(some.length).toBeLessThanOrEqual(4)
        collected[key]!.push(...some)
      }
      cursor = page.nextCursor
      pages++
    } while (cursor !== null)
    const expected = (key: string) =>
      points.filter((point) => point.key === key && point.ts < t0 + 24).map((point) => [point.ts, point.value])
    expect(pages).toBe(6)
    for (const key of ['a', 'b', 'c']) expect(collected[key]).toEqual(order === 'asc' ? expected(key) : expected(key).toReversed())
  })

  it('streams 100,000 points as one valid answer', async () => {
    const device = await server.createDevice()
    for (let i = 0; i < 100_000; i += 20_000) {
      await server.write(
        device,
        Array.from({ length: 20_000 }, (_, j) => integer('x', t0 + i + j, i + j)),
      )
    }
    const found = await history(device, `keys=x&from=${t0}&to=${t0 + 200_000}&limit=100000`)
    expect(found.sourcePoints).toBe(100_000)
    expect(found.nextCursor).toBeNull()
    expect(found.series[0]!.points.every(([ts, value], i) => ts === t0 + i && value === i)).toBe(true)
  }, 60_000)

  it('reads long texts to the end', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 700 }, (_, i): Point => ({
      key: 'log',
      ts: t0 + i,
      kind: 'string',
      value: `${i} ${'x'.repeat(20_000)}`,
    }))
    await server.write(device, points)
    const found = await history(device, `keys=log&from=${t0}&to=${t0 + 700}`)
    expect(found.series[0]!.points).toEqual(points.map(({ ts, value }) => [ts, value]))
  })
})

describe('a history of which nothing can be made', () => {
  const range = `from=${t0}&to=${t0 + 1}`
  it.each([
    ['from=1&to=2', 400, 'VALIDATION_FAILED'],
    ['keys=&from=1&to=2', 400, 'VALIDATION_FAILED'],
    ['keys=a,,b&from=1&to=2', 400, 'VALIDATION_FAILED'],
    ['keys=a%00b&from=1&to=2', 400, 'VALIDATION_FAILED'],
    [`keys=${Array.from({ length: 51 }, (_, i) => `k${i}`).join(',')}&${range}`, 400, 'VALIDATION_FAILED'],
    [`keys=${'k'.repeat(256)}&${range}`, 400, 'VALIDATION_FAILED'],
    ['keys=a&from=1', 400, 'VALIDATION_FAILED'],
    ['keys=a&from=yesterday&to=2', 400, 'VALIDATION_FAILED'],
    ['keys=a&from=2025-02-30T00:00:00Z&to=2026-01-01T00:00:00Z', 400, 'VALIDATION_FAILED'],
    ['keys=a&from=-5&to=2', 400, 'VALIDATION_FAILED'],
    ['keys=a&from=1&to=9000000000000000', 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&surprise=1`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&limit=0`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&limit=100001`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&order=up`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&agg=MEDIAN`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&agg=MIN,MAX,AVG,SUM,COUNT,FIRST&interval=1000`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&downsample=lttb&points=9`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&cursor=abc`, 400, 'CURSOR_INVALID'],
    [`keys=a&${range}&cursor=${Buffer.from('[5]').toString('base64url')}`, 400, 'CURSOR_INVALID'],
    [`keys=a&${range}&cursor=${Buffer.from('["x"]').toString('base64url')}`, 400, 'CURSOR_INVALID'],
    [`keys=a&${range}&cursor=${Buffer.from(`[${t0},${t0}]`).toString('base64url')}`, 400, 'CURSOR_INVALID'],
    ['keys=a&from=5&to=5', 422, 'UNPROCESSABLE'],
    ['keys=a&from=6&to=5', 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&interval=999`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&intervalType=minute&interval=7`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&intervalType=hour&interval=5`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&interval=1000&downsample=lttb`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&interval=1000&cursor=W10`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&fill=previous`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&fill=null&downsample=lttb`, 422, 'UNPROCESSABLE'],
    [`keys=a&${range}&agg=AVG&interval=1000&fill=zero`, 400, 'VALIDATION_FAILED'],
    [`keys=a&${range}&timeZone=Mars`, 422, 'TIME_ZONE_UNKNOWN'],
    [`keys=a&from=0&to=${t0}&agg=AVG&interval=1000`, 422, 'RANGE_TOO_LARGE'],
    [
      `${Array.from({ length: 50 }, (_, i) => `key=k${i}`).join('&')}&from=0&to=9000000000&agg=MIN,MAX&interval=1000000`,
      422,
      'RANGE_TOO_LARGE',
    ],
  ])('?%s is %i %s', async (query, status, code) => {
    expect(await refusal(query)).toEqual([status, code])
  })

  it('names the parameter', async () => {
    const device = await server.createDevice()
    const answer = await server.call(
      'GET',
      `/api/v1/devices/${device.id}/telemetry/history?keys=a&${range}&agg=AVG&intervalType=hour&interval=5`,
    )
    expect(answer.json()).toMatchObject({ code: 'UNPROCESSABLE', errors: [{ pointer: '?interval' }] })
  })
})

describe('aggregated history', () => {
  it('gives a series per key and aggregation, bucket times before the range included', async () => {
    const device = await server.createDevice()
    await server.write(device, [
      integer('a', t0 + 500, 4),
      integer('a', t0 + 900, 6),
      integer('a', t0 + 2000, 1),
      integer('b', t0 + 600, 7),
    ])
    const found = await history(device, `keys=b,a&from=${t0 + 400}&to=${t0 + 3000}&agg=MAX,AVG&interval=1000`)
    expect(found).toMatchObject({
      series: [
        { key: 'b', agg: 'MAX', points: [[t0, 7]] },
        { key: 'b', agg: 'AVG', points: [[t0, 7]] },
        {
          key: 'a',
          agg: 'MAX',
          points: [
            [t0, 6],
            [t0 + 2000, 1],
          ],
        },
        {
          key: 'a',
          agg: 'AVG',
          points: [
            [t0, 5],
            [t0 + 2000, 1],
          ],
        },
      ],
      sourcePoints: 4,
      downsampled: false,
      nextCursor: null,
    })
    const reversed = await history(device, `keys=a&from=${t0}&to=${t0 + 3000}&agg=MAX&interval=1000&order=desc`)
    expect(reversed.series[0]!.points).toEqual([
      [t0 + 2000, 1],
      [t0, 6],
    ])
  })

  it('takes DELTA from the last number before the range, whatever its age', async () => {
    const device = await server.createDevice()
    await server.write(device, [
      integer('energy', 5, 100),
      { key: 'energy', ts: 6, kind: 'string', value: 'reset soon' },
      integer('energy', t0 + 1000, 130),
      integer('energy', t0 + 2000, 10),
    ])
    const found = await history(device, `keys=energy&from=${t0}&to=${t0 + 10_000}&agg=DELTA,RATE&interval=20000&intervalType=fixed`)
    expect(found.series.map(({ points }) => points[0]![1])).toEqual([40, 4])
    const signed = await history(device, `keys=energy&from=${t0}&to=${t0 + 10_000}&agg=DELTA&interval=20000&counter=signed`)
    expect(signed.series[0]!.points[0]![1]).toBe(-90)
  })

  it('marks sums beyond 53 bits', async () => {
    const device = await server.createDevice()
    await server.write(device, [integer('n', t0, 9007199254740991), integer('n', t0 + 1, 9007199254740991)])
    const found = await history(device, `keys=n&from=${t0}&to=${t0 + 2}&agg=SUM,COUNT&intervalType=day`)
    expect(found.series).toEqual([
      { key: 'n', agg: 'SUM', points: [[expect.any(Number), '18014398509481982']], int64: true },
      { key: 'n', agg: 'COUNT', points: [[expect.any(Number), 2]] },
    ])
  })

  it('follows the days of the device, or of the zone that is asked for', async () => {
    const device = await server.createDevice({ timeZone: 'Europe/Berlin' })
    const start = Date.parse('2024-03-30T23:00:00Z')
    await server.write(
      device,
      Array.from({ length: 48 }, (_, i) => integer('x', start + i * 3_600_000, 1)),
    )
    const query = `keys=x&from=${start}&to=${start + 48 * 3_600_000}&agg=SUM&intervalType=day`
    expect((await history(device, query)).series[0]!.points).toEqual([
      [start, 23],
      [start + 23 * 3_600_000, 24],
      [start + 47 * 3_600_000, 1],
    ])
    const utc = await history(device, `${query}&timeZone=utc`)
    expect(utc.timeZone).toBe('UTC')
    expect(utc.series[0]!.points.map(([, count]) => count)).toEqual([1, 24, 23])
  })
})

describe('downsampled history', () => {
  it('is raw while there are no more points than asked for', async () => {
    const device = await server.createDevice()
    await server.write(
      device,
      Array.from({ length: 10 }, (_, i) => integer('x', t0 + i, i)),
    )
    const found = await history(device, `keys=x&from=${t0}&to=${t0 + 10}&downsample=lttb&points=10`)
    expect(found).toMatchObject({ downsampled: false, sourcePoints: 10 })
    expect(found.series[0]!.points).toHaveLength(10)
  })

  it('has stored points only, with the ends and the peak of the series', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 30_000 }, (_, i) => integer('x', t0 + i * 1000, i === 12_345 ? 500 : i % 7))
    await server.write(device, points)
    const range = `keys=x&from=${t0}&to=${t0 + 40_000_000}&points=100`
    for (const mode of ['lttb', 'minmax']) {
      const found = await history(device, `${range}&downsample=${mode}`)
      const [series] = found.series
      expect(found).toMatchObject({ downsampled: true, sourcePoints: 30_000, nextCursor: null })
      expect(series!.points.length).toBeLessThanOrEqual(100)
      for (const [ts, value] of series!.points) expect(points[(ts - t0) / 1000]!.value).toBe(value)
      expect(series!.points).toContainEqual([t0 + 12_345_000, 500])
      if (mode === 'lttb') expect([series!.points[0]![0], series!.points.at(-1)![0]]).toEqual([t0, t0 + 29_999_000])
      const reversed = await history(device, `${range}&downsample=${mode}&order=desc`)
      expect(reversed.series[0]!.points).toEqual(series!.points.toReversed())
    }
  })
})

describe('empty buckets', () => {
  const ask = async (query: string, points: Point[]) => {
    const device = await server.createDevice()
    await server.write(device, points)
    return (await history(device, `keys=a&from=${t0}&to=${t0 + 5000}&interval=1000&${query}`)).series
  }
  const points: Point[] = [integer('a', t0 + 1000, 4), integer('a', t0 + 3000, 6), { key: 'a', ts: t0 + 4000, kind: 'string', value: 'x' }]

  it('are left out unless something else is asked for', async () => {
    const bare = [
      [t0 + 1000, 4],
      [t0 + 3000, 6],
    ]
    expect((await ask('agg=AVG', points))[0]!.points).toEqual(bare)
    expect((await ask('agg=AVG&fill=none', points))[0]!.points).toEqual(bare)
  })

  it('are null, also where the values of a bucket give no result', async () => {
    const [average, count] = await ask('agg=AVG,COUNT&fill=null', points)
    expect(average!.points.map(([, value]) => value)).toEqual([null, 4, null, 6, null])
    expect(count!.points.map(([, value]) => value)).toEqual([null, 1, null, 1, 1])
    expect(average!.points.map(([ts]) => ts - t0)).toEqual([0, 1000, 2000, 3000, 4000])
  })

  it('repeat the value before in time, whatever the order, and nothing from before the range', async () => {
    const all = [integer('a', t0 - 1, 99), ...points]
    const values = async (query: string) => (await ask(`agg=AVG&fill=previous&${query}`, all))[0]!.points.map(([, value]) => value)
    expect(await values('order=asc')).toEqual([null, 4, 4, 6, 6])
    expect(await values('order=desc')).toEqual([6, 6, 4, 4, null])
  })

  it('fill a key without any point', async () => {
    expect((await ask('agg=MAX&fill=previous', []))[0]!.points.map(([, value]) => value)).toEqual([null, null, null, null, null])
  })
})

describe('points that cannot be read any more', () => {
  it('are told beside those that can', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 20_000 }, (_, i) => integer('a', t0 + i, i))
    await server.write(device, [...points, integer('b', t0, 1)])
    await server.store.compact()
    const admin = postgres(server.context.database.adminUrl, { max: 1, onnotice: () => {} })
    const [chunk] = await admin<{ first: number; last: number; count: number }[]>`
      update telemetry_chunks set points = set_byte(points, length(points) / 2, get_byte(points, length(points) / 2) # 1)
      where device_no = ${device.no} and first_ts = ${t0}
        and key_no = (select key_no from telemetry_chunks where device_no = ${device.no} group by key_no having sum(count) > 1)
      returning first_ts::float8 as first, last_ts::float8 as last, count`
    await admin.end()
    const query = `keys=a,b&from=${t0}&to=${t0 + 20_000}`
    const damaged = [{ key: 'a', from: chunk!.first, to: chunk!.last }]
    const raw = await history(device, `${query}&limit=100000`)
    expect(raw).toMatchObject({ damaged, sourcePoints: 20_001 - chunk!.count })
    expect(raw.series[0]!.points[0]).toEqual([chunk!.last + 1, chunk!.count])
    expect(await history(device, `${query}&agg=FIRST&interval=1000`)).toMatchObject({ damaged })
    expect(await history(device, `keys=b&from=${t0}&to=${t0 + 20_000}`)).not.toHaveProperty('damaged')
    const many = await server.call('POST', '/api/v1/telemetry/history', {
      body: JSON.stringify({ deviceIds: [device.id], keys: ['a', 'b'], from: t0, to: t0 + 20_000, limit: 100_000 }),
    })
    expect(many.json()).toMatchObject({ devices: [{ deviceId: device.id, damaged }] })
  })
})
