// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Point } from './points.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const t0 = 1_760_000_000_000
const points: Point[] = [
  { key: 'temperature', ts: t0, kind: 'double', value: 21.5 },
  { key: 'temperature', ts: t0 - 1000, kind: 'double', value: 20 },
  { key: 'count', ts: t0 + 1, kind: 'integer', value: 9007199254740993n },
  { key: 'open', ts: t0 + 2, kind: 'boolean', value: false },
  { key: 'a,b', ts: t0 + 3, kind: 'string', value: 'text' },
  { key: 'position', ts: t0 + 4, kind: 'json', value: '{"lat":1.0}' },
]

async function filledDevice(): Promise<string> {
  const device = await server.createDevice()
  await server.write(device, points)
  return `/api/v1/devices/${device.id}/telemetry`
}

describe('the newest values', () => {
  it('come with time and kind, integers beyond 53 bits as strings, JSON as it was sent', async () => {
    const answer = await server.call('GET', await filledDevice())
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(answer.text).toContain(`{"key":"position","ts":${t0 + 4},"value":{"lat":1.0},"kind":"json"}`)
    expect(answer.json<{ items: object[] }>().items).toHaveLength(5)
    expect(answer.json()['items']).toEqual(
      expect.arrayContaining([
        { key: 'temperature', ts: t0, value: 21.5, kind: 'double' },
        { key: 'count', ts: t0 + 1, value: '9007199254740993', kind: 'integer' },
        { key: 'open', ts: t0 + 2, value: false, kind: 'boolean' },
        { key: 'a,b', ts: t0 + 3, value: 'text', kind: 'string' },
      ]),
    )
  })

  it('are those of the named keys; a key without data is left out', async () => {
    const url = await filledDevice()
    const keysOf = async (query: string) =>
      (await server.call('GET', `${url}?${query}`)).json<{ items: { key: string }[] }>().items.map((item) => item.key)
    expect(await keysOf('keys=temperature,missing')).toEqual(['temperature'])
    expect(await keysOf('key=a%2Cb')).toEqual(['a,b'])
    expect(await keysOf('keys=missing')).toEqual([])
  })

  it('are an empty list for a silent device', async () => {
    const device = await server.createDevice()
    expect((await server.call('GET', `/api/v1/devices/${device.id}/telemetry`)).json()).toEqual({ items: [] })
  })

  it('tell the keys, their kinds and last times', async () => {
    const answer = await server.call('GET', `${await filledDevice()}/keys`)
    expect(answer.json()['items']).toEqual(
      expect.arrayContaining([
        { key: 'temperature', kind: 'double', lastTs: t0 },
        { key: 'position', kind: 'json', lastTs: t0 + 4 },
      ]),
    )
    expect(answer.json()['items']).toHaveLength(5)
  })
})

describe('writing as a user', () => {
  const write = async (url: string, body: string, headers: Record<string, string> = {}) => server.call('POST', url, { body, headers })

  it('stores the points and reports the refused ones, without casting texts to numbers [V-17]', async () => {
    const device = await server.createDevice()
    const url = `/api/v1/devices/${device.id}/telemetry`
    const answer = await write(url, `[{"ts":${t0},"values":{"x":1,"text":"7","bad":1e400}}]`)
    expect([answer.status, answer.json()]).toEqual([
      200,
      { accepted: 2, rejected: [{ code: 'VALUE_NOT_FINITE', detail: expect.any(String), key: 'bad', ts: t0 }] },
    ])
    expect((await server.call('GET', url)).json()['items']).toEqual([
      { key: 'text', ts: t0, value: '7', kind: 'string' },
      { key: 'x', ts: t0, value: 1, kind: 'integer' },
    ])
  })

  it('takes {} as nothing to do', async () => {
    const device = await server.createDevice()
    expect((await write(`/api/v1/devices/${device.id}/telemetry`, '{}')).json()).toEqual({ accepted: 0, rejected: [] })
  })

  it('refuses a message of which no point is left', async () => {
    const device = await server.createDevice()
    const answer = await write(`/api/v1/devices/${device.id}/telemetry`, '{"ts":0,"values":{"x":1}}')
    expect([answer.status, answer.json()]).toEqual([
      422,
      expect.objectContaining({ code: 'POINTS_REJECTED', errors: [{ pointer: '/x', detail: expect.stringContaining('TS_INVALID') }] }),
    ])
  })

  it('refuses what is no JSON, nothing at all, and other content types', async () => {
    const device = await server.createDevice()
    const url = `/api/v1/devices/${device.id}/telemetry`
    expect((await write(url, '{"x":')).json()['code']).toBe('PAYLOAD_MALFORMED')
    expect((await server.call('POST', url)).json()['code']).toBe('PAYLOAD_MALFORMED')
    expect((await write(url, '{"x":1}', { 'content-type': 'text/plain' })).json()['code']).toBe('CONTENT_TYPE')
    expect((await write(url, '{"x":1}', { 'content-encoding': 'gzip' })).json()['code']).toBe('CONTENT_TYPE')
    expect((await write(url, '{"x":1}', { 'content-type': 'application/json; charset=UTF-8' })).status).toBe(200)
    expect((await write(url, `{"x":"${'y'.repeat(1_100_000)}"}`)).json()['code']).toBe('BODY_TOO_LARGE')
  })
})

describe('deleting points', () => {
  it('removes those of the keys in the range only', async () => {
    const url = await filledDevice()
    const answer = await server.call('DELETE', `${url}?keys=temperature,count&from=${t0 - 1000}&to=${t0}`)
    expect([answer.status, answer.json()]).toEqual([200, { deleted: 1 }])
    expect((await server.call('GET', `${url}/history?keys=temperature&from=0&to=${t0 + 10}`)).json()['series']).toEqual([
      { key: 'temperature', agg: 'NONE', points: [[t0, 21.5]] },
    ])
    expect((await server.call('GET', url)).json<{ items: object[] }>().items).toHaveLength(5)
  })

  it.each(['', 'keys=x', 'keys=x&from=1', 'from=1&to=2', 'keys=x&from=1&to=2&all=1'])(
    'refuses ?%s, so that nobody deletes everything by omission',
    async (query) => {
      const answer = await server.call('DELETE', `${await filledDevice()}?${query}`)
      expect([answer.status, answer.json()['code']]).toEqual([400, 'VALIDATION_FAILED'])
    },
  )
})

describe('who may do it', () => {
  const range = `keys=x&from=${t0}&to=${t0 + 1}`
  const calls = [
    ['GET', '', 'read'],
    ['GET', '/keys', 'read'],
    ['GET', `/history?${range}`, 'read'],
    ['GET', `/export?format=csv&${range}`, 'read'],
    ['POST', '', 'write'],
    ['DELETE', `?${range}`, 'write'],
  ] as const

  it.each(calls)('%s telemetry%s: nobody without a credential, writing not for viewers', async (method, path, right) => {
    const device = await server.createDevice()
    const url = `/api/v1/devices/${device.id}/telemetry${path}`
    const status = async (as: 'nobody' | 'viewer' | 'operator') =>
      (await server.call(method, url, { as, ...(method === 'POST' ? { body: '{"x":1}' } : {}) })).status
    expect([await status('nobody'), await status('viewer'), await status('operator')]).toEqual([401, right === 'read' ? 200 : 403, 200])
  })

  it.each(calls)('%s telemetry%s answers 404 for foreign, unknown and malformed ids', async (method, path) => {
    const device = await server.createDevice()
    const body = method === 'POST' ? { body: '{"x":1}' } : {}
    const answers = [
      await server.call(method, `/api/v1/devices/${device.id}/telemetry${path}`, { as: 'stranger', ...body }),
      await server.call(method, `/api/v1/devices/${randomUUID()}/telemetry${path}`, body),
      await server.call(method, `/api/v1/devices/no-uuid/telemetry${path}`, body),
      await server.call(method, `/api/v1/devices/%00/telemetry${path}`, body),
    ]
    for (const answer of answers) expect([answer.status, answer.json()['code']]).toEqual([404, 'NOT_FOUND'])
  })

  it('refuses parameters nobody knows', async () => {
    const device = await server.createDevice()
    for (const path of ['?x=1', '/keys?x=1', `/history?${range}&x=1`, `/export?format=csv&${range}&x=1`, `/export?format=pdf&${range}`]) {
      const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry${path}`)
      expect([answer.status, answer.json()['code']], path).toEqual([400, 'VALIDATION_FAILED'])
    }
    expect((await server.call('POST', `/api/v1/devices/${device.id}/telemetry?x=1`, { body: '{}' })).status).toBe(400)
  })

  it('finds a device by its id in capitals', async () => {
    const url = await filledDevice()
    expect(
      (
        await server.call(
          'GET',
          url.replace(/[0-9a-f-]{36}/, (id) => id.toUpperCase()),
        )
      ).json<{ items: object[] }>().items,
    ).toHaveLength(5)
  })
})
