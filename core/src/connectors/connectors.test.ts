// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { Connector, Preview, Sample, TestResult } from './schemas.ts'
import { TestBroker, hasBroker } from './testing.ts'

let platform: TestPlatform
let count = 0
beforeAll(async () => {
  platform = await startTestPlatform({ outbound: { policy: 'lan', allow: ['127.0.0.1'] } })
})
afterAll(() => platform.close())

const rules = [{ topic: 'd/+/t', name: '{topic.2}' }]
/** What stands for a connector in these tests unless they say more. */
const plain = (url: string) => ({ name: `broker ${++count}`, url, topics: ['d/+/t'], rules })

async function create(wanted: Record<string, unknown>): Promise<Connector> {
  const answer = await platform.call('POST', '/api/v1/connectors', { body: wanted })
  expect(answer.status, answer.text).toBe(201)
  return answer.json<Connector>()
}

const read = async (id: string) => (await platform.call('GET', `/api/v1/connectors/${id}`)).json<Connector>()

async function expectState(
  id: string,
  state: string,
  change: (connector: Connector) => unknown = ({ status }) => status.state,
): Promise<void> {
  await expect.poll(async () => change(await read(id)), { timeout: 30_000 }).toBe(state)
}

async function findDevice(name: string) {
  const { items } = (await platform.call('GET', `/api/v1/devices?q=${encodeURIComponent(name)}`)).json<{
    items: { id: string; name: string; gatewayId: string | null; state: string; productName: string }[]
  }>()
  return items.find((one) => one.name === name)
}

async function latest(name: string): Promise<Record<string, { value: unknown; ts: number }>> {
  const device = await findDevice(name)
  if (!device) return {}
  const answer = await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)
  const { items } = answer.json<{ items: { key: string; value: unknown; ts: number }[] }>()
  return Object.fromEntries(items.map(({ key, ...rest }) => [key, rest]))
}

async function rejectsOf(deviceId: string | null) {
  const answer = await platform.call('GET', `/api/v1/devices/${deviceId}/rejects`)
  return answer.json<{ items: { code: string; detail: string; topic: string; transport: string; key: string | null }[] }>().items
}

describe('connectors by the API', () => {
  it('are refused with the member that makes no sense', async () => {
    const problem = async (change: Record<string, unknown>) => {
      const answer = await platform.call('POST', '/api/v1/connectors', {
        body: { ...plain('mqtt://192.0.2.1'), enabled: false, ...change },
      })
      const { code, errors } = answer.json<{ code: string; errors?: { pointer: string; code?: string }[] }>()
      return [answer.status, code, errors?.[0]?.pointer, errors?.[0]?.code]
    }
    expect(await problem({ url: 'mqtt://169.254.169.254' })).toEqual([422, 'OUTBOUND_URL_BLOCKED', '/url', 'metadata'])
    expect(await problem({ url: 'mqtt://[::1]' })).toEqual([422, 'OUTBOUND_URL_BLOCKED', '/url', 'loopback'])
    expect(await problem({ url: 'http://192.0.2.1' })).toEqual([422, 'OUTBOUND_URL_BLOCKED', '/url', 'scheme'])
    expect(await problem({ url: 'mqtt://a:b@192.0.2.1' })).toEqual([422, 'OUTBOUND_URL_BLOCKED', '/url', 'credentials'])
    expect(await problem({ url: 'mqtt://192.0.2.1:22' })).toEqual([422, 'OUTBOUND_URL_BLOCKED', '/url', 'port'])
    expect(await problem({ topics: ['a+'] })).toEqual([422, 'UNPROCESSABLE', '/topics/0', undefined])
    expect(await problem({ rules: [{ topic: 'a', name: '{x}' }] })).toEqual([422, 'UNPROCESSABLE', '/rules/0/name', undefined])
    expect(await problem({ rules: [{ topic: '$share/g/a', name: 'x' }] })).toEqual([422, 'UNPROCESSABLE', '/rules/0/topic', undefined])
    expect(await problem({ caCertificate: 'nonsense' })).toEqual([422, 'UNPROCESSABLE', '/caCertificate', undefined])
    expect((await problem({ surprise: 1 }))[0]).toBe(400)
    const { items } = (await platform.call('GET', '/api/v1/connectors')).json<{ items: unknown[] }>()
    expect(items).toEqual([])
    const events = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute<{ detail: { class: string } }>(
        sql`select detail from security_events where action = 'outbound.blocked' and outcome = 'denied'`,
      ),
    )
    expect(events.map(({ detail }) => detail.class).sort()).toEqual(['credentials', 'loopback', 'metadata', 'port', 'scheme'])
  })

  it('are made, read, listed, changed with If-Match, and deleted with their device', async () => {
    const made = await create({ ...plain('mqtt://192.0.2.1'), enabled: false, password: 's3cret', username: 'me' })
    expect(made).toMatchObject({ hasPassword: true, username: 'me', status: { state: 'off' }, persistent: true, protocolVersion: 5 })
    expect(JSON.stringify(made)).not.toContain('s3cret')
    expect(made.rules).toMatchObject([{ topic: 'd/+/t', kind: 'telemetry', decoder: 'json', members: '' }])
    expect(await findDevice(made.name)).toMatchObject({ id: made.deviceId, gateway: true })
    const path = `/api/v1/connectors/${made.id}`
    const etag = (await platform.call('GET', path)).headers.get('etag')!
    const patch = (body: unknown, match = etag) => platform.call('PATCH', path, { body, headers: { 'if-match': match } })
    const changed = await patch({ topics: ['e/#'], password: null })
    expect(changed.json()).toMatchObject({ topics: ['e/#'], hasPassword: false })
    expect((await patch({ username: 'x' })).json()).toMatchObject({ code: 'VERSION_CONFLICT' })
    const other = await create({ ...plain('mqtt://192.0.2.1'), enabled: false })
    expect((await patch({ name: other.name }, changed.headers.get('etag')!)).json()).toMatchObject({ code: 'NAME_TAKEN' })
    const page = (await platform.call('GET', '/api/v1/connectors?limit=1')).json<{ items: Connector[]; nextCursor: string }>()
    const rest = (await platform.call('GET', `/api/v1/connectors?limit=1&cursor=${page.nextCursor}`)).json<{ items: Connector[] }>()
    expect([...page.items, ...rest.items].map(({ id }) => id)).toEqual([made.id, other.id])
    for (const one of [made, other]) expect((await platform.call('DELETE', `/api/v1/connectors/${one.id}`)).status).toBe(204)
    expect(await findDevice(made.name)).toBeUndefined()
    expect((await platform.call('GET', path)).status).toBe(404)
    const rows = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute<{ action: string }>(sql`select action from security_events where target = ${`connector:${made.id}`} order by at`),
    )
    expect(rows.map(({ action }) => action)).toEqual(['connector.create', 'connector.update', 'connector.delete'])
  })

  it('take no name that a device has, and leave nothing behind then', async () => {
    const { name } = await platform.createDevice()
    const answer = await platform.call('POST', '/api/v1/connectors', { body: { ...plain('mqtt://192.0.2.1'), name } })
    expect(answer.json()).toMatchObject({ code: 'NAME_TAKEN' })
    expect((await platform.call('GET', '/api/v1/connectors')).json()).toMatchObject({ items: [] })
  })

  it('show what a message would become, by the way a live one goes', async () => {
    const preview = async (topic: string, payload: string, wanted: unknown[] = rules) =>
      (await platform.call('POST', '/api/v1/connectors/preview', { body: { topic, payload, rules: wanted } })).json<Preview>()
    expect(await preview('d/a/t', '{"v":9007199254740993,"s":"x","o":{"a":1.10}}')).toEqual({
      rule: 0,
      ignored: false,
      refused: null,
      items: [
        {
          device: 'a',
          product: null,
          kind: 'telemetry',
          ts: null,
          values: [
            { key: 'v', kind: 'integer', value: '"9007199254740993"' },
            { key: 's', kind: 'string', value: '"x"' },
            { key: 'o', kind: 'json', value: '{"a":1.10}' },
          ],
          rejects: [],
        },
      ],
    })
    expect(await preview('other', '{}')).toMatchObject({ rule: null, refused: { code: 'TOPIC_UNKNOWN' } })
    expect(await preview('d/a/t', '{')).toMatchObject({ rule: 0, refused: { code: 'PAYLOAD_MALFORMED' } })
    expect(await preview('d/a/t', '{}', [{ topic: '#', kind: 'ignore' }])).toMatchObject({ ignored: true, items: [] })
    const future = [{ ...rules[0], time: { path: 't', unit: 'iso' } }]
    expect(await preview('d/a/t', '{"v":1,"t":"2999-01-01T00:00:00Z"}', future)).toMatchObject({
      items: [{ rejects: [{ code: 'TS_FUTURE', key: 'v' }] }],
    })
    const presets = (await platform.call('GET', '/api/v1/connectors/presets')).json<
      { id: string; rules: unknown[]; example: { topic: string; payload: string } }[]
    >()
    expect(presets.map(({ id }) => id)).toEqual(['chirpstack', 'zigbee2mqtt', 'tasmota', 'plain'])
    for (const { example, rules: own } of presets) expect((await preview(example.topic, example.payload, own)).items).toHaveLength(1)
  })

  it('say why there is no connection, and try again by themselves', async () => {
    const made = await create(plain('mqtt://127.0.0.1:9'))
    await expectState(made.id, 'failing')
    const { status } = await read(made.id)
    expect(status).toMatchObject({ lastError: { code: 'CONNECTION_REFUSED' }, received: 0 })
    expect(status.nextAttemptAt).not.toBeNull()
    const off = await platform.call('PATCH', `/api/v1/connectors/${made.id}`, { body: { enabled: false } })
    expect(off.json()).toMatchObject({ enabled: false, status: { state: 'off' } })
    const test = await platform.call('POST', '/api/v1/connectors/test', { body: { url: 'mqtt://127.0.0.1:9', topics: ['#'] } })
    expect(test.json()).toMatchObject({ ok: false, error: { code: 'CONNECTION_REFUSED' }, messages: [] })
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
  })
})

describe.skipIf(!hasBroker)('connectors on a real broker', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await new TestBroker().start({ users: { iot: 'right horse' } })
  })
  afterAll(() => broker.close())
  const login = { username: 'iot', password: 'right horse' }
  const publish = async (topic: string, payload: unknown, options: { retain?: boolean; qos?: 0 | 1 | 2 } = {}) => {
    const client = await broker.connect(login)
    await client.publishAsync(topic, typeof payload === 'string' ? payload : JSON.stringify(payload), { qos: 1, ...options })
    await client.endAsync()
  }

  it('store what devices publish there, make the devices, and show them behind the connector', async () => {
    const made = await create({
      ...plain(broker.url),
      ...login,
      topics: ['$share/iot/site/+/#'],
      rules: [
        { topic: 'site/+/info', kind: 'attributes', name: '{topic.2}' },
        { topic: 'site/+/data', name: '{topic.2}', product: '{payload.model}', omit: ['model', 'at'], time: { path: 'at', unit: 's' } },
      ],
    })
    await expectState(made.id, 'connected')
    await publish('site/pump-1/data', { model: 'P7', flow: 12.5, big: 1, at: 1767225600 })
    await publish('site/pump-1/info', { serial: 'A-17' })
    await publish('site/pump-1/data', { model: 'P7', flow: 13 }, { qos: 0 })
    await publish('site/pump-1/data', { model: 'P7', level: 3 }, { qos: 2 })
    await expect.poll(async () => (await latest('pump-1'))['level']?.value, { timeout: 20_000 }).toBe(3)
    const values = await latest('pump-1')
    expect(values).toMatchObject({ flow: { value: 13 }, big: { value: 1, ts: 1767225600000 } })
    const device = await findDevice('pump-1')
    expect(device).toMatchObject({ gatewayId: made.deviceId, productName: 'P7' })
    await expect.poll(async () => (await findDevice('pump-1'))?.state, { timeout: 20_000 }).toBe('online')
    await expect.poll(async () => (await findDevice(made.name))?.state, { timeout: 20_000 }).toBe('online')
    const attributes = async () => (await platform.call('GET', `/api/v1/devices/${device!.id}/attributes/client`)).text
    await expect.poll(attributes, { timeout: 20_000 }).toContain('A-17')
    const { status } = await read(made.id)
    expect(status).toMatchObject({ state: 'connected', received: 4, points: 5, refused: 0, inFlight: 0, oldestMs: 0, lastError: null })
    expect(status.messagesPerMinute).toBeGreaterThan(0)
    const messages = (await platform.call('GET', `/api/v1/connectors/${made.id}/messages`)).json<Sample[]>()
    expect(messages[0]).toMatchObject({ topic: 'site/pump-1/data', encoding: 'text', isCut: false, payload: '{"model":"P7","level":3}' })
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
    expect(await findDevice('pump-1')).toBeDefined()
  })

  it('acknowledge what is refused and list it with its reason, at the device as well when there is one', async () => {
    const own = await platform.createDevice()
    const client = await platform.call('POST', `/api/v1/${own.token}/telemetry`, { body: { a: 1 }, token: null })
    expect(client.status).toBe(200)
    const made = await create({ ...plain(broker.url), ...login, topics: ['r/#'], rules: [{ topic: 'r/+', name: '{topic.2}' }] })
    await expectState(made.id, 'connected')
    await publish('r/x/unmapped', { v: 1 })
    await publish('r/broken', '{"v":')
    await publish('r/half', '{"good":1,"":2}')
    await publish(`r/${own.name}`, { v: 1 })
    await publish('r/last', { v: 1 })
    await expect.poll(async () => (await latest('last'))['v']?.value, { timeout: 20_000 }).toBe(1)
    await expect.poll(async () => (await read(made.id)).status.inFlight, { timeout: 10_000 }).toBe(0)
    const rejects = await rejectsOf(made.deviceId)
    expect(rejects.map(({ code }) => code).sort()).toEqual(['CHILD_FORBIDDEN', 'KEY_INVALID', 'PAYLOAD_MALFORMED', 'TOPIC_UNKNOWN'])
    expect(rejects.every(({ transport }) => transport === 'connector')).toBe(true)
    expect(rejects.find(({ code }) => code === 'CHILD_FORBIDDEN')).toMatchObject({ key: own.name, topic: `r/${own.name}` })
    expect((await rejectsOf((await findDevice('half'))!.id)).map(({ code }) => code)).toEqual(['KEY_INVALID'])
    expect((await read(made.id)).status.refused).toBe(4)
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
  })

  it('say that name and password are wrong, and work as soon as they are right, without a restart', async () => {
    const made = await create({ ...plain(broker.url), username: 'iot', password: 'wrong' })
    await expectState(made.id, 'failing')
    expect((await read(made.id)).status.lastError?.code).toMatch(/^(AUTH_FAILED|NOT_AUTHORIZED)$/)
    const test = (body: Record<string, unknown>) =>
      platform.call('POST', '/api/v1/connectors/test', {
        body: { url: broker.url, topics: ['$share/g/#'], username: 'iot', seconds: 2, ...body },
      })
    expect((await test({ id: made.id })).json<TestResult>().ok).toBe(false)
    const right = await platform.call('PATCH', `/api/v1/connectors/${made.id}`, { body: { password: 'right horse' } })
    expect(right.status).toBe(200)
    await expectState(made.id, 'connected')
    // The stored password is used for a test of changed settings.
    await publish('kept', { v: 5 }, { retain: true })
    const result = (await test({ id: made.id, protocolVersion: 4 })).json<TestResult>()
    expect(result).toMatchObject({ ok: true, error: null, messages: [{ topic: 'kept', payload: '{"v":5}', retain: true }] })
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
  })

  it('keep their session while they are off, and leave topics that are no longer wanted', async () => {
    const made = await create({ ...plain(broker.url), ...login, topics: ['k/+', 'old/+'], rules: [{ topic: '+/+', name: '{topic.2}' }] })
    await expectState(made.id, 'connected')
    const path = `/api/v1/connectors/${made.id}`
    await platform.call('PATCH', path, { body: { enabled: false } })
    for (let i = 0; i < 50; i++) await publish('k/away', { [`v${i}`]: i })
    await platform.call('PATCH', path, { body: { enabled: true } })
    await expect.poll(async () => Object.keys(await latest('away')).length, { timeout: 30_000 }).toBe(50)
    await platform.call('PATCH', path, { body: { topics: ['k/+'] } })
    await expectState(made.id, 'connected')
    await publish('old/forgotten', { v: 1 })
    await publish('k/wanted', { v: 1 })
    await expect.poll(async () => (await latest('wanted'))['v']?.value, { timeout: 20_000 }).toBe(1)
    expect((await read(made.id)).status.received).toBe(1)
    await platform.call('DELETE', path)
  })

  it('stop when their device is disabled, and go on when it is enabled', async () => {
    const made = await create({ ...plain(broker.url), ...login, topics: ['x/+'], rules: [{ topic: 'x/+', name: '{topic.2}' }] })
    await expectState(made.id, 'connected')
    await platform.call('PATCH', `/api/v1/devices/${made.deviceId}`, { body: { disabled: true } })
    await expectState(made.id, 'DEVICE_MISSING', ({ status }) => status.state === 'failing' && status.lastError?.code)
    await publish('x/later', { v: 1 })
    await platform.call('PATCH', `/api/v1/devices/${made.deviceId}`, { body: { disabled: false } })
    await expectState(made.id, 'connected')
    await expect.poll(async () => (await latest('later'))['v']?.value, { timeout: 20_000 }).toBe(1)
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
  })

  it('read the broker more slowly when their device has a rate, and lose nothing', async () => {
    const product = (
      await platform.call('POST', '/api/v1/products', { body: { name: 'slow', limits: { gateway: { messages: '20:1' } } } })
    ).json<{ id: string }>()
    const made = await create({
      ...plain(broker.url),
      ...login,
      enabled: false,
      topics: ['slow/+'],
      rules: [{ topic: 'slow/+', name: '{topic.2}' }],
    })
    await platform.call('PATCH', `/api/v1/devices/${made.deviceId}`, { body: { productId: product.id } })
    await platform.call('PATCH', `/api/v1/connectors/${made.id}`, { body: { enabled: true } })
    await expectState(made.id, 'connected')
    const client = await broker.connect(login)
    await Promise.all(Array.from({ length: 60 }, (_, i) => client.publishAsync('slow/one', JSON.stringify({ [`v${i}`]: i }), { qos: 1 })))
    await expect.poll(async () => Object.keys(await latest('one')).length, { timeout: 30_000 }).toBe(60)
    expect((await read(made.id)).status).toMatchObject({ refused: 0, received: 60 })
    await platform.call('DELETE', `/api/v1/connectors/${made.id}`)
  })
})
