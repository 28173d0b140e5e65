// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDeviceServer } from '../products/testing.ts'
import type { DeviceServer } from '../products/testing.ts'

let server: DeviceServer
beforeAll(async () => {
  server = await startDeviceServer()
})
afterAll(() => server.close())

const unique = (prefix: string) => `${prefix}-${randomUUID().slice(0, 8)}`
type Entity = { entityType: string; id: string }
const idOf = (body: Record<string, unknown>) => (body['id'] as Entity).id

async function createDevice(body: Record<string, unknown> = {}, query = ''): Promise<Record<string, unknown>> {
  const answer = await server.call('POST', `/api/device${query}`, { body: { name: unique('device'), ...body } })
  expect(answer).toMatchObject({ status: 200 })
  return answer.body
}

describe('creating devices as ThingsBoard clients do', () => {
  it('answers the device in their form, of the default product', async () => {
    const name = unique('pump')
    const { tenantId } = server.context.rootTenant
    const answer = await server.call('POST', '/api/device', { body: { name, somethingElse: [1] } })
    expect(answer.status).toBe(200)
    const products = await server.call('GET', '/api/v1/products')
    const standard = (products.body['items'] as { id: string; isDefault: boolean }[]).find((one) => one.isDefault)!
    expect(answer.body).toEqual({
      id: { entityType: 'DEVICE', id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string },
      createdTime: expect.any(Number) as number,
      tenantId: { entityType: 'TENANT', id: tenantId },
      customerId: { entityType: 'CUSTOMER', id: '13814000-1dd2-11b2-8080-808080808080' },
      name,
      type: 'default',
      label: null,
      deviceProfileId: { entityType: 'DEVICE_PROFILE', id: standard.id },
      firmwareId: null,
      softwareId: null,
      version: 1,
      additionalInfo: { gateway: false, description: '' },
    })
    expect(Math.abs(Number(answer.body['createdTime']) - Date.now())).toBeLessThan(60_000)
    expect((await server.call('GET', `/api/device/${idOf(answer.body)}`)).body).toEqual(answer.body)
  })

  it('gives the device the access token of the query', async () => {
    const token = unique('token')
    const device = await createDevice({}, `?accessToken=${token}`)
    expect(server.registry.findByToken(token)?.id).toBe(idOf(device))
  })

  it('makes a token when none is given', async () => {
    const device = await createDevice()
    const { body } = await server.call('GET', `/api/device/${idOf(device)}/credentials`)
    expect(body['credentialsId']).toMatch(/^pmsd_[A-Za-z0-9]{27}$/)
  })

  it('refuses a name in use with code 31 and the sentence scripts look for', async () => {
    const { name } = await createDevice()
    const answer = await server.call('POST', '/api/device', { body: { name } })
    expect(answer).toMatchObject({ status: 400, body: { status: 400, message: 'Device with such name already exists!', errorCode: 31 } })
    expect(Object.keys(answer.body).toSorted()).toEqual(['errorCode', 'message', 'status', 'timestamp'])
  })

  it('refuses a token in use, a reserved one and a malformed one with code 31', async () => {
    const token = unique('token')
    await createDevice({}, `?accessToken=${token}`)
    for (const bad of [token, 'devices', 'with%20blank']) {
      const name = unique('device')
      const answer = await server.call('POST', `/api/device?accessToken=${bad}`, { body: { name } })
      expect(answer, bad).toMatchObject({ status: 400, body: { errorCode: 31 } })
      expect((await server.call('GET', `/api/tenant/devices?deviceName=${name}`)).status, 'nothing is left behind').toBe(404)
    }
  })

  it('finds the product of a type by its name, and creates it the first time', async () => {
    const type = unique('thermometer')
    const first = await createDevice({ type })
    const second = await createDevice({ type })
    expect(first).toMatchObject({ type, deviceProfileId: { entityType: 'DEVICE_PROFILE' } })
    expect(second['deviceProfileId']).toEqual(first['deviceProfileId'])
    const third = await createDevice({ type: 'ignored', deviceProfileId: first['deviceProfileId'] })
    expect(third['type']).toBe(type)
  })

  it('refuses an unknown device profile', async () => {
    const answer = await server.call('POST', '/api/device', {
      body: { name: unique('device'), deviceProfileId: { entityType: 'DEVICE_PROFILE', id: randomUUID() } },
    })
    expect(answer).toMatchObject({ status: 400, body: { errorCode: 31 } })
  })

  it('keeps additionalInfo as given and makes a gateway of a device that says so', async () => {
    const additionalInfo = { gateway: true, description: '锅炉房', place: { floor: 3, tags: ['a', null] }, __custom: 1.5 }
    const device = await createDevice({ additionalInfo, label: '一号' })
    expect(device).toMatchObject({ additionalInfo, label: '一号' })
    const { body } = await server.call('GET', `/api/v1/devices/${idOf(device)}`)
    expect(body).toMatchObject({ gateway: true, description: '锅炉房', label: '一号' })
  })

  it('refuses additionalInfo over 32 KiB or with text no database holds', async () => {
    for (const additionalInfo of [{ text: 'x'.repeat(32_768) }, { text: 'a\u0000b' }, { text: '\ud800' }]) {
      const answer = await server.call('POST', '/api/device', { body: { name: unique('device'), additionalInfo } })
      expect(answer).toMatchObject({ status: 400, body: { errorCode: 31 } })
    }
    expect(await createDevice({ additionalInfo: { text: '\\u0000 is only written here' } })).toMatchObject({
      additionalInfo: { text: '\\u0000 is only written here' },
    })
  })

  it('refuses U+0000 in a name instead of failing', async () => {
    expect(await server.call('POST', '/api/device', { body: { name: 'a\u0000b' } })).toMatchObject({ status: 400, body: { errorCode: 31 } })
    expect(await server.call('POST', '/api/v1/devices', { body: { name: 'a\u0000b' } })).toMatchObject({
      status: 400,
      body: { code: 'VALIDATION_FAILED' },
    })
  })

  it('takes JSON as text/plain and without a type, and refuses other types', async () => {
    const body = () => JSON.stringify({ name: unique('device') })
    expect(
      (await server.call('POST', '/api/device', { raw: body(), headers: { 'content-type': 'text/plain;charset=UTF-8' } })).status,
    ).toBe(200)
    expect(
      (await server.app.inject({ method: 'POST', url: '/api/device', headers: server.admin.headers, payload: body() })).statusCode,
    ).toBe(200)
    expect(await server.call('POST', '/api/device', { raw: body(), headers: { 'content-type': 'application/xml' } })).toMatchObject({
      status: 415,
      body: { errorCode: 31 },
    })
    expect(await server.call('POST', '/api/device', { raw: '{"name":' })).toMatchObject({ status: 400, body: { errorCode: 31 } })
    expect(await server.call('POST', '/api/device', { raw: '' })).toMatchObject({ status: 400, body: { errorCode: 31 } })
  })
})

describe('changing devices as ThingsBoard clients do', () => {
  it('changes what a body with an id names', async () => {
    const device = await createDevice({ label: 'old' })
    const type = unique('type')
    const changed = await server.call('POST', '/api/device', {
      body: {
        ...device,
        name: unique('renamed'),
        label: null,
        type,
        deviceProfileId: null,
        additionalInfo: { gateway: true, description: 'new', a: 1 },
      },
    })
    expect(changed).toMatchObject({
      status: 200,
      body: { id: device['id'], label: null, type, version: 2, additionalInfo: { gateway: true, description: 'new', a: 1 } },
    })
    expect((await server.call('GET', `/api/v1/devices/${idOf(device)}`)).body).toMatchObject({
      gateway: true,
      description: 'new',
      productName: type,
    })
  })

  it('leaves alone what the body does not name', async () => {
    const device = await createDevice({ label: 'kept', type: unique('type'), additionalInfo: { gateway: true, a: 1 } })
    const { body } = await server.call('POST', '/api/device', { body: { id: device['id'], name: device['name'] } })
    expect({ ...body, version: 1 }).toEqual(device)
  })

  it('refuses a body with an old version with 409 and code 35', async () => {
    const device = await createDevice()
    expect((await server.call('POST', '/api/device', { body: { ...device, label: 'one' } })).status).toBe(200)
    expect(await server.call('POST', '/api/device', { body: { ...device, label: 'two' } })).toMatchObject({
      status: 409,
      body: { status: 409, errorCode: 35 },
    })
  })

  it('answers 404 with code 32 for an unknown device and 400 with code 31 for a malformed id', async () => {
    const unknown = randomUUID()
    for (const [method, url, body] of [
      ['GET', '/api/device/ID', undefined],
      ['DELETE', '/api/device/ID', undefined],
      ['GET', '/api/device/ID/credentials', undefined],
      ['POST', '/api/device', { id: { entityType: 'DEVICE', id: 'ID' }, name: 'x' }],
      [
        'POST',
        '/api/device/credentials',
        { deviceId: { entityType: 'DEVICE', id: 'ID' }, credentialsType: 'ACCESS_TOKEN', credentialsId: unique('t') },
      ],
    ] as const) {
      const replaced = (id: string) => (body ? { body: JSON.parse(JSON.stringify(body).replace('"ID"', `"${id}"`)) as unknown } : {})
      expect(await server.call(method, url.replace('ID', unknown), replaced(unknown)), `${method} ${url}`).toMatchObject({
        status: 404,
        body: { status: 404, errorCode: 32 },
      })
      expect(await server.call(method, url.replace('ID', 'no-uuid'), replaced('no-uuid')), `${method} ${url}`).toMatchObject({
        status: 400,
        body: { status: 400, errorCode: 31 },
      })
    }
  })

  it('deletes with an empty 200, after which name and token are free', async () => {
    const token = unique('token')
    const device = await createDevice({}, `?accessToken=${token}`)
    const gone = await server.call('DELETE', `/api/device/${idOf(device)}`)
    expect(gone).toMatchObject({ status: 200, text: '' })
    expect((await server.call('GET', `/api/device/${idOf(device)}`)).status).toBe(404)
    expect(server.registry.findByToken(token)).toBeUndefined()
    await createDevice({ name: device['name'] }, `?accessToken=${token}`)
  })
})

describe('listing devices as ThingsBoard clients do', () => {
  it('pages by number with totals', async () => {
    const type = unique('list')
    const names = ['c', 'a', 'b', 'e', 'd'].map((letter) => `${letter}-${type}`)
    for (const name of names) await createDevice({ name, type })
    const page = async (query: string) => (await server.call('GET', `/api/tenant/devices?type=${type}&${query}`)).body
    const first = await page('pageSize=2&page=0')
    expect(first).toMatchObject({ totalPages: 3, totalElements: 5, hasNext: true })
    const listed = async (query: string) => ((await page(query))['data'] as { name: string }[]).map((one) => one.name[0]).join('')
    expect(await listed('pageSize=2&page=0'), 'by creation').toBe('ca')
    expect(await listed('pageSize=2&page=2')).toBe('d')
    expect(await page('pageSize=2&page=2')).toMatchObject({ hasNext: false })
    expect(await page('pageSize=2&page=3')).toEqual({ data: [], totalPages: 3, totalElements: 5, hasNext: false })
    expect(await listed('pageSize=9&page=0&sortProperty=name&sortOrder=DESC')).toBe('edcba')
    expect(await listed('pageSize=9&page=0&sortProperty=type&sortOrder=DESC'), 'equal values by creation').toBe('cabed')
    expect(await listed(`pageSize=9&page=0&textSearch=B-${type}`), 'any case').toBe('b')
    expect(await listed('pageSize=9&page=0&textSearch=%25'), 'a percent sign is no wildcard').toBe('')
  })

  it('answers one object for deviceName, or 404', async () => {
    const device = await createDevice({ name: `名称 ${unique('x')}` })
    const name = encodeURIComponent(String(device['name']))
    expect((await server.call('GET', `/api/tenant/devices?deviceName=${name}`)).body).toEqual(device)
    expect(await server.call('GET', `/api/tenant/devices?deviceName=${name}0`)).toMatchObject({ status: 404, body: { errorCode: 32 } })
  })

  it('refuses a page without its numbers or with bad ones', async () => {
    for (const query of [
      '',
      'pageSize=10',
      'page=0',
      'pageSize=0&page=0',
      'pageSize=1001&page=0',
      'pageSize=x&page=0',
      'pageSize=1&page=-1',
      'pageSize=1&page=0&sortProperty=token',
      'pageSize=1&page=0&sortOrder=up',
    ]) {
      expect(await server.call('GET', `/api/tenant/devices?${query}`), query).toMatchObject({ status: 400, body: { errorCode: 31 } })
    }
  })
})

describe('credentials as ThingsBoard clients change them', () => {
  it('shows and replaces an access token', async () => {
    const token = unique('token')
    const device = await createDevice({}, `?accessToken=${token}`)
    const { body } = await server.call('GET', `/api/device/${idOf(device)}/credentials`)
    expect(body).toEqual({
      id: { id: expect.any(String) as string },
      createdTime: expect.any(Number) as number,
      deviceId: device['id'],
      credentialsType: 'ACCESS_TOKEN',
      credentialsId: token,
      credentialsValue: null,
      version: 1,
    })
    const next = unique('token')
    expect(await server.call('POST', '/api/device/credentials', { body: { ...body, credentialsId: next } })).toMatchObject({
      status: 200,
      body: { credentialsId: next, deviceId: device['id'] },
    })
    expect(server.registry.findByToken(token)).toBeUndefined()
    expect(server.registry.findByToken(next)?.id).toBe(idOf(device))
  })

  it('takes MQTT basic as JSON text and computes its id', async () => {
    const device = await createDevice()
    const value = { clientId: unique('client'), userName: unique('user'), password: 'secret' }
    const answer = await server.call('POST', '/api/device/credentials', {
      body: { deviceId: device['id'], credentialsType: 'MQTT_BASIC', credentialsId: 'whatever', credentialsValue: JSON.stringify(value) },
    })
    expect(answer).toMatchObject({
      status: 200,
      body: { credentialsType: 'MQTT_BASIC', credentialsId: expect.stringMatching(/^[0-9a-f]{64}$/) as string },
    })
    expect(JSON.parse(String(answer.body['credentialsValue']))).toEqual(value)
    const login = (password: string) =>
      server.registry.authenticate({ clientId: value.clientId, userName: value.userName, password: Buffer.from(password) })
    expect(login('secret')).toMatchObject({ status: 'ok', device: { id: idOf(device) } })
    expect(login('wrong')).toMatchObject({ status: 'refused', reason: 'bad_credentials' })
  })

  it('refuses credentials that make no sense with code 31', async () => {
    const device = await createDevice()
    const other = await createDevice({}, `?accessToken=${unique('token')}`)
    const { body: taken } = await server.call('GET', `/api/device/${idOf(other)}/credentials`)
    for (const bad of [
      { credentialsType: 'ACCESS_TOKEN' },
      { credentialsType: 'ACCESS_TOKEN', credentialsId: 'a b' },
      { credentialsType: 'ACCESS_TOKEN', credentialsId: taken['credentialsId'] },
      { credentialsType: 'MQTT_BASIC', credentialsValue: '{"password":"alone"}' },
      { credentialsType: 'MQTT_BASIC', credentialsValue: 'no json' },
      { credentialsType: 'MQTT_BASIC', credentialsValue: '{"clientId":7}' },
      { credentialsType: 'X509_CERTIFICATE', credentialsValue: '-----BEGIN CERTIFICATE-----' },
    ]) {
      const answer = await server.call('POST', '/api/device/credentials', { body: { deviceId: device['id'], ...bad } })
      expect(answer, JSON.stringify(bad)).toMatchObject({ status: 400, body: { errorCode: 31 } })
    }
    expect((await server.call('GET', `/api/device/${idOf(device)}/credentials`)).body['credentialsId'], 'the old one stays').toMatch(
      /^pmsd_/,
    )
  })
})

describe('who may call', () => {
  it('takes the token in X-Authorization too', async () => {
    const answer = await server.call('GET', '/api/tenant/devices?pageSize=1&page=0', {
      as: null,
      headers: { 'x-authorization': server.admin.headers.authorization },
    })
    expect(answer.status).toBe(200)
  })

  it('answers 401 with code 10 without a token and 403 with code 20 without the permission', async () => {
    const device = await createDevice()
    for (const [method, url] of [
      ['POST', '/api/device'],
      ['GET', `/api/device/${idOf(device)}`],
      ['DELETE', `/api/device/${idOf(device)}`],
      ['GET', '/api/tenant/devices?pageSize=1&page=0'],
      ['GET', `/api/device/${idOf(device)}/credentials`],
      ['POST', '/api/device/credentials'],
    ] as const) {
      expect(await server.call(method, url, { as: null }), `${method} ${url}`).toMatchObject({ status: 401, body: { errorCode: 10 } })
      const isRead = method === 'GET' && !url.endsWith('credentials')
      const asViewer = await server.call(method, url, { as: server.viewer, ...(method === 'POST' ? { body: { name: 'x' } } : {}) })
      if (isRead) expect(asViewer.status, `${method} ${url}`).toBe(200)
      else expect(asViewer, `${method} ${url}`).toMatchObject({ status: 403, body: { errorCode: 20 } })
    }
  })
})

describe('the types of devices', () => {
  it('are the names of the products that have any', async () => {
    const type = unique('meter')
    const first = await createDevice({ type })
    await createDevice({ type })
    const types = async () =>
      JSON.parse((await server.call('GET', '/api/device/types')).text) as { tenantId: Entity; entityType: string; type: string }[]
    const { tenantId } = server.context.rootTenant
    expect((await types()).filter((one) => one.type === type)).toEqual([
      { tenantId: { entityType: 'TENANT', id: tenantId }, entityType: 'DEVICE', type },
    ])
    const lonely = unique('lonely')
    const only = await createDevice({ type: lonely })
    await server.call('DELETE', `/api/device/${idOf(only)}`)
    expect((await types()).map((one) => one.type)).not.toContain(lonely)
    expect(first['type']).toBe(type)
  })
})
