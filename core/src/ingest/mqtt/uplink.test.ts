// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import type { Packet } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defaultPayloadRules } from '../registry.ts'
import { startEndpoint, until } from './testing.ts'
import type { Bench, RawClient } from './testing.ts'

const telemetry = 'v1/devices/me/telemetry'

let bench: Bench

beforeEach(async () => {
  bench = await startEndpoint()
})

afterEach(async () => {
  await bench.stop()
})

async function restart(options: Parameters<typeof startEndpoint>[0]): Promise<void> {
  await bench.stop()
  bench = await startEndpoint(options)
}

/** Code of the answer to a QoS 1 PUBLISH, `close` when the session was closed instead. */
async function answerOf(client: RawClient): Promise<unknown> {
  try {
    const puback = await client.next('puback', 1_000)
    const { rejected } = puback.properties?.userProperties ?? {}
    return [puback.reasonCode ?? 0, puback.properties?.reasonString?.split(':')[0], rejected].filter((one) => one !== undefined)
  } catch {
    return client.isClosed ? 'close' : 'nothing'
  }
}

describe('with the client library of devices', () => {
  it.each([
    [4, 0],
    [4, 1],
    [4, 2],
    [5, 0],
    [5, 1],
    [5, 2],
  ] as const)('[M-22] MQTT %i, QoS %i: what is published is stored', async (protocolVersion, qos) => {
    const client = await bench.client('d', { protocolVersion })
    await client.publishAsync(telemetry, '{"t":21.5,"on":true}', { qos })
    await client.publishAsync('v1/devices/me/attributes', '{"fw":"1.2"}', { qos })
    await until(() => bench.sink.attributes.length === 1)
    expect(bench.sink.points).toMatchObject([
      { key: 't', value: 21.5 },
      { key: 'on', value: true },
    ])
    const session = [...bench.sessions.all()][0]
    await until(() => session?.pointsIn === 3)
    expect(session).toMatchObject({ messagesIn: 2, inFlight: 0, protocol: protocolVersion })
    await client.endAsync()
  })

  it('protocol 3.1 works too', async () => {
    const client = await bench.client('d', { protocolVersion: 3, protocolId: 'MQIsdp' })
    await client.publishAsync('v2/t', '{"t":1}', { qos: 1 })
    expect(bench.sink.points).toHaveLength(1)
  })

  it('many messages in flight all come back', async () => {
    const client = await bench.client('d')
    await Promise.all(Array.from({ length: 1_000 }, (_, index) => client.publishAsync('v2/t', `{"n":${index}}`, { qos: 1 })))
    expect(bench.sink.points.map((point) => point.value)).toEqual(Array.from({ length: 1_000 }, (_, index) => index))
    expect([...bench.sessions.all()][0]?.inFlight).toBe(0)
  })
})

describe('topics', () => {
  it.each([
    [telemetry, 'telemetry'],
    ['v2/t', 'telemetry'],
    ['v2/t/j', 'telemetry'],
    ['v1/devices/me/attributes', 'attributes'],
    ['v2/a', 'attributes'],
    ['v2/a/j', 'attributes'],
  ])('[3] %s is %s', async (topic, kind) => {
    const client = await bench.session('d', { clientId: 'c' })
    client.publish(topic, '{"a":1}', { messageId: 9 })
    await client.next('puback')
    expect(bench.sink.taken[0]?.uplink).toMatchObject({
      kind,
      source: { transport: 'mqtt', topic, clientId: 'c', address: '127.0.0.1', packetId: 9 },
    })
    expect(bench.sink.taken[0]?.uplink.receivedAt).toBeGreaterThan(Date.now() - 5_000)
  })

  it.each(['some/unknown/topic', 'v1/devices/me/telemetri', 'v2/t/p', 'v1/devices/me/telemetry/', 'V2/T', '/', '温度'])(
    '[2.11] [T-2] unknown topic %s: PUBACK, MQTT 5 with 0x90',
    async (topic) => {
      const five = await bench.session('five', { protocolVersion: 5 })
      five.publish(topic, '{"lost":1}')
      expect(await answerOf(five)).toEqual([0x90, 'TOPIC_UNKNOWN'])
      await five.ping()
      const four = await bench.session('four')
      four.publish(topic, '{"lost":1}')
      expect(await answerOf(four)).toEqual([0])
      await four.ping()
      expect(bench.rejects).toMatchObject([
        { reject: { code: 'TOPIC_UNKNOWN' }, sample: '{"lost":1}', source: { topic, packetId: 1 } },
        { reject: { code: 'TOPIC_UNKNOWN' } },
      ])
      expect(bench.sink.taken).toEqual([])
    },
  )

  it('[2.11] a gateway topic from a plain device: MQTT 5 0x87, 3.1.1 is closed', async () => {
    const five = await bench.session('five', { protocolVersion: 5 })
    five.publish('v1/gateway/telemetry', '{}')
    expect(await answerOf(five)).toEqual([0x87, 'TOPIC_FORBIDDEN'])
    await five.ping()
    const four = await bench.session('four', { clientId: 'four' })
    four.publish('v1/gateway/connect', '{}')
    await four.closedWithin(1_000)
    expect(four.packets).toEqual([])
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['TOPIC_FORBIDDEN', 'TOPIC_FORBIDDEN'])
    expect(bench.events.at(-1)).toEqual(['closed', 'four', 'protocol'])
  })

  it.each([
    ['a wildcard', 'v1/+/me'],
    ['a hash', 'v1/#'],
    ['17 levels', Array.from({ length: 17 }, () => 'a').join('/')],
    ['513 bytes', 'a'.repeat(513)],
    ['nothing', ''],
  ])('[M-26] a topic with %s closes the session, MQTT 5 with 0x90', async (_, topic) => {
    for (const qos of [0, 1] as const) {
      const bytes = Buffer.concat([
        Buffer.from([topic.length >> 8, topic.length & 0xff]),
        Buffer.from(topic),
        qos === 1 ? Buffer.from([0, 1]) : Buffer.alloc(0),
      ])
      const frame = (rest: string) => {
        const body = Buffer.concat([bytes, Buffer.from(rest)])
        return Buffer.concat([
          Buffer.from(
            body.length < 128 ? [0x30 | (qos << 1), body.length] : [0x30 | (qos << 1), (body.length & 0x7f) | 0x80, body.length >> 7],
          ),
          body,
        ])
      }
      const five = await bench.session('five', { protocolVersion: 5 })
      five.send(frame('\0{}'))
      expect((await five.next('disconnect')).reasonCode).toBe(0x90)
      const four = await bench.session('four')
      four.send(frame('{}'))
      await four.closedWithin(1_000)
    }
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(Array.from({ length: 4 }, () => 'PROTOCOL_ERROR'))
  })

  it('[M-26] 16 levels and 512 bytes are fine', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    for (const topic of [Array.from({ length: 16 }, () => 'a').join('/'), 'a'.repeat(512)]) {
      client.publish(topic, '{}')
      expect(await answerOf(client)).toEqual([0x90, 'TOPIC_UNKNOWN'])
    }
  })
})

describe('error answers', () => {
  it.each<[string, string, unknown, unknown]>([
    ['not JSON', '{"a":', [0x99, 'PAYLOAD_MALFORMED'], 'close'],
    ['nothing', '', [0x99, 'PAYLOAD_MALFORMED'], 'close'],
    ['wrong shape', '[1]', [0x99, 'SHAPE_INVALID'], 'close'],
    ['too deep', '['.repeat(40), [0x99, 'JSON_TOO_DEEP'], 'close'],
    ['all points rejected', '{"a":1e400,"":2}', [0x99, 'VALUE_NOT_FINITE', '2'], [0]],
    ['some points rejected', '{"good":1,"bad":1e400}', [0, 'VALUE_NOT_FINITE', '1'], [0]],
    ['an empty message', '{}', [0], [0]],
    [
      'too many points',
      `[${Array.from({ length: 1_001 }, () => '{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":0}').join(',')}]`,
      [0x97, 'TOO_MANY_POINTS'],
      [0],
    ],
  ])('[2.11] [M-13] %s', async (_, payload, v5, v3) => {
    const five = await bench.session('five', { protocolVersion: 5 })
    five.publish(telemetry, payload)
    expect(await answerOf(five)).toEqual(v5)
    await five.ping()
    const four = await bench.session('four')
    four.publish(telemetry, payload)
    expect(await answerOf(four)).toEqual(v3)
    if (v3 !== 'close') await four.ping()
  })

  it('[2.11] ackInvalidPayload of the product acknowledges what 3.1.1 would be closed for', async () => {
    bench.addDevice('d', { rules: { ...defaultPayloadRules, ackInvalidPayload: true } })
    const client = await bench.session('d')
    client.publish(telemetry, '{"a":')
    expect(await answerOf(client)).toEqual([0])
    await client.ping()
  })

  it('[M-41] at QoS 0 a refused message is dropped and the session stays', async () => {
    for (const protocolVersion of [4, 5] as const) {
      const client = await bench.session('d', { protocolVersion })
      for (const [topic, payload] of [
        [telemetry, '{"a":'],
        ['unknown', '{}'],
        ['v1/gateway/telemetry', '{}'],
        [telemetry, '{"a":1e400}'],
      ] as const) {
        client.publish(topic, payload, { qos: 0 })
      }
      await client.ping()
      await sleep(20)
      await client.ping()
      expect(client.packets).toEqual([])
    }
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['TOPIC_UNKNOWN', 'TOPIC_FORBIDDEN', 'TOPIC_UNKNOWN', 'TOPIC_FORBIDDEN'])
    expect([...bench.sessions.all()][0]).toMatchObject({ inFlight: 0, messagesIn: 4 })
  })

  it('[2.11] QoS 2 gets the same codes in PUBREC, and the packet id is free again', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish(telemetry, '{"a":', { qos: 2, messageId: 5 })
    expect(await client.next('pubrec')).toMatchObject({ messageId: 5, reasonCode: 0x99 })
    client.publish(telemetry, '{"a":1}', { qos: 2, messageId: 5 })
    expect(await client.next('pubrec')).toMatchObject({ messageId: 5, reasonCode: 0 })
    expect(bench.sink.points).toHaveLength(1)
  })

  it('a client that wants no explanations gets codes only', async () => {
    const quiet = await bench.session('d', { protocolVersion: 5, properties: { requestProblemInformation: false } })
    quiet.publish(telemetry, '{"good":1,"bad":1e400}')
    expect(await answerOf(quiet)).toEqual([0])
    const tiny = await bench.session('e', { protocolVersion: 5, properties: { maximumPacketSize: 20 } })
    tiny.publish(telemetry, '{"a":')
    expect(await answerOf(tiny)).toEqual([0x99])
  })

  it('the message of a reject with a strange key is still well-formed', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish(telemetry, '{"a\\u0000\\ud800":1,"b":2}')
    expect(await answerOf(client)).toEqual([0, 'KEY_INVALID', '1'])
  })
})

describe('QoS and order', () => {
  it('[M-23] PUBACKs leave in the order of the PUBLISHes, however they are settled', async () => {
    const client = await bench.session('d')
    bench.sink.settlesByItself = false
    for (let messageId = 1; messageId <= 6; messageId++) client.publish(messageId === 3 ? 'unknown' : 'v2/t', '{"a":1}', { messageId })
    await until(() => bench.sink.taken.length === 5)
    for (const index of [4, 1, 3]) bench.sink.taken[index]?.settle()
    await client.ping()
    expect(client.packets).toEqual([])
    bench.sink.taken[0]?.settle()
    const first = [await client.next('puback'), await client.next('puback'), await client.next('puback')]
    expect(first.map((packet) => packet.messageId)).toEqual([1, 2, 3])
    bench.sink.taken[2]?.settle()
    const second = [await client.next('puback'), await client.next('puback'), await client.next('puback')]
    expect(second.map((packet) => packet.messageId)).toEqual([4, 5, 6])
  })

  it('[M-23] a message that closes the session does so after the answers before it', async () => {
    const client = await bench.session('d')
    bench.sink.settlesByItself = false
    client.publish('v2/t', '{"a":1}', { messageId: 1 })
    client.publish('v2/t', '{"a":', { messageId: 2 })
    client.publish('v2/t', '{"a":1}', { messageId: 3 })
    await until(() => bench.sink.taken.length === 3)
    bench.sink.taken[2]?.settle()
    bench.sink.taken[1]?.settle()
    await client.ping()
    bench.sink.taken[0]?.settle()
    await client.closedWithin(1_000)
    expect(client.packets).toMatchObject([{ cmd: 'puback', messageId: 1 }])
  })

  it('acknowledgements settled together leave in one write', async () => {
    const client = await bench.session('d')
    bench.sink.settlesByItself = false
    for (let messageId = 1; messageId <= 50; messageId++) client.publish('v2/t', '{"a":1}', { messageId })
    await until(() => bench.sink.taken.length === 50)
    const chunks: number[] = []
    client.socket.on('data', (chunk: Buffer) => chunks.push(chunk.length))
    bench.sink.settleAll()
    await until(() => client.packets.filter((packet) => packet.cmd === 'puback').length === 50)
    expect(chunks).toEqual([200])
  })

  it('[M-22] a repeated QoS 2 message is stored once', async () => {
    for (const protocolVersion of [4, 5] as const) {
      const client = await bench.session(`v${protocolVersion}`, { protocolVersion })
      const count = bench.sink.taken.length
      bench.sink.settlesByItself = false
      client.publish('v2/t', '{"a":1}', { qos: 2, messageId: 5 })
      client.publish('v2/t', '{"a":1}', { qos: 2, messageId: 5, dup: true })
      await client.ping()
      expect(client.packets).toEqual([])
      bench.sink.settlesByItself = true
      bench.sink.settleAll()
      expect((await client.next('pubrec')).messageId).toBe(5)
      client.publish('v2/t', '{"a":1}', { qos: 2, messageId: 5, dup: true })
      expect((await client.next('pubrec')).messageId).toBe(5)
      expect(bench.sink.taken).toHaveLength(count + 1)
      client.put({ cmd: 'pubrel', messageId: 5 })
      expect(await client.next('pubcomp')).toMatchObject({ messageId: 5 })
      client.put({ cmd: 'pubrel', messageId: 5 })
      const again = await client.next('pubcomp')
      expect(again.messageId).toBe(5)
      if (protocolVersion === 5) expect(again.reasonCode).toBe(0x92)
      client.publish('v2/t', '{"a":2}', { qos: 2, messageId: 5 })
      expect((await client.next('pubrec')).messageId).toBe(5)
      expect(bench.sink.taken).toHaveLength(count + 2)
    }
  })

  it('[M-22] open QoS 2 ids are forgotten with the connection', async () => {
    const client = await bench.session('d')
    client.publish('v2/t', '{"a":1}', { qos: 2, messageId: 5 })
    await client.next('pubrec')
    const again = await bench.session('d')
    again.publish('v2/t', '{"a":2}', { qos: 2, messageId: 5, dup: true })
    await again.next('pubrec')
    expect(bench.sink.points).toHaveLength(2)
  })

  it('[M-14] a retained PUBLISH is processed as if it were none', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish('v2/t', '{"a":1}', { retain: true })
    expect(await answerOf(client)).toEqual([0])
  })

  it('[M-27] nothing is acknowledged before it is settled', async () => {
    const client = await bench.session('d')
    bench.sink.settlesByItself = false
    client.publish('v2/t', '{"a":1}', { messageId: 1 })
    client.publish('v2/t', '{"a":1}', { messageId: 2, qos: 2 })
    await until(() => bench.sink.taken.length === 2)
    await sleep(100)
    await client.ping()
    expect(client.packets).toEqual([])
    expect([...bench.sessions.all()][0]?.inFlight).toBe(2)
    bench.sink.settleAll()
    bench.sink.settleAll()
    await client.next('puback')
    await client.next('pubrec')
    await client.ping()
    expect(client.packets).toEqual([])
  })
})

describe('back-pressure', () => {
  it('[M-26] [M-32] 3.1.1: with 100 unanswered messages the next is not read until one is answered', async () => {
    const client = await bench.session('d')
    bench.sink.settlesByItself = false
    for (let messageId = 1; messageId <= 150; messageId++) client.publish('v2/t', '{"a":1}', { messageId })
    await until(() => bench.sink.taken.length === 100)
    await sleep(50)
    expect(bench.sink.taken).toHaveLength(100)
    for (let index = 0; index < 10; index++) bench.sink.taken[index]?.settle()
    await until(() => bench.sink.taken.length === 110)
    await sleep(50)
    expect(bench.sink.taken).toHaveLength(110)
    bench.sink.settlesByItself = true
    bench.sink.settleAll()
    await until(() => client.packets.filter((packet) => packet.cmd === 'puback').length === 150)
    expect(client.isClosed).toBe(false)
  })

  it('[M-26] MQTT 5: a message above Receive Maximum is answered with DISCONNECT 0x93', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    bench.sink.settlesByItself = false
    for (let messageId = 1; messageId <= 101; messageId++) client.publish('v2/t', '{"a":1}', { messageId })
    expect((await client.next('disconnect')).reasonCode).toBe(0x93)
    expect(bench.sink.taken).toHaveLength(100)
  })

  it('[M-26] MQTT 5 with exactly 100 unanswered messages is still served', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    bench.sink.settlesByItself = false
    for (let messageId = 1; messageId <= 100; messageId++) client.publish('v2/t', '{"a":1}', { messageId })
    await until(() => bench.sink.taken.length === 100)
    await client.ping()
    for (let index = 0; index < 50; index++) client.publish('v2/t', '{"a":1}', { qos: 0 })
    await sleep(50)
    expect(bench.sink.taken.length).toBeLessThanOrEqual(101)
    bench.sink.settlesByItself = true
    bench.sink.settleAll()
    await until(() => bench.sink.taken.length === 150)
  })

  it('[M-26] more than 100 open QoS 2 ids end the session', async () => {
    const five = await bench.session('five', { protocolVersion: 5 })
    for (let messageId = 1; messageId <= 100; messageId++) five.publish('v2/t', '{"a":1}', { messageId, qos: 2 })
    await until(() => five.packets.filter((packet) => packet.cmd === 'pubrec').length === 100)
    five.publish('v2/t', '{"a":1}', { messageId: 101 })
    expect((await five.next('disconnect')).reasonCode).toBe(0x93)
    const four = await bench.session('four')
    for (let messageId = 1; messageId <= 100; messageId++) four.publish('v2/t', '{"a":1}', { messageId, qos: 2 })
    await until(() => four.packets.filter((packet) => packet.cmd === 'pubrec').length === 100)
    four.publish('v2/t', '{"a":1}', { messageId: 101, qos: 2 })
    await four.closedWithin(1_000)
  })

  it('[M-29] [M-32] a full buffer stops reading and nothing is lost; PINGREQ before it is answered', async () => {
    const clients = await Promise.all(['a', 'b', 'c'].map((name) => bench.session(name)))
    bench.sink.isFull = true
    for (const client of clients) {
      await client.ping()
      for (let messageId = 1; messageId <= 20; messageId++) client.publish('v2/t', `{"n":${messageId}}`, { messageId })
    }
    await sleep(100)
    expect(bench.sink.taken).toEqual([])
    bench.sink.giveRoom()
    for (const client of clients) {
      const ids: unknown[] = []
      while (ids.length < 20) ids.push((await client.next('puback')).messageId)
      expect(ids).toEqual(Array.from({ length: 20 }, (_, index) => index + 1))
    }
    expect(bench.sink.taken).toHaveLength(60)
  })

  it('[M-26] a packet above the payload limit is judged by its declared length', async () => {
    await restart({ limits: { payloadBytes: 4_096 } })
    const five = await bench.session('five', { protocolVersion: 5 })
    five.send('32 81 20')
    expect((await five.next('disconnect')).reasonCode).toBe(0x95)
    const four = await bench.session('four')
    four.send('32 81 20')
    await four.closedWithin(1_000)
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['PACKET_TOO_LARGE', 'PACKET_TOO_LARGE'])
    const exact = await bench.session('exact', { protocolVersion: 5 })
    exact.publish('v2/t', `{"a":"${'x'.repeat(4_096 - 9 - 8)}"}`)
    expect(await answerOf(exact)).toEqual([0])
  })
})

describe('SUBSCRIBE and UNSUBSCRIBE', () => {
  const allowed = [
    'v1/devices/me/attributes',
    'v1/devices/me/attributes/response/+',
    'v1/devices/me/rpc/request/+',
    'v1/devices/me/rpc/response/+',
    'v2/a',
    'v2/a/j',
    'v2/a/res/+',
    'v2/a/res/j/+',
    'v2/r/req/+',
    'v2/r/req/j/+',
    'v2/r/res/+',
    'v2/r/res/j/+',
    'v2/fw/response/+/chunk/+',
    'v2/fw/error',
    'v2/sw/response/+/chunk/+',
    'v2/sw/error',
  ]
  const subscribe = async (client: RawClient, filters: readonly string[], qos: 0 | 1 | 2 = 1) => {
    client.put({ cmd: 'subscribe', messageId: 7, subscriptions: filters.map((topic) => ({ topic, qos })) })
    const suback = await client.next('suback')
    expect(suback.messageId).toBe(7)
    return suback.granted
  }

  it('[M-33] [M-34] exactly the listed filters are granted, QoS at most 1', async () => {
    for (const protocolVersion of [4, 5] as const) {
      const client = await bench.session('d', { protocolVersion })
      expect(await subscribe(client, allowed, 0)).toEqual(allowed.map(() => 0))
      expect(await subscribe(client, allowed, 1)).toEqual(allowed.map(() => 1))
      expect(await subscribe(client, allowed, 2)).toEqual(allowed.map(() => 1))
    }
    expect([...bench.sessions.all()][0]?.subscriptions.size).toBe(16)
  })

  it('[M-34] [S-07] everything else is refused by itself and the session lives', async () => {
    const others = [
      '#',
      '+/+/telemetry',
      '$share/g/#',
      '$SYS/#',
      'v1/devices/me/rpc/request/5',
      'v1/devices/+/attributes',
      'v1/gateway/attributes',
      'v1/gateway/rpc',
      '/provision/response',
    ]
    const filters = [...others, 'v1/devices/me/attributes']
    const five = await bench.session('five', { protocolVersion: 5 })
    expect(await subscribe(five, filters)).toEqual([...others.map(() => 0x8f), 1])
    await five.ping()
    const four = await bench.session('four')
    expect(await subscribe(four, filters)).toEqual([...others.map(() => 0x80), 1])
    four.publish('v2/t', '{"a":1}')
    await four.next('puback')
    expect(four.packets).toEqual([])
  })

  it('[M-26] the filters above 32 of one SUBSCRIBE are refused', async () => {
    const filters = Array.from({ length: 34 }, () => 'v2/a')
    const expected = (code: number) => [...Array.from({ length: 32 }, () => 1), code, code]
    expect(await subscribe(await bench.session('five', { protocolVersion: 5 }), filters)).toEqual(expected(0x97))
    expect(await subscribe(await bench.session('four'), filters)).toEqual(expected(0x80))
  })

  it('[M-35] UNSUBSCRIBE tells known from unknown filters', async () => {
    const five = await bench.session('five', { protocolVersion: 5 })
    await subscribe(five, ['v2/a'])
    five.put({ cmd: 'unsubscribe', messageId: 8, unsubscriptions: ['v2/a', 'v2/a', '#'] })
    expect(await five.next('unsuback')).toMatchObject({ messageId: 8, granted: [0, 0x11, 0x11] })
    const four = await bench.session('four')
    four.put({ cmd: 'unsubscribe', messageId: 9, unsubscriptions: ['v2/a'] })
    expect(await four.next('unsuback')).toMatchObject({ messageId: 9, length: 2 } satisfies Partial<Packet>)
  })

  it('[M-14] a subscription identifier ends the session, as CONNACK has said', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    client.put({ cmd: 'subscribe', messageId: 7, subscriptions: [{ topic: 'v2/a', qos: 1 }], properties: { subscriptionIdentifier: 5 } })
    expect((await client.next('disconnect')).reasonCode).toBe(0xa1)
  })
})
