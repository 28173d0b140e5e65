// SPDX-License-Identifier: AGPL-3.0-only
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { MqttClient } from 'mqtt'
import type { IClientOptions, IPublishPacket } from 'mqtt'
import { generate } from 'mqtt-packet'
import { WebSocket, createWebSocketStream } from 'ws'
import { ConnectError, blockedClass, parseTarget } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import { ProblemError } from '../errors.ts'
import type { Failure, FailureCode, Settings } from './schemas.ts'

/** Why a connection to a broker failed or ended. */
export class BrokerError extends Error {
  readonly failure: Failure

  constructor(code: FailureCode, detail: string, cause?: unknown) {
    super(`${code}: ${detail}`, { cause })
    this.name = 'BrokerError'
    this.failure = { code, detail }
  }
}

export type BrokerOptions = Pick<Settings, 'url' | 'protocolVersion' | 'clientId' | 'username' | 'caCertificate'> & {
  password: string | undefined
  /** Whether the broker forgets an older session and keeps nothing while we are away. */
  clean: boolean
}

/** `isTaken` is called once the message need not be sent again; `goOn` when the next one may come. */
export type TakeMessage = (packet: IPublishPacket, goOn: () => void) => void

/** Messages the broker may send before we acknowledge the first of them. */
export const receiveMaximum = 200
/** How long the broker keeps what comes while we are away: MQTT 5 has it said by the client. */
const sessionExpiryS = 7 * 86_400
const keepAliveS = 30
const connackMs = 10_000

/** An open connection to a broker. */
export class Broker {
  readonly #client: MqttClient
  readonly #version: 4 | 5
  #isClosed = false
  /** Resolves with the reason when the connection has ended, whoever ended it. */
  readonly closed: Promise<Failure>

  constructor(client: MqttClient, version: 4 | 5) {
    this.#client = client
    this.#version = version
    let last: Failure = { code: 'CLOSED', detail: 'the broker closed the connection' }
    client.on('error', (error) => (last = toFailure(error)))
    client.on(
      'disconnect',
      ({ reasonCode }) => (last = { code: 'CLOSED', detail: `the broker closed the connection (reason ${reasonCode})` }),
    )
    this.closed = new Promise((resolve) => {
      client.once('close', () => {
        this.#isClosed = true
        resolve(last)
      })
    })
  }

  /** @throws {BrokerError} `SUBSCRIBE_REFUSED` unless all are granted */
  async subscribe(topics: readonly string[]): Promise<void> {
    if (this.#isClosed) return
    // Retained messages come with the first subscription of a session only, where the protocol can say so.
    const options = this.#version === 5 ? ({ qos: 1, rap: true, rh: 1 } as const) : ({ qos: 1 } as const)
    const granted = this.#client.subscribeAsync(Object.fromEntries(topics.map((topic) => [topic, options])))
    const refused = (detail: string, cause?: unknown) => new BrokerError('SUBSCRIBE_REFUSED', detail, cause)
    const grants = await Promise.race([granted, this.closed]).catch((error: unknown) => {
      throw refused(`the broker refuses to subscribe (${error instanceof Error ? error.message : 'no reason'})`, error)
    })
    if (!Array.isArray(grants)) throw new BrokerError(grants.code, grants.detail)
    const wrong = grants.find(({ qos }) => qos > 2)
    if (wrong) throw refused(`the broker refuses to subscribe to ${wrong.topic}`)
  }

  async unsubscribe(topics: readonly string[]): Promise<void> {
    if (topics.length === 0 || this.#isClosed) return
    // A topic that was never subscribed to is none of anybody's business.
    await Promise.race([this.#client.unsubscribeAsync([...topics]).catch(() => {}), this.closed])
  }

  /** [MQTT-4.6.0-2] Called in the order in which the messages came. */
  acknowledge(messageId: number): void {
    if (this.#isClosed) return
    this.#client.stream.write(generate({ cmd: 'puback', messageId }, { protocolVersion: this.#version }))
  }

  /** Says good-bye; the broker keeps the session, unless `forget` asks it not to. */
  async end(forget = false): Promise<void> {
    if (this.#isClosed) return
    const properties = forget && this.#version === 5 ? { properties: { sessionExpiryInterval: 0 } } : {}
    this.#client.end(false, properties)
    await this.closed
  }

  /** Drops the connection where it stands. */
  destroy(): void {
    this.#client.end(true)
    this.#client.stream.destroy()
  }
}

/**
 * Connects to a broker by an address that was checked, and waits for its CONNACK. `take` gets every message; nothing
 * is acknowledged but by {@link Broker.acknowledge}.
 *
 * @throws {BrokerError}
 */
export async function connectBroker(outbound: Outbound, options: BrokerOptions, take: TakeMessage): Promise<Broker> {
  const stream = await openStream(outbound, options)
  const { protocolVersion, clean, clientId, username, password } = options
  const settings: IClientOptions = {
    protocolId: 'MQTT',
    protocolVersion,
    clientId,
    clean,
    keepalive: keepAliveS,
    // Whoever supervises the connection opens the next one, with an address that is checked again.
    reconnectPeriod: 0,
    connectTimeout: connackMs,
    resubscribe: false,
    ...(username ? { username } : {}),
    ...(password ? { password } : {}),
    ...(protocolVersion === 5 ? { properties: { receiveMaximum, ...(clean ? {} : { sessionExpiryInterval: sessionExpiryS }) } } : {}),
  }
  const client = new MqttClient(() => stream, settings)
  client.handleMessage = (packet, callback) => {
    // The client would acknowledge at once, or keep the next message waiting. With an error it does neither; the
    // acknowledgement is ours, after the commit.
    take(packet, () => callback(packet.qos === 1 ? notYet : undefined))
  }
  const broker = new Broker(client, protocolVersion)
  const connected = new Promise<undefined>((resolve) => client.once('connect', () => resolve(undefined)))
  const failure = await Promise.race([connected, broker.closed])
  if (failure === undefined) return broker
  throw new BrokerError(failure.code, failure.detail)
}

const notYet = new Error('not acknowledged yet')

async function openStream(outbound: Outbound, { url, caCertificate }: BrokerOptions): Promise<Duplex> {
  const isTls = /^(?:mqtts|wss):/i.test(url)
  try {
    const target = parseTarget(url, 'mqtt')
    const socket = await outbound.connect(target, isTls ? { ca: caCertificate || undefined } : undefined)
    return /^wss?:/i.test(url) ? await openWebSocket(target.url, socket) : socket
  } catch (error) {
    const blocked = blockedClass(error)
    if (blocked) throw new BrokerError('ADDRESS_BLOCKED', blocked, error)
    if (error instanceof ConnectError) throw new BrokerError(error.reason, error.message, error)
    throw error
  }
}

/** On the socket that was opened to a checked address. */
function openWebSocket(url: URL, socket: Socket): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const webSocket = new WebSocket(url, ['mqtt'], { createConnection: () => socket, perMessageDeflate: false, handshakeTimeout: 5000 })
    webSocket.once('open', () => resolve(createWebSocketStream(webSocket)))
    webSocket.once('error', (error) => {
      socket.destroy()
      reject(new BrokerError('PROTOCOL_ERROR', `no WebSocket there: ${error.message}`, error))
    })
  })
}

/** Return codes of MQTT 3.1.1 §3.2.2.3 and reason codes of MQTT 5 §3.2.2.2. */
const connackFailures: Readonly<Record<number, FailureCode>> = {
  4: 'AUTH_FAILED',
  134: 'AUTH_FAILED',
  5: 'NOT_AUTHORIZED',
  135: 'NOT_AUTHORIZED',
}

function toFailure(error: Error & { code?: unknown }): Failure {
  if (error instanceof ProblemError) return { code: 'INTERNAL', detail: error.code }
  if (typeof error.code === 'number') {
    return { code: connackFailures[error.code] ?? 'REFUSED', detail: `the broker refused the connection (code ${error.code})` }
  }
  if (error.message.includes('connack timeout')) return { code: 'CONNECTION_TIMEOUT', detail: 'the broker did not answer CONNECT' }
  if (typeof error.code === 'string') return { code: 'CLOSED', detail: `the connection broke off (${error.code})` }
  return { code: 'PROTOCOL_ERROR', detail: error.message.slice(0, 200) }
}
