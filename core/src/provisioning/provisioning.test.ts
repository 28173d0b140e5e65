// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { IClientOptions } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RawClient, connectPatiently } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { makeTestCertificate } from '../tls/testing.ts'
import { ProvisioningProducts } from './provisioning-products.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform({ trustedProxies: ['127.0.0.1'] })
})
afterAll(() => platform.close())

let last = 0
type Answer = { status: string; credentialsType?: string; credentialsValue?: unknown; errorMsg?: string }
type Keys = { provisionDeviceKey: string; provisionDeviceSecret: string }

const success = (credentialsType: string, credentialsValue: unknown) => ({ status: 'SUCCESS', credentialsType, credentialsValue })
const notFound = { status: 'NOT_FOUND', errorMsg: 'Provision data was not found!' }
const failure = { status: 'FAILURE', errorMsg: 'Failed to provision device!' }

async function createProduct(strategy: string): Promise<{ id: string; keys: Keys }> {
  const n = ++last
  const keys = { provisionDeviceKey: `key-${n}-abcdef`, provisionDeviceSecret: `secret-${n}-abcdef` }
  const provisioning = { strategy, key: keys.provisionDeviceKey, secret: keys.provisionDeviceSecret }
  const answer = await platform.call('POST', '/api/v1/products', { body: { name: `provisioned ${n}`, provisioning } })
  expect(answer.status).toBe(201)
  return { id: answer.json<{ id: string }>().id, keys }
}

/** Over HTTP, each call from an address of its own unless one is given. */
function post(body: unknown, address = `10.1.${++last % 250}.1`) {
  return platform.call('POST', '/api/v1/provision', { body, token: null, headers: { 'x-forwarded-for': address } })
}

async function ask(body: unknown): Promise<Answer> {
  const answer = await post(body)
  expect(answer.status).toBe(200)
  return answer.json<Answer>()
}

/** As the client library of a device does it. */
async function askOverMqtt(body: unknown, options: IClientOptions = {}): Promise<Answer> {
  const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: 'provision', ...options })
  const { promise, resolve } = Promise.withResolvers<[topic: string, payload: Buffer, packet: { qos: number }]>()
  client.once('message', (...message) => resolve(message))
  await client.publishAsync('/provision/request', JSON.stringify(body), { qos: 1 })
  const [topic, payload, packet] = await promise
  expect(topic).toBe('/provision/response')
  expect(packet.qos).toBe(1)
  await client.endAsync()
  return JSON.parse(payload.toString()) as Answer
}

/** A raw session that may only ask for credentials. */
async function open(protocolVersion: 4 | 5): Promise<RawClient> {
  for (let attempt = 1; ; attempt++) {
    const client = new RawClient(connectSocket(platform.ports.mqtt!, '127.0.0.1'))
    await once(client.socket, 'connect')
    client.connect({ username: 'provision', protocolVersion })
    const connack = await client.next('connack', 10_000)
    const code = connack.reasonCode ?? connack.returnCode
    if (code === 0) return client
    // Busy, as on a loaded machine.
    if (attempt === 40) throw new Error(`refused: ${code}`)
    await sleep(250)
  }
}

async function findDevice(name: string): Promise<Record<string, unknown> | undefined> {
  const answer = await platform.call('GET', `/api/v1/devices?q=${encodeURIComponent(name)}`)
  return answer.json<{ items: Record<string, unknown>[] }>().items.find((one) => one['name'] === name)
}

async function connects(options: IClientOptions): Promise<boolean> {
  try {
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, options)
    await client.endAsync()
    return true
  } catch {
    return false
  }
}

describe('provisioning', () => {
  it.each([4, 5] as const)('[P-1] [P-2] creates a device whose token works at once, MQTT %i', async (protocolVersion) => {
    const { id, keys } = await createProduct('create')
    const name = `new-${id}`
    const answer = await askOverMqtt({ deviceName: ` ${name} `, ...keys }, { protocolVersion })
    expect(answer).toEqual(success('ACCESS_TOKEN', expect.stringMatching(/^pmsd_[0-9A-Za-z]{27}$/)))
    expect(await connects({ username: String(answer.credentialsValue) })).toBe(true)
    expect(await findDevice(name)).toMatchObject({ name, productId: id, gateway: false })
    expect(await askOverMqtt({ deviceName: name, ...keys }, { protocolVersion })).toEqual(failure)
  })

  it('[P-1] is also reached by the client id', async () => {
    const { keys } = await createProduct('create')
    const answer = await askOverMqtt(keys, { username: '', clientId: 'provision' })
    expect(answer.status).toBe('SUCCESS')
  })

  it('[P-1] makes up a name of 20 letters, and a gateway when asked', async () => {
    const { id, keys } = await createProduct('create')
    expect((await ask({ ...keys, gateway: true })).status).toBe('SUCCESS')
    const { items } = (await platform.call('GET', `/api/v1/devices?productId=${id}`)).json<{
      items: { name: string; gateway: boolean }[]
    }>()
    expect(items).toEqual([expect.objectContaining({ name: expect.stringMatching(/^[A-Za-z]{20}$/), gateway: true })])
  })

  it('[P-1] [P-2] gives the credentials that were asked for, of each type', async () => {
    const { id, keys } = await createProduct('create')
    const token = `chosen-${id}`
    expect(await ask({ ...keys, credentialsType: 'ACCESS_TOKEN', token })).toEqual(success('ACCESS_TOKEN', token))
    expect(await connects({ username: token })).toBe(true)

    const basic = { clientId: `client-${id}`, username: `user-${id}`, password: '00123' }
    const answer = await ask({ ...keys, credentialsType: 'MQTT_BASIC', ...basic })
    expect(answer).toEqual(success('MQTT_BASIC', { clientId: basic.clientId, userName: basic.username, password: basic.password }))
    expect(await connects({ clientId: basic.clientId, username: basic.username, password: basic.password })).toBe(true)
    expect(await connects({ clientId: basic.clientId, username: basic.username, password: '123' })).toBe(false)

    const { cert } = makeTestCertificate(`device-${id}`)
    const name = `certified-${id}`
    expect(await ask({ ...keys, deviceName: name, credentialsType: 'X509_CERTIFICATE', hash: cert })).toEqual(
      success('X509_CERTIFICATE', cert),
    )
    const device = await findDevice(name)
    const shown = await platform.call('GET', `/api/v1/devices/${String(device?.['id'])}/credentials`)
    expect(shown.json()).toEqual({ type: 'x509', pem: cert })
  })

  it('[P-2] does not find a product by a wrong or missing key or secret, or one that is switched off', async () => {
    const { id, keys } = await createProduct('create')
    const other = await createProduct('create')
    for (const wrong of [
      {},
      { provisionDeviceKey: keys.provisionDeviceKey },
      { provisionDeviceSecret: keys.provisionDeviceSecret },
      { ...keys, provisionDeviceSecret: `${keys.provisionDeviceSecret}x` },
      { ...keys, provisionDeviceSecret: other.keys.provisionDeviceSecret },
      { provisionDeviceKey: null, provisionDeviceSecret: null },
    ]) {
      expect(await ask({ deviceName: `never-${id}`, ...wrong })).toEqual(notFound)
    }
    expect(await findDevice(`never-${id}`)).toBeUndefined()
    await platform.call('PATCH', `/api/v1/products/${id}`, { body: { provisioning: { strategy: 'disabled' } } })
    expect(await ask(keys)).toEqual(notFound)
    await platform.call('PATCH', `/api/v1/products/${id}`, { body: { provisioning: { strategy: 'create', secret: 'another-secret' } } })
    expect(await ask(keys)).toEqual(notFound)
    expect((await ask({ ...keys, provisionDeviceSecret: 'another-secret' })).status).toBe('SUCCESS')
  })

  it('[P-2] hands a registered device its own credentials, once', async () => {
    const { id, keys } = await createProduct('preregistered')
    const other = await createProduct('preregistered')
    const device = await platform.createDevice({ productId: id })
    const elsewhere = await platform.createDevice({ productId: other.id })
    expect(await ask({ ...keys, deviceName: elsewhere.name })).toEqual(failure)
    expect(await ask({ ...keys, deviceName: 'nobody' })).toEqual(failure)
    expect(await ask(keys)).toEqual(failure)
    // What it asks for does not count: it has its credentials.
    const answers = await Promise.all(
      [1, 2, 3].map(() => ask({ ...keys, deviceName: device.name, credentialsType: 'ACCESS_TOKEN', token: 'other' })),
    )
    expect(answers.filter(({ status }) => status === 'SUCCESS')).toEqual([success('ACCESS_TOKEN', device.token)])
    expect(answers.filter(({ status }) => status === 'FAILURE')).toHaveLength(2)
    expect(await ask({ ...keys, deviceName: device.name })).toEqual(failure)
    const log = (await platform.call('GET', `/api/v1/devices/${device.id}/log`)).json<{ items: { event: string }[] }>()
    expect(log.items.map(({ event }) => event)).toContain('provisioned')
  })

  it('[P-3] fails for credentials that are taken or unusable, and for an unusable name, and leaves no device', async () => {
    const { id, keys } = await createProduct('create')
    const taken = await platform.createDevice()
    for (const wrong of [
      { token: taken.token },
      { token: 'telemetry' },
      { token: 'with blank' },
      { credentialsType: 'MQTT_BASIC' },
      { credentialsType: 'MQTT_BASIC', username: 'u'.repeat(257) },
      { credentialsType: 'X509_CERTIFICATE' },
      { credentialsType: 'X509_CERTIFICATE', hash: 'no certificate' },
      { deviceName: 'n'.repeat(256) },
      { deviceName: 'line\nbreak' },
    ]) {
      expect(await ask({ deviceName: `refused-${id}`, ...keys, ...wrong })).toEqual(failure)
    }
    const { items } = (await platform.call('GET', `/api/v1/devices?productId=${id}`)).json<{ items: unknown[] }>()
    expect(items).toEqual([])
  })

  it('[P-4] grants the filter of its answer and no other, in MQTT 5 and 3.1.1', async () => {
    for (const [protocol, refusal] of [
      [5, 143],
      [4, 128],
    ] as const) {
      const client = await open(protocol)
      const subscriptions = ['/provision/response', 'v1/devices/me/attributes', '#'].map((topic) => ({ topic, qos: 1 as const }))
      client.put({ cmd: 'subscribe', messageId: 1, subscriptions })
      expect((await client.next('suback', 10_000)).granted).toEqual([1, refusal, refusal])
      await client.ping()
      client.end()
    }
  })

  it('[P-4] refuses to publish anywhere else: no telemetry comes out of such a session', async () => {
    const five = await open(5)
    five.publish('v1/devices/me/telemetry', '{"a":1}', { messageId: 7 })
    expect(await five.next('puback', 10_000)).toMatchObject({ messageId: 7, reasonCode: 0x90 })
    expect(await five.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x90 })
    await five.closedWithin(10_000)
    const four = await open(4)
    four.publish('v1/devices/me/telemetry', '{"a":1}')
    await four.closedWithin(10_000)
    expect(four.packets).toEqual([])
    expect(platform.ingest.sessions.count).toBe(0)
  })

  it('[P-4] answers what is no request like any malformed message', async () => {
    for (const wrong of ['{"deviceName":', '[]', '7', '{"deviceName":1}', '{"gateway":"yes"}', '{"credentialsType":"LWM2M_CREDENTIALS"}']) {
      const five = await open(5)
      five.publish('/provision/request', wrong)
      expect((await five.next('puback', 10_000)).reasonCode).toBe(0x99)
      await five.ping()
      five.end()
      const four = await open(4)
      four.publish('/provision/request', wrong)
      await four.closedWithin(10_000)
      expect(four.packets).toEqual([])
      expect((await post(wrong)).status).toBe(400)
    }
  })

  it('[P-2] acknowledges a request of QoS 2 by its own flow, and answers one of QoS 0', async () => {
    const { keys } = await createProduct('create')
    const client = await open(4)
    client.publish('/provision/request', JSON.stringify(keys), { qos: 2, messageId: 3 })
    expect((await client.next('pubrec', 10_000)).messageId).toBe(3)
    expect((await client.next('publish', 10_000)).topic).toBe('/provision/response')
    client.put({ cmd: 'pubrel', messageId: 3 })
    expect((await client.next('pubcomp', 10_000)).messageId).toBe(3)
    client.put({ cmd: 'publish', topic: '/provision/request', payload: JSON.stringify(keys), qos: 0, dup: false, retain: false })
    expect((await client.next('publish', 10_000)).topic).toBe('/provision/response')
    client.end()
  })

  it('[P-6] answers 429 over HTTP to an address that goes on guessing, and serves who knows the secret from there', async () => {
    const { keys } = await createProduct('create')
    const wrong = { ...keys, provisionDeviceSecret: 'a wrong secret' }
    for (let i = 0; i < 10; i++) expect((await post(wrong, '10.9.9.9')).json()).toEqual(notFound)
    const eleventh = await post(wrong, '10.9.9.9')
    expect(eleventh.status).toBe(429)
    expect(eleventh.headers.get('retry-after')).toBe('5')
    expect((await post(keys, '10.9.9.9')).json<Answer>().status).toBe('SUCCESS')
    expect((await post(wrong, '10.9.9.8')).status).toBe(200)
    const refused = (await platform.call('GET', '/api/v1/system/refused-connections')).text
    expect(refused).toContain('10.9.9.9')
    expect(refused).not.toContain('a wrong secret')
  })

  it('[P-6] answers late over MQTT to an address that goes on guessing', async () => {
    const sent = { provisionDeviceKey: 'no such key', provisionDeviceSecret: 'no such secret' }
    const client = await open(4)
    for (let i = 1; i <= 10; i++) {
      client.publish('/provision/request', JSON.stringify(sent), { messageId: i })
      await client.next('publish', 10_000)
    }
    client.end()
    const again = await open(4)
    const start = performance.now()
    again.publish('/provision/request', JSON.stringify(sent), { messageId: 11 })
    // A session that waits for its answer is alive.
    await again.ping()
    expect(JSON.parse((await again.next('publish', 20_000)).payload.toString())).toEqual(notFound)
    // The clock of timers and the one measured with differ by a little.
    expect(performance.now() - start).toBeGreaterThan(4900)
    again.end()
  })

  it('refuses a body that is too large, and types of content that hold no JSON', async () => {
    expect((await post('x'.repeat(65_537))).status).toBe(413)
    const answer = await platform.call('POST', '/api/v1/provision', { body: '{}', token: null, headers: { 'content-type': 'image/png' } })
    expect(answer.status).toBe(415)
  })

  it('sees the products that were there when the server started', async () => {
    const { keys } = await createProduct('create')
    const { db, rootTenant } = platform.context
    const rows = await db.withTenant(rootTenant, (tx) => tx.execute<{ text: string }>(sql`select settings::text as text from products`))
    // The secret is nowhere in clear.
    for (const { text } of rows) expect(text).not.toContain(keys.provisionDeviceSecret)
    const products = new ProvisioningProducts(platform.context)
    await products.start()
    expect(await products.find(keys.provisionDeviceKey, keys.provisionDeviceSecret)).toBeDefined()
    expect(await products.find(keys.provisionDeviceKey, 'another secret')).toBeUndefined()
    products.stop()
  })
})
