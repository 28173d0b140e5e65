// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

type Frame = { op: string; id?: string; code?: string; items?: unknown[]; t?: number; seq?: number }

async function ticket(token?: string): Promise<string> {
  return (await platform.call('POST', '/api/v1/stream/ticket', { body: {}, ...(token ? { token } : {}) })).json<{ ticket: string }>().ticket
}

function address(ticketText: string): string {
  return `${platform.url.replace('http', 'ws')}/api/v1/stream?ticket=${ticketText}`
}

/** An open stream whose frames a test can wait for. */
class Client {
  readonly socket: WebSocket
  readonly frames: Frame[] = []

  constructor(socket: WebSocket) {
    this.socket = socket
    socket.on('message', (data) => this.frames.push(JSON.parse(String(data)) as Frame))
  }

  static async open(token?: string): Promise<Client> {
    const client = new Client(new WebSocket(address(await ticket(token))))
    await once(client.socket, 'open')
    return client
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame))
  }

  async next(matches: (frame: Frame) => boolean): Promise<Frame> {
    for (let waited = 0; waited < 20_000; waited += 10) {
      const index = this.frames.findIndex(matches)
      if (index >= 0) return this.frames.splice(index, 1)[0]!
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error(`no such frame among ${JSON.stringify(this.frames)}`)
  }

  items(id: string): Promise<unknown[]> {
    return this.next((frame) => frame.op === 'data' && frame.id === id).then((frame) => frame.items!)
  }
}

/** Status of a refused upgrade. */
function refusal(url: string, headers: Record<string, string> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { headers })
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode ?? 0))
    socket.on('open', () => reject(new Error('was opened')))
    socket.on('error', () => {})
  })
}

const sendPoint = (token: string, body: unknown) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })

describe('the live stream', () => {
  it('tells of alarms as they are raised, acknowledged and cleared, to who asked for such ones', async () => {
    const device = await platform.createDevice()
    const client = await Client.open(await platform.login('viewer'))
    const subscribe = async (id: string, params: object) => {
      client.send({ op: 'sub', id, topic: 'alarms', params })
      await client.next((frame) => frame.op === 'ok' && frame.id === id)
    }
    await subscribe('all', { deviceId: device.id })
    await subscribe('critical', { deviceId: device.id, severity: 'critical' })
    const raise = async (severity: string) => {
      const body = { deviceId: device.id, type: severity, severity, title: 'Too warm' }
      return (await platform.call('POST', '/api/v1/alarms', { body })).json<{ id: string }>().id
    }
    const minor = await raise('minor')
    const critical = await raise('critical')
    await platform.call('POST', `/api/v1/alarms/${critical}/ack`, { body: {} })
    const seen: unknown[] = []
    while (seen.length < 3) seen.push(...(await client.items('all')))
    expect(seen).toMatchObject([
      { kind: 'raised', alarm: { id: minor, status: 'active' } },
      { kind: 'raised', alarm: { id: critical } },
      { kind: 'acked', alarm: { id: critical, acked: true } },
    ])
    expect((await client.items('critical'))[0]).toMatchObject({ kind: 'raised', alarm: { id: critical } })
    client.socket.close()
  })

  it('opens once per ticket, from our own origin only [SC-55, S-13]', async () => {
    const used = await ticket()
    const client = new WebSocket(address(used))
    await once(client, 'open')
    expect(await refusal(address(used))).toBe(401)
    expect(await refusal(address('nonsense'))).toBe(401)
    expect(await refusal(address(await ticket()), { origin: 'https://evil.example' })).toBe(403)
    expect(await refusal(`${platform.url.replace('http', 'ws')}/api/v1/other`)).toBe(404)
    const own = new WebSocket(address(await ticket()), { origin: platform.url })
    await once(own, 'open')
    client.close()
    own.close()
  })

  it('brings each change of attributes, whoever made it', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    client.send({ op: 'sub', id: '1', topic: 'attributes', params: { deviceIds: [device.id] } })
    await client.next((frame) => frame.op === 'ok' && frame.id === '1')
    await platform.call('POST', `/api/v1/${device.token}/attributes`, { body: { version: 3 }, token: null })
    expect(await client.items('1')).toEqual([
      { deviceId: device.id, scope: 'client', key: 'version', value: 3, kind: 'integer', lastUpdateTs: expect.any(Number) },
    ])
    await platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { body: { place: 'roof' } })
    expect((await client.items('1'))[0]).toMatchObject({ scope: 'server', key: 'place', value: 'roof' })
    await platform.call('DELETE', `/api/v1/devices/${device.id}/attributes/server?keys=place`)
    expect((await client.items('1'))[0]).toEqual({ deviceId: device.id, scope: 'server', key: 'place', deleted: true })
    client.socket.close()
  })

  it('brings each move of a command of the device [R-12]', async () => {
    const [device, other] = [await platform.createDevice(), await platform.createDevice()]
    const client = await Client.open()
    client.send({ op: 'sub', id: '1', topic: 'commands', params: { deviceId: device.id } })
    await client.next((frame) => frame.op === 'ok' && frame.id === '1')
    const queue = async ({ id }: { id: string }) => {
      const body = { method: 'reboot', params: { after: 5 }, persistent: true }
      return (await platform.call('POST', `/api/v1/devices/${id}/commands`, { body })).json<{ id: string }>().id
    }
    await queue(other)
    const id = await queue(device)
    expect((await client.items('1'))[0]).toMatchObject({ id, deviceId: device.id, method: 'reboot', params: { after: 5 }, state: 'QUEUED' })
    await platform.call('DELETE', `/api/v1/devices/${device.id}/commands/${id}`)
    expect((await client.items('1'))[0]).toMatchObject({ id, state: 'DELETED', detail: expect.any(String) })
    client.socket.close()
  })

  it('brings current values first and each committed point after it [M-28]', async () => {
    const device = await platform.createDevice()
    await sendPoint(device.token, { temperature: 20.5 })
    const client = await Client.open()
    client.send({ op: 'sub', id: '1', topic: 'telemetry', params: { deviceIds: [device.id] } })
    await client.next((frame) => frame.op === 'ok' && frame.id === '1')
    expect(await client.items('1')).toEqual([[device.id, 'temperature', expect.any(Number), 20.5, 'double']])
    await sendPoint(device.token, { temperature: 21.5, door: true })
    const items: unknown[] = []
    while (items.length < 2) items.push(...(await client.items('1')))
    expect(items).toEqual([
      [device.id, 'temperature', expect.any(Number), 21.5, 'double'],
      [device.id, 'door', expect.any(Number), true, 'boolean'],
    ])
    client.send({ op: 'unsub', id: '1' })
    client.send({ op: 'ping', t: 7 })
    await client.next((frame) => frame.op === 'pong' && frame.t === 7)
    await sendPoint(device.token, { temperature: 22.5 })
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect(client.frames).toEqual([])
    client.socket.close()
  })

  it('shows a refusal of a device within two seconds, and its uplinks [L-1]', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    client.send({ op: 'sub', id: 'log', topic: 'deviceLog', params: { id: device.id } })
    await client.next((frame) => frame.op === 'ok')
    await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: '{"temperature":', token: null })
    expect(await client.items('log')).toEqual([
      { type: 'reject', entry: expect.objectContaining({ code: 'PAYLOAD_MALFORMED', sample: '{"temperature":', count: 1 }) },
    ])
    await sendPoint(device.token, { temperature: 1 })
    expect(await client.items('log')).toEqual([expect.objectContaining({ type: 'uplink', key: 'temperature', value: 1, points: 1 })])
    client.socket.close()
  })

  it('tells of state changes of the devices shown, of refused connections, and sends the overview', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    client.send({ op: 'sub', id: 'd', topic: 'devices', params: { ids: [device.id] } })
    client.send({ op: 'sub', id: 's', topic: 'system' })
    client.send({ op: 'sub', id: 'o', topic: 'overview' })
    expect((await client.items('o'))[0]).toMatchObject({ devices: { total: expect.any(Number) } })
    await sendPoint(device.token, { temperature: 1 })
    expect((await client.items('d'))[0]).toMatchObject({ id: device.id, state: 'online' })
    await sendPoint('pmsd_unknownunknownunknownunkno', {})
    expect(await client.items('s')).toEqual([expect.objectContaining({ type: 'refused', address: '127.0.0.1' })])
    client.socket.close()
  })

  it('[V-8] tells the newest value of the primary key of a device, never a late one or another key', async () => {
    const product = await platform.call('POST', '/api/v1/products', { body: { name: 'Live', model: { primaryKey: 'power' } } })
    const byProduct = await platform.createDevice({ productId: product.json<{ id: string }>().id })
    const byFirstKey = await platform.createDevice()
    const now = Date.now()
    const at = (ts: number, values: unknown) => ({ ts: now + ts, values })
    for (const { token } of [byProduct, byFirstKey]) {
      await sendPoint(token, at(0, { power: 20 }))
      await sendPoint(token, at(-60_000, { later: 1 }))
    }
    const client = await Client.open()
    client.send({ op: 'sub', id: 'd', topic: 'devices', params: { ids: [byProduct.id, byFirstKey.id] } })
    await client.next((frame) => frame.op === 'ok')
    for (const device of [byProduct, byFirstKey]) {
      const primaryAfter = async (body: unknown) => {
        await sendPoint(device.token, body)
        for (;;) {
          const items = (await client.items('d')) as { id: string; primary?: { key: string; value: number; ts: number } }[]
          const item = items.find((one) => one.id === device.id && one.primary)
          if (item) return [item.primary!.key, item.primary!.value, item.primary!.ts - now]
        }
      }
      expect(await primaryAfter([at(-5000, { power: 1, later: 2 }), at(-6000, { power: 2 })])).toEqual(['power', 20, 0])
      expect(await primaryAfter(at(1000, { later: 3 }))).toEqual(['power', 20, 0])
      expect(await primaryAfter([at(2000, { power: 22 }), at(1000, { power: 21 })])).toEqual(['power', 22, 2000])
      expect(await primaryAfter(at(2000, { power: 23 }))).toEqual(['power', 23, 2000])
    }
    client.socket.close()
  })

  it('follows the primary key of the product, and the first key of a device that had sent nothing yet', async () => {
    const productId = (await platform.call('POST', '/api/v1/products', { body: { name: 'Live two' } })).json<{ id: string }>().id
    const device = await platform.createDevice({ productId })
    const client = await Client.open()
    client.send({ op: 'sub', id: 'd', topic: 'devices', params: { ids: [device.id] } })
    await client.next((frame) => frame.op === 'ok')
    const primaryAfter = async (body: unknown) => {
      await sendPoint(device.token, body)
      for (;;) {
        const item = ((await client.items('d')) as { primary?: { key: string; value: number } }[]).find((one) => one.primary)
        if (item) return [item.primary!.key, item.primary!.value]
      }
    }
    expect(await primaryAfter({ first: 1 })).toEqual(['first', 1])
    expect(await primaryAfter({ second: 2 })).toEqual(['first', 1])
    await platform.call('PATCH', `/api/v1/products/${productId}`, { body: { model: { primaryKey: 'second' } } })
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(await primaryAfter({ first: 3 })).toEqual(['second', 2])
    expect(await primaryAfter({ second: 4 })).toEqual(['second', 4])
    client.socket.close()
  })

  it('a message of 10,000 points is a small item for the devices shown', async () => {
    const device = await platform.createDevice()
    const now = Date.now()
    const client = await Client.open()
    client.send({ op: 'sub', id: 'd', topic: 'devices', params: { ids: [device.id] } })
    client.send({ op: 'sub', id: 't', topic: 'telemetry', params: { deviceIds: [device.id] } })
    await client.next((frame) => frame.op === 'ok' && frame.id === 't')
    await sendPoint(
      device.token,
      Array.from({ length: 10_000 }, (_, i) => ({ ts: now - i, values: { a: i } })),
    )
    const points = (await client.items('t')) as [string, string, number, number][]
    expect(points.length).toBeLessThanOrEqual(500)
    expect(Math.max(...points.map((point) => point[2]))).toBe(now)
    for (;;) {
      const items = (await client.items('d')) as { primary?: { value: number } }[]
      expect(JSON.stringify(items).length).toBeLessThan(1000)
      const item = items.find((one) => one.primary)
      if (!item) continue
      expect(item.primary).toEqual({ key: 'a', ts: now, value: 0, kind: 'integer' })
      break
    }
    client.socket.close()
  })

  it('gives the same error for an unknown device as for none of ours, and keeps the socket', async () => {
    const client = await Client.open()
    for (const [id, frame, code] of [
      ['1', { op: 'sub', id: '1', topic: 'telemetry', params: { deviceIds: ['01920000-0000-7000-8000-000000000000'] } }, 'NOT_FOUND'],
      ['2', { op: 'sub', id: '2', topic: 'nothing' }, 'VALIDATION_FAILED'],
      ['3', { op: 'sub', id: '3', topic: 'telemetry', params: { deviceIds: ['x'] } }, 'VALIDATION_FAILED'],
      ['4', { op: 'sub', id: '4', topic: '__proto__' }, 'VALIDATION_FAILED'],
      ['', 'not json', 'VALIDATION_FAILED'],
      ['', { op: 'sub' }, 'VALIDATION_FAILED'],
    ] as const) {
      client.send(frame)
      expect((await client.next((one) => one.op === 'err' && one.id === id)).code).toBe(code)
    }
    client.socket.close()
  })

  it('checks the permission of each topic [SC-56]', async () => {
    const client = await Client.open(await platform.login('viewer'))
    client.send({ op: 'sub', id: 's', topic: 'system' })
    expect((await client.next((frame) => frame.op === 'err')).code).toBe('PERMISSION_DENIED')
    client.socket.close()
  })

  it('closes with 4401 within two seconds when its session ends [SC-21]', async () => {
    const token = await platform.login('operator')
    const client = await Client.open(token)
    const closed = once(client.socket, 'close')
    const sessions = (await platform.call('GET', '/api/v1/me/sessions', { token })).json<{ items: { id: string; isCurrent: boolean }[] }>()
    await platform.call('DELETE', `/api/v1/me/sessions/${sessions.items.find((one) => one.isCurrent)!.id}`, { token })
    expect((await closed)[0]).toBe(4401)
  })

  it('closes a client that sends frames too large, too many, or binary', async () => {
    for (const misbehave of [
      (client: Client) => client.send('x'.repeat(70_000)),
      (client: Client) => client.socket.send(Buffer.from([1])),
      (client: Client) => Array.from({ length: 80 }, () => client.send({ op: 'ping' })),
    ]) {
      const client = await Client.open()
      client.socket.on('error', () => {})
      const closed = once(client.socket, 'close')
      misbehave(client)
      expect([1008, 1009]).toContain((await closed)[0])
    }
  })

  it('keeps only the newest of each series for a client that is far behind', async () => {
    const { createSubscription } = await import('./subscription.ts')
    const subscription = createSubscription('1', { scope: platform.context.rootTenant } as never, {
      topic: 'telemetry',
      params: { deviceIds: [], maxHz: 1 },
    })
    for (let i = 0; i < 2000; i++) subscription.push([`k${i % 3}`, i], `k${i % 3}`)
    const items = subscription.take(0)!.items as [string, number][]
    expect(items.length).toBeLessThanOrEqual(500)
    expect(new Map(items)).toEqual(
      new Map([
        ['k0', 1998],
        ['k1', 1999],
        ['k2', 1997],
      ]),
    )
    for (let i = 0; i < 2000; i++) subscription.push(['late', 2000 - i], 'late', 2000 - i)
    for (let i = 0; i < 2000; i++) subscription.push(['same', i], 'same', 7)
    const late = subscription.take(1000)!.items as [string, number][]
    expect([...new Map(late.toReversed())]).toEqual(expect.arrayContaining([['late', 2000]]))
    expect(new Map(late).get('same')).toBe(1999)
    subscription.push(['k0', 1], 'k0')
    expect([subscription.take(1500), subscription.take(2000)?.seq]).toEqual([undefined, 2])
  })
})
