// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { generate } from 'mqtt-packet'
import type { Packet } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createPick, mutatePacket } from './testing-mutations.ts'
import { startEndpoint, until } from './testing.ts'
import type { Bench } from './testing.ts'

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

describe('malformed packets', () => {
  it.each<[string, string, number]>([
    ['PUBREL with wrong flags', '60 02 0001', 0x81],
    ['PUBLISH of QoS 3', '36 05 0001 61 0001', 0x81],
    ['a topic with U+0000', '30 05 0003 610061', 0x81],
    ['an ill-formed topic', '30 04 0002 c328', 0x81],
    ['a surrogate in a filter', '82 08 0001 0003 eda080 00', 0x81],
    ['a length of five bytes', '30 80 80 80 80 01', 0x81],
    ['CONNACK from a client', '20 03 00 00 00', 0x82],
    ['SUBSCRIBE without a filter', '82 03 0001 00', 0x82],
    ['UNSUBSCRIBE without packet id', 'a2 06 0000 00 0001 61', 0x82],
    ['PINGREQ with a body', 'c0 01 00', 0x82],
    ['PINGREQ with flags', 'c1 00', 0x81],
    ['a topic alias', '30 07 0001 61 03 23 0001', 0x94],
  ])('[M-44] [M-46] [2.11] %s', async (_, bytes, code) => {
    const five = await bench.session('five', { protocolVersion: 5, clientId: 'five' })
    five.send(bytes)
    const { reasonCode } = await five.next('disconnect')
    expect([code, 0x81, 0x82]).toContain(reasonCode)
    if (code === 0x94) expect(reasonCode).toBe(0x94)
    await five.closedWithin(1_000)
    const four = await bench.session('four', { clientId: 'four' })
    four.send(code === 0x94 ? '36 00' : bytes)
    await four.closedWithin(1_000)
    expect(four.packets).toEqual([])
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['PROTOCOL_ERROR', 'PROTOCOL_ERROR'])
    expect(bench.events.filter(([event]) => event === 'closed').map(([, , reason]) => reason)).toEqual(['protocol', 'protocol'])
  })

  it('an error of our own closes that one connection and writes one ERROR line', async () => {
    const other = await bench.session('other')
    const client = await bench.session('d')
    bench.sink.accept = () => {
      throw new Error('bug in the sink')
    }
    client.publish('v2/t', '{"a":1}')
    await client.closedWithin(1_000)
    await other.ping()
    expect(bench.errors).toHaveLength(1)
    expect(bench.errors[0]).toContain('bug in the sink')
    bench.errors.length = 0
  })
})

describe('slow and silent sockets', () => {
  it('[S-09] [M-45] a packet that comes byte by byte is closed before CONNECT at its time, later at max(30 s, keep-alive)', async () => {
    await restart({ limits: { connectMs: 400, packetMs: 600 } })
    const connecting = await bench.open()
    const session = await bench.session('d', { protocolVersion: 5, keepalive: 1 })
    const short = await bench.session('e', { keepalive: 0 })
    const start = performance.now()
    const connect = generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'x', keepalive: 1 })
    const publish = generate(
      { cmd: 'publish', topic: 'v2/t', payload: '{"a":12345678901234567890}', qos: 1, messageId: 1, dup: false, retain: false },
      { protocolVersion: 5 },
    )
    const times: Record<string, number> = {}
    void connecting.closed.then(() => (times['connecting'] = performance.now() - start))
    void session.closed.then(() => (times['session'] = performance.now() - start))
    void short.closed.then(() => (times['short'] = performance.now() - start))
    for (let index = 0; index < 15 && Object.keys(times).length < 3; index++) {
      connecting.send(connect.subarray(index, index + 1))
      session.send(publish.subarray(index, index + 1))
      short.send(publish.subarray(index, index + 1))
      await sleep(100)
    }
    await Promise.all([connecting.closed, session.closed, short.closed])
    expect(times['connecting']).toBeLessThan(600)
    expect(times['short']).toBeGreaterThan(550)
    expect(times['short']).toBeLessThan(900)
    expect(times['session']).toBeGreaterThan(950)
    expect(times['session']).toBeLessThan(1_300)
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['PROTOCOL_ERROR', 'PROTOCOL_ERROR'])
  })

  it('a packet that comes slowly but in time is processed', async () => {
    const client = await bench.session('d')
    for (const byte of client.encode({
      cmd: 'publish',
      topic: 'v2/t',
      payload: '{"a":1}',
      qos: 1,
      messageId: 1,
      dup: false,
      retain: false,
    })) {
      client.send(Buffer.from([byte]))
      await sleep(2)
    }
    await client.next('puback')
    expect(bench.sink.points).toHaveLength(1)
  })

  it('[SC-63] hundreds of sockets that announce a huge packet are closed, memory stays, others are served', async () => {
    const client = await bench.session('d')
    const flood = await Promise.all(Array.from({ length: 300 }, () => bench.open()))
    const memory = process.memoryUsage()
    for (const one of flood) one.send('10 ff ff ff 7f')
    const start = performance.now()
    for (let index = 0; index < 20; index++) await client.ping()
    expect(performance.now() - start).toBeLessThan(1_000)
    await Promise.all(flood.map((one) => one.closedWithin(6_000)))
    const now = process.memoryUsage()
    expect(now.external - memory.external).toBeLessThan(20 << 20)
    await until(() => bench.endpoint.depths.connections === 1)
    expect(bench.endpoint.depths).toEqual({ connections: 1, unauthenticated: 0, waiting: 0, delayedRefusals: 0, waitingRequests: 0 })
  })
})

const telemetry = { cmd: 'publish' as const, dup: false, retain: false }
/** The grammar that is mutated: every packet a client may send, and some only a server sends. */
const seeds: Packet[] = [
  { ...telemetry, topic: 'v1/devices/me/telemetry', payload: '{"a":1,"b":"x","c":[1,{"d":null}]}', qos: 1, messageId: 1 },
  { ...telemetry, topic: 'v2/t', payload: '{"ts":1763000000000,"values":{"a":1.5,"b":true}}', qos: 2, messageId: 2 },
  { ...telemetry, topic: 'v2/a/j', payload: '{"fw":"1.2.3"}', qos: 0 },
  {
    ...telemetry,
    topic: 'v2/t',
    payload: '{}',
    qos: 1,
    messageId: 3,
    properties: {
      messageExpiryInterval: 5,
      contentType: 'application/json',
      userProperties: { a: ['1', '2'] },
      correlationData: Buffer.from('x'),
    },
  },
  {
    cmd: 'subscribe',
    messageId: 4,
    subscriptions: [
      { topic: 'v1/devices/me/attributes', qos: 1 },
      { topic: 'v1/devices/me/rpc/request/+', qos: 0 },
    ],
  },
  { cmd: 'unsubscribe', messageId: 5, unsubscriptions: ['v1/devices/me/attributes'] },
  { cmd: 'pubrel', messageId: 2, reasonCode: 0 },
  { cmd: 'puback', messageId: 9, reasonCode: 0 },
  { cmd: 'pingreq' },
  { cmd: 'disconnect', reasonCode: 0, properties: { reasonString: 'bye', userProperties: { why: 'not' } } },
  { cmd: 'auth', reasonCode: 0x18, properties: { authenticationMethod: 'x' } },
  { cmd: 'connack', returnCode: 0, reasonCode: 0, sessionPresent: false },
]

/** The first seeds don't end a session by themselves. */
const harmless = 9
/** 10⁶ and more in a long run. */
const fuzzCount = Number(process.env['MQTT_FUZZ_COUNT'] ?? 100_000)
const fuzzSeed = Number(process.env['MQTT_FUZZ_SEED'] ?? 20_251_121)

describe('fuzz', () => {
  it(
    `[M-44] ${fuzzCount} mutated packets (seed ${fuzzSeed}) leave the process alive, without exception, memory bounded`,
    { timeout: 60_000 + fuzzCount },
    async () => {
      await restart({ limits: { connectRate: 1_000_000, deviceConnects: 1_000_000, refusals: 1_000_000, lingerMs: 0, tickMs: 5 } })
      const exceptions: unknown[] = []
      const onException = (err: unknown) => exceptions.push(err)
      process.on('uncaughtException', onException)
      const pick = createPick(fuzzSeed)
      const encoded = [4, 5].map((protocolVersion) => ({
        protocolVersion,
        packets: seeds.filter((seed) => protocolVersion === 5 || seed.cmd !== 'auth').map((seed) => generate(seed, { protocolVersion })),
        connect: generate({
          cmd: 'connect',
          protocolId: 'MQTT',
          protocolVersion: protocolVersion as 4 | 5,
          clean: true,
          clientId: 'fuzz',
          keepalive: 60,
          username: 'token-fuzz',
        }),
      }))
      bench.addDevice('fuzz')
      const guard = await bench.session('guard')
      const seen = { taken: 0, rejected: 0, refused: 0, opened: 0 }
      const forgetAll = () => {
        seen.taken += bench.sink.taken.splice(0).length
        seen.rejected += bench.rejects.splice(0).length
        seen.refused += bench.refused.splice(0).length
        seen.opened += bench.events.splice(0).filter(([event]) => event === 'opened').length
        bench.sink.points.length = bench.sink.attributes.length = 0
      }
      let sent = 0
      let before = 0
      while (sent < fuzzCount) {
        // A few packets per socket, as most mistakes close it.
        const { packets, connect } = encoded[pick(2)]!
        const batch: Buffer[] = [pick(4) === 0 ? mutatePacket(connect, pick) : connect]
        for (let index = pick(12); index >= 0; index--) {
          batch.push(mutatePacket(packets[pick(pick(10) === 0 ? packets.length : harmless)]!, pick))
        }
        sent += batch.length
        const client = await bench.open()
        client.socket.removeAllListeners('data')
        client.socket.resume()
        client.send(Buffer.concat(batch))
        // The peer must have seen it before it goes; now and then it goes at once.
        if (pick(8) !== 0) await Promise.race([client.closed, sleep(1)])
        client.end()
        if (sent % 1_000 < 13) {
          await guard.ping()
          forgetAll()
          bench.forget()
        }
        // Not sooner: the heap takes its room from the system over the first tens of thousands, and keeps it.
        if (before === 0 && sent > fuzzCount / 2) before = await settledMemory()
      }
      const grown = (await settledMemory()) - before
      await guard.ping()
      await until(() => bench.endpoint.depths.connections === 1)
      process.off('uncaughtException', onException)
      expect(exceptions).toEqual([])
      // It got to where it hurts: past CONNECT, into the sink, and into each kind of refusal.
      forgetAll()
      expect(seen.opened).toBeGreaterThan(fuzzCount / 20)
      expect(seen.taken).toBeGreaterThan(fuzzCount / 20)
      expect(seen.rejected).toBeGreaterThan(fuzzCount / 20)
      expect(seen.refused).toBeGreaterThan(fuzzCount / 1_000)
      expect(bench.errors).toEqual([])
      expect(grown).toBeLessThan(50 << 20)
    },
  )
})

/** Resident memory without what is only waiting to be collected, of the clients as well. */
async function settledMemory(): Promise<number> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let round = 0; round < 3; round++) {
    await sleep(50)
    collect()
  }
  return process.memoryUsage().rss
}
