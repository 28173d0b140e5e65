// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { readAnswer } from './mqtt-commands.ts'
import { commandTools, patienceMs, requestTopic } from './testing.ts'

let platform: TestPlatform
let tools: ReturnType<typeof commandTools>
beforeAll(async () => {
  platform = await startTestPlatform()
  tools = commandTools(platform)
})
afterAll(async () => {
  tools.end()
  await platform.close()
})

const rpc = (kind: 'oneway' | 'twoway', id: string, body: unknown) => platform.call('POST', `/api/rpc/${kind}/${id}`, { body })

describe('a call that is waited for', () => {
  it('one-way is done when it is written, with null for missing params [R-1, R-2]', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device, 0)
    const answer = rpc('oneway', device.id, { method: 'setGpio', params: { pin: 7 } })
    expect(await session.next()).toMatchObject({ topic: `${requestTopic}1`, qos: 0, body: { method: 'setGpio', params: { pin: 7 } } })
    expect(await answer).toMatchObject({ status: 200, text: '' })
    await session.subscribe(undefined, 1)
    const native = tools.post(device.id, { method: 'noParams', kind: 'oneway' })
    // No acknowledgement: written to a live session is enough.
    expect(await session.next(false)).toMatchObject({ no: 2, qos: 1, body: { method: 'noParams', params: null } })
    const done = await native
    expect(done.status, done.text).toBe(200)
    expect(done.json()).toEqual({ requestId: 2, state: 'DELIVERED', response: null })
  })

  it.each([
    ['{"value1":"A","n":9007199254740993,"d":3.0}', '{"value1":"A","n":9007199254740993,"d":3.0}'],
    ['[1,2]', '[1,2]'],
    ['"text"', '"text"'],
    ['not JSON', '"not JSON"'],
    ['{value:1}', '"{value:1}"'],
    ['', 'null'],
    [' \n', 'null'],
  ])('two-way gets the answer %j as %j [R-2]', async (sent, got) => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const compat = rpc('twoway', device.id, { method: 'get' })
    await session.answer((await session.next()).no, sent)
    expect(await compat).toMatchObject({ status: 200, text: got })
    const native = tools.post(device.id, { method: 'get', params: [1] })
    const { no, body } = await session.next()
    expect(body).toEqual({ method: 'get', params: [1] })
    await session.answer(no, sent)
    expect((await native).text).toBe(`{"requestId":2,"state":"SUCCESSFUL","response":${got}}`)
  })

  it.each([
    ['v2/r/req/+', 'v2/r/req/', 'v2/r/res/'],
    ['v2/r/req/j/+', 'v2/r/req/j/', 'v2/r/res/j/'],
  ])('comes in the form of the subscription %s [T-1, M-39]', async (filter, request, response) => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    await session.subscribe(filter)
    const answer = rpc('twoway', device.id, { method: 'get' })
    const { topic, no } = await session.next()
    expect(topic).toBe(`${request}${no}`)
    await session.answer(no, '1', response)
    expect(await answer).toMatchObject({ status: 200, text: '1' })
    await session.client.ping()
    expect(
      session.client.packets.filter((packet) => packet.cmd === 'publish'),
      'once only',
    ).toEqual([])
  })

  it('waits for a device that connects in time [R-3]', async () => {
    const device = await platform.createDevice()
    const answer = rpc('twoway', device.id, { method: 'late', timeout: 60_000 })
    const session = await tools.connect(device.token)
    await session.client.ping()
    await session.subscribe()
    await session.answer((await session.next()).no, '{"ok":true}')
    expect(await answer).toMatchObject({ status: 200, text: '{"ok":true}' })
  })

  it('ends in 504 without a session, and without an answer; a short time-out is raised to 5 s [R-3, R-4]', async () => {
    const [away, silent] = [await platform.createDevice(), await platform.createDevice()]
    const session = await tools.listen(silent)
    const start = performance.now()
    const answers = await Promise.all([
      rpc('oneway', away.id, { method: 'm', timeout: 1 }),
      rpc('twoway', silent.id, { method: 'm', timeout: 1 }),
      tools.post(away.id, { method: 'm', timeoutMs: 1 }),
      tools.post(away.id, { method: 'm', expiresAt: Date.now() - 1 }),
      tools.post(away.id, { method: 'm', expiresAt: new Date(Date.now() + 200).toISOString() }),
    ])
    expect(performance.now() - start).toBeGreaterThan(4900)
    expect(answers.map((answer) => answer.status)).toEqual([504, 504, 504, 504, 504])
    expect(answers[2].json()).toMatchObject({ code: 'COMMAND_TIMEOUT' })
    // What nobody waits for any more is not sent, and its answer comes too late.
    const other = await tools.listen(away)
    await other.client.ping()
    expect(other.client.packets).toEqual([])
    const { no } = await session.next()
    expect(await session.answer(no, '{}')).toBe(0)
    await until(() => tools.hasReject(silent.id, 'RPC_STALE'), patienceMs)
  })

  it('ends at once where waiting is not wanted and nobody listens', async () => {
    const device = await platform.createDevice()
    await tools.connect(device.token)
    const answer = await tools.post(device.id, { method: 'm', waitForDevice: false })
    expect(answer.status).toBe(409)
    expect(answer.json()).toMatchObject({ code: 'DEVICE_OFFLINE' })
    expect((await tools.post(device.id, { method: 'm', waitForDevice: false, persistent: true })).status).toBe(409)
  })

  it('on the older paths is 409 while nobody listens, 408 without an answer, and else as on the newer ones', async () => {
    const device = await platform.createDevice()
    const old = (kind: 'oneway' | 'twoway', body: unknown) => platform.call('POST', `/api/plugins/rpc/${kind}/${device.id}`, { body })
    const away = await Promise.all([old('oneway', { method: 'm' }), old('twoway', { method: 'm' })])
    expect(away.map(({ status, json }) => [status, json()['status']])).toEqual([
      [409, 409],
      [409, 409],
    ])
    const session = await tools.listen(device)
    const answered = old('twoway', { method: 'get', params: { n: 9_007_199_254_740_991 } })
    const { no, body } = await session.next()
    expect(body).toEqual({ method: 'get', params: { n: 9_007_199_254_740_991 } })
    await session.answer(no, '{"n":9007199254740993}')
    expect(await answered).toMatchObject({ status: 200, text: '{"n":9007199254740993}' })
    const written = old('oneway', { method: 'set' })
    await session.next()
    expect(await written).toMatchObject({ status: 200, text: '' })
    const silent = await old('twoway', { method: 'silent', timeout: 1 })
    expect([silent.status, silent.json()['status']]).toEqual([408, 408])
    const stored = await old('twoway', { method: 'm', persistent: true })
    expect([stored.status, typeof stored.json()['rpcId']]).toEqual([200, 'string'])
    expect((await platform.call('POST', `/api/plugins/rpc/oneway/${randomUUID()}`, { body: { method: 'm' } })).status).toBe(404)
  })

  it('is acknowledged and logged when nobody waits for the answer [R-5]', async () => {
    const device = await platform.createDevice()
    const session = await tools.connect(device.token, { protocolVersion: 5 })
    expect(await session.answer(4711, '{}')).toBe(0)
    await until(() => tools.hasReject(device.id, 'RPC_STALE'), patienceMs)
    await session.client.ping()
  })

  it('counts its numbers up per device [R-1]', async () => {
    const [a, b] = [await platform.createDevice(), await platform.createDevice()]
    const [first, second] = [await tools.listen(a), await tools.listen(b)]
    const numbers: number[] = []
    for (let count = 0; count < 3; count++) {
      const answer = rpc('oneway', a.id, { method: 'm' })
      numbers.push((await first.next()).no)
      await answer
    }
    const answer = rpc('oneway', b.id, { method: 'm' })
    expect([numbers, (await second.next()).no]).toEqual([[1, 2, 3], 1])
    await answer
  })

  it('of many at once reaches the device completely and in order', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const answers = Array.from({ length: 120 }, (_, count) => rpc('oneway', device.id, { method: 'm', params: count }))
    const numbers = []
    for (let count = 0; count < 120; count++) numbers.push((await session.next()).no)
    expect(numbers.toSorted((x, y) => x - y)).toEqual(Array.from({ length: 120 }, (_, count) => count + 1))
    for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200)
  })

  it('too large for the device fails at once [M-40]', async () => {
    const device = await platform.createDevice()
    const session = await tools.connect(device.token, { protocolVersion: 5, properties: { maximumPacketSize: 200 } })
    await session.subscribe()
    const answer = await tools.post(device.id, { method: 'm', params: 'x'.repeat(300) })
    expect(answer.status, answer.text).toBe(502)
    expect(answer.json()).toMatchObject({ code: 'COMMAND_FAILED' })
    const stored = await tools.queue(device.id, { params: 'x'.repeat(300) })
    await tools.reach(device.id, stored.id, 'FAILED')
    await until(() => tools.hasReject(device.id, 'DOWNLINK_TOO_LARGE'), patienceMs)
    await session.client.ping()
  })

  it('is not sent to a device that gave up its subscription [M-36]', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    session.client.put({ cmd: 'unsubscribe', messageId: 9, unsubscriptions: [`${requestTopic}+`] })
    await session.client.next('unsuback', patienceMs)
    const answer = rpc('oneway', device.id, { method: 'm', timeout: 60_000 })
    await session.client.ping()
    expect(session.client.packets).toEqual([])
    await session.subscribe()
    expect((await session.next()).body.method).toBe('m')
    expect((await answer).status).toBe(200)
  })
})

describe('a server that stops', () => {
  it('answers the calls that still wait', async () => {
    const other = await startTestPlatform()
    const device = await other.createDevice()
    const call = other.call('POST', `/api/v1/devices/${device.id}/commands`, { body: { method: 'm', timeoutMs: 300_000 } })
    const numbers = () => other.context.db.withTenant(other.context.rootTenant, (tx) => tx.execute(sql`select 1 from command_counters`))
    await until(async () => (await numbers()).length === 1, patienceMs)
    await other.close()
    expect(await call).toMatchObject({ status: 503 })
  })
})

describe('params', () => {
  const params = '{"id":9007199254740993,"share":3.0,"__proto__":{"a":1}}'

  it.each([
    ['twoway', 'application/json', '/api/rpc/twoway/'],
    ['twoway', 'text/plain', '/api/rpc/twoway/'],
    ['commands', 'application/json', '/api/v1/devices/'],
  ])('reach the device with all their digits: %s as %s', async (kind, type, path) => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const sent = platform.call('POST', `${path}${device.id}${kind === 'commands' ? '/commands' : ''}`, {
      body: `{"method":"m","params":${params}}`,
      headers: { 'content-type': type },
    })
    const packet = await session.client.next('publish', patienceMs)
    expect(packet.payload.toString()).toBe(`{"method":"m","params":${params}}`)
    await session.answer(1, '1')
    expect((await sent).status).toBe(200)
    const broken = await platform.call('POST', `${path}${device.id}${kind === 'commands' ? '/commands' : ''}`, {
      body: '{"method":',
      headers: { 'content-type': type },
    })
    expect(broken.status).toBe(400)
  })
})

describe('requests that make no sense', () => {
  it('are told so in the forms of both APIs', async () => {
    const device = await platform.createDevice()
    const unknown = '00000000-0000-4000-8000-000000000000'
    const compat = await rpc('oneway', unknown, { method: 'm' })
    expect(compat).toMatchObject({ status: 404, text: "Device with requested id wasn't found!" })
    expect(compat.headers.get('content-type')).toContain('text/plain')
    expect((await rpc('twoway', unknown, { method: 'm', persistent: true })).status).toBe(404)
    expect((await rpc('oneway', 'no-uuid', { method: 'm' })).json()).toMatchObject({ status: 400, errorCode: 31 })
    expect((await rpc('oneway', device.id, { params: 1 })).json()).toMatchObject({ status: 400, errorCode: 31 })
    expect((await rpc('oneway', device.id, { method: 'm', params: 'x'.repeat(65_536) })).status).toBe(413)
    expect((await tools.post(device.id, { method: 'm', params: 'x'.repeat(65_536) })).status).toBe(413)
    expect((await tools.post(unknown, { method: 'm' })).status).toBe(404)
    for (const body of [{}, { method: '' }, { method: 'm', kind: 'both' }, { method: 'm', retries: 21 }, { method: 'm', extra: 1 }]) {
      expect((await tools.post(device.id, body)).json(), JSON.stringify(body)).toMatchObject({ code: 'VALIDATION_FAILED' })
    }
  })

  it('and those of viewers are refused', async () => {
    const { id } = await platform.createDevice()
    const viewer = await platform.login('viewer')
    const as = (method: string, path: string) =>
      platform.call(method, path, { token: viewer, ...(method === 'POST' ? { body: { method: 'm' } } : {}) })
    expect((await as('POST', `/api/v1/devices/${id}/commands`)).status).toBe(403)
    expect((await as('POST', `/api/rpc/oneway/${id}`)).status).toBe(403)
    expect((await as('GET', `/api/v1/devices/${id}/commands`)).status).toBe(200)
  })
})

describe('an answer', () => {
  it('nested too deep is refused, brackets in texts are none [M-26]', () => {
    const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
    expect(readAnswer(Buffer.from(nested(32)))).toBe(nested(32))
    expect(readAnswer(Buffer.from(nested(33)))).toMatchObject({ code: 'JSON_TOO_DEEP' })
    expect(readAnswer(Buffer.from('['.repeat(65_000)))).toMatchObject({ code: 'JSON_TOO_DEEP' })
    const text = JSON.stringify('\\"['.repeat(100))
    expect(readAnswer(Buffer.from(text))).toBe(text)
  })

  it('costs what its length costs: a text of escaped quotes without an end would hold up all devices [M-26]', () => {
    const text = `"${'\\"'.repeat(500_000)}`
    expect(readAnswer(Buffer.from(text))).toBe(JSON.stringify(text))
  })

  it('is text whatever its bytes are', () => {
    expect(readAnswer(Buffer.from('\ufeff{"a":1}'))).toBe('{"a":1}')
    expect(readAnswer(Buffer.from([0xff, 0x00]))).toBe(JSON.stringify('\ufffd\u0000'))
  })
})
