// SPDX-License-Identifier: AGPL-3.0-only
import type { Socket } from 'node:net'
import { encodePublish, packetIdAt } from '../faults/mqtt.ts'
import type { Meter } from './meter.ts'

const pubackSize = 4

/** What comes back, cut into PUBACKs; their packet ids go to `acknowledged` in the order of arrival. */
function readPubacks(socket: Socket, meter: Meter, acknowledged: (packetIds: number[], now: number) => void): void {
  let rest: Buffer = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    const data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    const count = Math.floor(data.length / pubackSize)
    rest = data.subarray(count * pubackSize)
    if (count === 0) return
    const packetIds: number[] = []
    for (let at = 0; at < count * pubackSize; at += pubackSize) {
      if (data[at] !== 0x40 || data[at + 1] !== 2) meter.fail(`an answer that is no PUBACK: ${data.subarray(at, at + 8).toString('hex')}`)
      packetIds.push(data.readUInt16BE(at + 2))
    }
    acknowledged(packetIds, performance.now())
  })
}

/** Packets side by side with the ids 1, 2, …; `#` in the payload becomes a number that is another in each. */
function encodePackets(payload: string, count: number, first: number): { bytes: Buffer; size: number } {
  const packets = Array.from({ length: count }, (_, index) => encodePublish(4, payload.replace('#', String(1_000_000 + first + index))))
  for (const [index, packet] of packets.entries()) packet.writeUInt16BE(index + 1, packetIdAt(packet))
  return { bytes: Buffer.concat(packets), size: packets[0]!.length }
}

/** MQTT with a fixed number of messages in flight: each is sent again when it is acknowledged. */
export class WindowConnection {
  readonly #socket: Socket
  readonly #meter: Meter
  readonly #packets: Buffer
  readonly #packetSize: number
  readonly #sentAt: Float64Array

  constructor(socket: Socket, meter: Meter, payload: string, inFlight: number) {
    this.#socket = socket
    this.#meter = meter
    const { bytes, size } = encodePackets(payload, inFlight, 0)
    this.#packets = bytes
    this.#packetSize = size
    this.#sentAt = new Float64Array(inFlight)
    readPubacks(socket, meter, (packetIds, now) => this.#acknowledged(packetIds, now))
  }

  start(): void {
    this.#meter.sent(this.#sentAt.length)
    this.#sentAt.fill(performance.now())
    this.#socket.write(this.#packets)
  }

  #acknowledged(packetIds: readonly number[], now: number): void {
    // Answers come in the order of the packets, so what to send again lies side by side too.
    let start = -1
    let end = -1
    for (const packetId of packetIds) {
      const index = packetId - 1
      this.#meter.acknowledged(now - this.#sentAt[index]!)
      this.#sentAt[index] = now
      if (index !== end) {
        this.#send(start, end)
        start = index
      }
      end = index + 1
    }
    this.#send(start, end)
  }

  #send(start: number, end: number): void {
    if (start < 0 || this.#meter.isStopping) return
    this.#meter.sent(end - start)
    this.#socket.write(this.#packets.subarray(start * this.#packetSize, end * this.#packetSize))
  }
}

/** MQTT that sends when it is told to; latency counts from when a message was due, not from when there was room for it. */
export class PacedConnection {
  readonly #socket: Socket
  readonly #meter: Meter
  readonly #packets: Buffer
  readonly #packetSize: number
  readonly #dueAt: Float64Array
  #sent = 0
  #acked = 0

  constructor(socket: Socket, meter: Meter, payload: string, inFlight: number, first: number) {
    this.#socket = socket
    this.#meter = meter
    const { bytes, size } = encodePackets(payload, inFlight, first)
    this.#packets = bytes
    this.#packetSize = size
    this.#dueAt = new Float64Array(inFlight)
    readPubacks(socket, meter, (packetIds, now) => this.#acknowledged(packetIds, now))
  }

  /** @returns false when as many messages are in flight as may be */
  send(dueAt: number): boolean {
    const slots = this.#dueAt.length
    if (this.#sent - this.#acked === slots) return false
    const slot = this.#sent++ % slots
    this.#dueAt[slot] = dueAt
    this.#meter.sent(1)
    this.#socket.write(this.#packets.subarray(slot * this.#packetSize, (slot + 1) * this.#packetSize))
    return true
  }

  #acknowledged(packetIds: readonly number[], now: number): void {
    for (const packetId of packetIds) {
      const slot = this.#acked++ % this.#dueAt.length
      if (packetId !== slot + 1) this.#meter.fail(`PUBACK ${packetId} where ${slot + 1} was due`)
      this.#meter.acknowledged(now - this.#dueAt[slot]!)
    }
  }
}

/** HTTP keep-alive with one request in flight. All answers of a server have one size, taken from the first. */
export class HttpConnection {
  readonly #socket: Socket
  readonly #meter: Meter
  readonly #request: Buffer
  #received = 0
  #answerSize = 0
  #sentAt = 0

  constructor(socket: Socket, meter: Meter, payload: string, token: string) {
    this.#socket = socket
    this.#meter = meter
    const head = `POST /api/v1/${token}/telemetry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json`
    this.#request = Buffer.from(`${head}\r\nContent-Length: ${Buffer.byteLength(payload)}\r\n\r\n${payload}`)
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
  }

  start(): void {
    this.#meter.sent(1)
    this.#sentAt = performance.now()
    this.#socket.write(this.#request)
  }

  #receive(chunk: Buffer): void {
    if (this.#received === 0 && chunk.toString('latin1', 0, 12) !== 'HTTP/1.1 200') {
      this.#meter.fail(`an answer that is no 200: ${chunk.toString('latin1', 0, 400)}`)
    }
    if (this.#answerSize === 0) this.#answerSize = sizeOf(chunk.toString('latin1'))
    this.#received += chunk.length
    if (this.#received < this.#answerSize) return
    if (this.#received > this.#answerSize) this.#meter.fail('answers of different sizes')
    this.#received = 0
    this.#meter.acknowledged(performance.now() - this.#sentAt)
    if (!this.#meter.isStopping) this.start()
  }
}

function sizeOf(answer: string): number {
  const headEnd = answer.indexOf('\r\n\r\n')
  return headEnd + 4 + Number(/\r\ncontent-length: (\d+)/i.exec(answer)?.[1] ?? 0)
}
