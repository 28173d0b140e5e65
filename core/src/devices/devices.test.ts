// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { IClientOptions, MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectDevice } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { createToken } from './credentials.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

type Row = {
  id: string
  name: string
  state: string
  disconnectReason: string | null
  tags: string[]
  primary: unknown
  lastActivityAt: string | null
}
type List = { items: Row[]; nextCursor: string | null; total?: number }

const list = async (query: string) => (await platform.call('GET', `/api/v1/devices?${query}`)).json<List>()
const read = async (id: string) => (await platform.call('GET', `/api/v1/devices/${id}`)).json<Row & Record<string, unknown>>()

function connect(userName: string | undefined, options: IClientOptions = {}): Promise<MqttClient> {
  return connectDevice(platform.ports.mqtt, userName, options)
}

async function until(matches: () => Promise<boolean>, ms = 5000): Promise<void> {
  for (let waited = 0; waited < ms; waited += 50) {
    if (await matches()) return
    await sleep(50)
  }
  throw new Error('it did not come to that')
}

describe('devices', () => {
  it('are created with a token that works, shown once', async () => {
    const answer = await platform.call('POST', '/api/v1/devices', {
      body: { name: ' 冷库 1 ', label: 'cold', tags: ['a', 'b'], timeZone: 'Asia/Shanghai' },
    })
    expect(answer.status).toBe(201)
    const device = answer.json<Row & { credentials: { token: string } }>()
    expect(device).toMatchObject({ name: '冷库 1', state: 'never', tags: ['a', 'b'], primary: null })
    expect(device.credentials.token).toMatch(/^pmsd_[0-9A-Za-z]{27}$/)
    expect(await read(device.id)).not.toHaveProperty('credentials')
    await (await connect(device.credentials.token)).endAsync()
  })

  it('refuse a taken name, an unknown product, an unknown zone, unknown members and bad types', async () => {
    const device = await platform.createDevice()
    for (const [body, status, code] of [
      [{ name: device.name }, 409, 'NAME_TAKEN'],
      [{ name: 'p', productId: '01920000-0000-7000-8000-000000000000' }, 422, 'UNPROCESSABLE'],
      [{ name: 'z', timeZone: 'Mars/Olympus' }, 422, 'TIME_ZONE_UNKNOWN'],
      [{ name: 'm', isDemo: true }, 400, 'VALIDATION_FAILED'],
      [{ name: 7 }, 400, 'VALIDATION_FAILED'],
      [{}, 400, 'VALIDATION_FAILED'],
      [{ name: 'nul\u0000' }, 400, 'VALIDATION_FAILED'],
    ] as const) {
      const answer = await platform.call('POST', '/api/v1/devices', { body })
      expect([answer.status, answer.json()['code']], JSON.stringify(body)).toEqual([status, code])
    }
    const proto = await platform.call('POST', '/api/v1/devices', { body: '{"name":"x","__proto__":{"a":1}}' })
    expect(proto.status).toBe(400)
  })

  it('are edited by merge patch, guarded by their version [412]', async () => {
    const device = await platform.createDevice({ label: 'old', description: 'd' })
    const first = await platform.call('GET', `/api/v1/devices/${device.id}`)
    const etag = first.headers.get('etag')!
    const patched = await platform.call('PATCH', `/api/v1/devices/${device.id}`, {
      body: { label: null, tags: ['x'] },
      headers: { 'if-match': etag },
    })
    expect(patched.json()).toMatchObject({ label: null, description: 'd', tags: ['x'] })
    const late = await platform.call('PATCH', `/api/v1/devices/${device.id}`, { body: { label: 'mine' }, headers: { 'if-match': etag } })
    expect([late.status, late.json()['code']]).toEqual([412, 'VERSION_CONFLICT'])
  })

  it('are listed by pages without a gap or a repeat in every order, filtered and counted', async () => {
    const tag = `page-${Date.now()}`
    const made: string[] = []
    for (let i = 0; i < 25; i++) {
      made.push((await platform.createDevice({ name: `${tag}-${String(i).padStart(2, '0')}`, tags: [tag, i % 2 ? 'odd' : 'even'] })).id)
    }
    for (const sort of ['name', '-name', 'createdAt', '-createdAt', 'lastActivityAt', '-lastActivityAt']) {
      const seen: string[] = []
      let cursor = ''
      do {
        const page = await list(`tag=${tag}&sort=${sort}&limit=7&count=exact${cursor}`)
        expect(page.total).toBe(25)
        seen.push(...page.items.map((item) => item.id))
        cursor = page.nextCursor ? `&cursor=${page.nextCursor}` : ''
      } while (cursor)
      expect(new Set(seen), sort).toEqual(new Set(made))
      expect(seen.length, sort).toBe(25)
      if (sort === 'name' || sort === 'createdAt') expect(seen).toEqual(made)
    }
    expect((await list(`q=${tag}-0`)).items).toHaveLength(10)
    expect((await list(`q=${encodeURIComponent('%')}`)).items).toHaveLength(0)
    expect((await list(`q=${made[3]!.slice(0, 30)}`)).items.map((item) => item.id)).toContain(made[3])
    const facets = (await platform.call('GET', `/api/v1/devices/facets?tag=${tag}`)).json<{ state: unknown; tag: unknown; total: number }>()
    expect(facets).toMatchObject({
      total: 25,
      state: [{ value: 'never', count: 25 }],
      tag: [
        { value: tag, count: 25 },
        { value: 'even', count: 13 },
        { value: 'odd', count: 12 },
      ],
      firmware: [],
    })
    const { nextCursor } = await list(`tag=${tag}&sort=name&limit=7`)
    const mixed = await platform.call('GET', `/api/v1/devices?sort=createdAt&cursor=${nextCursor}`)
    expect([mixed.status, mixed.json()['code']]).toEqual([400, 'CURSOR_INVALID'])
  })

  it('come back from the bin whole: name, token, points and attributes [UX-36]', async () => {
    const device = await platform.createDevice()
    for (let i = 0; i < 3; i++) {
      await platform.call('POST', `/api/v1/${device.token}/telemetry`, {
        body: { ts: 1_700_000_000_000 + i, values: { x: i } },
        token: null,
      })
    }
    expect((await platform.call('DELETE', `/api/v1/devices/${device.id}`)).status).toBe(204)
    expect((await platform.call('GET', `/api/v1/devices/${device.id}`)).status).toBe(404)
    expect((await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: {}, token: null })).status).toBe(401)
    const bin = (await platform.call('GET', '/api/v1/bin')).json<{ items: Record<string, unknown>[] }>()
    expect(bin.items[0]).toMatchObject({ kind: 'device', id: device.id, name: device.name, daysLeft: 30 })
    const restored = await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [device.id] } })
    expect(restored.json<{ items: Row[] }>().items[0]).toMatchObject({ id: device.id, name: device.name, primary: { key: 'x', value: 2 } })
    expect((await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: { x: 3 }, token: null })).status).toBe(200)
  })

  it('are deleted for good only out of the bin: a live one among them leaves all of them whole', async () => {
    const live = await platform.createDevice()
    const gone = await platform.createDevice()
    for (const device of [live, gone]) {
      await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: { a: 1, b: 2 }, token: null })
    }
    await platform.call('DELETE', `/api/v1/devices/${gone.id}`)
    expect((await platform.call('DELETE', '/api/v1/bin', { body: { ids: [gone.id, live.id] } })).status).toBe(404)
    expect((await platform.call('GET', `/api/v1/devices/${live.id}/telemetry`)).json<{ items: unknown[] }>().items).toHaveLength(2)
    expect((await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [gone.id] } })).status).toBe(200)
    expect((await platform.call('GET', `/api/v1/devices/${gone.id}/telemetry`)).json<{ items: unknown[] }>().items).toHaveLength(2)
    await platform.call('DELETE', `/api/v1/devices/${gone.id}`)
    expect((await platform.call('DELETE', '/api/v1/bin', { body: { ids: [gone.id, gone.id] } })).status).toBe(204)
  })

  it('free their name and token at once, and say so when somebody took them meanwhile', async () => {
    const device = await platform.createDevice()
    await platform.call('DELETE', `/api/v1/devices/${device.id}`)
    const other = await platform.createDevice({ name: device.name })
    const taken = await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [device.id] } })
    expect([taken.status, taken.json()['code']]).toEqual([409, 'NAME_TAKEN'])
    await platform.call('DELETE', `/api/v1/devices/${other.id}`)
    expect((await platform.call('DELETE', '/api/v1/bin', { body: { ids: [other.id] } })).status).toBe(204)
    expect((await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [other.id] } })).status).toBe(404)
    expect((await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [device.id] } })).status).toBe(200)
  })
})

describe('credentials', () => {
  it('are generated with a checksum and never the same [M-10]', () => {
    const tokens = new Set(Array.from({ length: 1000 }, createToken))
    expect(tokens.size).toBe(1000)
    for (const token of tokens) expect(token).toMatch(/^pmsd_[0-9A-Za-z]{27}$/)
  })

  it('are shown only with the permission, and each showing is a security event [M-9, SC-7]', async () => {
    const device = await platform.createDevice()
    expect((await platform.call('GET', `/api/v1/devices/${device.id}/credentials`)).json()).toEqual({
      type: 'access_token',
      token: device.token,
    })
    const events = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`select actor from security_events where action = 'device.credentials.show' and target = ${`device:${device.id}`}`),
    )
    expect(events).toHaveLength(1)
    const stored = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`select * from device_credentials where device_id = ${device.id}`),
    )
    expect(JSON.stringify(stored)).not.toContain(device.token)
  })

  it('rotate with a grace time in which the old token still works', async () => {
    const device = await platform.createDevice()
    const rotated = (await platform.call('POST', `/api/v1/devices/${device.id}/credentials/rotate`, { body: { graceSeconds: 2 } })).json<{
      token: string
    }>()
    for (const token of [device.token, rotated.token]) await (await connect(token)).endAsync()
    expect((await platform.call('GET', `/api/v1/devices/${device.id}/credentials`)).json()).toMatchObject({
      token: rotated.token,
      graceUntil: expect.any(String),
    })
    await sleep(2100)
    await expect(connect(device.token)).rejects.toThrow()
    await (await connect(rotated.token)).endAsync()
  })

  it('refuse a reserved or taken token, and MQTT basic without any name [H-1, M-10]', async () => {
    const device = await platform.createDevice()
    const other = await platform.createDevice()
    for (const [body, status, code] of [
      [{ type: 'access_token', token: 'devices' }, 422, 'TOKEN_RESERVED'],
      [{ type: 'access_token', token: 'vehicle' }, 422, 'TOKEN_RESERVED'],
      [{ type: 'access_token', token: other.token }, 409, 'TOKEN_TAKEN'],
      [{ type: 'access_token', token: 'with space' }, 400, 'VALIDATION_FAILED'],
      [{ type: 'mqtt_basic', password: 'x' }, 422, 'UNPROCESSABLE'],
    ] as const) {
      const answer = await platform.call('PUT', `/api/v1/devices/${device.id}/credentials`, { body })
      expect([answer.status, answer.json()['code']], JSON.stringify(body)).toEqual([status, code])
    }
    await (await connect(device.token)).endAsync()
  })

  it('of kind MQTT basic follow the order of §2.2: pair, then user name, passwords compared', async () => {
    const pair = await platform.createDevice()
    const alone = await platform.createDevice()
    const clientOnly = await platform.createDevice()
    const set = (id: string, body: Record<string, unknown>) =>
      platform.call('PUT', `/api/v1/devices/${id}/credentials`, { body: { type: 'mqtt_basic', ...body } })
    await set(pair.id, { clientId: 'c1', userName: 'u1', password: 'p1' })
    await set(alone.id, { userName: 'u1', password: 'p2' })
    await set(clientOnly.id, { clientId: 'c9' })
    const who = async (userName: string | undefined, clientId: string, password?: string) => {
      const client = await connect(userName, { clientId, ...(password ? { password } : {}) })
      const device = [...platform.ingest.sessions.all()].find((session) => session.clientId === clientId)?.device.id
      await client.endAsync()
      return device
    }
    expect(await who('u1', 'c1', 'p1')).toBe(pair.id)
    await expect(who('u1', 'c1', 'p2')).rejects.toThrow()
    await expect(who('u1', 'c1')).rejects.toThrow()
    expect(await who('u1', 'c2', 'p2')).toBe(alone.id)
    expect(await who(undefined, 'c9')).toBe(clientOnly.id)
    await expect(who('u2', 'c2', 'p2')).rejects.toThrow()
  })

  it('that change close the session within 5 s, as disabling and deleting do [M-19]', async () => {
    for (const act of [
      (id: string) => platform.call('POST', `/api/v1/devices/${id}/credentials/rotate`, { body: {} }),
      (id: string) => platform.call('PATCH', `/api/v1/devices/${id}`, { body: { disabled: true } }),
      (id: string) => platform.call('DELETE', `/api/v1/devices/${id}`),
      (id: string) => platform.call('DELETE', `/api/v1/devices/${id}/session`),
    ]) {
      const device = await platform.createDevice()
      const client = await connect(device.token, { protocolVersion: 5 })
      const reason = new Promise<number | undefined>((resolve) => client.on('disconnect', (packet) => resolve(packet.reasonCode)))
      await act(device.id)
      expect(await Promise.race([reason, sleep(5000)])).toBe(0x98)
      await client.endAsync(true)
    }
  })
})

describe('device state', () => {
  it('follows the session: online while it is open, offline with the reason when it ends [S-1, S-2, S-3]', async () => {
    const device = await platform.createDevice()
    const client = await connect(device.token, { clientId: 'state-1' })
    await until(async () => (await read(device.id)).state === 'online')
    expect((await list('state=online&limit=500')).items.map((item) => item.id)).toContain(device.id)
    const shown = (await platform.call('GET', `/api/v1/devices/${device.id}/session`)).json<{ session: unknown; events: unknown[] }>()
    expect(shown.session).toMatchObject({ protocol: 4, clientId: 'state-1', address: '127.0.0.1', tls: false, keepAliveS: 60, inFlight: 0 })
    await client.endAsync()
    await until(async () => (await read(device.id)).state === 'offline')
    expect(await read(device.id)).toMatchObject({
      disconnectReason: 'client',
      lastConnectAt: expect.any(String),
      lastDisconnectAt: expect.any(String),
    })
    await until(
      async () =>
        (await platform.call('GET', `/api/v1/devices/${device.id}/log`))
          .json<{ items: { event: string }[] }>()
          .items.map((one) => one.event)
          .join() === 'disconnected,connected,created',
    )
  })

  it('of a device that only speaks HTTP is online after an uplink', async () => {
    const device = await platform.createDevice()
    await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: { x: 1 }, token: null })
    await until(async () => (await read(device.id)).state === 'online')
    expect((await read(device.id)).lastActivityAt).not.toBeNull()
  })

  it('of a device that publishes without waiting and leaves is offline, as mosquitto_pub does [S-2]', async () => {
    const device = await platform.createDevice()
    const client = await connect(device.token)
    client.publish('v1/devices/me/telemetry', '{"x":1}', { qos: 0 })
    await client.endAsync()
    await until(async () => (await read(device.id)).state === 'offline' && (await read(device.id)).primary !== null)
    await sleep(1500)
    expect((await read(device.id)).state).toBe('offline')
  })

  it('names a take-over loop in the log once [M-18]', async () => {
    const device = await platform.createDevice()
    const clients: MqttClient[] = []
    for (let i = 0; i < 7; i++) clients.push(await connect(device.token, { clientId: `loop-${i}` }))
    await until(async () =>
      (await platform.call('GET', `/api/v1/devices/${device.id}/log`))
        .json<{ items: { event: string }[] }>()
        .items.some((one) => one.event === 'takeover_loop'),
    )
    const { items } = (await platform.call('GET', `/api/v1/devices/${device.id}/log`)).json<{
      items: { event: string; detail: unknown }[]
    }>()
    expect(items.filter((one) => one.event === 'takeover_loop')).toHaveLength(1)
    await until(async () => (await read(device.id)).state === 'online')
    for (const client of clients) await client.endAsync(true)
  })
})
