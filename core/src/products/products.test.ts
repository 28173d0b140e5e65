// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureProduct } from './products.ts'
import type { Product } from './schemas.ts'
import { startDeviceServer } from './testing.ts'
import type { DeviceServer } from './testing.ts'

let server: DeviceServer
beforeAll(async () => {
  server = await startDeviceServer()
})
afterAll(() => server.close())

const unique = (prefix: string) => `${prefix}-${randomUUID().slice(0, 8)}`
const defaultPayload = {
  json: 'relaxed',
  duplicateKeys: 'last',
  castNumericStrings: true,
  timestampUnit: 'ms',
  maxFutureMs: 86_400_000,
  ackInvalidPayload: false,
}

async function createProduct(body: Record<string, unknown> = {}): Promise<Product> {
  const answer = await server.call('POST', '/api/v1/products', { body: { name: unique('product'), ...body } })
  expect(answer).toMatchObject({ status: 201 })
  return answer.body as Product
}

async function patch(id: string, body: unknown, headers: Record<string, string> = {}) {
  return server.call('PATCH', `/api/v1/products/${id}`, { body, headers })
}

async function createDevice(productId: string): Promise<{ id: string; token: string }> {
  const { body } = await server.call('POST', '/api/v1/devices', { body: { name: unique('device'), productId } })
  return { id: String(body['id']), token: (body['credentials'] as { token: string }).token }
}

describe('creating products', () => {
  it('fills in the defaults of all that is not given', async () => {
    const name = unique('冷库')
    const product = await createProduct({ name })
    expect(product).toEqual({
      id: expect.any(String) as string,
      name,
      description: '',
      model: { keys: {}, primaryKey: null },
      transport: { telemetryTopics: [], attributesTopics: [], attributesPushTopic: null },
      payload: defaultPayload,
      provisioning: { strategy: 'disabled', key: null, secret: null },
      gateway: { autoCreate: true },
      discovery: 'off',
      limits: { device: null, gateway: null, gatewayDevice: null, maxChildDevices: 10_000 },
      rpc: {
        submit: 'burst',
        retries: 5,
        ackTimeoutMs: 10_000,
        responseTimeoutMs: 30_000,
        closeOnAckTimeout: false,
        clientTimeoutMs: 60_000,
      },
      clientRpc: {},
      ota: { firmwareId: null, softwareId: null },
      inactivityTimeoutMs: 600_000,
      deviceCount: 0,
      isDefault: false,
      createdAt: expect.any(String) as string,
      updatedAt: product.createdAt,
    })
    expect((await server.call('GET', `/api/v1/products/${product.id}`)).body).toEqual(product)
  })

  it('keeps what is given', async () => {
    const given = {
      description: '温度',
      model: {
        keys: { 'temperature.1': { title: { zh: '温度', en: 'Temperature' }, unit: '°C', decimals: 1, min: -40, max: 60 }, door: {} },
        primaryKey: 'temperature.1',
      },
      payload: { timestampUnit: 'auto', castNumericStrings: false },
      inactivityTimeoutMs: 60_000,
    }
    expect(await createProduct(given)).toMatchObject({ ...given, payload: { ...defaultPayload, ...given.payload } })
  })

  it('refuses unknown members and values out of range', async () => {
    const name = () => unique('product')
    for (const [body, pointer] of [
      [{}, '/name'],
      [{ name: '' }, '/name'],
      [{ name: '  ' }, '/name'],
      [{ name: name(), colour: 'red' }, '/colour'],
      [{ name: name(), limits: { device: { points: '1:1' } } }, '/limits/device/points'],
      [{ name: name(), isDefault: true }, '/isDefault'],
      [{ name: name(), payload: { json: 'lenient' } }, '/payload/json'],
      [{ name: name(), payload: { maxFutureMs: -1 } }, '/payload/maxFutureMs'],
      [{ name: name(), payload: { unknown: 1 } }, '/payload/unknown'],
      [{ name: name(), inactivityTimeoutMs: 9999 }, '/inactivityTimeoutMs'],
      [{ name: name(), model: { keys: { a: { decimals: 1.5 } } } }, '/model/keys/a/decimals'],
      [{ name: name(), model: { keys: { a: { colour: 'red' } } } }, '/model/keys/a/colour'],
      [{ name: name(), model: { keys: { 'a\nb': {} } } }, undefined],
      [{ name: name(), model: { keys: { 'a\ud800': {} } } }, undefined],
      [{ name: 'a\u0000' }, ''],
    ] as const) {
      const answer = await server.call('POST', '/api/v1/products', { body })
      expect(answer, JSON.stringify(body)).toMatchObject({ status: 400, body: { code: 'VALIDATION_FAILED' } })
      const pointers = (answer.body['errors'] as { pointer: string }[]).map((one) => one.pointer)
      if (pointer !== undefined) expect(pointers, JSON.stringify(body)).toContain(pointer)
    }
  })

  it('refuses a minimum above the maximum', async () => {
    const answer = await server.call('POST', '/api/v1/products', {
      body: { name: unique('product'), model: { keys: { a: { min: 2, max: 1 } } } },
    })
    expect(answer).toMatchObject({ status: 422, body: { code: 'UNPROCESSABLE', errors: [{ pointer: '/model/keys/a/min' }] } })
  })

  it('refuses a name in use', async () => {
    const { name, id } = await createProduct()
    expect(await server.call('POST', '/api/v1/products', { body: { name } })).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } })
    const other = await createProduct()
    expect(await patch(other.id, { name })).toMatchObject({ status: 409, body: { code: 'NAME_TAKEN' } })
    expect((await patch(id, { name })).status, 'its own name').toBe(200)
  })

  it('gives everybody who asks for a name at once the same product', async () => {
    const name = unique('racing')
    const ids = await Promise.all(Array.from({ length: 8 }, () => ensureProduct(server.context, server.context.rootTenant, name)))
    expect(new Set(ids).size).toBe(1)
  })
})

describe('editing products', () => {
  it('merges in depth, and null brings a default back', async () => {
    const product = await createProduct({
      model: { keys: { t: { unit: '°C', decimals: 1, title: { zh: '温度', en: 'Temperature' } }, h: { unit: '%' } }, primaryKey: 't' },
      payload: { json: 'strict', timestampUnit: 's' },
      inactivityTimeoutMs: 60_000,
    })
    const answer = await patch(product.id, {
      description: '说明',
      model: { keys: { t: { decimals: 2, title: { en: null } }, h: null, x: { unit: 'A' } } },
      payload: { json: null },
      inactivityTimeoutMs: null,
    })
    expect(answer.body).toEqual({
      ...product,
      description: '说明',
      model: { keys: { t: { unit: '°C', decimals: 2, title: { zh: '温度' } }, x: { unit: 'A' } }, primaryKey: 't' },
      payload: { ...defaultPayload, timestampUnit: 's' },
      inactivityTimeoutMs: 600_000,
      updatedAt: expect.any(String) as string,
    })
    expect((await patch(product.id, { model: null, payload: null })).body).toMatchObject({
      model: { keys: {}, primaryKey: null },
      payload: defaultPayload,
    })
  })

  it('treats the names of built-in members as ordinary keys', async () => {
    const { id } = await createProduct()
    const answer = await patch(id, { model: { keys: { constructor: { unit: 'V' }, toString: { unit: 'A' } } } })
    expect(answer).toMatchObject({ status: 200, body: { model: { keys: { constructor: { unit: 'V' }, toString: { unit: 'A' } } } } })
    const raw = await server.call('PATCH', `/api/v1/products/${id}`, { raw: '{"model":{"keys":{"__proto__":{"unit":"W"}}}}' })
    expect(raw.status).toBe(400)
    expect(({} as { unit?: string }).unit).toBeUndefined()
  })

  it('lets only one of two who saw the same version change it', async () => {
    const { id } = await createProduct()
    const tag = String((await server.call('GET', `/api/v1/products/${id}`)).headers['etag'])
    const answers = await Promise.all([1, 2, 3].map((one) => patch(id, { description: `${one}` }, { 'if-match': tag })))
    expect(answers.map((one) => one.status).toSorted((a, b) => a - b)).toEqual([200, 412, 412])
    expect(answers.find((one) => one.status === 200)!.headers['etag']).toBe('"2"')
    expect(await patch(id, { description: 'x' }, { 'if-match': 'W/"1"' })).toMatchObject({
      status: 412,
      body: { code: 'VERSION_CONFLICT' },
    })
    expect((await patch(id, { description: 'x' }, { 'if-match': '*' })).status).toBe(200)
  })

  it('loses none of two edits of different members at the same time', async () => {
    const { id } = await createProduct()
    await Promise.all(['a', 'b', 'c', 'd'].map((key) => patch(id, { model: { keys: { [key]: {} } } })))
    expect((await server.call('GET', `/api/v1/products/${id}`)).body['model']).toEqual({
      keys: { a: {}, b: {}, c: {}, d: {} },
      primaryKey: null,
    })
  })

  it('reaches the devices of open sessions before it answers', async () => {
    const product = await createProduct()
    const { token } = await createDevice(product.id)
    const device = server.registry.findByToken(token)!
    const heard: string[] = []
    const stop = server.context.events.on('product.changed', (event) => heard.push(event.productId))
    await patch(product.id, { payload: { castNumericStrings: false, maxFutureMs: 5 }, inactivityTimeoutMs: 20_000 })
    stop()
    expect(device).toMatchObject({ rules: { ...defaultPayload, castNumericStrings: false, maxFutureMs: 5 }, inactivityTimeoutMs: 20_000 })
    expect(server.registry.findByToken(token), 'the same object').toBe(device)
    expect(heard).toEqual([product.id])
  })

  it('lets a device keep its own inactivity time', async () => {
    const product = await createProduct()
    const { id, token } = await createDevice(product.id)
    await server.call('PATCH', `/api/v1/devices/${id}`, { body: { inactivityTimeoutMs: 15_000 } })
    await patch(product.id, { inactivityTimeoutMs: 20_000 })
    expect(server.registry.findByToken(token)?.inactivityTimeoutMs).toBe(15_000)
  })

  it('makes the primary key of the model the one that lists show', async () => {
    const product = await createProduct({ model: { primaryKey: 'b' } })
    const { id, token } = await createDevice(product.id)
    const device = server.registry.findByToken(token)!
    await server.store.write([
      {
        device,
        points: [
          { key: 'a', ts: 1000, kind: 'double', value: 1.5 },
          { key: 'b', ts: 1000, kind: 'double', value: 2.5 },
        ],
      },
    ])
    expect((await server.call('GET', `/api/v1/devices/${id}`)).body['primary']).toMatchObject({ key: 'b', value: 2.5 })
    await patch(product.id, { model: { primaryKey: null } })
    expect((await server.call('GET', `/api/v1/devices/${id}`)).body['primary']).toMatchObject({ key: 'a', value: 1.5 })
  })
})

describe('listing and deleting products', () => {
  it('pages by name and counts devices', async () => {
    const prefix = unique('list')
    for (const letter of ['b', 'c', 'a']) await createProduct({ name: `${prefix}-${letter}` })
    const names: string[] = []
    let cursor: string | null = ''
    do {
      const { body } = await server.call('GET', `/api/v1/products?limit=2${cursor ? `&cursor=${cursor}` : ''}`)
      for (const product of body['items'] as Product[]) names.push(product.name)
      cursor = body['nextCursor'] as string | null
    } while (cursor)
    expect(names.filter((name) => name.startsWith(prefix))).toEqual(['a', 'b', 'c'].map((letter) => `${prefix}-${letter}`))
    expect(names).toEqual([...new Set(names)])
    expect(await server.call('GET', '/api/v1/products?cursor=xx')).toMatchObject({ status: 400, body: { code: 'CURSOR_INVALID' } })
    expect((await server.call('GET', '/api/v1/products?q=a')).status, 'an unknown parameter').toBe(400)
    const product = await createProduct()
    await createDevice(product.id)
    expect((await server.call('GET', `/api/v1/products/${product.id}`)).body['deviceCount']).toBe(1)
  })

  it('deletes a product nobody uses', async () => {
    const { id } = await createProduct()
    expect(await server.call('DELETE', `/api/v1/products/${id}`, { headers: { 'if-match': '"7"' } })).toMatchObject({ status: 412 })
    expect((await server.call('DELETE', `/api/v1/products/${id}`)).status).toBe(204)
    expect(await server.call('GET', `/api/v1/products/${id}`)).toMatchObject({ status: 404, body: { code: 'NOT_FOUND' } })
    expect((await server.call('DELETE', `/api/v1/products/${id}`)).status).toBe(404)
    expect((await patch(id, { description: 'x' })).status).toBe(404)
  })

  it('keeps a product with devices, in the bin too, and the default one', async () => {
    const product = await createProduct()
    const { id } = await createDevice(product.id)
    const refused = { status: 409, body: { code: 'PRODUCT_IN_USE' } }
    expect(await server.call('DELETE', `/api/v1/products/${product.id}`)).toMatchObject(refused)
    await server.call('DELETE', `/api/v1/devices/${id}`)
    expect(await server.call('DELETE', `/api/v1/products/${product.id}`)).toMatchObject(refused)
    await server.call('DELETE', '/api/v1/bin', { body: { ids: [id] } })
    expect((await server.call('DELETE', `/api/v1/products/${product.id}`)).status).toBe(204)
    const { body } = await server.call('GET', '/api/v1/products?limit=500')
    const standard = (body['items'] as Product[]).find((one) => one.isDefault)!
    expect(await server.call('DELETE', `/api/v1/products/${standard.id}`)).toMatchObject(refused)
  })

  it('lets viewers read only, and strangers nothing', async () => {
    const { id } = await createProduct()
    const { viewer } = server
    for (const [method, url] of [
      ['GET', '/api/v1/products'],
      ['POST', '/api/v1/products'],
      ['GET', `/api/v1/products/${id}`],
      ['PATCH', `/api/v1/products/${id}`],
      ['DELETE', `/api/v1/products/${id}`],
    ] as const) {
      expect((await server.call(method, url, { as: null })).status, `${method} ${url}`).toBe(401)
      expect((await server.call(method, url, { as: viewer })).status, `${method} ${url}`).toBe(method === 'GET' ? 200 : 403)
    }
  })
})
