// SPDX-License-Identifier: AGPL-3.0-only
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Line } from './ledger.ts'
import { PacketReader, encodeConnect, encodePublish, packet, packetIdAt } from './mqtt.ts'
import type { Protocol } from './mqtt.ts'
import { monotonicMs } from './processes.ts'

/** A message of one device: samples `n … n + count - 1`. */
export type Outgoing = { n: number; count: number; payload: string }

export type DeviceOptions = {
  /** Index in the ledger. */
  index: number
  id: string
  token: string
  /** Whether it sends messages without an answer again after reconnecting. */
  resends: boolean
  random: () => number
  /** Writes `sent` lines before the bytes leave. */
  sent: (lines: readonly Line[]) => void
  ended: (line: Line) => void
}

/** Unanswered messages a device has at most. */
const window = 8
/** A server that closes gets a short rest; half of the time nothing listens anyway. */
const reconnectMs = { least: 50, most: 200 }
/** Longer than any answer the server owes. */
const httpTimeoutMs = 12_000

export type LoadDevice = {
  readonly canSend: boolean
  readonly unanswered: number
  send(message: Outgoing): void
  /** Gives up what has no answer yet and closes. */
  stop(): void
}

/** What device number `index` speaks: a tenth HTTP, the others MQTT 3.1.1 and 5 in equal numbers [RE-14]. */
export function protocolOf(index: number): Protocol | 'http' {
  return index % 10 === 9 ? 'http' : index % 2 === 0 ? 4 : 5
}

/** An MQTT client on a raw socket that reconnects for ever. */
export class MqttDevice implements LoadDevice {
  readonly #options: DeviceOptions & { protocol: Protocol; port: number }
  #socket: Socket | undefined
  #isConnected = false
  #isStopped = false
  #lastId = 0
  readonly #unanswered = new Map<number, Outgoing>()
  #again: Outgoing[] = []

  constructor(options: DeviceOptions & { protocol: Protocol; port: number }) {
    this.#options = options
    this.#connect()
  }

  get canSend(): boolean {
    return this.#isConnected && this.#unanswered.size < window
  }

  get unanswered(): number {
    return this.#unanswered.size + this.#again.length
  }

  send(message: Outgoing): void {
    this.#write(message, false)
  }

  stop(): void {
    this.#isStopped = true
    this.#socket?.destroy()
    if (!this.#isConnected) this.#giveUp()
  }

  #connect(): void {
    const { id, token, protocol, port } = this.#options
    const reader = new PacketReader((type, body) => this.#receive(type, body))
    const socket = connect(port, '127.0.0.1')
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('connect', () => socket.write(encodeConnect(protocol, id, token)))
    socket.on('data', (chunk: Buffer) => reader.push(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#isConnected = false
      this.#giveUp()
      const { random } = this.#options
      if (!this.#isStopped) {
        setTimeout(() => this.#isStopped || this.#connect(), reconnectMs.least + random() * (reconnectMs.most - reconnectMs.least))
      }
    })
  }

  #receive(type: number, body: Buffer): void {
    const { index, ended, protocol } = this.#options
    if (type === packet.connack) {
      if (body[1] !== 0) return void this.#socket?.destroy()
      this.#isConnected = true
      const again = this.#again
      this.#again = []
      for (const message of again) this.#write(message, true)
    }
    if (type === packet.puback) {
      const id = body.readUInt16BE(0)
      const message = this.#unanswered.get(id)
      if (!message) throw new Error(`PUBACK for packet id ${id}, which is not in flight`)
      this.#unanswered.delete(id)
      const rc = body[2] ?? 0
      const { n } = message
      ended(rc < 0x80 ? { e: 'ok', d: index, n, at: monotonicMs() } : { e: 'fail', d: index, n, at: monotonicMs(), rc })
    }
    if (type === packet.disconnect && protocol === 5) ended({ e: 'disconnect', d: index, rc: body[0] ?? 0, at: monotonicMs() })
  }

  #write(message: Outgoing, isRepeat: boolean): void {
    const { index, sent, protocol } = this.#options
    this.#lastId = (this.#lastId % 65_535) + 1
    sent([{ e: 'sent', d: index, n: message.n, c: message.count, at: monotonicMs() }])
    this.#unanswered.set(this.#lastId, message)
    const bytes = encodePublish(protocol, message.payload)
    bytes.writeUInt16BE(this.#lastId, packetIdAt(bytes))
    // Clients that keep a message over a connection mark it as a duplicate.
    if (isRepeat) bytes[0]! |= 0x08
    this.#socket!.write(bytes)
  }

  #giveUp(): void {
    const { index, ended, resends } = this.#options
    for (const message of this.#unanswered.values()) {
      ended({ e: 'info', d: index, n: message.n, at: monotonicMs() })
      if (resends && !this.#isStopped) this.#again.push(message)
    }
    this.#unanswered.clear()
  }
}

/** Sends by HTTP, one request at a time. */
export class HttpDevice implements LoadDevice {
  readonly #options: DeviceOptions & { port: number }
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  #current: Outgoing | undefined
  #restUntil = 0
  #isStopped = false

  constructor(options: DeviceOptions & { port: number }) {
    this.#options = options
  }

  get canSend(): boolean {
    return this.#current === undefined && monotonicMs() >= this.#restUntil
  }

  get unanswered(): number {
    return this.#current ? 1 : 0
  }

  send(message: Outgoing): void {
    const { index, token, sent, port } = this.#options
    this.#current = message
    sent([{ e: 'sent', d: index, n: message.n, c: message.count, at: monotonicMs() }])
    const call = request(
      {
        agent: this.#agent,
        host: '127.0.0.1',
        port,
        method: 'POST',
        path: `/api/v1/${token}/telemetry`,
        timeout: httpTimeoutMs,
        headers: { 'content-type': 'application/json' },
      },
      (response) => {
        response.resume()
        response.once('end', () => this.#onAnswer(message, response.statusCode!))
      },
    )
    call.on('timeout', () => call.destroy())
    call.on('error', () => this.#onLost(message))
    call.end(message.payload)
  }

  stop(): void {
    this.#isStopped = true
    if (this.#current) this.#options.ended({ e: 'info', d: this.#options.index, n: this.#current.n, at: monotonicMs() })
    this.#current = undefined
    this.#agent.destroy()
  }

  #onAnswer(message: Outgoing, code: number): void {
    if (this.#current !== message) return
    if (code >= 500) return this.#onLost(message, code)
    const { index: d, ended } = this.#options
    this.#current = undefined
    ended(code === 200 ? { e: 'ok', d, n: message.n, at: monotonicMs() } : { e: 'fail', d, n: message.n, at: monotonicMs(), code })
  }

  #onLost(message: Outgoing, code?: number): void {
    if (this.#current !== message) return
    const { index, ended, resends, random } = this.#options
    ended({ e: 'info', d: index, n: message.n, at: monotonicMs(), ...(code === undefined ? {} : { code }) })
    const restMs = reconnectMs.least + random() * (reconnectMs.most - reconnectMs.least)
    if (resends && !this.#isStopped) {
      setTimeout(() => this.#current === message && this.send(message), restMs)
    } else {
      this.#current = undefined
      this.#restUntil = monotonicMs() + restMs
    }
  }
}
