// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { FrameQueue } from './compat-frames.ts'

let platform: TestPlatform

beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

type Frame = {
  subscriptionId: number
  errorCode: number
  errorMsg: string | null
  data: Record<string, [number, string][]>
  latestValues: Record<string, number>
}

const tokenPath = '/api/ws/plugins/telemetry'
const socketTo = (path: string, server = platform) => new WebSocket(server.url.replace('http', 'ws') + path)

/** An open socket whose frames a test can wait for, in their order. */
class Client {
  readonly socket: WebSocket
  readonly #frames: Frame[] = []

  constructor(socket: WebSocket) {
    this.socket = socket
    socket.on('message', (data) => this.#frames.push(JSON.parse(String(data)) as Frame))
  }

  static async open(path = `${tokenPath}?token=${platform.token}`): Promise<Client> {
    const client = new Client(socketTo(path))
    await once(client.socket, 'open')
    return client
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame))
  }

  async next(): Promise<Frame> {
    await vi.waitUntil(() => this.#frames.length > 0, { timeout: 15_000, interval: 10 })
    return this.#frames.shift()!
  }

  async closeCode(): Promise<number> {
    const [code] = (await once(this.socket, 'close')) as [number]
    return code
  }
}

async function refusal(socket: WebSocket): Promise<number> {
  socket.on('error', () => {})
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode: number }]
  return response.statusCode
}

const sendPoints = async (token: string, body: unknown) => {
  const answer = await platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })
  if (answer.status !== 200) throw new Error(answer.text)
}
const latest = (entityId: string, cmdId: number, more: object = {}) => ({
  tsSubCmds: [{ entityType: 'DEVICE', entityId, scope: 'LATEST_TELEMETRY', cmdId, ...more }],
})

describe('signing in to the compatible WebSocket', () => {
  it('closes with 1011 for a bad token in the address [W-1]', async () => {
    for (const path of [tokenPath, `${tokenPath}?token=nonsense`, '/api/ws?token=nonsense']) {
      expect(await new Client(socketTo(path)).closeCode()).toBe(1011)
    }
  })

  it('takes a token or an API key in the first frame, with commands beside it, and says nothing to it [W-2]', async () => {
    const device = await platform.createDevice()
    const created = await platform.call('POST', '/api/v1/api-keys', {
      body: { name: 'board', scopes: ['telemetry.read', 'device.read'], expiresInDays: 1 },
    })
    expect(created.status, created.text).toBe(201)
    const apiKey = created.json<{ key: string }>().key
    for (const authCmd of [
      { cmdId: 0, token: platform.token },
      { cmdId: 0, apiKey },
    ]) {
      const client = await Client.open('/api/ws')
      client.send({ authCmd, cmds: [{ type: 'TIMESERIES', cmdId: 3, entityType: 'DEVICE', entityId: device.id }] })
      expect(await client.next()).toEqual({ subscriptionId: 3, errorCode: 0, errorMsg: null, data: {}, latestValues: {} })
      client.socket.close()
    }
  })

  it('takes a token in the address of /api/ws too [W-2]', async () => {
    const device = await platform.createDevice()
    const client = await Client.open(`/api/ws?token=${platform.token}`)
    client.send({ cmds: [{ type: 'ATTRIBUTES', cmdId: 1, entityType: 'DEVICE', entityId: device.id, scope: 'SHARED_SCOPE' }] })
    expect(await client.next()).toMatchObject({ subscriptionId: 1, errorCode: 0, data: {} })
    client.socket.close()
  })

  it('closes with 1008 without authCmd, at once or after ten seconds, and with 1007 for a wrong token [W-2]', async () => {
    const silent = await Client.open('/api/ws')
    const silence = silent.closeCode()
    for (const [frame, code] of [
      [{ cmds: [] }, 1008],
      ['nonsense', 1008],
      [{ authCmd: { cmdId: 0, token: 'nonsense' } }, 1007],
    ] as const) {
      const client = await Client.open('/api/ws')
      client.send(frame)
      expect(await client.closeCode()).toBe(code)
    }
    expect(await silence).toBe(1008)
  }, 60_000)

  it('closes when the login session ends', async () => {
    const token = await platform.login('viewer')
    const device = await platform.createDevice()
    const client = await Client.open(`${tokenPath}?token=${token}`)
    client.send(latest(device.id, 1))
    await client.next()
    const code = client.closeCode()
    await platform.call('POST', '/api/auth/logout', { token })
    expect(await code).toBe(1011)
  })
})

describe('time series over the compatible WebSocket', () => {
  it('sees a message of four kinds as text, in one frame [W-3, W-4, TB-6]', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    client.send({ ...latest(device.id, 10), historyCmds: [], attrSubCmds: [] })
    expect(await client.next()).toEqual({ subscriptionId: 10, errorCode: 0, errorMsg: null, data: {}, latestValues: {} })
    await sendPoints(device.token, '{"flag":true,"text":"value","double":42.0,"long":9007199254740993,"json":{"a": [1]}}')
    const { subscriptionId, data, latestValues } = await client.next()
    expect(subscriptionId).toBe(10)
    const texts = Object.fromEntries(Object.entries(data).map(([key, [value]]) => [key, value![1]]))
    expect(texts).toEqual({ flag: 'true', text: 'value', double: '42.0', long: '9007199254740993', json: '{"a":[1]}' })
    expect(latestValues).toEqual(Object.fromEntries(Object.entries(data).map(([key, [value]]) => [key, value![0]])))
    client.socket.close()
  })

  it('answers at once with the current values of the keys asked for, and leaves out what is older [W-4]', async () => {
    const device = await platform.createDevice()
    await sendPoints(device.token, { ts: 2000, values: { a: 1, b: 2 } })
    const client = await Client.open()
    client.send(latest(device.id, 1, { keys: 'a,c' }))
    expect(await client.next()).toMatchObject({ data: { a: [[2000, '1']] }, latestValues: { a: 2000 } })
    await sendPoints(device.token, { ts: 1000, values: { a: 0 } })
    await sendPoints(device.token, { ts: 3000, values: { b: 3 } })
    await sendPoints(device.token, [
      { ts: 1500, values: { a: 5 } },
      { ts: 4000, values: { a: 7 } },
      { ts: 3500, values: { a: 6 } },
    ])
    const { data } = await client.next()
    expect(data).toEqual({ a: [[4000, '7']] })
    client.socket.close()
  })

  it('shows late points too without the scope LATEST_TELEMETRY', async () => {
    const device = await platform.createDevice()
    await sendPoints(device.token, { ts: 2000, values: { a: 1 } })
    const client = await Client.open()
    client.send({ tsSubCmds: [{ entityType: 'DEVICE', entityId: device.id, cmdId: 1, keys: 'a' }] })
    await client.next()
    await sendPoints(device.token, { ts: 1000, values: { a: 0 } })
    expect(await client.next()).toMatchObject({ data: { a: [[1000, '0']] } })
    client.socket.close()
  })

  it('begins with history where a window is given, and answers historyCmds [W-3]', async () => {
    const device = await platform.createDevice()
    await sendPoints(
      device.token,
      Array.from({ length: 5 }, (_, index) => ({ ts: 1000 * (index + 1), values: { a: index, b: `b${index}` } })),
    )
    const client = await Client.open()
    const common = { entityType: 'DEVICE', entityId: device.id }
    client.send({ tsSubCmds: [{ ...common, cmdId: 1, keys: 'a', startTs: 1000, timeWindow: 3000, limit: 2, agg: 'NONE' }] })
    expect(await client.next()).toMatchObject({
      subscriptionId: 1,
      data: {
        a: [
          [3000, '2'],
          [2000, '1'],
        ],
      },
      latestValues: { a: 3000 },
    })
    client.send({ historyCmds: [{ ...common, cmdId: 2, startTs: 1000, endTs: 5000 }] })
    const all = await client.next()
    expect(all.subscriptionId).toBe(2)
    expect(all.data['a']!.map(([ts]) => ts)).toEqual([4000, 3000, 2000, 1000])
    expect(all.data['b']![0]).toEqual([4000, 'b3'])
    client.send({
      cmds: [{ ...common, type: 'TIMESERIES_HISTORY', cmdId: 3, keys: 'a', startTs: 1000, endTs: 5000, interval: 2000, agg: 'AVG' }],
    })
    expect(await client.next()).toMatchObject({
      data: {
        a: [
          [2000, '0.5'],
          [4000, '2.5'],
        ],
      },
      latestValues: { a: 4000 },
    })
    client.socket.close()
  })

  it('is silent after unsubscribe, and a number used again replaces its subscription', async () => {
    const [one, other] = [await platform.createDevice(), await platform.createDevice()]
    const client = await Client.open()
    client.send(latest(one.id, 1))
    await client.next()
    client.send(latest(other.id, 1))
    await client.next()
    client.send(latest(one.id, 2))
    await client.next()
    client.send({ tsSubCmds: [{ cmdId: 2, unsubscribe: true }] })
    client.send(latest(other.id, 3, { keys: 'none' }))
    await client.next()
    await sendPoints(one.token, { a: 1 })
    await sendPoints(other.token, { a: 2 })
    expect(await client.next()).toMatchObject({ subscriptionId: 1, data: { a: [[expect.any(Number), '2']] } })
    client.socket.close()
  })
})

describe('attributes over the compatible WebSocket', () => {
  const change = (id: string, scope: string, body: unknown) =>
    platform.call('POST', `/api/plugins/telemetry/DEVICE/${id}/${scope}`, { body })

  it('tells current values and then each change of the scope, deletions too [W-3, W-4]', async () => {
    const device = await platform.createDevice()
    await change(device.id, 'SHARED_SCOPE', { interval: 30 })
    const client = await Client.open()
    const command = { entityType: 'DEVICE', entityId: device.id }
    client.send({ attrSubCmds: [{ ...command, scope: 'SHARED_SCOPE', cmdId: 4 }] })
    expect(await client.next()).toMatchObject({ subscriptionId: 4, data: { interval: [[expect.any(Number), '30']] } })
    await change(device.id, 'SERVER_SCOPE', { hidden: 1 })
    await change(device.id, 'SHARED_SCOPE', { interval: 2.0, mode: 'eco' })
    expect(await client.next()).toMatchObject({ data: { interval: [[expect.any(Number), '2']], mode: [[expect.any(Number), 'eco']] } })
    await platform.call('DELETE', `/api/plugins/telemetry/DEVICE/${device.id}/SHARED_SCOPE?keys=mode`)
    expect(await client.next()).toMatchObject({ data: { mode: [[0, '']] } })
    client.socket.close()
  })

  it('tells what the device itself reports, and of any scope when none is named', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    client.send({ attrSubCmds: [{ entityType: 'DEVICE', entityId: device.id, cmdId: 5, keys: 'version,active' }] })
    expect(await client.next()).toMatchObject({ data: { active: [[expect.any(Number), 'false']] } })
    await platform.call('POST', `/api/v1/${device.token}/attributes`, { body: { version: '1.2', other: 1 }, token: null })
    expect(await client.next()).toMatchObject({ subscriptionId: 5, data: { version: [[expect.any(Number), '1.2']] } })
    client.socket.close()
  })
})

describe('refusals of the compatible WebSocket', () => {
  it('names the fault and keeps the socket [W-5]', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    const command = { entityType: 'DEVICE', entityId: device.id, cmdId: 7 }
    for (const [frame, subscriptionId, errorCode] of [
      ['{"tsSubCmds":[', 1, 2],
      ['[]', 1, 2],
      [{ tsSubCmds: [1] }, 1, 2],
      [{ tsSubCmds: [{ ...command, cmdId: 'seven' }] }, 1, 2],
      [{ tsSubCmds: [{ ...command, cmdId: -1 }] }, -1, 2],
      [{ tsSubCmds: [{ ...command, entityId: '' }] }, 7, 2],
      [{ tsSubCmds: [{ ...command, entityId: 'x' }] }, 7, 2],
      [{ tsSubCmds: [{ ...command, entityType: 'ASSET' }] }, 7, 2],
      [{ tsSubCmds: [{ ...command, keys: 'a,,b' }] }, 7, 2],
      [{ attrSubCmds: [{ ...command, scope: 'toString' }] }, 7, 2],
      [{ historyCmds: [command] }, 7, 2],
      [{ historyCmds: [{ ...command, keys: 'a', startTs: 9, endTs: 1 }] }, 7, 2],
      [{ historyCmds: [{ ...command, startTs: 1, endTs: 9, agg: 'MEDIAN' }] }, 7, 2],
      [{ historyCmds: [{ ...command, startTs: 1, endTs: 9, limit: 100_001 }] }, 7, 2],
      [{ cmds: [{ ...command, type: 'ALARM_DATA' }] }, 7, 2],
      [{ cmds: [{ ...command, type: 'TIMESERIES', entityId: crypto.randomUUID() }] }, 7, 3],
    ] as const) {
      client.send(frame)
      expect(await client.next(), JSON.stringify(frame)).toMatchObject({ subscriptionId, errorCode, errorMsg: expect.any(String) })
    }
    client.send(latest(device.id, 8))
    expect(await client.next()).toMatchObject({ subscriptionId: 8, errorCode: 0 })
    client.socket.close()
  })

  it('has room for 500 subscriptions and not for more [W-6]', async () => {
    const device = await platform.createDevice()
    const client = await Client.open()
    for (let batch = 0; batch < 2; batch++) {
      client.send({
        tsSubCmds: Array.from({ length: 250 }, (_, index) => ({ entityId: device.id, cmdId: batch * 250 + index, keys: 'a' })),
      })
    }
    for (let index = 0; index < 500; index++) expect(await client.next()).toMatchObject({ subscriptionId: index, errorCode: 0 })
    client.send(latest(device.id, 500))
    expect(await client.next()).toMatchObject({ subscriptionId: 500, errorCode: 2 })
    client.socket.close()
  }, 60_000)

  it('closes on a frame above 64 KiB [W-6]', async () => {
    const client = await Client.open()
    client.send('x'.repeat(65_537))
    expect(await client.closeCode()).toBe(1009)
  })

  it('answers 404 on every path, over HTTP too, where the setting is off [TB-1]', async () => {
    const off = await startTestPlatform({ compat: { thingsboard: false } })
    try {
      expect(await refusal(socketTo(`${tokenPath}?token=${off.token}`, off))).toBe(404)
      expect(await refusal(socketTo('/api/ws', off))).toBe(404)
      const device = await off.createDevice()
      for (const path of [
        '/api/tenant/devices?pageSize=1&page=0',
        '/api/auth/user',
        `/api/plugins/telemetry/DEVICE/${device.id}/keys/timeseries`,
      ]) {
        expect((await off.call('GET', path)).status).toBe(404)
      }
    } finally {
      await off.close()
    }
  }, 60_000)
})

describe('frames that wait for a slow client', () => {
  it('are merged above 1,000: the newest value of each key per subscription, answers kept [W-6]', () => {
    const sent: Frame[] = []
    const outlet = { bufferedAmount: 2_000_000, send: (text: string) => sent.push(JSON.parse(text) as Frame) }
    const queue = new FrameQueue(outlet)
    const [one, other] = [{}, {}]
    queue.push({ id: 1, values: new Map([['a', [[1, '"first"']]]]) })
    for (let index = 0; index < 999; index++) {
      const values = new Map([[`k${index % 2}`, [[2000 - index, `"${index}"`] as const]]])
      queue.push({ id: index % 3 === 0 ? 2 : 3, values, update: index % 3 === 0 ? one : other })
    }
    expect(queue.length).toBe(1000)
    queue.push({ id: 2, values: new Map([['k0', [[0, '""']]]]), update: one })
    expect(queue.length).toBe(3)
    outlet.bufferedAmount = 0
    queue.flush()
    expect(sent.map((frame) => [frame.subscriptionId, frame.data])).toEqual([
      [1, { a: [[1, 'first']] }],
      [2, { k0: [[0, '']], k1: [[1997, '3']] }],
      [3, { k0: [[1998, '2']], k1: [[1999, '1']] }],
    ])
  })
})
