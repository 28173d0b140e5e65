// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import type { MqttClient } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { startTestPlatform } from '../../testing.ts'
import type { TestPlatform } from '../../testing.ts'
import { connectPatiently } from './testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform({ trustedProxies: ['127.0.0.1'] })
})
afterAll(() => platform.close())

const address = () => `${platform.url.replace('http', 'ws')}/mqtt`
const connect = (token: string, protocolVersion: 4 | 5, headers: Record<string, string> = {}): Promise<MqttClient> =>
  connectPatiently(address(), { username: token, protocolVersion, wsOptions: { headers } })

async function openRaw(protocols: string[] = ['mqtt']): Promise<WebSocket> {
  const socket = new WebSocket(address(), protocols)
  await once(socket, 'open')
  return socket
}

describe('MQTT over WebSocket', () => {
  it.each([4, 5] as const)('serves a device as over TCP, up and down, MQTT %i', async (protocolVersion) => {
    const device = await platform.createDevice()
    const client = await connect(device.token, protocolVersion, { 'x-forwarded-for': '203.0.113.9' })
    await client.subscribeAsync('v1/devices/me/attributes', { qos: 1 })
    await client.publishAsync('v1/devices/me/telemetry', '{"a":1}', { qos: 1 })
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ long: 'x'.repeat(60_000) }), { qos: 2 })
    const pushed = new Promise((resolve) => client.once('message', (_, payload) => resolve(payload.toString())))
    await platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/shared`, { body: { mode: 'eco' } })
    expect(await pushed).toBe('{"mode":"eco"}')
    const { session } = (await platform.call('GET', `/api/v1/devices/${device.id}/session`)).json<{ session: object }>()
    expect(session).toMatchObject({ protocol: protocolVersion, address: '203.0.113.9' })
    expect((await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)).text).toContain('xxx')
    await client.endAsync()
    await expect.poll(() => platform.ingest.sessions.get(device.id), { timeout: 10_000 }).toBeUndefined()
  })

  it('[M-17] takes over the session of the same device over TCP', async () => {
    const device = await platform.createDevice()
    const tcp = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token, protocolVersion: 5 })
    const left = new Promise<number | undefined>((resolve) => tcp.once('disconnect', ({ reasonCode }) => resolve(reasonCode)))
    const ws = await connect(device.token, 5)
    expect(await left).toBe(0x8e)
    tcp.end(true)
    await ws.endAsync()
  })

  it('takes packets cut anywhere and several in one message', async () => {
    const device = await platform.createDevice()
    const socket = await openRaw(['mqttv3.1', 'mqtt'])
    expect(socket.protocol).toBe('mqtt')
    const received: Buffer[] = []
    socket.on('message', (bytes: Buffer, isBinary) => {
      expect(isBinary).toBe(true)
      received.push(bytes)
    })
    const packets = Buffer.concat([
      generate({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 4,
        clean: true,
        clientId: 'w',
        keepalive: 60,
        username: device.token,
      }),
      generate({ cmd: 'publish', topic: 'v1/devices/me/telemetry', payload: '{"a":1}', qos: 1, messageId: 9, dup: false, retain: false }),
      generate({ cmd: 'pingreq' }),
    ])
    for (const byte of packets.subarray(0, 30)) socket.send(Buffer.from([byte]))
    socket.send(packets.subarray(30))
    await expect.poll(() => Buffer.concat(received).toString('hex'), { timeout: 10_000 }).toMatch(/^20020000(?=.*40020009)(?=.*d000)/)
    socket.close()
  })

  it('closes a client that sends text, a message too large, or no MQTT', async () => {
    for (const [message, code] of [
      ['text', 1003],
      [Buffer.alloc(200_000), 1009],
      [Buffer.from('GET / HTTP/1.1'), undefined],
    ] as const) {
      const socket = await openRaw()
      socket.on('error', () => {})
      const closed = once(socket, 'close', { signal: AbortSignal.timeout(20_000) })
      socket.send(message)
      const [got] = (await closed) as [number]
      if (code !== undefined) expect(got).toBe(code)
    }
    await expect.poll(() => platform.ingest.endpoint.depths, { timeout: 20_000 }).toMatchObject({ connections: 0, unauthenticated: 0 })
  })

  it('refuses an upgrade without the subprotocol, and other paths', async () => {
    const status = (url: string, protocols: string[]) =>
      new Promise<number | undefined>((resolve) => {
        const socket = new WebSocket(url, protocols)
        socket.on('error', () => {})
        socket.on('unexpected-response', (_, response) => resolve(response.statusCode))
      })
    expect(await status(address(), [])).toBe(400)
    expect(await status(address(), ['other'])).toBe(400)
    expect(await status(`${address()}/more`, ['mqtt'])).toBe(404)
  })
})
