// SPDX-License-Identifier: AGPL-3.0-only
import type { IClientOptions, MqttClient } from 'mqtt'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { connectDevice, until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { mergePushes } from './pushes.ts'

let platform: TestPlatform
const clients: MqttClient[] = []
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterEach(() => {
  for (const client of clients.splice(0)) client.end(true)
})
afterAll(() => platform.close())

type Message = { topic: string; text: string; qos: number }

/** The client library of devices, with all it has received. */
async function connect(token: string, options: IClientOptions = {}) {
  const client = await connectDevice(platform.ports.mqtt, token, options)
  clients.push(client)
  const messages: Message[] = []
  client.on('message', (topic, payload, { qos }) => messages.push({ topic, text: payload.toString(), qos }))
  const next = async (): Promise<Message> => {
    await until(() => messages.length > 0, 20_000)
    return messages.shift()!
  }
  /** What is sent after this has arrived when this is answered: nothing else was on its way. */
  const settle = async (): Promise<Message[]> => {
    await client.publishAsync('v1/devices/me/attributes/request/2147483647', '{"sharedKeys":""}', { qos: 1 })
    await until(() => messages.some(({ topic }) => topic.endsWith('/2147483647')), 20_000)
    return messages.splice(0).filter(({ topic }) => !topic.endsWith('/2147483647'))
  }
  return { client, next, settle }
}

const write = (id: string, body: unknown, scope = 'shared') => platform.call('PATCH', `/api/v1/devices/${id}/attributes/${scope}`, { body })
const get = (token: string, rest: string) => platform.call('GET', `/api/v1/${token}/attributes${rest}`, { token: null })
const v1 = 'v1/devices/me/attributes'

async function createKnownDevice() {
  const device = await platform.createDevice()
  await write(device.id, '{"sa":true,"sb":{"j":1.50},"sc":9007199254740993,"fw":"1.0"}')
  const { client, next, settle } = await connect(device.token)
  await client.publishAsync(v1, '{"ca":"x","cb":2.0,"cc":3}', { qos: 1 })
  return { ...device, client, next, settle }
}

describe('a request of a device for its attributes', () => {
  const everything = '{"client":{"ca":"x","cb":2,"cc":3},"shared":{"fw":"1.0","sa":true,"sb":{"j":1.50},"sc":9007199254740993}}'

  it.each([
    ['{}', everything],
    ['{"clientKeys":"ca,cb","sharedKeys":"sa,sb"}', '{"client":{"ca":"x","cb":2},"shared":{"sa":true,"sb":{"j":1.50}}}'],
    ['{"clientKeys":["ca","cc"]}', '{"client":{"ca":"x","cc":3}}'],
    ['{"sharedKeys":"fw,sa,"}', '{"shared":{"fw":"1.0","sa":true}}'],
    ['{"sharedKeys":",, ,sa"}', '{"shared":{"sa":true}}'],
    ['{"clientKeys":"","sharedKeys":"sa"}', '{"shared":{"sa":true}}'],
    ['{"clientKeys":","}', '{}'],
    ['{"clientKeys":[]}', '{}'],
    ['{"clientKeys":"sa","sharedKeys":"ca"}', '{}'],
    ['{"clientKeys":"missing,ca"}', '{"client":{"ca":"x"}}'],
    ['{"clientKeys":null,"sharedKeys":"sa"}', '{"shared":{"sa":true}}'],
    ["{sharedKeys:'sa',other:[1]}", '{"shared":{"sa":true}}'],
  ])('that says %s is answered with %s [A-4] [A-5]', async (question, answer) => {
    const { client, next } = await createKnownDevice()
    await client.publishAsync(`${v1}/request/7`, question, { qos: 1 })
    expect(await next()).toEqual({ topic: `${v1}/response/7`, text: answer, qos: 1 })
  })

  it.each([
    [`${v1}/request/0`, `${v1}/response/0`],
    ['v2/a/req/12', 'v2/a/res/12'],
    ['v2/a/req/j/2147483647', 'v2/a/res/j/2147483647'],
  ])('on %s is answered on %s, without a subscription [T-1] [M-37]', async (topic, answerTopic) => {
    const { client, next } = await createKnownDevice()
    await client.publishAsync(topic, '{"sharedKeys":"sa"}', { qos: 0 })
    expect(await next()).toEqual({ topic: answerTopic, text: '{"shared":{"sa":true}}', qos: 1 })
  })

  it('is answered at the QoS of its subscription [M-38]', async () => {
    const { client, next } = await createKnownDevice()
    await client.subscribeAsync(`${v1}/response/+`, { qos: 0 })
    await client.publishAsync(`${v1}/request/1`, '{"sharedKeys":"sa"}', { qos: 1 })
    expect((await next()).qos).toBe(0)
  })

  it('sees what was sent just before it', async () => {
    const { client, next } = await createKnownDevice()
    await client.publishAsync(v1, '{"cc":4}', { qos: 1 })
    await client.publishAsync(`${v1}/request/1`, '{"clientKeys":"cc"}', { qos: 1 })
    expect((await next()).text).toBe('{"client":{"cc":4}}')
  })

  it.each(['[]', '"a"', '5', '{"clientKeys":5}', '{"sharedKeys":[1]}', '{"clientKeys":{}}', '{"sharedKeys":true}'])(
    'that says %s is misshaped',
    async (question) => {
      const device = await platform.createDevice()
      const { client } = await connect(device.token, { protocolVersion: 5 })
      await expect(client.publishAsync(`${v1}/request/1`, question, { qos: 1 })).rejects.toMatchObject({ code: 0x99 })
    },
  )

  it('gets no answer of more than 1 MiB, but one below', async () => {
    const device = await platform.createDevice()
    const text = 'x'.repeat(60_000)
    for (let no = 0; no < 18; no++) await write(device.id, { [`k${no}`]: text })
    const { client, next } = await connect(device.token, { protocolVersion: 5 })
    await expect(client.publishAsync(`${v1}/request/1`, '{}', { qos: 1 })).rejects.toMatchObject({ code: 0x99 })
    await client.publishAsync(`${v1}/request/2`, `{"sharedKeys":"${Array.from({ length: 17 }, (_, no) => `k${no}`).join()}"}`, { qos: 1 })
    expect((await next()).text.length).toBeGreaterThan(1_000_000)
    expect((await get(device.token, '')).status).toBe(422)
  })

  it('of many devices at once gets its own answer each', async () => {
    const devices = await Promise.all(Array.from({ length: 20 }, () => platform.createDevice()))
    await Promise.all(devices.map(({ id, name }) => write(id, { name })))
    const open = await Promise.all(devices.map(({ token }) => connect(token)))
    for (const { client } of open) for (let no = 0; no < 10; no++) client.publish(`v2/a/req/${no}`, '{"sharedKeys":"name"}', { qos: 1 })
    for (const [index, { next }] of open.entries()) {
      for (let no = 0; no < 10; no++) {
        expect(await next()).toMatchObject({ topic: `v2/a/res/${no}`, text: `{"shared":{"name":"${devices[index]!.name}"}}` })
      }
    }
  })

  it('waits for a database that went away, and is answered then [M-29]', { timeout: 30_000 }, async () => {
    const { client, next } = await createKnownDevice()
    const admin = postgres(platform.context.config.database.migrateUrl!, { max: 2, onnotice: () => {} })
    let acknowledged: Promise<unknown> = Promise.resolve()
    await admin.begin(async (tx) => {
      await tx`lock table device_attributes in access exclusive mode`
      acknowledged = client.publishAsync(`${v1}/request/1`, '{"sharedKeys":"sa"}', { qos: 1 })
      const cut = async () =>
        (
          await admin`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and query like '%jsonb_to_recordset%' and wait_event_type = 'Lock'`
        ).length
      await expect.poll(cut, { timeout: 20_000 }).toBe(1)
    })
    await acknowledged
    expect((await next()).text).toBe('{"shared":{"sa":true}}')
    await admin.end()
  })

  it('over HTTP is answered the same way', async () => {
    const { token } = await createKnownDevice()
    for (const [query, answer] of [
      ['', everything],
      ['?clientKeys=ca,missing', '{"client":{"ca":"x"}}'],
      ['?sharedKeys=sa&clientKeys=cb', '{"client":{"cb":2},"shared":{"sa":true}}'],
      ['?sharedKeys=sa&sharedKeys=fw', '{"shared":{"fw":"1.0","sa":true}}'],
      ['?clientKeys=&sharedKeys=sa', '{"shared":{"sa":true}}'],
      ['?clientKeys=', '{}'],
      ['?clientKeys=ca,a%00b&sharedKeys=%00', '{"client":{"ca":"x"}}'],
      [`?sharedKeys=sa&sharedKeys=__proto__,constructor,${'k,'.repeat(3000)}`, '{"shared":{"sa":true}}'],
    ] as const) {
      const found = await get(token, query)
      expect([found.status, found.text], query).toEqual([200, answer])
      expect(found.headers.get('content-type')).toMatch(/^application\/json/)
    }
    expect((await get('wrong', '')).status).toBe(401)
  })
})

describe('a change of shared attributes', () => {
  it('is pushed as one message with exactly its keys, each change by itself and in order [A-2]', async () => {
    const device = await platform.createDevice()
    const { client, next, settle } = await connect(device.token)
    await client.subscribeAsync(v1, { qos: 1 })
    await write(device.id, '{"interval":30,"mode":"eco","big":9007199254740993,"d":1.0,"j":{"a":[1.50]}}')
    await write(device.id, { interval: 30 })
    await write(device.id, { interval: null, unknown: null })
    await platform.call('DELETE', `/api/v1/devices/${device.id}/attributes/shared?keys=mode`)
    await write(device.id, '{"interval":31,"big":null}')
    const texts = [
      '{"interval":30,"mode":"eco","big":9007199254740993,"d":1,"j":{"a":[1.50]}}',
      '{"interval":30}',
      '{"deleted":["interval","unknown"]}',
      '{"deleted":["mode"]}',
      '{"interval":31,"deleted":["big"]}',
    ]
    for (const text of texts) expect(await next()).toEqual({ topic: v1, text, qos: 1 })
    expect(await settle()).toEqual([])
  })

  it('made by many at once reaches the device in the order in which it was stored', async () => {
    const device = await platform.createDevice()
    const { client, next } = await connect(device.token)
    await client.subscribeAsync(v1, { qos: 1 })
    await Promise.all(Array.from({ length: 40 }, (_, no) => write(device.id, { no })))
    let last = ''
    for (let no = 0; no < 40; no++) last = (await next()).text
    expect((await get(device.token, '?sharedKeys=no')).text).toBe(`{"shared":${last}}`)
  })

  it('goes to subscribers only, and not when only client or server attributes change [M-36]', async () => {
    const device = await platform.createDevice()
    const { client, settle, next } = await connect(device.token)
    await write(device.id, { a: 1 })
    expect(await settle()).toEqual([])
    await client.subscribeAsync(v1, { qos: 1 })
    await write(device.id, { s: 1 }, 'server')
    await client.publishAsync(v1, '{"c":1}', { qos: 1 })
    await platform.call('DELETE', `/api/v1/devices/${device.id}/attributes/client?keys=c`)
    expect(await settle()).toEqual([])
    await write(device.id, { a: 2 })
    expect((await next()).text).toBe('{"a":2}')
    await client.unsubscribeAsync(v1)
    await write(device.id, { a: 3 })
    expect(await settle()).toEqual([])
  })

  it('goes once, in the form subscribed last [M-39]', async () => {
    const device = await platform.createDevice()
    const { client, next, settle } = await connect(device.token)
    await client.subscribeAsync({ [v1]: { qos: 1 }, 'v2/a': { qos: 1 }, 'v2/a/j': { qos: 0 } })
    await write(device.id, { a: 1 })
    expect(await next()).toEqual({ topic: 'v2/a/j', text: '{"a":1}', qos: 0 })
    await client.subscribeAsync('v2/a', { qos: 1 })
    await write(device.id, { a: 2 })
    expect(await next()).toEqual({ topic: 'v2/a', text: '{"a":2}', qos: 1 })
    expect(await settle()).toEqual([])
  })

  it('is not kept for a device that is away: it asks when it is back [A-3]', async () => {
    const device = await platform.createDevice()
    await write(device.id, { a: 1 })
    const { client, settle, next } = await connect(device.token)
    await client.subscribeAsync(v1, { qos: 1 })
    expect(await settle()).toEqual([])
    await client.publishAsync(`${v1}/request/1`, '{"sharedKeys":"a"}', { qos: 1 })
    expect((await next()).text).toBe('{"shared":{"a":1}}')
  })

  it('goes to the own topic of the product too, at the QoS granted there [A-7]', async () => {
    const transport = { attributesPushTopic: 'plant/7/settings', telemetryTopics: ['plant/+/data'], attributesTopics: ['plant/+/info'] }
    const product = await platform.call('POST', '/api/v1/products', { body: { name: 'own topics', transport } })
    expect(product.status, product.text).toBe(201)
    const device = await platform.createDevice({ productId: product.json()['id'] })
    const { client, next, settle } = await connect(device.token)
    await client.publishAsync('plant/7/info', '{"reported":1}', { qos: 1 })
    await client.publishAsync('plant/7/data', '{"t":1}', { qos: 1 })
    expect((await get(device.token, '?clientKeys=reported,t')).text).toBe('{"client":{"reported":1}}')
    await client.subscribeAsync(v1, { qos: 1 })
    await client.subscribeAsync('plant/7/settings', { qos: 0 })
    await write(device.id, { a: 1 })
    expect(await next()).toEqual({ topic: 'plant/7/settings', text: '{"a":1}', qos: 0 })
    expect(await settle()).toEqual([])
  })

  it('by scripts of ThingsBoard is pushed too', async () => {
    const device = await platform.createDevice()
    const { client, next } = await connect(device.token)
    await client.subscribeAsync(v1, { qos: 1 })
    await platform.call('POST', `/api/plugins/telemetry/DEVICE/${device.id}/SHARED_SCOPE`, { body: { n: '5' } })
    expect((await next()).text).toBe('{"n":5}')
    await platform.call('DELETE', `/api/plugins/telemetry/DEVICE/${device.id}/SHARED_SCOPE?keys=n`)
    expect((await next()).text).toBe('{"deleted":["n"]}')
  })

  it.each([
    ['{"a":1,"b":2.50}', '{"a":3}', '{"a":3,"b":2.50}'],
    ['{"a":1,"b":2}', '{"deleted":["a"]}', '{"b":2,"deleted":["a"]}'],
    ['{"deleted":["a","b"]}', '{"a":9007199254740993}', '{"a":9007199254740993,"deleted":["b"]}'],
    ['{"deleted":["a"]}', '{"a":1}', '{"a":1}'],
    ['{"__proto__":1}', '{"x":1}', '{"__proto__":1,"x":1}'],
  ])('%s and then %s are %s when the device takes nothing for long [M-25]', (older, newer, merged) => {
    expect(mergePushes(Buffer.from(older), Buffer.from(newer)).toString()).toBe(merged)
  })
})

describe('a poll of an HTTP device for its next shared attributes [H-3]', () => {
  const isPolling = (id: string) => until(() => platform.ingest.polls.has(id, 'attributes'), 20_000)

  it('ends with the next push, and counts as activity', async () => {
    const device = await platform.createDevice()
    const poll = get(device.token, '/updates?timeout=20000')
    await isPolling(device.id)
    await write(device.id, { c: 1 }, 'server')
    await write(device.id, '{"a":1.0,"b":null}')
    const answer = await poll
    expect([answer.status, answer.text]).toEqual([200, '{"a":1,"deleted":["b"]}'])
    await expect
      .poll(async () => (await platform.call('GET', `/api/v1/devices/${device.id}`)).json()['state'], { timeout: 20_000 })
      .toBe('online')
  })

  it('ends in 408 when its time is over', async () => {
    const device = await platform.createDevice()
    const answer = await get(device.token, '/updates?timeout=50')
    expect([answer.status, answer.json()['code']]).toEqual([408, 'POLL_TIMEOUT'])
    expect((await get(device.token, '/updates?timeout=-1')).status).toBe(400)
    expect((await get('wrong', '/updates?timeout=50')).status).toBe(401)
  })

  it('ends in 408 when the device polls again', async () => {
    const device = await platform.createDevice()
    const first = get(device.token, '/updates')
    await isPolling(device.id)
    const second = get(device.token, '/updates')
    expect((await first).status).toBe(408)
    await isPolling(device.id)
    await write(device.id, { a: 1 })
    expect((await second).text).toBe('{"a":1}')
  })

  it('is forgotten when the device hangs up', async () => {
    const device = await platform.createDevice()
    const controller = new AbortController()
    const poll = fetch(`${platform.url}/api/v1/${device.token}/attributes/updates`, { signal: controller.signal }).catch(() => 'aborted')
    await isPolling(device.id)
    controller.abort()
    expect(await poll).toBe('aborted')
    await until(() => !platform.ingest.polls.has(device.id, 'attributes'), 20_000)
  })
})
