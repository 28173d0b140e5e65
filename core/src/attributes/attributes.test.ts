// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

type Item = { key: string; value: unknown; kind: string; lastUpdateTs: number }
const path = (id: string, scope: string) => `/api/v1/devices/${id}/attributes/${scope}`
const patch = (id: string, scope: string, body: unknown) => platform.call('PATCH', path(id, scope), { body })
async function list(id: string, scope: string, query = ''): Promise<Item[]> {
  const answer = await platform.call('GET', path(id, scope) + query)
  expect(answer.status, answer.text).toBe(200)
  return answer.json<{ items: Item[] }>().items
}
const valuesOf = (items: readonly Item[]) => Object.fromEntries(items.map(({ key, value }) => [key, value]))
const send = (token: string, body: string) => platform.call('POST', `/api/v1/${token}/attributes`, { body, token: null })

describe('attributes of users', () => {
  it.each(['shared', 'server'])('in the scope %s are set with their types, changed and deleted by one PATCH', async (scope) => {
    const device = await platform.createDevice()
    const before = Date.now()
    const set = await patch(
      device.id,
      scope,
      '{"double":42.0,"integer":9007199254740993,"text":"007","json":{"b":[1.50],"a":null},"flag":false}',
    )
    expect(set.status, set.text).toBe(200)
    const items = (await list(device.id, scope)).filter(({ key }) => !reserved.includes(key))
    expect(items.map(({ key, value, kind }) => [key, value, kind])).toEqual([
      ['double', 42, 'double'],
      ['flag', false, 'boolean'],
      ['integer', '9007199254740993', 'integer'],
      ['json', { b: [1.5], a: null }, 'json'],
      ['text', '007', 'string'],
    ])
    for (const { lastUpdateTs } of items) expect(lastUpdateTs).toBeGreaterThanOrEqual(before)
    expect((await platform.call('GET', path(device.id, scope))).text).toContain('{"b":[1.50],"a":null}')

    const changed = await patch(device.id, scope, { flag: true, text: null, unknown: null })
    expect(changed.json<{ items: Item[] }>().items).toMatchObject([{ key: 'flag', value: true }])
    expect(valuesOf(await list(device.id, scope, '?keys=flag,text,integer'))).toEqual({ flag: true, integer: '9007199254740993' })

    expect((await platform.call('DELETE', `${path(device.id, scope)}?keys=flag,nothing`)).status).toBe(204)
    expect(await list(device.id, scope, '?key=flag')).toEqual([])
  })

  it('are not cast from text to numbers by the native API [V-17]', async () => {
    const device = await platform.createDevice()
    await patch(device.id, 'shared', { version: '1.0' })
    expect(await list(device.id, 'shared')).toMatchObject([{ key: 'version', value: '1.0', kind: 'string' }])
  })

  it('are paged by key', async () => {
    const device = await platform.createDevice()
    await patch(device.id, 'server', Object.fromEntries(Array.from({ length: 7 }, (_, no) => [`键${no}`, no])))
    const keys: string[] = []
    for (let cursor = ''; ;) {
      const page = (await platform.call('GET', `${path(device.id, 'server')}?limit=5${cursor}`)).json<{
        items: Item[]
        nextCursor: string | null
      }>()
      keys.push(...page.items.map(({ key }) => key))
      if (page.nextCursor === null) break
      cursor = `&cursor=${page.nextCursor}`
    }
    expect(keys).toEqual([...reserved, ...Array.from({ length: 7 }, (_, no) => `键${no}`)])
  })

  it.each([
    ['no JSON', 'nonsense', 400, 'PAYLOAD_MALFORMED'],
    ['an array', [{ a: 1 }], 400, 'SHAPE_INVALID'],
    ['a scalar', '5', 400, 'SHAPE_INVALID'],
    ['a bad key beside a good one', { '': 1, good: 1 }, 422, 'POINTS_REJECTED'],
    ['a number beyond all doubles', '{"a":1e999,"good":1}', 422, 'POINTS_REJECTED'],
  ])('are refused as a whole for %s', async (_, body, status, code) => {
    const device = await platform.createDevice()
    const answer = await patch(device.id, 'shared', body)
    expect([answer.status, answer.json()['code']]).toEqual([status, code])
    expect(await list(device.id, 'shared')).toEqual([])
  })

  it('keep names that mean something to JavaScript as plain keys [V-3]', async () => {
    const device = await platform.createDevice()
    await patch(device.id, 'shared', '{"__proto__":{"x":1},"constructor":2,"prototype":3}')
    expect((await list(device.id, 'shared')).map(({ key }) => key)).toEqual(['__proto__', 'constructor', 'prototype'])
    expect(({} as Record<string, unknown>)['x']).toBeUndefined()
  })

  it('cannot be written in the client scope, but can be deleted there', async () => {
    const device = await platform.createDevice()
    await send(device.token, '{"a":1,"b":2}')
    expect((await patch(device.id, 'client', { a: 2 })).status).toBe(422)
    expect((await platform.call('DELETE', `${path(device.id, 'client')}?keys=a`)).status).toBe(204)
    expect(valuesOf(await list(device.id, 'client'))).toEqual({ b: 2 })
  })

  it('are unknown for an unknown scope, an unknown device and a device in the bin', async () => {
    const device = await platform.createDevice()
    expect((await platform.call('GET', path(device.id, 'other'))).status).toBe(404)
    await platform.call('DELETE', `/api/v1/devices/${device.id}`)
    expect((await platform.call('GET', path(device.id, 'shared'))).status).toBe(404)
    expect((await patch(device.id, 'shared', { a: 1 })).status).toBe(404)
    expect((await platform.call('DELETE', `${path(device.id, 'shared')}?keys=a`)).status).toBe(404)
  })

  it('of many requests at once all arrive', async () => {
    const device = await platform.createDevice()
    await Promise.all(Array.from({ length: 30 }, (_, no) => patch(device.id, 'shared', { [`k${no}`]: no, last: no })))
    expect(await list(device.id, 'shared', '?limit=100')).toHaveLength(31)
  })
})

const reserved = ['active', 'inactivityAlarmTime', 'lastActivityTime', 'lastConnectTime', 'lastDisconnectTime']

describe('server attributes kept by the server', () => {
  it('show the state of the device [S-5]', async () => {
    const device = await platform.createDevice()
    expect(valuesOf(await list(device.id, 'server'))).toEqual({
      active: false,
      inactivityAlarmTime: 0,
      lastActivityTime: 0,
      lastConnectTime: 0,
      lastDisconnectTime: 0,
    })
    const before = Date.now()
    await send(device.token, '{}')
    await expect
      .poll(async () => valuesOf(await list(device.id, 'server')), { timeout: 10_000 })
      .toMatchObject({ active: true, lastConnectTime: 0, lastDisconnectTime: 0 })
    expect(Number(valuesOf(await list(device.id, 'server', '?keys=lastActivityTime'))['lastActivityTime'])).toBeGreaterThanOrEqual(before)
  })

  it.each(reserved)('cannot be written or deleted: %s [A-6]', async (key) => {
    const device = await platform.createDevice()
    const answer = await patch(device.id, 'server', { other: 1, [key]: 1 })
    expect([answer.status, answer.json()['code']]).toEqual([422, 'ATTRIBUTE_RESERVED'])
    expect((await platform.call('DELETE', `${path(device.id, 'server')}?keys=${key}`)).status).toBe(422)
    expect(await list(device.id, 'server', '?keys=other')).toEqual([])
    expect((await patch(device.id, 'shared', { [key]: 1 })).status).toBe(200)
  })

  it('set the inactivity time of the device by inactivityTimeout [A-6]', async () => {
    const device = await platform.createDevice()
    const own = async () => (await platform.call('GET', `/api/v1/devices/${device.id}`)).json()['inactivityTimeoutMs']
    for (const bad of [9999, 2_592_000_001, 10_000.5, '20000', true]) {
      expect((await patch(device.id, 'server', { inactivityTimeout: bad })).status, String(bad)).toBe(422)
    }
    expect((await patch(device.id, 'server', { inactivityTimeout: 20_000, other: 1 })).status).toBe(200)
    expect(await own()).toBe(20_000)
    expect(platform.ingest.registry.get(device.id)?.inactivityTimeoutMs).toBe(20_000)
    expect(valuesOf(await list(device.id, 'server', '?keys=inactivityTimeout,other'))).toEqual({ inactivityTimeout: 20_000, other: 1 })
    await patch(device.id, 'server', { inactivityTimeout: null })
    expect(await own()).toBeNull()
  })
})

describe('attribute routes for scripts of ThingsBoard', () => {
  const base = (id: string) => `/api/plugins/telemetry/DEVICE/${id}`
  const scopes = { CLIENT_SCOPE: 'client', SHARED_SCOPE: 'shared', SERVER_SCOPE: 'server' }

  it('write by each of their paths, cast numeric texts, and read values with types', async () => {
    const device = await platform.createDevice()
    const paths = [
      `${base(device.id)}/SHARED_SCOPE`,
      `${base(device.id)}/attributes/SHARED_SCOPE`,
      `/api/plugins/telemetry/${device.id}/SHARED_SCOPE`,
    ]
    for (const [no, one] of paths.entries()) {
      const answer = await platform.call('POST', one, { body: `{"k${no}":"4${no}","big":9007199254740993,"double":1.0}` })
      expect([answer.status, answer.text], one).toEqual([200, ''])
    }
    const found = await platform.call('GET', `${base(device.id)}/values/attributes/SHARED_SCOPE?keys=k0,k1,k2,big`)
    expect(found.text).toContain('{"key":"big","value":9007199254740993,"lastUpdateTs":')
    expect(found.json<unknown[]>()).toMatchObject([
      { key: 'big' },
      { key: 'k0', value: 40 },
      { key: 'k1', value: 41 },
      { key: 'k2', value: 42 },
    ])
  })

  it('come all of them, however many there are', async () => {
    const device = await platform.createDevice()
    const keys = Array.from({ length: 10_500 }, (_, no) => `key ${String(no).padStart(5, '0')}`)
    for (const part of [keys.slice(0, 6000), keys.slice(6000)]) {
      expect((await send(device.token, JSON.stringify(Object.fromEntries(part.map((key, no) => [key, no]))))).status).toBe(200)
    }
    const names = await platform.call('GET', `${base(device.id)}/keys/attributes/CLIENT_SCOPE`)
    expect(names.json<string[]>()).toEqual(keys)
    const values = await platform.call('GET', `${base(device.id)}/values/attributes/CLIENT_SCOPE`)
    expect(values.json<{ key: string }[]>().map(({ key }) => key)).toEqual(keys)
    // Over the socket they come in the first answer.
    const socket = new WebSocket(`${platform.url.replace('http', 'ws')}/api/ws/plugins/telemetry?token=${platform.token}`)
    const first = new Promise<string>((resolve) => socket.addEventListener('message', ({ data }) => resolve(String(data))))
    const command = { cmdId: 1, entityType: 'DEVICE', entityId: device.id, scope: 'CLIENT_SCOPE', keys: '' }
    socket.addEventListener('open', () => socket.send(JSON.stringify({ attrSubCmds: [command] })))
    expect(Object.keys((JSON.parse(await first) as { data: object }).data).sort()).toEqual(keys)
    socket.close()
  })

  it('list keys and values of one scope or of all', async () => {
    const device = await platform.createDevice()
    await send(device.token, '{"c":1}')
    for (const scope of ['SHARED_SCOPE', 'SERVER_SCOPE']) {
      await platform.call('POST', `${base(device.id)}/${scope}`, { body: { [scope]: 1, c: 2 } })
    }
    for (const scope of Object.keys(scopes)) {
      const keys = (await platform.call('GET', `${base(device.id)}/keys/attributes/${scope}`)).json<string[]>()
      expect(keys.filter((key) => !reserved.includes(key))).toEqual(scope === 'CLIENT_SCOPE' ? ['c'] : [scope, 'c'])
    }
    const all = (await platform.call('GET', `${base(device.id)}/keys/attributes`)).json<string[]>()
    expect(all.toSorted()).toEqual(['SERVER_SCOPE', 'SHARED_SCOPE', 'c', ...reserved].toSorted())
    const values = (await platform.call('GET', `${base(device.id)}/values/attributes?keys=c`)).json<{ value: number }[]>()
    expect(values.map(({ value }) => value)).toEqual([1, 2, 2])
  })

  it('delete in all three scopes', async () => {
    const device = await platform.createDevice()
    await send(device.token, '{"a":1,"b":1}')
    for (const scope of ['SHARED_SCOPE', 'SERVER_SCOPE']) {
      await platform.call('POST', `${base(device.id)}/${scope}`, { body: { a: 1, b: 1 } })
    }
    for (const [name, scope] of Object.entries(scopes)) {
      expect((await platform.call('DELETE', `${base(device.id)}/${name}?keys=a,unknown`)).status).toBe(200)
      expect(Object.keys(valuesOf(await list(device.id, scope))).filter((key) => !reserved.includes(key))).toEqual(['b'])
    }
  })

  it.each([
    ['POST', 'CLIENT_SCOPE', { a: 1 }],
    ['POST', 'OTHER', { a: 1 }],
    ['POST', 'SHARED_SCOPE', {}],
    ['POST', 'SHARED_SCOPE', [{ a: 1 }]],
    ['POST', 'SHARED_SCOPE', undefined],
    ['POST', 'SERVER_SCOPE', { active: true }],
    ['POST', 'SERVER_SCOPE', { inactivityTimeout: 1 }],
    ['DELETE', 'SHARED_SCOPE', undefined],
    ['DELETE', 'SHARED_SCOPE?keys=a,,b', undefined],
    ['DELETE', 'OTHER?keys=a', undefined],
    ['GET', 'values/attributes/OTHER', undefined],
  ])('answer 400 to %s %s %j', async (method, rest, body) => {
    const device = await platform.createDevice()
    const answer = await platform.call(method, `${base(device.id)}/${rest}`, body === undefined ? {} : { body })
    expect(answer.status, answer.text).toBe(400)
    expect(answer.json()).toMatchObject({ status: 400, errorCode: 31 })
  })

  it('answer 404 for an unknown device and 400 for what is no uuid', async () => {
    for (const [id, status] of [
      ['01920000-0000-7000-8000-000000000000', 404],
      ['nonsense', 400],
    ] as const) {
      expect((await platform.call('GET', `${base(id)}/values/attributes`)).status).toBe(status)
      expect((await platform.call('POST', `${base(id)}/SHARED_SCOPE`, { body: { a: 1 } })).status).toBe(status)
      expect((await platform.call('DELETE', `${base(id)}/SHARED_SCOPE?keys=a`)).status).toBe(status)
    }
  })
})
