// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import type { Rates } from '../products/schemas.ts'
import { completeSettings } from '../products/settings.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { RawClient, makeDevice, startEndpoint, until } from './mqtt/testing.ts'
import { DeviceLimits, RateLimiter, chooseLimits, noRates, sessionLimits } from './rate-limits.ts'

const none: Rates = { messages: null, telemetryMessages: null, telemetryDataPoints: null }
const rates = (change: Partial<Rates>): Rates => ({ ...none, ...change })
const telemetryTopic = 'v1/devices/me/telemetry'
const quotaExceeded = 0x97

describe('a rate limiter', () => {
  it('refills continuously and is full at the start [Q-2]', () => {
    const limiter = new RateLimiter('device', rates({ messages: '2:1' }), 0)
    expect([0, 0].map((now) => limiter.admit(true, now))).toEqual([undefined, undefined])
    expect(limiter.admit(true, 0)).toEqual({ waitMs: 500, limit: 'device.messages 2:1' })
    expect(limiter.admit(true, 499)).toMatchObject({ waitMs: expect.closeTo(1, 3) as number })
    expect(limiter.admit(true, 500)).toBeUndefined()
    expect(limiter.admit(true, 500)).toBeDefined()
    expect(
      [10_000, 10_000].map((now) => limiter.admit(true, now)),
      'never more than the capacity',
    ).toEqual([undefined, undefined])
    expect(limiter.admit(true, 10_000)).toBeDefined()
  })

  it('asks every bucket, and names the one that takes longest', () => {
    const limiter = new RateLimiter('device', rates({ messages: '2:1,3:60' }), 0)
    for (const now of [0, 0, 1000]) expect(limiter.admit(true, now)).toBeUndefined()
    expect(limiter.admit(true, 2000)).toMatchObject({ limit: 'device.messages 3:60', waitMs: expect.closeTo(18_000, 0) as number })
  })

  it('lets a message larger than the capacity pass once, and has it paid off [Q-2]', () => {
    const limiter = new RateLimiter('device', rates({ telemetryDataPoints: '10:10' }), 0)
    expect(limiter.admit(true, 0)).toBeUndefined()
    limiter.takePoints(25)
    expect(limiter.admit(true, 0)).toEqual({ waitMs: 16_000, limit: 'device.telemetryDataPoints 10:10' })
    expect(limiter.admit(false, 0), 'other messages have no points').toBeUndefined()
    expect(limiter.admit(true, 16_000)).toBeUndefined()
  })

  it('counts telemetry apart from other messages', () => {
    const limiter = new RateLimiter('gateway', rates({ telemetryMessages: '1:60' }), 0)
    expect(limiter.admit(true, 0)).toBeUndefined()
    expect(limiter.admit(true, 0)).toMatchObject({ limit: 'gateway.telemetryMessages 1:60' })
    for (let message = 0; message < 5; message++) expect(limiter.admit(false, 0)).toBeUndefined()
  })

  it('notices the refusal after the hundredth within a minute', () => {
    const limiter = new RateLimiter('device', none, 0)
    const counted = (now: number, times: number) => Array.from({ length: times }, () => limiter.isOneTooMany(now))
    expect(counted(1, 100)).not.toContain(true)
    expect(counted(60_002, 100), 'another minute').not.toContain(true)
    expect(counted(60_003, 2)).toEqual([true, false])
  })
})

describe('the limits of a device', () => {
  const choose = (product: Parameters<typeof completeSettings>[0]['limits'], installation = {}, isGateway = false, before?: DeviceLimits) =>
    chooseLimits(before, completeSettings(product ? { limits: product } : {}).limits, { ...noRates, ...installation }, isGateway, () => 0)

  it('are none by default, the product before the installation, and the empty text is none', () => {
    expect(choose(undefined)).toBeUndefined()
    expect(choose({ gateway: { messages: '1:1' } }), 'the scope of others').toBeUndefined()
    const installation = { device: rates({ messages: '5:1', telemetryMessages: '6:1' }) }
    expect(choose(undefined, installation)?.ownRates).toEqual(rates({ messages: '5:1', telemetryMessages: '6:1' }))
    expect(choose({ device: { messages: '7:1' } }, installation)?.ownRates).toEqual(rates({ messages: '7:1', telemetryMessages: '6:1' }))
    expect(choose({ device: { messages: '', telemetryMessages: '' } }, installation)).toBeUndefined()
  })

  it('keep the fill of their buckets while they are not changed', () => {
    const before = choose({ device: { messages: '5:1' } })!
    expect(choose({ device: { messages: '5:1' }, maxChildDevices: 3 }, {}, false, before)).toBe(before)
    expect(choose({ device: { messages: '6:1' } }, {}, false, before)).not.toBe(before)
    expect(choose({ device: { messages: '5:1' }, gateway: { messages: '5:1' } }, {}, true, before)?.own).toBeDefined()
  })

  it('of a gateway has a limiter for each child [Q-5]', () => {
    const limits = choose({ gatewayDevice: { messages: '1:60' } }, {}, true)!
    expect(limits.own).toBeUndefined()
    const [a, b] = [makeDevice('a'), makeDevice('b')]
    expect(limits.childLimiter(a)!.admit(true, 0)).toBeUndefined()
    expect(limits.childLimiter(a)!.admit(true, 0)).toMatchObject({ limit: 'gatewayDevice.messages 1:60' })
    expect(limits.childLimiter(b)!.admit(true, 0)).toBeUndefined()
    expect(choose({ gateway: { messages: '1:60' } }, {}, true)!.childLimiter(a)).toBeUndefined()
  })

  it('are told with all members; of a gateway the stricter of both scopes [Q-7]', () => {
    const endpoint = { payloadBytes: 65_536, inFlight: 100 }
    expect(sessionLimits(makeDevice('d'), endpoint)).toEqual({ maxPayloadSize: 65_536, maxInflightMessages: 100, rateLimits: none })
    const limits = choose(
      {
        gateway: { messages: '200:1,6000:60', telemetryMessages: '10:1' },
        gatewayDevice: { messages: '1000:1,5999:60', telemetryDataPoints: '9:1' },
      },
      {},
      true,
    )
    const stricter = { messages: '1000:1,5999:60', telemetryMessages: '10:1', telemetryDataPoints: '9:1' }
    expect(sessionLimits(makeDevice('g', { isGateway: true, limits }), endpoint)).toEqual({
      maxPayloadSize: 65_536,
      maxInflightMessages: 100,
      rateLimits: stricter,
      gatewayRateLimits: stricter,
    })
    expect(sessionLimits(makeDevice('g', { isGateway: true }), endpoint)).toMatchObject({ rateLimits: none, gatewayRateLimits: none })
  })
})

describe('a session over its limit', () => {
  let platform: TestPlatform
  const clients: RawClient[] = []
  beforeAll(async () => {
    platform = await startTestPlatform()
  })
  afterAll(async () => {
    for (const client of clients) client.end()
    await platform.close()
  })

  async function createLimited(limits: Record<string, Partial<Rates>>, device: Record<string, unknown> = {}) {
    const name = `limited-${Math.random()}`
    const product = await platform.call('POST', '/api/v1/products', { body: { name, limits } })
    expect(product.status, product.text).toBe(201)
    const productId = product.json<{ id: string }>().id
    return { productId, ...(await platform.createDevice({ productId, ...device })) }
  }
  async function open(token: string, protocolVersion: 4 | 5): Promise<RawClient> {
    for (;;) {
      const client = new RawClient(connectSocket(platform.ports.mqtt!, '127.0.0.1'))
      clients.push(client)
      await once(client.socket, 'connect')
      client.connect({ username: token, protocolVersion })
      const { returnCode, reasonCode } = await client.next('connack', 10_000)
      // A busy machine may refuse for a moment.
      if ((reasonCode ?? returnCode ?? 0) === 0) return client
      await sleep(100)
    }
  }
  async function latest(id: string): Promise<Record<string, unknown>> {
    return (await platform.call('GET', `/api/plugins/telemetry/DEVICE/${id}/values/timeseries`)).json()
  }
  async function findReject(id: string): Promise<{ code: string; detail: string } | undefined> {
    const answer = await platform.call('GET', `/api/v1/devices/${id}/rejects`)
    return answer.json<{ items: { code: string; detail: string }[] }>().items.find((entry) => entry.code === 'RATE_LIMITED')
  }

  it('is not read for as long as it takes, when that is short [Q-3]', async () => {
    const { token } = await createLimited({ device: { messages: '5:1' } })
    const client = await open(token, 4)
    const start = performance.now()
    for (let messageId = 1; messageId <= 7; messageId++) client.publish(telemetryTopic, `{"n":${messageId}}`, { messageId })
    for (let messageId = 1; messageId <= 7; messageId++) expect(await client.next('puback', 15_000)).toMatchObject({ messageId })
    expect(performance.now() - start).toBeGreaterThan(350)
    await client.ping()
  })

  it('gets 0x97 with the limit in MQTT 5, stores nothing of it, and lives [Q-4, Q-6]', async () => {
    const { id, token } = await createLimited({ device: { messages: '1:600' } })
    const client = await open(token, 5)
    client.publish(telemetryTopic, '{"a":1}', { messageId: 1 })
    expect((await client.next('puback', 10_000)).reasonCode ?? 0).toBe(0)
    client.publish(telemetryTopic, '{"b":1}', { messageId: 2 })
    const refused = await client.next('puback', 10_000)
    expect(refused).toMatchObject({ messageId: 2, reasonCode: quotaExceeded })
    expect(refused.properties?.reasonString).toMatch(/^rate limit device\.messages 1:600, retry in \d+ s$/)
    await client.ping()
    expect(Object.keys(await latest(id))).toEqual(['a'])
    await until(async () => (await findReject(id)) !== undefined, 10_000)
    expect((await findReject(id))?.detail).toMatch(/^rate limit device\.messages 1:600/)
    const hasEvent = async () => {
      const { items } = (await platform.call('GET', `/api/v1/devices/${id}/log`)).json<{ items: { event: string }[] }>()
      return items.filter((entry) => entry.event === 'rate_limited').length === 1
    }
    await until(hasEvent, 10_000)
  })

  it('is ended with 0x96 after a hundred refusals in a minute [Q-4]', async () => {
    const { token } = await createLimited({ device: { messages: '1:600' } })
    const client = await open(token, 5)
    for (let messageId = 1; messageId <= 101; messageId++) {
      client.publish(telemetryTopic, '{"a":1}', { messageId })
      expect(await client.next('puback', 10_000)).toMatchObject({ messageId })
    }
    client.publish(telemetryTopic, '{"a":1}', { messageId: 102 })
    expect(await client.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x96 })
    await client.closed
  })

  it('of MQTT 3.1.1 is not read until the message fits, and then it is stored [Q-4]', async () => {
    const { id, token } = await createLimited({ device: { messages: '1:6' } })
    const client = await open(token, 4)
    const start = performance.now()
    client.publish(telemetryTopic, '{"a":1}', { messageId: 1 })
    client.publish(telemetryTopic, '{"b":1}', { messageId: 2 })
    expect(await client.next('puback', 10_000)).toMatchObject({ messageId: 1 })
    expect(await client.next('puback', 20_000)).toMatchObject({ messageId: 2 })
    expect(performance.now() - start).toBeGreaterThan(5_000)
    expect(Object.keys(await latest(id)).toSorted()).toEqual(['a', 'b'])
    expect(await findReject(id)).toBeDefined()
  })

  it('loses messages of QoS 0, and lives [Q-4]', async () => {
    const { id, token } = await createLimited({ device: { telemetryMessages: '1:600' } })
    const client = await open(token, 4)
    client.publish(telemetryTopic, '{"a":1}', { messageId: 1 })
    await client.next('puback', 10_000)
    client.publish(telemetryTopic, '{"b":1}', { qos: 0 })
    await client.ping()
    client.publish('v1/devices/me/attributes', '{"c":1}', { messageId: 2 })
    expect(await client.next('puback', 10_000), 'attributes are no telemetry').toMatchObject({ messageId: 2 })
    expect(Object.keys(await latest(id))).toEqual(['a'])
    await until(async () => (await findReject(id)) !== undefined, 10_000)
  })

  it('pays off a message of many points [Q-2]', async () => {
    const { id, token } = await createLimited({ device: { telemetryDataPoints: '5:50' } })
    const client = await open(token, 5)
    client.publish(telemetryTopic, JSON.stringify(Object.fromEntries(Array.from({ length: 20 }, (_, no) => [`k${no}`, no]))))
    expect((await client.next('puback', 10_000)).reasonCode ?? 0).toBe(0)
    expect(Object.keys(await latest(id))).toHaveLength(20)
    client.publish(telemetryTopic, '{"a":1}', { messageId: 2 })
    const refused = await client.next('puback', 10_000)
    expect(refused.properties?.reasonString).toMatch(/^rate limit device\.telemetryDataPoints 5:50, retry in \d+ s$/)
  })

  it('gets 429 with Retry-After over HTTP, and waits there too when that is short [Q-3, Q-4]', async () => {
    const slow = await createLimited({ device: { messages: '1:600' } })
    const post = ({ token }: { token: string }, body: string) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })
    expect((await post(slow, '{"a":1}')).status).toBe(200)
    const refused = await post(slow, '{"b":1}')
    expect(refused.status).toBe(429)
    expect(refused.json()).toMatchObject({
      code: 'RATE_LIMITED',
      errors: [{ detail: expect.stringMatching(/^rate limit device\.messages 1:600/) }],
    })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(5)
    expect(Object.keys(await latest(slow.id))).toEqual(['a'])
    await until(async () => (await findReject(slow.id)) !== undefined, 10_000)
    const fast = await createLimited({ device: { messages: '1:1' } })
    const start = performance.now()
    expect(await Promise.all([1, 2].map(async (no) => (await post(fast, `{"a":${no}}`)).status))).toEqual([200, 200])
    expect(performance.now() - start).toBeGreaterThan(900)
  })

  it('follows a change of the product, and of the installation, without connecting anew [§15.2]', async () => {
    const { productId, token } = await createLimited({})
    const client = await open(token, 5)
    const publish = async (messageId: number) => {
      client.publish(telemetryTopic, '{"a":1}', { messageId })
      return (await client.next('puback', 10_000)).reasonCode ?? 0
    }
    expect([await publish(1), await publish(2)]).toEqual([0, 0])
    const settings = (body: unknown, as?: string) =>
      platform.call('PATCH', '/api/v1/settings/device-limits', { body, ...(as ? { token: as } : {}) })
    const product = (limits: unknown) => platform.call('PATCH', `/api/v1/products/${productId}`, { body: { limits } })
    expect((await product({ device: { messages: '1:600' } })).status).toBe(200)
    expect([await publish(3), await publish(4)]).toEqual([0, quotaExceeded])
    expect((await product({ device: null })).status).toBe(200)
    expect([await publish(5), await publish(6)]).toEqual([0, 0])
    const changed = await settings({ device: { messages: '1:600' } })
    expect(changed.json()).toEqual({ device: rates({ messages: '1:600' }), gateway: null, gatewayDevice: null })
    expect((await platform.call('GET', '/api/v1/settings/device-limits')).json()).toEqual(changed.json())
    expect([await publish(7), await publish(8)]).toEqual([0, quotaExceeded])
    expect((await product({ device: { messages: '' } })).status).toBe(200)
    expect([await publish(9), await publish(10)]).toEqual([0, 0])
    expect((await settings({ device: null })).json()).toEqual(noRates)
    const wrong = await settings({ gateway: { messages: '1:1,2:1' } })
    expect(wrong.status).toBe(422)
    expect(wrong.json()).toMatchObject({ code: 'RATE_LIMIT_SYNTAX', errors: [{ pointer: '/gateway/messages' }] })
    expect((await settings({}, await platform.login('operator'))).status).toBe(403)
  })

  it('of a gateway counts by the limits of gateways', async () => {
    const { token } = await createLimited({ device: { messages: '1:600' }, gateway: { messages: '2:600' } }, { gateway: true })
    const client = await open(token, 5)
    const codes: number[] = []
    for (let messageId = 1; messageId <= 3; messageId++) {
      client.publish(telemetryTopic, '{"a":1}', { messageId })
      codes.push((await client.next('puback', 10_000)).reasonCode ?? 0)
    }
    expect(codes).toEqual([0, 0, quotaExceeded])
  })

  it('of MQTT 3.1.1 is closed after a minute when the message still does not fit [Q-4]', async () => {
    const after = (ms: number, callback: () => void) => systemClock.after(ms === 60_000 ? 20 : ms, callback)
    const bench = await startEndpoint({ clock: { ...systemClock, after } })
    const limits = new DeviceLimits('device', { own: rates({ messages: '1:600' }), child: none }, () => systemClock.monotonic())
    bench.addDevice('slow', { limits })
    const client = await bench.session('slow')
    client.publish(telemetryTopic, '{"a":1}', { messageId: 1 })
    client.publish(telemetryTopic, '{"a":2}', { messageId: 2 })
    client.put({ cmd: 'pingreq' })
    await client.closedWithin(15_000)
    expect(client.packets.filter((packet) => packet.cmd !== 'puback')).toEqual([])
    expect(bench.sink.points).toHaveLength(1)
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['RATE_LIMITED'])
    await bench.stop()
  })
})
