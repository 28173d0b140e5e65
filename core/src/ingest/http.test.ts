// SPDX-License-Identifier: AGPL-3.0-only
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestAnswer, TestPlatform } from '../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

type Latest = { items: { key: string; ts: number; value: unknown; kind: string }[] }

async function send(token: string, body: string | Buffer, headers: Record<string, string> = {}, path = 'telemetry'): Promise<TestAnswer> {
  return platform.call('POST', `/api/v1/${token}/${path}`, { body, token: null, headers })
}

async function latest(id: string): Promise<Record<string, unknown>> {
  const { items } = (await platform.call('GET', `/api/v1/devices/${id}/telemetry`)).json<Latest>()
  return Object.fromEntries(items.map((item) => [item.key, item.value]))
}

async function rejectCodes(id: string): Promise<string[]> {
  return (await platform.call('GET', `/api/v1/devices/${id}/rejects`)).json<{ items: { code: string }[] }>().items.map((item) => item.code)
}

describe('POST /api/v1/{token}/telemetry', () => {
  it('answers 200 with an empty body once the points are stored [H-4, M-27]', async () => {
    const device = await platform.createDevice()
    const answer = await send(device.token, '{"temperature":25.1,"door":true,"count":7}')
    expect([answer.status, answer.text]).toEqual([200, ''])
    expect(await latest(device.id)).toEqual({ temperature: 25.1, door: true, count: 7 })
  })

  it('takes the JSON text whatever content type says it, also none [H-2]', async () => {
    const device = await platform.createDevice()
    for (const type of ['application/json', 'text/plain; charset=utf-8', 'application/octet-stream', 'application/x-www-form-urlencoded']) {
      expect((await send(device.token, '{"a":1}', { 'content-type': type })).status, type).toBe(200)
    }
    const bare = await raw(
      `POST /api/v1/${device.token}/telemetry HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{"b":2}`,
    )
    expect(bare).toMatch(/^HTTP\/1\.1 200 /)
    expect(await latest(device.id)).toEqual({ a: 1, b: 2 })
  })

  it('refuses other content types and compressed bodies with 415', async () => {
    const device = await platform.createDevice()
    for (const headers of [
      { 'content-type': 'application/xml' },
      { 'content-type': 'application/json; charset=gbk' },
      { 'content-encoding': 'gzip' },
    ] as Record<string, string>[]) {
      const answer = await send(device.token, '{"a":1}', headers)
      expect([answer.status, answer.json()['code']]).toEqual([415, 'CONTENT_TYPE'])
    }
  })

  it('answers 401 DEVICE_UNAUTHORIZED for an unknown token and a disabled device, and lists the refusal without the token', async () => {
    const device = await platform.createDevice()
    await platform.call('PATCH', `/api/v1/devices/${device.id}`, { body: { disabled: true } })
    for (const token of ['pmsd_nobodyknowsthisone12345', device.token]) {
      const answer = await send(token, '{"a":1}')
      expect([answer.status, answer.json()['code']]).toEqual([401, 'DEVICE_UNAUTHORIZED'])
      expect(answer.text).not.toContain(token)
    }
    const refused = await platform.call('GET', '/api/v1/system/refused-connections')
    expect(refused.json<{ items: unknown[] }>().items[0]).toMatchObject({
      address: '127.0.0.1',
      reason: 'unknown access token',
      last4: device.token.slice(-4),
    })
  })

  it('keeps the good points of a message, names the bad ones and logs them', async () => {
    const device = await platform.createDevice()
    const answer = await send(device.token, '{"good":1,"bad":1e400,"zero":"a\\u0000b"}')
    expect(answer.status).toBe(200)
    expect(answer.json()).toMatchObject({
      accepted: 1,
      rejected: [
        { code: 'VALUE_NOT_FINITE', key: 'bad' },
        { code: 'STRING_INVALID', key: 'zero' },
      ],
    })
    expect(await latest(device.id)).toEqual({ good: 1 })
    expect((await rejectCodes(device.id)).sort()).toEqual(['STRING_INVALID', 'VALUE_NOT_FINITE'])
  })

  it('answers 422 POINTS_REJECTED when every point was refused, naming the setting that would accept seconds [S-04]', async () => {
    const device = await platform.createDevice()
    const answer = await send(device.token, '{"ts":1700000000,"values":{"a":1}}')
    expect(answer.status).toBe(422)
    expect(answer.json()).toMatchObject({
      code: 'POINTS_REJECTED',
      errors: [{ code: 'TS_SECONDS', detail: expect.stringContaining('timestampUnit') }],
    })
    expect(await latest(device.id)).toEqual({})
  })

  it('answers 400 for a malformed payload and a wrong shape, 413 for too many points, and stores nothing [S-05]', async () => {
    const device = await platform.createDevice()
    const many = JSON.stringify(Object.fromEntries(Array.from({ length: 10_001 }, (_, i) => [`k${i}`, 1])))
    for (const [body, status, code] of [
      ['{"a":', 400, 'PAYLOAD_MALFORMED'],
      ['', 400, 'PAYLOAD_MALFORMED'],
      ['7', 400, 'SHAPE_INVALID'],
      ['[[1]]', 400, 'SHAPE_INVALID'],
      [many, 413, 'TOO_MANY_POINTS'],
    ] as const) {
      const answer = await send(device.token, body)
      expect([answer.status, answer.json()['code']], body.slice(0, 20)).toEqual([status, code])
    }
    expect(await latest(device.id)).toEqual({})
    expect(new Set(await rejectCodes(device.id))).toEqual(new Set(['PAYLOAD_MALFORMED', 'SHAPE_INVALID', 'TOO_MANY_POINTS']))
  })

  it('answers 413 BODY_TOO_LARGE above 1,048,576 bytes, judged on the declared length, and logs it', async () => {
    const device = await platform.createDevice()
    const answer = await send(device.token, `{"a":"${'x'.repeat(1_048_577)}"}`)
    expect([answer.status, answer.json()['code']]).toEqual([413, 'BODY_TOO_LARGE'])
    expect(await rejectCodes(device.id)).toEqual(['PACKET_TOO_LARGE'])
    const declared = await raw(`POST /api/v1/${device.token}/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n`)
    expect(declared).toMatch(/^HTTP\/1\.1 413 /)
  })

  it('takes names like __proto__ as ordinary keys [S-02, SC-70]', async () => {
    const device = await platform.createDevice()
    expect((await send(device.token, '{"__proto__":{"polluted":1},"constructor":2}')).status).toBe(200)
    const { items } = (await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)).json<Latest>()
    expect(items.map((item) => [item.key, item.value])).toEqual([
      ['__proto__', { polluted: 1 }],
      ['constructor', 2],
    ])
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  })

  it('brings exact 64-bit integers back', async () => {
    const device = await platform.createDevice()
    await send(device.token, '{"n":9007199254740993,"m":-9223372036854775808}')
    expect(await latest(device.id)).toEqual({ n: '9007199254740993', m: '-9223372036854775808' })
  })

  it('merges equal refusals within a minute into one entry with a count [L-2]', async () => {
    const device = await platform.createDevice()
    for (let i = 0; i < 5; i++) await send(device.token, '{"a":')
    const { items } = (await platform.call('GET', `/api/v1/devices/${device.id}/rejects`)).json<{ items: Record<string, unknown>[] }>()
    expect(items).toHaveLength(1)
    expect(items[0]).toMatchObject({ code: 'PAYLOAD_MALFORMED', count: 5, transport: 'http', sample: '{"a":', address: '127.0.0.1' })
    expect((await platform.call('DELETE', `/api/v1/devices/${device.id}/rejects`)).status).toBe(204)
    expect(await rejectCodes(device.id)).toEqual([])
  })
})

describe('POST /api/v1/{token}/attributes', () => {
  it('stores client attributes and refuses arrays [A-1]', async () => {
    const device = await platform.createDevice()
    expect((await send(device.token, '{"fw":"1.2","ok":true}', {}, 'attributes')).status).toBe(200)
    expect((await send(device.token, '[{"fw":1}]', {}, 'attributes')).json()).toMatchObject({ code: 'SHAPE_INVALID' })
    const { sql } = await import('drizzle-orm')
    const rows = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`select key, kind, big, txt from device_attributes where device_id = ${device.id} order by key`),
    )
    expect([...rows]).toEqual([
      { key: 'fw', kind: 0, big: null, txt: null },
      { key: 'ok', kind: 2, big: '1', txt: null },
    ])
  })
})

describe('request framing [SC-44, S-10]', () => {
  it('answers 400 and closes for bodies with two lengths', async () => {
    for (const head of [
      'Content-Length: 4\r\nTransfer-Encoding: chunked',
      'Content-Length: 4\r\nContent-Length: 5',
      'Content-Length : 4',
      'Transfer-Encoding: gzip',
    ]) {
      const answer = await raw(`POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${head}\r\n\r\n0\r\n\r\n`)
      expect(answer, head).toMatch(/^HTTP\/1\.1 400 /)
    }
  })
})

/** Sends bytes as they are and reads until the server closes. */
function raw(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect(platform.ports.http!, '127.0.0.1', () => socket.write(bytes))
    socket.setTimeout(3000, () => socket.destroy())
    socket.on('data', (chunk) => (answer += chunk))
    socket.on('close', () => resolve(answer))
    socket.on('error', (error) => (answer ? resolve(answer) : reject(error)))
  })
}
