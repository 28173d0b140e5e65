// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { IPublishPacket } from 'mqtt-packet'
import { RawClient, until } from '../ingest/mqtt/testing.ts'
import type { TestAnswer, TestPlatform } from '../testing.ts'

export const requestTopic = 'v1/devices/me/rpc/request/'
export const responseTopic = 'v1/devices/me/rpc/response/'

/** Generous: the machine may be busy. */
export const patienceMs = 20_000

export type Received = { no: number; topic: string; body: { method: string; params: unknown }; qos: number; packetId: number | undefined }

/** A device that gets commands over MQTT, packet by packet. */
export class CommandDevice {
  readonly client: RawClient
  #packetId = 0

  constructor(client: RawClient) {
    this.client = client
  }

  async subscribe(filter = `${requestTopic}+`, qos: 0 | 1 = 1): Promise<void> {
    this.client.put({ cmd: 'subscribe', messageId: ++this.#packetId, subscriptions: [{ topic: filter, qos }] })
    await this.client.next('suback', patienceMs)
  }

  /** The next command; it is acknowledged when its QoS asks for that. */
  async next(acknowledges = true): Promise<Received> {
    const packet: IPublishPacket = await this.client.next('publish', patienceMs)
    if (packet.qos === 1 && acknowledges) this.client.put({ cmd: 'puback', messageId: packet.messageId! })
    const no = Number(packet.topic.split('/').at(-1))
    return { no, topic: packet.topic, body: JSON.parse(packet.payload.toString()), qos: packet.qos, packetId: packet.messageId }
  }

  /** Answers a command; done when the server has acknowledged that. @returns the reason code */
  async answer(no: number, payload: string | Buffer, prefix = responseTopic): Promise<number> {
    this.client.publish(`${prefix}${no}`, payload, { messageId: ++this.#packetId })
    const puback = await this.client.next('puback', patienceMs)
    return puback.reasonCode ?? 0
  }
}

export type Command = {
  id: string
  requestId: number
  state: string
  response: unknown
  attempts: number
  moves: { state: string; detail: string | null }[]
}

/** What tests of commands do again and again on a server. */
export function commandTools(platform: Pick<TestPlatform, 'call' | 'createDevice'> & { ports: { mqtt: number | undefined } }) {
  const clients: RawClient[] = []
  const tools = {
    async connect(
      token: string,
      more: { protocolVersion?: 4 | 5; properties?: { receiveMaximum?: number; maximumPacketSize?: number } } = {},
    ) {
      const deadline = Date.now() + patienceMs
      for (;;) {
        const client = new RawClient(connectSocket(platform.ports.mqtt!, '127.0.0.1'))
        clients.push(client)
        await once(client.socket, 'connect')
        client.connect({ username: token, ...more })
        const { returnCode, reasonCode } = await client.next('connack', patienceMs)
        const code = reasonCode ?? returnCode ?? 0
        if (code === 0) return new CommandDevice(client)
        // A busy machine may refuse for a moment.
        if (![0x03, 0x89].includes(code) || Date.now() > deadline) throw new Error(`CONNECT refused with ${code}`)
        await sleep(100)
      }
    },
    /** A device, connected and subscribed. */
    async listen(device: { token: string }, qos: 0 | 1 = 1): Promise<CommandDevice> {
      const session = await tools.connect(device.token)
      await session.subscribe(undefined, qos)
      return session
    },
    async createDevice(rpc: Record<string, unknown> = {}) {
      const name = `product-${Math.random()}`
      const product = await platform.call('POST', '/api/v1/products', { body: { name, rpc } })
      return platform.createDevice({ productId: product.json<{ id: string }>().id })
    },
    post: (id: string, body: Record<string, unknown>): Promise<TestAnswer> =>
      platform.call('POST', `/api/v1/devices/${id}/commands`, { body }),
    /** Stores a persistent command. */
    async queue(id: string, body: Record<string, unknown> = {}): Promise<Command> {
      const answer = await tools.post(id, { method: 'm', persistent: true, ...body })
      if (answer.status !== 201) throw new Error(`not stored: ${answer.status} ${answer.text}`)
      return answer.json()
    },
    async get(deviceId: string, id: string): Promise<Command> {
      return (await platform.call('GET', `/api/v1/devices/${deviceId}/commands/${id}`)).json()
    },
    /** Waits until the command is in this state. */
    async reach(deviceId: string, id: string, state: string): Promise<Command> {
      let command = await tools.get(deviceId, id)
      const isThere = async () => {
        command = await tools.get(deviceId, id)
        return command.state === state
      }
      await until(isThere, patienceMs).catch((error: unknown) => {
        throw new Error(`not ${state} but ${JSON.stringify(command.moves)}`, { cause: error })
      })
      return command
    },
    states: (command: Command): string[] => command.moves.map((move) => move.state),
    async hasReject(deviceId: string, code: string): Promise<boolean> {
      const answer = await platform.call('GET', `/api/v1/devices/${deviceId}/rejects`)
      return answer.json<{ items: { code: string }[] }>().items.some((entry) => entry.code === code)
    },
    end(): void {
      for (const client of clients) client.end()
    },
  }
  return tools
}
