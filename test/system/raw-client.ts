// SPDX-License-Identifier: AGPL-3.0-only
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { generate, parser } from 'mqtt-packet'
import type { Packet } from 'mqtt-packet'

/** Generous: the machine of a test may be busy with others. */
const answerMs = 10_000

/**
 * An MQTT client that shows every packet and repairs nothing, for tests of the wire: the usual
 * clients reconnect and retry, which hides what the server did.
 */
export class RawClient {
  readonly #socket: Socket
  readonly #version: number
  readonly #packets: Packet[] = []
  #waiting: (() => void) | undefined
  #isClosed = false
  #packetId = 0

  constructor(port: number, version: number) {
    this.#version = version
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true })
    const incoming = parser({ protocolVersion: version })
    incoming.on('packet', (packet: Packet) => {
      this.#packets.push(packet)
      this.#waiting?.()
    })
    this.#socket.on('data', (chunk) => incoming.parse(Buffer.from(chunk)))
    this.#socket.on('error', () => {})
    this.#socket.on('close', () => {
      this.#isClosed = true
      this.#waiting?.()
    })
  }

  async connect(options: {
    clientId: string
    user?: string | undefined
    pass?: string | undefined
  }): Promise<{ code: number | undefined; sessionPresent: boolean }> {
    this.#send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: this.#version as 4,
      clean: true,
      keepalive: 60,
      clientId: options.clientId,
      ...(options.user === undefined ? {} : { username: options.user }),
      ...(options.pass === undefined ? {} : { password: Buffer.from(options.pass) }),
    })
    const packet = await this.#next('connack')
    if (packet?.cmd !== 'connack') throw new Error('no CONNACK')
    return { code: this.#version === 5 ? packet.reasonCode : packet.returnCode, sessionPresent: packet.sessionPresent }
  }

  /** @returns the reason code of the PUBACK (0 in 3.1.1), undefined when none came */
  async publish(topic: string, payload: string, qos: 0 | 1): Promise<number | undefined> {
    const messageId = ++this.#packetId
    this.#send({ cmd: 'publish', topic, payload, qos, dup: false, retain: false, ...(qos ? { messageId } : {}) })
    if (qos === 0) return undefined
    const packet = await this.#next('puback')
    if (packet?.cmd !== 'puback') return undefined
    if (packet.messageId !== messageId) throw new Error(`PUBACK of ${packet.messageId}, not of ${messageId}`)
    return packet.reasonCode ?? 0
  }

  async subscribe(filters: [string, number][]): Promise<unknown[]> {
    const messageId = ++this.#packetId
    this.#send({ cmd: 'subscribe', messageId, subscriptions: filters.map(([topic, qos]) => ({ topic, qos: qos as 0 })) })
    const packet = await this.#next('suback')
    if (packet?.cmd !== 'suback') throw new Error('no SUBACK')
    return [...packet.granted]
  }

  /** The next message on a topic that fits, in the order of arrival; one of QoS 1 is acknowledged. */
  async receive(isWanted: (topic: string) => boolean): Promise<{ topic: string; text: string; qos: number } | undefined> {
    const packet = await this.#next('publish', answerMs, (one) => one.cmd === 'publish' && isWanted(one.topic))
    if (packet?.cmd !== 'publish') return undefined
    if (packet.qos === 1) this.#send({ cmd: 'puback', messageId: packet.messageId! })
    return { topic: packet.topic, text: packet.payload.toString(), qos: packet.qos }
  }

  /** @throws when a message comes within the time, or the connection ends */
  async silence(ms: number): Promise<void> {
    const packet = await this.#next('publish', ms)
    if (packet?.cmd === 'publish') throw new Error(`a message on ${packet.topic}: ${packet.payload.toString()}`)
    await this.ping()
  }

  async ping(): Promise<void> {
    this.#send({ cmd: 'pingreq' })
    if (!(await this.#next('pingresp'))) throw new Error('no PINGRESP')
  }

  /** Waits until the server has closed. @returns the reason code of its MQTT 5 DISCONNECT */
  async closed(ms: number): Promise<number | undefined> {
    const packet = await this.#next('disconnect', ms)
    for (let waited = 0; !this.#isClosed && waited < ms; waited += 10) await new Promise((resolve) => setTimeout(resolve, 10))
    if (!this.#isClosed) throw new Error(`still open after ${ms} ms`)
    return packet?.cmd === 'disconnect' ? packet.reasonCode : undefined
  }

  end(): void {
    this.#socket.destroy()
  }

  #send(packet: Packet): void {
    this.#socket.write(generate(packet, { protocolVersion: this.#version }))
  }

  /** The next packet of this kind; undefined when the connection ends or the time is over first. */
  async #next(cmd: Packet['cmd'], ms = answerMs, isWanted = (packet: Packet) => packet.cmd === cmd): Promise<Packet | undefined> {
    const deadline = performance.now() + ms
    for (;;) {
      const index = this.#packets.findIndex(isWanted)
      if (index >= 0) return this.#packets.splice(index, 1)[0]
      const left = deadline - performance.now()
      if (this.#isClosed || left <= 0) return undefined
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#waiting = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
}
