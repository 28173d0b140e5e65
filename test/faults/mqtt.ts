// SPDX-License-Identifier: AGPL-3.0-only

/** Just enough of MQTT to load a server from raw sockets: CONNECT, PUBLISH of QoS 1, and what comes back. */

const telemetryTopic = Buffer.from('v1/devices/me/telemetry')

export type Protocol = 4 | 5

export function encodeConnect(protocol: Protocol, clientId: string, userName: string, keepAliveS = 60): Buffer {
  const body = Buffer.concat([
    encodeText('MQTT'),
    // Clean session, user name.
    Buffer.from([protocol, 0x82, keepAliveS >> 8, keepAliveS & 0xff]),
    protocol === 5 ? Buffer.from([0]) : Buffer.alloc(0),
    encodeText(clientId),
    encodeText(userName),
  ])
  return Buffer.concat([Buffer.from([0x10]), encodeLength(body.length), body])
}

/** A PUBLISH of QoS 1 with packet id 0, which the sender fills in at {@link packetIdAt}. */
export function encodePublish(protocol: Protocol, payload: string, topic = telemetryTopic): Buffer {
  const text = Buffer.from(payload)
  const size = 2 + topic.length + 2 + (protocol === 5 ? 1 : 0) + text.length
  const parts = [Buffer.from([0x32]), encodeLength(size), Buffer.from([topic.length >> 8, topic.length & 0xff]), topic, Buffer.alloc(2)]
  if (protocol === 5) parts.push(Buffer.from([0]))
  return Buffer.concat([...parts, text])
}

/** Where the packet id of a packet made by {@link encodePublish} is. */
export function packetIdAt(packet: Buffer, topic = telemetryTopic): number {
  let at = 1
  while (packet[at]! >= 0x80) at++
  return at + 1 + 2 + topic.length
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

function encodeLength(length: number): Buffer {
  const bytes: number[] = []
  for (let rest = length; ;) {
    const low = rest & 0x7f
    rest >>= 7
    bytes.push(rest > 0 ? low | 0x80 : low)
    if (rest === 0) return Buffer.from(bytes)
  }
}

export const packet = { connack: 2, puback: 4, disconnect: 14 } as const

/** Cuts what a server sends into packets; the body is valid during the call only. */
export class PacketReader {
  readonly #onPacket: (type: number, body: Buffer) => void
  #rest: Buffer | undefined

  constructor(onPacket: (type: number, body: Buffer) => void) {
    this.#onPacket = onPacket
  }

  push(chunk: Buffer): void {
    const data = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk
    let start = 0
    while (data.length - start >= 2) {
      let length = 0
      let at = start + 1
      let isComplete = false
      for (let shift = 0; at < data.length && shift < 28; shift += 7) {
        const byte = data[at++]!
        length |= (byte & 0x7f) << shift
        if (byte < 0x80) {
          isComplete = true
          break
        }
      }
      if (!isComplete || data.length < at + length) break
      this.#onPacket(data[start]! >> 4, data.subarray(at, at + length))
      start = at + length
    }
    this.#rest = start < data.length ? data.subarray(start) : undefined
  }
}
