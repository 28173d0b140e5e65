// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import { parser } from 'mqtt-packet'
import type { IConnectPacket, Packet, Parser } from 'mqtt-packet'

/** Type of a control packet: the high half of its first byte. */
export const packetType = {
  connect: 1,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  unsubscribe: 10,
  pingreq: 12,
  disconnect: 14,
  auth: 15,
} as const

/**
 * One parser per protocol level for all connections: it only ever sees complete frames, so nothing
 * of a connection stays in it, and an idle connection needs no parser of its own.
 */
const parsers = new Map<number, Parser>()
const connectParser = 0

/**
 * Parses one complete frame with mqtt-packet and refuses what that lets pass: null characters and
 * ill-formed UTF-8 [M-46], cut properties, and bodies where there must be none. `undefined` when
 * the packet is malformed; never throws [M-44].
 */
export function parsePacket(frame: Buffer, protocol: number): Packet | undefined {
  const packet = parseLoosely(frame, protocol)
  if (packet === undefined || hasBadText(packet, frame)) return undefined
  if (protocol < 5 && packet.cmd === 'disconnect' && packet.length !== 0) return undefined
  return packet
}

/** CONNECT tells apart what is broken from what is only ill-formed text, which has an answer of its own [M-4]. */
export function parseConnect(frame: Buffer): IConnectPacket | 'malformed' | 'bad_text' {
  const packet = parseLoosely(frame, connectParser)
  if (packet?.cmd !== 'connect') return 'malformed'
  return hasBadText(packet, frame) ? 'bad_text' : packet
}

function parseLoosely(frame: Buffer, protocol: number): Packet | undefined {
  let packet: Packet | undefined
  let isBad = false
  try {
    const own = takeParser(protocol)
    own.once('packet', (found: Packet) => {
      packet = found
    })
    own.once('error', () => {
      isBad = true
    })
    isBad = own.parse(frame) !== 0 || isBad
    own.removeAllListeners()
    // The parser of a CONNECT remembers that packet, password included: it is not kept.
    if (!isBad && protocol !== connectParser) parsers.set(protocol, own)
  } catch {
    // Reading beyond the end of a cut packet throws inside the parser. That one is not used again.
    return undefined
  }
  return isBad ? undefined : packet
}

/** Takes the parser out, so that one which fails or throws is gone with what it held. */
function takeParser(protocol: number): Parser {
  const kept = parsers.get(protocol)
  parsers.delete(protocol)
  return kept ?? parser({ protocolVersion: protocol })
}

/**
 * True when a text of the packet is not what was sent: mqtt-packet puts U+FFFD in place of
 * ill-formed bytes, and null or -1 where the packet was cut short.
 */
function hasBadText(value: unknown, frame: Buffer): boolean {
  if (typeof value === 'string') return value.includes('\0') || (value.includes('\ufffd') && !frame.includes(encodeText(value)))
  if (typeof value === 'number') return value < 0
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return false
  for (const [name, one] of Object.entries(value)) {
    if (hasBadText(name, frame) || hasBadText(one, frame)) return true
    if (one === null && name !== 'topic' && name !== 'payload') return true
  }
  return false
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

/** Topics of device uplinks (device API §3), compared as bytes: a known topic costs no decoding. */
const knownTopics = [
  { topic: 'v1/devices/me/telemetry', kind: 'telemetry' },
  { topic: 'v2/t', kind: 'telemetry' },
  { topic: 'v2/t/j', kind: 'telemetry' },
  { topic: 'v1/devices/me/attributes', kind: 'attributes' },
  { topic: 'v2/a', kind: 'attributes' },
  { topic: 'v2/a/j', kind: 'attributes' },
].map(({ topic, kind }) => ({
  topic,
  kind: kind === 'telemetry' ? ('telemetry' as const) : ('attributes' as const),
  bytes: Buffer.from(topic),
}))

export type KnownTopic = (typeof knownTopics)[number]

export type Publish = {
  qos: 0 | 1 | 2
  packetId: number
  topic: string
  known: KnownTopic | undefined
  payload: Buffer
  topicAlias: number | undefined
}

/**
 * Reads a PUBLISH straight from its frame. Only one with MQTT 5 properties goes through mqtt-packet.
 * `undefined` when it is malformed.
 */
export function parsePublish(frame: Buffer, bodyAt: number, protocol: number): Publish | undefined {
  const flags = frame[0]! & 0x0f
  const qos = (flags >> 1) & 0x03
  if (qos === 3 || (qos === 0 && (flags & 0x08) !== 0) || frame.length < bodyAt + 2) return undefined
  const topicAt = bodyAt + 2
  const topicEnd = topicAt + frame.readUInt16BE(bodyAt)
  let at = topicEnd
  if (qos > 0) at += 2
  if (at > frame.length) return undefined
  const packetId = qos > 0 ? frame.readUInt16BE(topicEnd) : 0
  if (qos > 0 && packetId === 0) return undefined
  let topicAlias: number | undefined
  if (protocol === 5) {
    if (at >= frame.length) return undefined
    if (frame[at] === 0) at++
    else {
      const packet = parsePacket(frame, protocol)
      if (packet?.cmd !== 'publish' || !Buffer.isBuffer(packet.payload)) return undefined
      const { properties } = packet
      // A client never sends subscription identifiers, and each property but user properties only once.
      if (properties?.subscriptionIdentifier !== undefined || hasRepeated(properties)) return undefined
      topicAlias = properties?.topicAlias
      at = frame.length - packet.payload.length
    }
  }
  const known = findTopic(frame, topicAt, topicEnd)
  const topic = known?.topic ?? readTopic(frame, topicAt, topicEnd)
  if (topic === undefined) return undefined
  return { qos: qos === 0 ? 0 : qos === 1 ? 1 : 2, packetId, topic, known, payload: frame.subarray(at), topicAlias }
}

/** True when a property that may stand only once was sent twice: mqtt-packet makes a list of it. */
export function hasRepeated(properties: object | undefined): boolean {
  return properties !== undefined && Object.values(properties).some(Array.isArray)
}

function findTopic(frame: Buffer, start: number, end: number): KnownTopic | undefined {
  for (const known of knownTopics) {
    const { bytes } = known
    if (bytes.length !== end - start) continue
    // From the end, where the topics differ.
    let index = bytes.length - 1
    while (index >= 0 && bytes[index] === frame[start + index]) index--
    if (index < 0) return known
  }
  return undefined
}

function readTopic(frame: Buffer, start: number, end: number): string | undefined {
  const bytes = frame.subarray(start, end)
  return isUtf8(bytes) && !bytes.includes(0) ? bytes.toString('utf8') : undefined
}

/** Limits of a topic name (device API §2.6). An empty one only makes sense with an alias. */
export function isTopicAllowed(topic: string): boolean {
  return topic !== '' && Buffer.byteLength(topic) <= 512 && !/[+#]/.test(topic) && topic.split('/').length <= 16
}
