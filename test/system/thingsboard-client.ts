// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import type { IClientOptions, MqttClient } from 'mqtt'

/**
 * What somebody writes who knows ThingsBoard's public MQTT and REST documentation and nothing of this server:
 * topics and payloads as they stand there. Imports nothing of ours.
 */

type Json = Record<string, unknown>
type Message = { topic: string; payload: Buffer }
export type RpcRequest = { id: number; method: string; params: unknown }
export type FirmwareInfo = { fw_title: string; fw_version: string; fw_size: number; fw_checksum: string; fw_checksum_algorithm: string }
export type ProvisionAnswer = { status: string; credentialsType: string; credentialsValue: string; errorMsg?: string }

const patienceMs = 20_000

/** A client of the MQTT device API, or of the gateway API on the same connection. */
export class ThingsBoardClient {
  readonly client: MqttClient
  readonly #messages: Message[] = []
  #wake: () => void = () => {}
  #requestId = 0

  constructor(client: MqttClient) {
    this.client = client
    client.on('message', (topic, payload) => {
      this.#messages.push({ topic, payload })
      this.#wake()
    })
  }

  /** @param options the access token goes as user name, or user name, password and client id of MQTT basic credentials */
  static async connect(url: string, options: IClientOptions): Promise<ThingsBoardClient> {
    const deadline = Date.now() + patienceMs
    for (;;) {
      try {
        const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options })
        // Else the system holds a request back for 40 ms behind the PUBACK before it.
        ;(client.stream as Socket).setNoDelay(true)
        return new ThingsBoardClient(client)
      } catch (error) {
        // A broker that has only just started may be unavailable for a moment.
        if (Date.now() > deadline || !/unavailable|busy/i.test(String(error))) throw error
        await sleep(250)
      }
    }
  }

  /** Resolves with the PUBACK. */
  async publish(topic: string, payload: unknown): Promise<void> {
    const text = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload : JSON.stringify(payload)
    await this.client.publishAsync(topic, text, { qos: 1 })
  }

  /** Takes the first message out that came on a matching topic, waiting for it. */
  async next(topic: RegExp): Promise<Message> {
    const deadline = Date.now() + patienceMs
    for (;;) {
      const at = this.#messages.findIndex((message) => topic.test(message.topic))
      if (at !== -1) return this.#messages.splice(at, 1)[0]!
      if (Date.now() > deadline) throw new Error(`nothing came on ${topic}`)
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), sleep(100)])
    }
  }

  async nextJson<T = Json>(topic: RegExp): Promise<T> {
    return JSON.parse((await this.next(topic)).payload.toString()) as T
  }

  sendTelemetry(payload: unknown): Promise<void> {
    return this.publish('v1/devices/me/telemetry', payload)
  }

  sendAttributes(values: Json): Promise<void> {
    return this.publish('v1/devices/me/attributes', values)
  }

  async subscribeToAttributes(): Promise<void> {
    await this.client.subscribeAsync('v1/devices/me/attributes', { qos: 1 })
  }

  nextAttributes(): Promise<Json> {
    return this.nextJson(/^v1\/devices\/me\/attributes$/)
  }

  async requestAttributes(clientKeys: string, sharedKeys: string): Promise<{ client?: Json; shared?: Json }> {
    await this.client.subscribeAsync('v1/devices/me/attributes/response/+', { qos: 1 })
    const id = ++this.#requestId
    await this.publish(`v1/devices/me/attributes/request/${id}`, { clientKeys, sharedKeys })
    return this.nextJson(new RegExp(`^v1/devices/me/attributes/response/${id}$`))
  }

  async subscribeToRpc(): Promise<void> {
    await this.client.subscribeAsync('v1/devices/me/rpc/request/+', { qos: 1 })
  }

  async nextRpc(): Promise<RpcRequest> {
    const { topic, payload } = await this.next(/^v1\/devices\/me\/rpc\/request\/\d+$/)
    return { id: Number(topic.split('/').at(-1)), ...(JSON.parse(payload.toString()) as { method: string; params: unknown }) }
  }

  answerRpc(id: number, answer: unknown): Promise<void> {
    return this.publish(`v1/devices/me/rpc/response/${id}`, answer)
  }

  async callServer(method: string, params: unknown): Promise<Json> {
    await this.client.subscribeAsync('v1/devices/me/rpc/response/+', { qos: 1 })
    const id = ++this.#requestId
    await this.publish(`v1/devices/me/rpc/request/${id}`, { method, params })
    return this.nextJson(new RegExp(`^v1/devices/me/rpc/response/${id}$`))
  }

  /** Downloads what the attributes announce, chunk by chunk, reports each step, and checks the sum. */
  async updateFirmware(info: FirmwareInfo, chunkBytes: number): Promise<Buffer> {
    await this.client.subscribeAsync('v2/fw/response/+/chunk/+', { qos: 1 })
    await this.sendTelemetry({ fw_state: 'DOWNLOADING' })
    const id = ++this.#requestId
    const chunks: Buffer[] = []
    for (let no = 0, size = 0; size < info.fw_size; no++) {
      await this.publish(`v2/fw/request/${id}/chunk/${no}`, String(chunkBytes))
      const { payload } = await this.next(new RegExp(`^v2/fw/response/${id}/chunk/${no}$`))
      if (payload.length === 0) throw new Error(`chunk ${no} is empty at ${size} of ${info.fw_size} bytes`)
      chunks.push(payload)
      size += payload.length
    }
    const content = Buffer.concat(chunks)
    await this.sendTelemetry({ fw_state: 'DOWNLOADED' })
    const sum = createHash(info.fw_checksum_algorithm.toLowerCase()).update(content).digest('hex')
    if (sum !== info.fw_checksum || content.length !== info.fw_size) {
      await this.sendTelemetry({ fw_state: 'FAILED', fw_error: 'checksum' })
      throw new Error('the checksum is wrong')
    }
    await this.sendTelemetry({ fw_state: 'VERIFIED' })
    await this.sendTelemetry({ fw_state: 'UPDATING' })
    await this.sendTelemetry({ current_fw_title: info.fw_title, current_fw_version: info.fw_version, fw_state: 'UPDATED' })
    return content
  }

  async end(): Promise<void> {
    await this.client.endAsync()
  }
}

/** A device that has nothing but the keys of its device profile asks for credentials of its own. */
export async function provision(url: string, request: Json): Promise<ProvisionAnswer> {
  const session = await ThingsBoardClient.connect(url, { username: 'provision' })
  await session.client.subscribeAsync('/provision/response', { qos: 1 })
  await session.publish('/provision/request', request)
  const answer = await session.nextJson<ProvisionAnswer>(/^\/provision\/response$/)
  await session.end()
  return answer
}

/** A script that uses the REST API as its documentation shows. */
export class ThingsBoardRest {
  readonly #url: string
  #token = ''

  constructor(url: string) {
    this.#url = url
  }

  async login(username: string, password: string): Promise<void> {
    const { token } = await this.call<{ token: string }>('POST', '/api/auth/login', { username, password })
    this.#token = token
  }

  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(this.#url + path, {
      method,
      headers: { 'content-type': 'application/json', ...(this.#token ? { 'X-Authorization': `Bearer ${this.#token}` } : {}) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return (text === '' ? undefined : JSON.parse(text)) as T
  }

  async createDevice(name: string, accessToken: string, more: Json = {}): Promise<string> {
    const device = await this.call<{ id: { id: string } }>('POST', `/api/device?accessToken=${accessToken}`, { name, ...more })
    return device.id.id
  }

  async findDevice(name: string): Promise<string> {
    const device = await this.call<{ id: { id: string } }>('GET', `/api/tenant/devices?deviceName=${encodeURIComponent(name)}`)
    return device.id.id
  }

  /** The newest value of each key. */
  async latest(id: string): Promise<Json> {
    const series = await this.#timeseries(id, '?useStrictDataTypes=true')
    return Object.fromEntries(Object.entries(series).map(([key, [first]]) => [key, first?.value]))
  }

  async history(id: string, key: string, startTs: number, endTs: number): Promise<[ts: number, value: unknown][]> {
    const query = `?keys=${key}&startTs=${startTs}&endTs=${endTs}&limit=10000&orderBy=ASC&useStrictDataTypes=true`
    return ((await this.#timeseries(id, query))[key] ?? []).map(({ ts, value }) => [ts, value])
  }

  #timeseries(id: string, query: string): Promise<Record<string, { ts: number; value: unknown }[]>> {
    return this.call('GET', `/api/plugins/telemetry/DEVICE/${id}/values/timeseries${query}`)
  }

  async attributes(id: string, scope: string): Promise<Json> {
    const list = await this.call<{ key: string; value: unknown }[]>('GET', `/api/plugins/telemetry/DEVICE/${id}/values/attributes/${scope}`)
    return Object.fromEntries(list.map(({ key, value }) => [key, value]))
  }

  setShared(id: string, values: Json): Promise<void> {
    return this.call('POST', `/api/plugins/telemetry/DEVICE/${id}/SHARED_SCOPE`, values)
  }

  rpc<T = unknown>(kind: 'oneway' | 'twoway', id: string, request: Json): Promise<T> {
    return this.call('POST', `/api/rpc/${kind}/${id}`, request)
  }
}
