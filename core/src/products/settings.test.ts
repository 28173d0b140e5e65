// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { provisioningLookup } from './products.ts'
import type { Product } from './schemas.ts'
import { startDeviceServer } from './testing.ts'
import type { DeviceServer } from './testing.ts'

let server: DeviceServer
beforeAll(async () => {
  server = await startDeviceServer()
})
afterAll(() => server.close())

const post = (body: Record<string, unknown>) =>
  server.call('POST', '/api/v1/products', { body: { name: `product-${randomUUID().slice(0, 8)}`, ...body } })
const patch = (id: string, body: unknown) => server.call('PATCH', `/api/v1/products/${id}`, { body })

async function create(body: Record<string, unknown> = {}): Promise<Product> {
  const answer = await post(body)
  expect(answer.status, answer.text).toBe(201)
  return answer.body as Product
}

describe('topics of a product [A-7]', () => {
  it('keeps filters and the push topic, and replaces lists as a whole', async () => {
    const transport = {
      telemetryTopics: ['site/+/up', 'plant/#', '#', 'a b/温度'],
      attributesTopics: ['site/+/info'],
      attributesPushTopic: 'site/down',
    }
    const product = await create({ transport })
    expect(product.transport).toEqual(transport)
    const { body } = await patch(product.id, { transport: { telemetryTopics: ['x'], attributesPushTopic: null } })
    expect(body['transport']).toEqual({ telemetryTopics: ['x'], attributesTopics: ['site/+/info'], attributesPushTopic: null })
  })

  it.each([
    ['v1/x', 'telemetryTopics'],
    ['v2/t', 'telemetryTopics'],
    ['/provision/request', 'telemetryTopics'],
    ['$SYS/x', 'telemetryTopics'],
    ['a+/b', 'telemetryTopics'],
    ['a/#/b', 'attributesTopics'],
    ['a/b#', 'attributesTopics'],
    [`${'a/'.repeat(16)}b`, 'attributesTopics'],
    ['温'.repeat(171), 'attributesTopics'],
    ['a\u0000', 'attributesTopics'],
  ])('refuses %j', async (topic, member) => {
    const answer = await post({ transport: { [member]: [topic] } })
    expect(answer).toMatchObject({ status: 422, body: { code: 'UNPROCESSABLE', errors: [{ pointer: `/transport/${member}/0` }] } })
  })

  it('refuses a push topic with a wildcard, a filter that is both kinds, and more than 8', async () => {
    expect((await post({ transport: { attributesPushTopic: 'a/+' } })).status).toBe(422)
    expect((await post({ transport: { telemetryTopics: ['a'], attributesTopics: ['a'] } })).status).toBe(422)
    expect((await post({ transport: { telemetryTopics: Array.from({ length: 9 }, (_, no) => `t${no}`) } })).status).toBe(400)
  })
})

describe('limits of a product [Q-1]', () => {
  it('keeps rates, and shows counters that are missing as null', async () => {
    const product = await create({
      limits: { device: { messages: '20:1,600:60' }, gateway: { telemetryDataPoints: '' }, maxChildDevices: 5 },
    })
    expect(product.limits).toEqual({
      device: { messages: '20:1,600:60', telemetryMessages: null, telemetryDataPoints: null },
      gateway: { messages: null, telemetryMessages: null, telemetryDataPoints: '' },
      gatewayDevice: null,
      maxChildDevices: 5,
    })
    const { body } = await patch(product.id, { limits: { device: { messages: null }, gatewayDevice: { messages: '1:1' } } })
    expect(body['limits']).toMatchObject({ device: null, gatewayDevice: { messages: '1:1' } })
  })

  it.each([
    ['20:0', '20:0'],
    ['20', '20'],
    ['1:1,2:1', '2:1'],
    ['0:1', '0:1'],
    ['01:1', '01:1'],
    ['1:1, 2:2', ' 2:2'],
    ['1000000001:1', '1000000001:1'],
    ['1:2678401', '1:2678401'],
    ['1:1,2:2,3:3,4:4,5:5,6:6', '6:6'],
    ['1:1,', ''],
    ['-1:1', '-1:1'],
    ['1.5:1', '1.5:1'],
  ])('refuses %j and names the entry', async (rate, entry) => {
    const answer = await post({ limits: { gatewayDevice: { telemetryMessages: rate } } })
    expect(answer).toMatchObject({
      status: 422,
      body: { code: 'RATE_LIMIT_SYNTAX', errors: [{ pointer: '/limits/gatewayDevice/telemetryMessages' }] },
    })
    expect(answer.text).toContain(JSON.stringify(`"${entry}"`).slice(1, -1))
  })
})

describe('commands of a product', () => {
  it.each([
    [{ ackTimeoutMs: 499 }],
    [{ ackTimeoutMs: 60_001 }],
    [{ retries: 21 }],
    [{ retries: -1 }],
    [{ submit: 'all' }],
    [{ responseTimeoutMs: 0 }],
    [{ clientTimeoutMs: 499 }],
    [{ clientTimeoutMs: 300_001 }],
    [{ closeOnAckTimeout: 1 }],
  ])('refuses rpc %j', async (rpc) => {
    expect(await post({ rpc })).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } })
  })

  it('replaces replies one by one, each as a whole [R-15]', async () => {
    const product = await create({ clientRpc: { a: { reply: { x: null, y: [1] } }, b: { reply: null }, c: { reply: '${now}' } } })
    expect(product.clientRpc).toEqual({ a: { reply: { x: null, y: [1] } }, b: { reply: null }, c: { reply: '${now}' } })
    const { body } = await patch(product.id, { clientRpc: { a: { reply: { z: 2 } }, c: null } })
    expect(body['clientRpc']).toEqual({ a: { reply: { z: 2 } }, b: { reply: null } })
    expect((await patch(product.id, { clientRpc: null })).body['clientRpc']).toEqual({})
    expect((await post({ clientRpc: { a: {} } })).status).toBe(400)
    expect((await post({ clientRpc: { a: { reply: 'x'.repeat(65_537) } } })).status).toBe(422)
    expect((await post({ clientRpc: { a: { reply: '\u0000' } } })).status).toBe(422)
  })
})

describe('provisioning of a product', () => {
  const stored = async (id: string) => {
    const rows = await server.context.db.withTenant(server.context.rootTenant, (tx) =>
      tx.execute<{ text: string; lookup: string | null }>(
        sql`select settings::text as text, encode(provisioning_sha256, 'hex') as lookup from products where id = ${id}`,
      ),
    )
    return rows[0]!
  }
  const read = async (id: string) => (await server.call('GET', `/api/v1/products/${id}`)).body as Product

  it('shows a given secret once, and stores it sealed', async () => {
    const key = `key-${randomUUID()}`
    const secret = `secret-${randomUUID()}`
    const product = await create({ provisioning: { strategy: 'create', key, secret } })
    expect(product.provisioning).toEqual({ strategy: 'create', key, secret })
    expect((await read(product.id)).provisioning).toEqual({ strategy: 'create', key, secret: null })
    const row = await stored(product.id)
    expect(row.text).not.toContain(secret)
    expect(row.lookup).toBe(provisioningLookup(key, secret).toString('hex'))
  })

  it('generates what is missing when it is switched on, and keeps it after', async () => {
    const product = await create()
    expect(await stored(product.id)).toMatchObject({ lookup: null })
    const on = (await patch(product.id, { provisioning: { strategy: 'preregistered' } })).body as Product
    expect(on.provisioning).toMatchObject({ key: expect.stringMatching(/^\w{20}$/), secret: expect.stringMatching(/^\w{20}$/) })
    const lookup = provisioningLookup(on.provisioning.key!, on.provisioning.secret!).toString('hex')
    // What was read can be written back.
    const same = (await patch(product.id, { provisioning: { ...on.provisioning, secret: null }, description: 'x' })).body as Product
    expect(same.provisioning).toEqual({ strategy: 'preregistered', key: on.provisioning.key, secret: null })
    expect(await stored(product.id)).toMatchObject({ lookup })
    await patch(product.id, { provisioning: { strategy: 'disabled' } })
    expect(await stored(product.id)).toMatchObject({ lookup: null })
    await patch(product.id, { provisioning: { strategy: 'create' } })
    expect(await stored(product.id), 'the same secret again').toMatchObject({ lookup })
    const gone = (await patch(product.id, { provisioning: null })).body as Product
    expect(gone.provisioning).toEqual({ strategy: 'disabled', key: null, secret: null })
    expect((await stored(product.id)).text).not.toContain('sealed')
  })

  it('refuses short ones, and a pair that is in use', async () => {
    expect((await post({ provisioning: { strategy: 'create', key: 'short' } })).status).toBe(400)
    expect((await post({ provisioning: { strategy: 'create', secret: 'x'.repeat(65) } })).status).toBe(400)
    expect((await post({ provisioning: { strategy: 'x509-chain' } })).status).toBe(422)
    const pair = { strategy: 'create', key: randomUUID(), secret: randomUUID() }
    await create({ provisioning: pair })
    expect(await post({ provisioning: pair })).toMatchObject({ status: 409, body: { code: 'PROVISIONING_TAKEN' } })
    await create({ provisioning: { ...pair, secret: randomUUID() } })
  })
})

describe('the settings of devices', () => {
  it('are one object for all devices of a product, replaced by a change before it is answered', async () => {
    const product = await create({ rpc: { retries: 1 } })
    const devices = await Promise.all(
      [1, 2].map(async () => {
        const { body } = await server.call('POST', '/api/v1/devices', { body: { name: randomUUID(), productId: product.id } })
        return server.registry.get(String(body['id']))!
      }),
    )
    const before = devices[0]!.settings
    expect(devices[1]!.settings).toBe(before)
    expect(before.rpc.retries).toBe(1)
    expect(Object.isFrozen(before)).toBe(true)
    await patch(product.id, { rpc: { retries: 2 }, transport: { telemetryTopics: ['t'] } })
    expect(before.rpc.retries).toBe(1)
    expect(devices[0]!.settings).toMatchObject({ rpc: { retries: 2 }, transport: { telemetryTopics: ['t'] } })
    expect(devices[1]!.settings).toBe(devices[0]!.settings)
    const other = await create()
    await server.call('PATCH', `/api/v1/devices/${devices[0]!.id}`, { body: { productId: other.id } })
    expect(devices[0]!.settings.rpc.retries).toBe(5)
  })
})
