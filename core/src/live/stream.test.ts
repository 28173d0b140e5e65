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
    for (let waited = 0; waited < 3000; waited += 10) {
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
    expect(await client.items('o')).toEqual([expect.objectContaining({ devices: expect.objectContaining({ total: expect.any(Number) }) })])
    await sendPoint(device.token, { temperature: 1 })
    expect((await client.items('d'))[0]).toMatchObject({ id: device.id, state: 'online' })
    await sendPoint('pmsd_unknownunknownunknownunkno', {})
    expect(await client.items('s')).toEqual([expect.objectContaining({ type: 'refused', address: '127.0.0.1' })])
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
    subscription.push(['k0', 1], 'k0')
    expect([subscription.take(500), subscription.take(1000)?.seq]).toEqual([undefined, 1])
  })
})
