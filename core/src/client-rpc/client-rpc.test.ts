// SPDX-License-Identifier: AGPL-3.0-only
import type { IClientOptions, MqttClient } from 'mqtt'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { connectDevice, until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { fillReply } from './replies.ts'

let platform: TestPlatform
const clients: MqttClient[] = []
let products = 0
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.end(true)
})
afterAll(() => platform.close())

async function createProduct(body: Record<string, unknown>): Promise<string> {
  const answer = await platform.call('POST', '/api/v1/products', { body: { name: `product ${++products}`, ...body } })
  expect(answer.status, answer.text).toBe(201)
  return answer.json<{ id: string }>().id
}

async function connect(token: string, options: IClientOptions = {}) {
  const client = await connectDevice(platform.ports.mqtt, token, options)
  clients.push(client)
  const messages: { topic: string; reply: unknown; qos: number }[] = []
  client.on('message', (topic, payload, { qos }) => messages.push({ topic, reply: JSON.parse(payload.toString()) as unknown, qos }))
  const ask = async (topic: string, call: unknown) => {
    await client.publishAsync(topic, typeof call === 'string' ? call : JSON.stringify(call), { qos: 1 })
    await until(() => messages.length > 0, 20_000)
    return messages.shift()!
  }
  return { client, ask, messages }
}

const post = (token: string, body: unknown) => platform.call('POST', `/api/v1/${token}/rpc`, { body, token: null })
const request = 'v1/devices/me/rpc/request'
const response = 'v1/devices/me/rpc/response'

describe('a call of a device', () => {
  it.each([
    [`${request}/5`, `${response}/5`],
    ['v2/r/req/0', 'v2/r/res/0'],
    ['v2/r/req/j/2147483647', 'v2/r/res/j/2147483647'],
  ])('on %s is answered on %s without a subscription [R-13] [T-1] [M-37]', async (topic, answerTopic) => {
    const device = await platform.createDevice()
    const { ask } = await connect(device.token)
    expect(await ask(topic, { method: 'getTime', params: {} })).toMatchObject({
      topic: answerTopic,
      qos: 1,
      reply: { time: expect.any(Number) },
    })
  })

  it.each(['getServerTime', 'getCurrentTime', 'getTime'])('for %s gets the time [R-14]', async (method) => {
    const device = await platform.createDevice()
    const { ask } = await connect(device.token)
    const before = Date.now()
    const { time, utc } = (await ask(`${request}/1`, { method })).reply as { time: number; utc: string }
    expect(time).toBeGreaterThanOrEqual(before)
    expect(time).toBeLessThanOrEqual(Date.now())
    expect(utc).toBe(new Date(time).toISOString())
  })

  it.each(['{}', '{"method":5}', '{"method":null}', '[]', '"getTime"', '{"params":{}}', '{"method":{"a":1}}'])(
    'that says %s is misshaped [R-13]',
    async (payload) => {
      const device = await platform.createDevice()
      const { client } = await connect(device.token, { protocolVersion: 5 })
      await expect(client.publishAsync(`${request}/1`, payload, { qos: 1 })).rejects.toMatchObject({ code: 0x99 })
      const answer = await post(device.token, payload)
      expect([answer.status, answer.json()['code']]).toEqual([400, 'SHAPE_INVALID'])
      await expect
        .poll(
          async () =>
            (await platform.call('GET', `/api/v1/devices/${device.id}/rejects`))
              .json<{ items: { code: string; transport: string }[] }>()
              .items.map(({ code, transport }) => `${transport} ${code}`)
              .toSorted(),
          { timeout: 20_000 },
        )
        .toEqual(['http SHAPE_INVALID', 'mqtt SHAPE_INVALID'])
    },
  )

  it('for getSessionLimits gets all members, of a gateway both kinds, the stricter of each [Q-7]', async () => {
    const limits = {
      device: { messages: '200:1,6000:60' },
      gateway: { messages: '20:1', telemetryMessages: '10:1,100:60' },
      gatewayDevice: { messages: '10:1', telemetryMessages: '500:60', telemetryDataPoints: '7:1' },
    }
    const productId = await createProduct({ limits, clientRpc: { getSessionLimits: { reply: 'mine' } } })
    const device = await platform.createDevice({ productId })
    const own = await connect(device.token)
    const call = { method: 'getSessionLimits', params: { timeout: 5000 } }
    const size = { maxPayloadSize: 65_536, maxInflightMessages: 100 }
    expect((await own.ask(`${request}/1`, call)).reply).toEqual({
      ...size,
      rateLimits: { messages: '200:1,6000:60', telemetryMessages: null, telemetryDataPoints: null },
    })
    const gateway = await platform.createDevice({ productId, gateway: true })
    const stricter = { messages: '10:1', telemetryMessages: '10:1,100:60', telemetryDataPoints: '7:1' }
    expect((await (await connect(gateway.token)).ask(`${request}/1`, call)).reply).toEqual({
      ...size,
      rateLimits: stricter,
      gatewayRateLimits: stricter,
    })
    const plain = await platform.createDevice()
    expect((await post(plain.token, call)).json()).toEqual({
      ...size,
      rateLimits: { messages: null, telemetryMessages: null, telemetryDataPoints: null },
    })
  })

  it('for a method of its product gets that reply, which wins over a built-in one [R-15]', async () => {
    const clientRpc = {
      getTime: { reply: 'by product' },
      where: { reply: { place: 'roof of ${device.name}', list: ['${params.a.b}', 1, null, true], now: '${now}' } },
      nothing: { reply: null },
      constructor: { reply: 0 },
    }
    const device = await platform.createDevice({ productId: await createProduct({ clientRpc }) })
    const { ask } = await connect(device.token)
    expect((await ask(`${request}/1`, { method: 'getTime' })).reply).toBe('by product')
    expect((await ask(`${request}/1`, '{"method":"where","params":{"a":{"b":"x"}}}')).reply).toEqual({
      place: `roof of ${device.name}`,
      list: ['x', 1, null, true],
      now: expect.stringMatching(/^\d{13}$/),
    })
    expect((await ask(`${request}/1`, { method: 'nothing' })).reply).toBeNull()
    expect((await ask(`${request}/1`, { method: 'constructor' })).reply).toBe(0)
    expect((await post(device.token, { method: 'nothing' })).text).toBe('null')
  })

  it("keeps every digit of its product's replies and of its own parameters [V-13]", async () => {
    const reply = '{"limit":9007199254740993,"list":[-9223372036854775808,1.50],"asked":"${params.serial} ${params}"}'
    const body = `{"name":"product ${++products}","clientRpc":{"exact":{"reply":${reply}}}}`
    const created = await platform.call('POST', '/api/v1/products', { body })
    expect(created.status, created.text).toBe(201)
    const { id: productId } = created.json<{ id: string }>()
    for (const answer of [
      created,
      await platform.call('GET', `/api/v1/products/${productId}`),
      await platform.call('GET', '/api/v1/products'),
    ]) {
      for (const digits of ['9007199254740993', '-9223372036854775808']) expect(answer.text).toContain(digits)
    }
    // A change of something else leaves them as they are.
    expect((await platform.call('PATCH', `/api/v1/products/${productId}`, { body: { description: 'changed' } })).text).toContain(
      '9007199254740993',
    )
    expect(
      (await platform.call('PATCH', `/api/v1/products/${productId}`, { body: `{"clientRpc":{"exact":{"reply":${reply}}}}` })).status,
    ).toBe(200)
    const device = await platform.createDevice({ productId })
    const answer = await post(device.token, '{"method":"exact","params":{"serial":9007199254740995}}')
    for (const part of [
      '"limit":9007199254740993',
      '"list":[-9223372036854775808,1.50]',
      '"asked":"9007199254740995 {\\"serial\\":9007199254740995}"',
    ]) {
      expect(answer.text).toContain(part)
    }
  })

  it('that nobody answers is told so when the time of the product is over, and holds up no other [R-16]', async () => {
    const device = await platform.createDevice({ productId: await createProduct({ rpc: { clientTimeoutMs: 500 } }) })
    const { ask, client, messages } = await connect(device.token)
    await client.publishAsync(`${request}/1`, '{"method":"openDoor","params":{"no":3}}', { qos: 1 })
    expect(await ask(`${request}/2`, { method: 'getTime' })).toMatchObject({ topic: `${response}/2` })
    await until(() => messages.length > 0, 20_000)
    expect(messages).toEqual([{ topic: `${response}/1`, reply: { error: 'timeout' }, qos: 1 }])
    const answer = await post(device.token, { method: 'toString' })
    expect([answer.status, answer.json()]).toEqual([200, { error: 'timeout' }])
  })

  it('is told on the event bus, with its parameters', async () => {
    const device = await platform.createDevice({ productId: await createProduct({ rpc: { clientTimeoutMs: 500 } }) })
    const calls: unknown[] = []
    const stop = platform.context.events.on('device.called', ({ deviceId, requestId, method, params }) => {
      if (deviceId === device.id) calls.push({ requestId, method, params })
    })
    const { ask } = await connect(device.token)
    await ask(`${request}/9`, { method: 'openDoor', params: [{ no: '007' }] })
    expect(calls).toEqual([{ requestId: expect.any(Number), method: 'openDoor', params: [{ no: '007' }] }])
    stop()
  })

  it('is answered by a user, each call by its own reply, with every digit [R-16]', async () => {
    const device = await platform.createDevice()
    const other = await platform.createDevice()
    const calls: { requestId: number; method: string }[] = []
    const stop = platform.context.events.on('device.called', ({ deviceId, requestId, method }) => {
      if (deviceId === device.id) calls.push({ requestId, method })
    })
    const reply = (id: string, no: number, body: unknown, token?: string) =>
      platform.call('POST', `/api/v1/devices/${id}/client-rpc/${no}`, { body, ...(token ? { token } : {}) })
    const { client, messages } = await connect(device.token)
    await client.publishAsync(`${request}/9`, '{"method":"openDoor"}', { qos: 1 })
    const overHttp = post(device.token, { method: 'closeDoor' })
    await until(() => calls.length === 2, 20_000)
    const [opening, closing] = ['openDoor', 'closeDoor'].map((method) => calls.find((call) => call.method === method)!.requestId)
    expect((await reply(device.id, closing!, '{"reply":{"closed":9007199254740993}}')).status).toBe(204)
    expect(await overHttp).toMatchObject({ status: 200, text: '{"closed":9007199254740993}' })
    expect((await reply(device.id, opening!, { reply: null }, await platform.login('viewer'))).status).toBe(403)
    expect((await reply(other.id, opening!, { reply: 'not mine' })).status).toBe(404)
    expect((await reply(device.id, opening!, {})).status).toBe(400)
    expect((await reply(device.id, opening!, { reply: null })).status).toBe(204)
    await until(() => messages.length > 0, 20_000)
    expect(messages).toEqual([{ topic: `${response}/9`, reply: null, qos: 1 }])
    // It has its answer.
    expect((await reply(device.id, opening!, { reply: 1 })).status).toBe(404)
    stop()
  })

  it('is refused at once when a hundred of its calls wait already', async () => {
    const device = await platform.createDevice()
    const { client, ask } = await connect(device.token)
    for (let id = 0; id < 100; id++) client.publish(`${request}/${id}`, '{"method":"slow"}', { qos: 0 })
    expect((await ask(`${request}/100`, { method: 'slow' })).reply).toEqual({ error: 'too many unanswered requests' })
  })

  it('over HTTP gets the reply, with a body of at most 65,536 bytes', async () => {
    const device = await platform.createDevice()
    const answer = await post(device.token, { method: 'getServerTime', params: {} })
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
    expect(answer.json()).toMatchObject({ time: expect.any(Number), utc: expect.any(String) })
    expect((await post('wrong', { method: 'getTime' })).status).toBe(401)
    expect((await post(device.token, 'nonsense')).json()['code']).toBe('PAYLOAD_MALFORMED')
    const large = await post(device.token, { method: 'getTime', params: 'x'.repeat(65_536) })
    expect([large.status, large.json()['code']]).toEqual([413, 'BODY_TOO_LARGE'])
  })
})

describe('a reply of a product', () => {
  const values = { params: { a: { b: 1.5, c: [1], 'd-e': '"' }, __proto__: null }, device: { name: '泵' }, now: 1763690000123 }

  it.each([
    ['${params.a.b}', '1.5'],
    ['${params.a.c.0} ${params.a.c}', '1 [1]'],
    ['${params.a.d-e}', '"'],
    ['<${device.name}>', '<泵>'],
    ['${now}', '1763690000123'],
    ['${params.missing.x}${params.constructor}', ''],
    ['${device.id} ${process.env} ${} ${', '${device.id} ${process.env} ${} ${'],
    [5, 5],
    [{ '${now}': ['${now}'] }, { '${now}': ['1763690000123'] }],
  ])('%j becomes %j', (reply, filled) => {
    expect(fillReply(reply, values)).toEqual(filled)
  })

  it('that would become too long is none', () => {
    const reply = '${params}'.repeat(7000)
    expect(fillReply(reply, { ...values, params: 'x'.repeat(60_000) })).toBeUndefined()
  })
})
