// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import type { Packet } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { FrameSplitter } from './frames.ts'
import { isTopicAllowed, parseConnect, parsePacket, parsePublish } from './packets.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

function publish(bytes: Buffer, protocol: number) {
  const splitter = new FrameSplitter(1 << 20)
  splitter.push(bytes)
  const frame = splitter.next()
  if (!Buffer.isBuffer(frame)) throw new Error('no frame')
  return parsePublish(frame, splitter.bodyAt, protocol)
}

describe('PUBLISH', () => {
  it('is read as mqtt-packet writes it', () => {
    const topic = fc.oneof(
      fc.constantFrom('v1/devices/me/telemetry', 'v2/t', 'v2/a/j'),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }).filter((text) => !/[\0+#]/.test(text)),
    )
    const properties = fc.option(
      fc.record(
        {
          payloadFormatIndicator: fc.boolean(),
          messageExpiryInterval: fc.nat(100_000),
          contentType: fc.constantFrom('application/json', '\ufffd'),
          responseTopic: fc.constant('a/b'),
          correlationData: fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
          userProperties: fc.constant({ a: ['1', '2'], b: '3' }),
        },
        { requiredKeys: [] },
      ),
      { nil: undefined },
    )
    fc.assert(
      fc.property(
        topic,
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom<0 | 1 | 2>(0, 1, 2),
        fc.integer({ min: 1, max: 65_535 }),
        fc.constantFrom(4, 5),
        properties,
        (name, bytes, qos, messageId, protocol, given) => {
          const sent = protocol === 5 ? given : undefined
          const packet = {
            cmd: 'publish',
            topic: name,
            payload: Buffer.from(bytes),
            qos,
            messageId,
            dup: false,
            retain: false,
            properties: sent,
          } as unknown as Packet
          const encoded = generate(packet, { protocolVersion: protocol })
          const found = publish(encoded, protocol)
          expect(found).toMatchObject({ topic: name, qos, packetId: qos > 0 ? messageId : 0, topicAlias: undefined })
          expect(found?.payload.equals(Buffer.from(bytes))).toBe(true)
          expect(found?.known?.topic).toBe(
            name.startsWith('v') && ['v1/devices/me/telemetry', 'v2/t', 'v2/a/j'].includes(name) ? name : undefined,
          )
        },
      ),
      { numRuns: 2_000 },
    )
  })

  it('tells the topic alias', () => {
    expect(
      publish(
        generate(
          { cmd: 'publish', topic: 'a', payload: '', qos: 0, dup: false, retain: false, properties: { topicAlias: 3 } },
          { protocolVersion: 5 },
        ),
        5,
      ),
    ).toMatchObject({ topicAlias: 3 })
  })

  it.each<[string, string, number]>([
    ['QoS 3', '36 08 0001 61 0001 000000', 4],
    ['DUP with QoS 0', '38 03 0001 61', 4],
    ['no topic', '30 01 00', 4],
    ['nothing at all', '30 00', 4],
    ['a topic beyond the packet', '30 04 0009 6161', 4],
    ['no packet id', '32 03 0001 61', 4],
    ['half a packet id', '32 04 0001 61 00', 4],
    ['packet id 0', '32 05 0001 61 0000', 4],
    ['no property length', '30 03 0001 61', 5],
    ['properties beyond the packet', '30 04 0001 61 05', 5],
    ['an unknown property', '30 06 0001 61 02 7e00', 5],
    ['a cut property', '30 05 0001 61 01 02', 5],
    ['a subscription identifier', '30 06 0001 61 02 0b05', 5],
    ['an ill-formed user property', '30 0b 0001 61 07 26 0001 ff 0001 61', 5],
    ['a NUL in a user property', '30 0b 0001 61 07 26 0001 00 0001 61', 5],
    ['a repeated property', '30 0e 0001 61 0a 02 00000001 02 00000002', 5],
    ['an ill-formed topic', '30 04 0002 c328', 4],
    ['a surrogate in the topic', '30 05 0003 eda080', 4],
    ['U+0000 in the topic', '30 05 0003 610061', 4],
    ['an overlong topic', '30 04 0002 c080', 4],
  ])('[M-44] [M-46] with %s is malformed', (_, bytes, protocol) => {
    expect(publish(hex(bytes), protocol)).toBeUndefined()
  })
})

describe('other packets', () => {
  it.each<[string, string, number]>([
    ['PUBREL with wrong flags', '60 02 0001', 4],
    ['SUBSCRIBE with wrong flags', '80 06 0001 0001 61 00', 4],
    ['SUBSCRIBE with reserved options', '82 06 0001 0001 61 04', 4],
    ['SUBSCRIBE with QoS 3', '82 07 0001 00 0001 61 03', 5],
    ['SUBSCRIBE cut in the filter', '82 05 0001 0005 61', 4],
    ['SUBSCRIBE with an ill-formed filter', '82 06 0001 0001 ff 00', 4],
    ['SUBSCRIBE with a NUL in the filter', '82 06 0001 0001 00 00', 4],
    ['PUBREL without packet id', '62 00', 4],
    ['PUBREL with half a packet id', '62 01 00', 4],
    ['PUBREL with an unknown reason', '62 03 0001 01', 5],
    ['DISCONNECT with a body in 3.1.1', 'e0 01 00', 4],
    ['DISCONNECT with an unknown reason', 'e0 01 03', 5],
    ['AUTH in 3.1.1', 'f0 00', 4],
    ['type 0', '00 00', 4],
  ])('[M-44] [M-46] %s is malformed', (_, bytes, protocol) => {
    expect(parsePacket(hex(bytes), protocol)).toBeUndefined()
  })

  it('a malformed packet leaves the next one alone', () => {
    for (const bytes of ['62 00', '82 05 0001 0005 61', 'e0 01 03', '60 02 0001']) {
      expect(parsePacket(hex(bytes), 5)).toBeUndefined()
      expect(parsePacket(hex('62 02 0007'), 5)).toMatchObject({ cmd: 'pubrel', messageId: 7 })
    }
  })

  it('U+FFFD itself is a character like any other', () => {
    expect(parsePacket(hex('82 08 0001 0003 efbfbd 00'), 4)).toMatchObject({ cmd: 'subscribe', subscriptions: [{ topic: '\ufffd' }] })
  })

  it('CONNECT tells broken packets from ill-formed names', () => {
    const bytes = generate({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clean: true,
      clientId: 'abc',
      keepalive: 1,
      username: 'u',
      password: Buffer.from([0xff, 0]),
    })
    expect(parseConnect(bytes)).toMatchObject({ clientId: 'abc' })
    const bad = Buffer.from(bytes)
    bad[bad.indexOf('abc')] = 0xff
    expect(parseConnect(bad)).toBe('bad_text')
    expect(parseConnect(hex('10 04 0004 4d51'))).toBe('malformed')
    expect(parseConnect(hex('10 0c 0004 4d515454 04 03 0000 0000'))).toBe('malformed')
  })
})

it('[M-26] a topic has 1–512 bytes, at most 16 levels and no wildcard', () => {
  expect(['a', 'a'.repeat(512), '/'.repeat(15), '中'.repeat(170)].map(isTopicAllowed)).toEqual([true, true, true, true])
  expect(['', 'a'.repeat(513), '/'.repeat(16), '中'.repeat(171), 'a/+', '#'].map(isTopicAllowed)).toEqual([
    false,
    false,
    false,
    false,
    false,
    false,
  ])
})
