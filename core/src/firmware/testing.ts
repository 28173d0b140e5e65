// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import type { IClientOptions, MqttClient } from 'mqtt'
import type { TestPlatform } from '../testing.ts'
import type { DeviceOta, OtaPackage } from './schemas.ts'

export type Message = { topic: string; payload: Buffer }

/** A device as its firmware sees the server: a real client that keeps what comes. */
export class OtaDevice {
  readonly client: MqttClient
  readonly messages: Message[] = []
  #wake: () => void = () => {}

  constructor(client: MqttClient) {
    this.client = client
    client.on('message', (topic, payload) => {
      this.messages.push({ topic, payload })
      this.#wake()
    })
  }

  /** Tries again while the server is too busy to let anybody in, as devices do. */
  static async connect(port: number | undefined, token: string, options: IClientOptions = {}): Promise<OtaDevice> {
    return eventually(async () => {
      const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { username: token, reconnectPeriod: 0, ...options })
      const device = new OtaDevice(client)
      await new Promise<void>((resolve, reject) => {
        client.once('connect', () => resolve())
        client.once('error', reject)
      })
      // Else the client's TCP waits 40 ms between its PUBACK and its next request.
      ;(client.stream as Socket).setNoDelay(true)
      return device
    })
  }

  /** Takes the first message out that the condition holds for, waiting for it. */
  async next(isWanted: string | ((message: Message) => boolean), ms = 20_000): Promise<Message> {
    const matches = typeof isWanted === 'string' ? ({ topic }: Message) => topic === isWanted : isWanted
    const deadline = Date.now() + ms
    for (;;) {
      const at = this.messages.findIndex(matches)
      if (at !== -1) return this.messages.splice(at, 1)[0]!
      if (Date.now() > deadline) {
        throw new Error(`nothing came for ${String(isWanted)}; there is ${this.messages.map((one) => one.topic).join(', ')}`)
      }
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), sleep(100)])
    }
  }

  async nextJson(topic: string): Promise<unknown> {
    return JSON.parse((await this.next(topic)).payload.toString())
  }

  async subscribeToAttributes(): Promise<void> {
    await this.client.subscribeAsync('v1/devices/me/attributes', { qos: 1 })
  }

  async send(values: Record<string, unknown>): Promise<void> {
    await this.client.publishAsync('v1/devices/me/telemetry', JSON.stringify(values), { qos: 1 })
  }

  async chunk(id: number, no: number, size: number | '', kind: 'fw' | 'sw' = 'fw'): Promise<Buffer> {
    await this.client.publishAsync(`v2/${kind}/request/${id}/chunk/${no}`, String(size), { qos: 1 })
    return (await this.next(`v2/${kind}/response/${id}/chunk/${no}`)).payload
  }

  /** Asks chunk by chunk until one comes that is not full. */
  async download(id: number, size: number, from = 0): Promise<Buffer> {
    const chunks: Buffer[] = []
    for (let no = from; ; no++) {
      const chunk = await this.chunk(id, no, size)
      chunks.push(chunk)
      if (chunk.length < size) return Buffer.concat(chunks)
    }
  }

  async end(): Promise<void> {
    await this.client.endAsync(true)
  }
}

export const unique = (prefix: string) => `${prefix}-${randomBytes(4).toString('hex')}`

/** The calls of the API that the tests of this folder share. */
export function callsOf(platform: TestPlatform) {
  const ok = async <T>(answer: Promise<{ status: number; text: string; json: <J>() => J }>): Promise<T> => {
    const { status, text, json } = await answer
    if (status >= 300) throw new Error(`${status} ${text}`)
    return text === '' ? (undefined as T) : json<T>()
  }
  const upload = (id: string, content: Buffer, query = '', headers: Record<string, string> = {}) =>
    platform.call('PUT', `/api/v1/ota-packages/${id}/content${query}`, {
      body: content,
      headers: { 'content-type': 'application/octet-stream', ...headers },
    })
  return {
    ok,
    upload,
    createProduct: async () =>
      (await ok<{ id: string }>(platform.call('POST', '/api/v1/products', { body: { name: unique('product') } }))).id,
    createPackage: (productId: string, more: Record<string, unknown> = {}) =>
      ok<OtaPackage>(
        platform.call('POST', '/api/v1/ota-packages', {
          body: { productId, title: 'Boiler', version: unique('v'), kind: 'firmware', ...more },
        }),
      ),
    async createReadyPackage(productId: string, content: Buffer, more: Record<string, unknown> = {}): Promise<OtaPackage> {
      const { id } = await this.createPackage(productId, more)
      return ok<OtaPackage>(upload(id, content))
    },
    assign: (deviceId: string, packageId: string, kind = 'firmware') =>
      ok<DeviceOta>(platform.call('PUT', `/api/v1/devices/${deviceId}/${kind}`, { body: { packageId } })),
    show: (deviceId: string, kind = 'firmware') => ok<DeviceOta>(platform.call('GET', `/api/v1/devices/${deviceId}/${kind}`)),
    latest: async (deviceId: string) => {
      const { items } = await ok<{ items: { key: string; value: unknown }[] }>(
        platform.call('GET', `/api/v1/devices/${deviceId}/telemetry`),
      )
      return Object.fromEntries(items.map(({ key, value }) => [key, value]))
    },
  }
}

/** Repeats a look until it passes. */
export async function eventually<T>(look: () => Promise<T>, ms = 20_000): Promise<T> {
  const deadline = Date.now() + ms
  for (;;) {
    try {
      return await look()
    } catch (error) {
      if (Date.now() > deadline) throw error
      await sleep(50)
    }
  }
}
