// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { startReadingServer } from './testing.ts'
import type { Answer, ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const t0 = 1_760_000_000_000
const path = (device: Device, rest: string) => `/api/plugins/telemetry/DEVICE/${device.id}/${rest}`
const integer = (key: string, ts: number, value: number | bigint): Point => ({ key, ts, kind: 'integer', value })

async function read(device: Device, rest: string): Promise<unknown> {
  const answer = await server.call('GET', path(device, rest))
  expect(answer.status, answer.text).toBe(200)
  return answer.json()
}

function expectRefusal(answer: Answer, status: number, errorCode: number): void {
  expect([answer.status, answer.json()]).toEqual([
    status,
    { status, errorCode, message: expect.any(String), timestamp: expect.any(Number) },
  ])
}

describe('newest values', () => {
  it('are strings with a decimal for doubles, or have their types when asked [TB-6]', async () => {
    const device = await server.createDevice()
    await server.write(device, [
      { key: 'd', ts: t0, kind: 'double', value: 42 },
      { key: 'e', ts: t0, kind: 'double', value: 1e25 },
      integer('i', t0, 73),
      integer('n', t0, 9007199254740993n),
      { key: 'b', ts: t0, kind: 'boolean', value: true },
      { key: 's', ts: t0, kind: 'string', value: 'text' },
      { key: 'j', ts: t0, kind: 'json', value: '{"a":[1.0]}' },
    ])
    const value = (text: string) => [{ ts: t0, value: text }]
    expect(await read(device, 'values/timeseries')).toEqual({
      d: value('42.0'),
      e: value('1e+25'),
      i: value('73'),
      n: value('9007199254740993'),
      b: value('true'),
      s: value('text'),
      j: value('{"a":[1.0]}'),
    })
    const strict = await server.call('GET', path(device, 'values/timeseries?keys=d,n,b,j&useStrictDataTypes=true'))
    expect(strict.text).toContain(`"n":[{"ts":${t0},"value":9007199254740993}]`)
    expect(strict.json()).toMatchObject({ d: [{ value: 42 }], b: [{ value: true }], j: [{ value: { a: [1] } }] })
  })

  it('leave out keys without data; keys can hold commas', async () => {
    const device = await server.createDevice()
    await server.write(device, [integer('a,b', t0, 1), integer('c', t0, 2)])
    expect(await read(device, 'values/timeseries?keys=c,missing')).toEqual({ c: [{ ts: t0, value: '2' }] })
    expect(await read(device, 'values/timeseries?key=a%2Cb&keys=c')).toEqual({ 'a,b': [{ ts: t0, value: '1' }] })
    expect(await read(await server.createDevice(), 'values/timeseries')).toEqual({})
    expect(await read(device, 'keys/timeseries')).toEqual(expect.arrayContaining(['a,b', 'c']))
  })
})

describe('history', () => {
  const four = [integer('t', t0, 10), integer('t', t0 + 1000, 20), integer('t', t0 + 2000, 30), integer('t', t0 + 3000, 40)]
  const cases: [query: string, end: number, series: [number, unknown][]][] = [
    [
      'limit=2',
      4000,
      [
        [3000, '40'],
        [2000, '30'],
      ],
    ],
    [
      'limit=2&orderBy=ASC',
      4000,
      [
        [0, '10'],
        [1000, '20'],
      ],
    ],
    [
      'orderBy=ASC&useStrictDataTypes=true',
      3000,
      [
        [0, 10],
        [1000, 20],
        [2000, 30],
      ],
    ],
    [
      'agg=AVG',
      4000,
      [
        [3000, '40'],
        [2000, '30'],
        [1000, '20'],
        [0, '10'],
      ],
    ],
    ['agg=NONE&interval=2000&limit=1', 4000, [[3000, '40']]],
    [
      'agg=AVG&interval=2000',
      4000,
      [
        [1000, '15.0'],
        [3000, '35.0'],
      ],
    ],
    [
      'agg=AVG&interval=2000&orderBy=DESC&limit=1',
      4000,
      [
        [1000, '15.0'],
        [3000, '35.0'],
      ],
    ],
    [
      'agg=AVG&interval=2000&useStrictDataTypes=true',
      4000,
      [
        [1000, 15],
        [3000, 35],
      ],
    ],
    [
      'agg=SUM&interval=2000',
      4000,
      [
        [1000, '30'],
        [3000, '70'],
      ],
    ],
    [
      'agg=COUNT&interval=2000',
      4000,
      [
        [1000, '2'],
        [3000, '2'],
      ],
    ],
    [
      'agg=MAX&interval=3000',
      4000,
      [
        [1500, '30'],
        [3500, '40'],
      ],
    ],
    ['agg=MIN&interval=10000', 60_000, [[5000, '10']]],
    ['agg=MIN&interval=10000', 2501, [[1250, '10']]],
  ]

  it.each(cases)('%s up to %i ms', async (query, end, series) => {
    const device = await server.createDevice()
    await server.write(device, four)
    const expected = { t: series.map(([ts, value]) => ({ ts: t0 + ts, value })) }
    for (const rest of ['values/timeseries', 'timeseries/history', 'values/timeseries/history']) {
      expect(await read(device, `${rest}?keys=t&startTs=${t0}&endTs=${t0 + end}&${query}`)).toEqual(expected)
    }
  })

  it('leaves out keys and buckets without points, and ignores parameters it does not know', async () => {
    const device = await server.createDevice()
    await server.write(device, [integer('a', t0, 1), integer('c', t0 + 9000, 2)])
    const range = `startTs=${t0}&endTs=${t0 + 10_000}&unheardOf=1`
    expect(await read(device, `values/timeseries?keys=none,a,c&${range}&agg=COUNT&interval=1000`)).toEqual({
      a: [{ ts: t0 + 500, value: '1' }],
      c: [{ ts: t0 + 9500, value: '1' }],
    })
    expect(await read(device, `values/timeseries?keys=none&${range}`)).toEqual({})
    expect(await read(device, `values/timeseries?keys=a&startTs=${t0}&endTs=${t0}&agg=COUNT&interval=1000`)).toEqual({})
    expect(await read(device, `values/timeseries?keys=a&startTs=0&endTs=9223372036854775807`)).toEqual({ a: [{ ts: t0, value: '1' }] })
  })

  it('cuts at weeks, months and quarters of a zone, the first bucket from the start of the range', async () => {
    const device = await server.createDevice({ timeZone: 'Asia/Shanghai' })
    const at = (text: string) => Date.parse(text)
    // Sunday 2024-03-31, Monday 2024-04-01 and Sunday 2024-04-07, noon in Shanghai.
    await server.write(device, [
      integer('x', at('2024-03-31T04:00Z'), 1),
      integer('x', at('2024-04-01T04:00Z'), 2),
      integer('x', at('2024-04-07T04:00Z'), 4),
    ])
    const [start, end] = [at('2024-03-30T04:00Z'), at('2024-04-08T04:00Z')]
    const sums = async (type: string) => {
      const found = (await read(device, `values/timeseries?keys=x&startTs=${start}&endTs=${end}&agg=SUM&intervalType=${type}`)) as {
        x: { ts: number; value: string }[]
      }
      return found.x.map(({ ts, value }) => [ts, value])
    }
    const middle = (a: number, b: number) => a + Math.floor((b - a) / 2)
    expect(await sums('WEEK_ISO')).toEqual([
      [middle(start, at('2024-03-31T16:00Z')), '1'],
      [middle(at('2024-03-31T16:00Z'), at('2024-04-07T16:00Z')), '6'],
    ])
    expect(await sums('WEEK')).toEqual([
      [middle(at('2024-03-30T16:00Z'), at('2024-04-06T16:00Z')), '3'],
      [middle(at('2024-04-06T16:00Z'), end), '4'],
    ])
    expect(await sums('MONTH')).toEqual([
      [middle(start, at('2024-03-31T16:00Z')), '1'],
      [middle(at('2024-03-31T16:00Z'), end), '6'],
    ])
    expect(await sums('QUARTER&timeZone=UTC')).toEqual([
      [middle(start, at('2024-04-01T00:00Z')), '1'],
      [middle(at('2024-04-01T00:00Z'), end), '6'],
    ])
  })

  it.each([
    'keys=t&startTs=1',
    'keys=t&endTs=1',
    'startTs=1&endTs=2',
    'keys=&startTs=1&endTs=2',
    'keys=t&startTs=3&endTs=2',
    'keys=t&startTs=x&endTs=2',
    'keys=t&startTs=1&endTs=2&limit=0',
    'keys=t&startTs=1&endTs=2&limit=100001',
    'keys=t&startTs=1&endTs=2&agg=MEDIAN',
    'keys=t&startTs=1&endTs=2&agg=AVG&interval=-1',
    'keys=t&startTs=1&endTs=2&agg=AVG&intervalType=MILLISECONDS',
    'keys=t&startTs=1&endTs=2&agg=AVG&intervalType=MONTH&timeZone=Mars',
    'keys=t&startTs=0&endTs=10001&agg=AVG&interval=1',
  ])('refuses ?%s', async (query) => {
    const device = await server.createDevice()
    expectRefusal(await server.call('GET', path(device, `values/timeseries?${query}`)), 400, 31)
  })

  it('takes 10,000 buckets', async () => {
    const device = await server.createDevice()
    await server.write(
      device,
      Array.from({ length: 10_000 }, (_, i) => integer('t', t0 + i, i)),
    )
    const found = (await read(device, `values/timeseries?keys=t&startTs=${t0}&endTs=${t0 + 10_000}&agg=SUM&interval=1`)) as { t: unknown[] }
    expect(found.t).toHaveLength(10_000)
  })
})

describe('writing', () => {
  it.each(['timeseries/ANY', 'timeseries/whatever/86400'])(
    'to %s stores the points, casts numeric strings and answers nothing',
    async (rest) => {
      const device = await server.createDevice()
      for (const type of ['application/json', 'text/plain']) {
        const answer = await server.call('POST', path(device, rest), {
          body: `{"ts":${t0},"values":{"a":"21.5","b":true}}`,
          headers: { 'content-type': type },
        })
        expect([answer.status, answer.text]).toEqual([200, ''])
      }
      expect(await read(device, 'values/timeseries?useStrictDataTypes=true')).toEqual({
        a: [{ ts: t0, value: 21.5 }],
        b: [{ ts: t0, value: true }],
      })
    },
  )

  it('stores nothing when one point is refused', async () => {
    const device = await server.createDevice()
    const answer = await server.call('POST', path(device, 'timeseries/ANY'), { body: '{"good":1,"bad":1e400}' })
    expectRefusal(answer, 400, 31)
    expect(answer.json()['message']).toContain('VALUE_NOT_FINITE')
    expect(await read(device, 'values/timeseries')).toEqual({})
  })

  it('refuses malformed bodies and other content types', async () => {
    const device = await server.createDevice()
    const url = path(device, 'timeseries/ANY')
    expectRefusal(await server.call('POST', url, { body: '{"x":' }), 400, 31)
    expectRefusal(await server.call('POST', url, { body: '{"x":1}', headers: { 'content-type': 'application/xml' } }), 415, 31)
  })
})

describe('deleting', () => {
  async function filled(): Promise<Device> {
    const device = await server.createDevice()
    await server.write(device, [integer('a', t0, 1), integer('a', t0 + 1000, 2), integer('b', t0, 3)])
    return device
  }

  it('takes all points of the keys, or those of a range', async () => {
    const device = await filled()
    const ranged = await server.call(
      'DELETE',
      path(device, `timeseries/delete?keys=a&startTs=${t0 + 1000}&endTs=${t0 + 2000}&deleteLatest=true&rewriteLatestIfDeleted=false`),
    )
    expect([ranged.status, ranged.text]).toEqual([200, ''])
    expect(await read(device, 'values/timeseries')).toEqual({ a: [{ ts: t0, value: '1' }], b: [{ ts: t0, value: '3' }] })
    expect((await server.call('DELETE', path(device, 'timeseries/delete?keys=a,unknown&deleteAllDataForKeys=true'))).status).toBe(200)
    expect(await read(device, 'values/timeseries')).toEqual({ b: [{ ts: t0, value: '3' }] })
  })

  it.each(['', 'keys=a', 'keys=a&startTs=1', 'keys=a&endTs=1', 'deleteAllDataForKeys=true', 'keys=a&deleteAllDataForKeys=false'])(
    'refuses ?%s',
    async (query) => {
      const device = await filled()
      expectRefusal(await server.call('DELETE', path(device, `timeseries/delete?${query}`)), 400, 31)
      expect(Object.keys((await read(device, 'values/timeseries')) as object)).toHaveLength(2)
    },
  )
})

describe('who may do it', () => {
  const calls = [
    ['GET', 'keys/timeseries', 'read'],
    ['GET', 'values/timeseries', 'read'],
    ['GET', 'timeseries/history?keys=a&startTs=1&endTs=2', 'read'],
    ['POST', 'timeseries/ANY', 'write'],
    ['DELETE', 'timeseries/delete?keys=a&deleteAllDataForKeys=true', 'write'],
  ] as const

  it.each(calls)('%s %s', async (method, rest, right) => {
    const device = await server.createDevice()
    const body = method === 'POST' ? { body: '{"a":1}' } : {}
    const call = async (as: 'nobody' | 'viewer' | 'stranger' | 'operator', url = path(device, rest)) =>
      server.call(method, url, { as, ...body })
    expectRefusal(await call('nobody'), 401, 10)
    if (right === 'write') expectRefusal(await call('viewer'), 403, 20)
    else expect((await call('viewer')).status).toBe(200)
    expect((await call('operator')).status).toBe(200)
    expectRefusal(await call('stranger'), 404, 32)
    expectRefusal(await call('operator', path({ ...device, id: randomUUID() }, rest)), 404, 32)
    expectRefusal(await call('operator', path({ ...device, id: 'no-uuid' }, rest)), 400, 31)
  })
})
