// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { IPubackPacket, Packet } from 'mqtt-packet'
import { RawClient, until } from '../ingest/mqtt/testing.ts'
import type { TestPlatform } from '../testing.ts'

/** Generous: the machine may be busy. */
export const patienceMs = 20_000

/** A gateway, packet by packet: nothing it gets is passed over. */
export class GatewayClient {
  readonly client: RawClient
  #packetId = 0

  constructor(client: RawClient) {
    this.client = client
  }

  /** Publishes at QoS 1. @returns the reason code, 0 in MQTT 3.1.1, and what is said besides */
  async publish(topic: string, payload: unknown): Promise<{ code: number; text: string | undefined; rejected: string | undefined }> {
    const messageId = this.send(topic, payload)
    const puback = (await this.#take((packet) => packet.cmd === 'puback' && packet.messageId === messageId)) as IPubackPacket
    const { reasonString, userProperties } = puback.properties ?? {}
    return { code: puback.reasonCode ?? 0, text: reasonString, rejected: userProperties?.['rejected'] as string | undefined }
  }

  /** Publishes and waits for nothing. @returns the packet id */
  send(topic: string, payload: unknown, qos: 0 | 1 = 1): number {
    const messageId = ++this.#packetId
    const bytes = typeof payload === 'string' ? payload : JSON.stringify(payload)
    this.client.publish(`v1/gateway/${topic}`, bytes, qos === 1 ? { messageId } : { qos })
    return messageId
  }

  async connectChild(device: string, type?: string): Promise<void> {
    const { code, text } = await this.publish('connect', { device, ...(type === undefined ? {} : { type }) })
    if (code !== 0) throw new Error(`${device} not connected: ${code} ${text}`)
  }

  /** The next message on a topic; acknowledged unless `acknowledges` is false. */
  async next<T = Record<string, unknown>>(topic: string, acknowledges = true): Promise<T> {
    const packet = await this.#take((one) => one.cmd === 'publish' && one.topic === `v1/gateway/${topic}`)
    if (packet.cmd !== 'publish') throw new Error('no message')
    if (packet.qos === 1 && acknowledges) this.client.put({ cmd: 'puback', messageId: packet.messageId! })
    return JSON.parse(packet.payload.toString()) as T
  }

  async subscribe(filter: string, qos: 0 | 1): Promise<void> {
    const messageId = ++this.#packetId
    this.client.put({ cmd: 'subscribe', messageId, subscriptions: [{ topic: filter, qos }] })
    await this.#take((packet) => packet.cmd === 'suback' && packet.messageId === messageId)
  }

  /** Everything that was sent before is handled, and the session lives. */
  async ping(): Promise<void> {
    this.client.put({ cmd: 'pingreq' })
    await this.#take((packet) => packet.cmd === 'pingresp')
  }

  /** True when a packet of that kind has come and was not taken. */
  has(cmd: Packet['cmd']): boolean {
    return this.client.packets.some((packet) => packet.cmd === cmd)
  }

  disconnect(): void {
    this.client.put({ cmd: 'disconnect' })
    this.client.end()
  }

  async #take(isWanted: (packet: Packet) => boolean): Promise<Packet> {
    const { packets } = this.client
    let at = -1
    await until(() => {
      at = packets.findIndex((packet) => isWanted(packet))
      if (at < 0 && this.client.isClosed) throw new Error('closed by the server')
      return at >= 0
    }, patienceMs)
    return packets.splice(at, 1)[0]!
  }
}

type DeviceView = {
  id: string
  name: string
  state: string
  gatewayId: string | null
  gatewayName: string | null
  productName: string
  disconnectReason: string | null
}
type CompatDevice = { id: { id: string }; type: string; additionalInfo: Record<string, unknown> }

/** What tests of gateways do again and again on a server. */
export function gatewayTools(platform: TestPlatform) {
  const clients: RawClient[] = []
  const tools = {
    async connect(token: string, protocolVersion: 4 | 5 = 5): Promise<GatewayClient> {
      const deadline = Date.now() + patienceMs
      for (;;) {
        const client = new RawClient(connectSocket(platform.ports.mqtt!, '127.0.0.1'))
        clients.push(client)
        await once(client.socket, 'connect')
        client.connect({ username: token, protocolVersion })
        const { returnCode, reasonCode } = await client.next('connack', patienceMs)
        const code = reasonCode ?? returnCode ?? 0
        if (code === 0) return new GatewayClient(client)
        // A busy machine may refuse for a moment.
        if (![0x03, 0x89].includes(code) || Date.now() > deadline) throw new Error(`CONNECT refused with ${code}`)
        await sleep(100)
      }
    },
    /** A gateway of a product with these settings, connected. */
    async createGateway(settings: Record<string, unknown> = {}, protocolVersion: 4 | 5 = 5) {
      const product = await platform.call('POST', '/api/v1/products', { body: { name: `product-${Math.random()}`, ...settings } })
      if (product.status !== 201) throw new Error(product.text)
      const productId = product.json<{ id: string }>().id
      const device = await platform.createDevice({ gateway: true, productId })
      return { ...device, productId, session: await tools.connect(device.token, protocolVersion) }
    },
    async find(name: string): Promise<CompatDevice | undefined> {
      const answer = await platform.call('GET', `/api/tenant/devices?deviceName=${encodeURIComponent(name)}`)
      return answer.status === 200 ? answer.json<CompatDevice>() : undefined
    },
    async get(name: string): Promise<DeviceView> {
      const device = await tools.find(name)
      if (device === undefined) throw new Error(`no device ${name}`)
      return (await platform.call('GET', `/api/v1/devices/${device.id.id}`)).json<DeviceView>()
    },
    /** Waits until the device of that name is in this state. */
    async reach(name: string, state: string): Promise<DeviceView> {
      let device = await tools.get(name)
      await until(async () => {
        device = await tools.get(name)
        return device.state === state
      }, patienceMs)
      return device
    },
    /** The newest values of a device with their types. */
    async latest(name: string): Promise<Record<string, unknown>> {
      const { id } = await tools.get(name)
      const answer = await platform.call('GET', `/api/plugins/telemetry/DEVICE/${id}/values/timeseries?useStrictDataTypes=true`)
      const values = answer.json<Record<string, { value: unknown }[]>>()
      return Object.fromEntries(Object.entries(values).map(([key, points]) => [key, points[0]!.value]))
    },
    async rejects(deviceId: string): Promise<{ code: string; key: string | null; transport: string; topic: string; detail: string }[]> {
      const answer = await platform.call('GET', `/api/v1/devices/${deviceId}/rejects`)
      return answer.json<{ items: { code: string; key: string | null; transport: string; topic: string; detail: string }[] }>().items
    },
    end(): void {
      for (const client of clients) client.end()
    },
  }
  return tools
}
