// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { generate } from 'mqtt-packet'
import type { IPublishPacket } from 'mqtt-packet'
import { hasRepeated, parsePacket, parsePublish } from './packets.ts'
import type { Publish } from './packets.ts'

const packets = 1_000_000
const seed = 20_261_121
const timeoutMs = 120_000

type Fields = Pick<Publish, 'qos' | 'packetId' | 'topic' | 'topicAlias'> & { payload: Buffer }

/** What mqtt-packet makes of a PUBLISH, less what it lets pass although MQTT forbids it. */
function parseByLibrary(frame: Buffer, protocol: number): Fields | undefined {
  const packet = parsePacket(frame, protocol)
  if (packet?.cmd !== 'publish' || !Buffer.isBuffer(packet.payload)) return undefined
  const { qos, dup, messageId = 0, topic, payload, properties, length } = packet
  if (protocol === 5 && length === 2 + Buffer.byteLength(topic) + (qos > 0 ? 2 : 0)) return undefined // no property length, MQTT 5 §3.3.2.3.1
  if (dup && qos === 0) return undefined // MQTT-3.3.1-2
  if (qos > 0 && messageId === 0) return undefined // MQTT-2.2.1-3
  if (properties?.subscriptionIdentifier !== undefined || hasRepeated(properties)) return undefined // MQTT 5 §3.3.2.3
  return { qos, packetId: messageId, topic, topicAlias: properties?.topicAlias, payload }
}

function isSame(one: Fields | undefined, other: Fields | undefined): boolean {
  if (one === undefined || other === undefined) return one === other
  return (
    one.qos === other.qos &&
    one.packetId === other.packetId &&
    one.topic === other.topic &&
    one.topicAlias === other.topicAlias &&
    one.payload.equals(other.payload)
  )
}

/** Small generator of random numbers with a seed (xorshift, Marsaglia 2003), so that a failure comes back. */
function createRandom(state: number): (below: number) => number {
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const random = createRandom(seed)
const topics = ['v1/devices/me/telemetry', 'v2/t', 'v2/a/j', 'v1/devices/me/attributes', 'v1/gateway/telemetry', 'ä/水/🌡', 'x', '']
const payload = Buffer.from('{"temperature":21.5}')

/** Well-formed packets to begin with, as their flags and their body behind the remaining length. */
function makeSeeds(protocolVersion: number): { flags: number; body: Buffer }[] {
  const propertySets: IPublishPacket['properties'][] =
    protocolVersion === 5
      ? [
          {},
          { messageExpiryInterval: 60, contentType: 'application/json', userProperties: { site: 'north', floor: '2' } },
          { topicAlias: 3, payloadFormatIndicator: true, responseTopic: 'r', correlationData: Buffer.from('c') },
        ]
      : [{}]
  return topics.flatMap((topic) =>
    propertySets.flatMap((properties) =>
      ([0, 1, 2] as const).map((qos) => {
        // One changed byte makes the packet id 0, which no packet may have.
        const packet = generate(
          { cmd: 'publish', topic: topic || 't', payload, qos, dup: false, retain: false, messageId: 1, properties: properties! },
          { protocolVersion },
        )
        return { flags: packet[0]! & 0x0f, body: packet.subarray(2) }
      }),
    ),
  )
}

const bytesOfInterest = [0, 1, 2, 3, 4, 0x0b, 0x23, 0x26, 0x2b, 0x2f, 0x7f, 0x80, 0xc0, 0xed, 0xf5, 0xff]

function mutate(body: Buffer): Buffer {
  const at = random(body.length + 1)
  switch (random(7)) {
    case 0:
      return body.subarray(0, at)
    case 1:
      return Buffer.concat([body.subarray(0, at), Buffer.of(bytesOfInterest[random(bytesOfInterest.length)]!), body.subarray(at)])
    case 2:
      return Buffer.concat([body.subarray(0, at), body.subarray(at + 1 + random(4))])
    case 3: {
      const from = random(body.length + 1)
      return Buffer.concat([body.subarray(0, at), body.subarray(from, from + random(12)), body.subarray(at)])
    }
    default: {
      const changed = Buffer.from(body)
      // Lengths and the first bytes of the topic are where it hurts.
      const place = random(2) === 0 ? random(Math.min(8, body.length + 1)) : at
      if (place < changed.length) changed[place] = random(2) === 0 ? bytesOfInterest[random(bytesOfInterest.length)]! : random(256)
      return changed
    }
  }
}

/** A complete frame, as the splitter hands it over. */
function frameOf(flags: number, body: Buffer): { frame: Buffer; bodyAt: number } {
  const head = body.length < 128 ? [0x30 | flags, body.length] : [0x30 | flags, 0x80 | (body.length & 0x7f), body.length >> 7]
  return { frame: Buffer.concat([Buffer.from(head), body]), bodyAt: head.length }
}

it(`a PUBLISH reads like mqtt-packet reads it, for ${packets.toLocaleString('en-US')} damaged packets`, { timeout: timeoutMs }, () => {
  const seeds = { 4: makeSeeds(4), 5: makeSeeds(5) }
  const counts = { accepted: 0, refused: 0 }
  for (let count = 0; count < packets; count++) {
    const protocol = random(2) === 0 ? 4 : 5
    const chosen = seeds[protocol][random(seeds[protocol].length)]!
    let { body } = chosen
    for (let rounds = random(4); rounds > 0; rounds--) body = mutate(body)
    const { frame, bodyAt } = frameOf(random(4) === 0 ? random(16) : chosen.flags, body)
    const own = parsePublish(frame, bodyAt, protocol)
    const theirs = parseByLibrary(frame, protocol)
    if (!isSame(own, theirs)) {
      expect({ own }, `packet ${count}, MQTT ${protocol}: ${frame.toString('hex')}`).toEqual({ own: theirs })
      expect.fail('read differently')
    }
    counts[own === undefined ? 'refused' : 'accepted']++
  }
  // Neither kind may be rare, or little was compared.
  expect(Math.min(counts.accepted, counts.refused)).toBeGreaterThan(packets / 5)
})
