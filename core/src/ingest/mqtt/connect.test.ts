// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { generate } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Packet } from 'mqtt-packet'
import { startEndpoint, until } from './testing.ts'
import type { Bench, RawClient } from './testing.ts'

let bench: Bench

beforeEach(async () => {
  bench = await startEndpoint()
})

afterEach(async () => {
  await bench.stop()
})

const codeOf = (packet: Extract<Packet, { cmd: 'connack' }>) => packet.reasonCode ?? packet.returnCode

/** A CONNECT written byte by byte: name, level, flags, keep-alive, then the rest. */
function rawConnect(name: string, level: number, rest: Buffer | string, flags = 0x02): Buffer {
  const tail = typeof rest === 'string' ? Buffer.from(rest.replaceAll(' ', ''), 'hex') : rest
  const body = Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([level, flags, 0, 60]), tail])
  return Buffer.concat([Buffer.from([0x10, body.length]), body])
}

async function tryConnect(packet: Parameters<RawClient['connect']>[0]): Promise<[number | undefined, Extract<Packet, { cmd: 'connack' }>]> {
  const client = await bench.open()
  client.connect(packet)
  const connack = await client.next('connack')
  expect(connack.sessionPresent).toBe(false)
  if (codeOf(connack) !== 0) await client.closedWithin(1_000)
  return [codeOf(connack), connack]
}

describe('CONNECT', () => {
  it.each([3, 4, 5] as const)('[M-1] protocol level %i is served', async (protocolVersion) => {
    const client = await bench.session('d', { protocolVersion })
    await client.ping()
    expect(bench.sessions.get(bench.devices.get('token-d')!.id)).toMatchObject({
      protocol: protocolVersion,
      clientId: 'raw',
      address: '127.0.0.1',
      tls: false,
    })
  })

  it.each<[string, number, string]>([
    ['MQTT', 2, '20020001'],
    ['MQTT', 3, '20020001'],
    ['MQIsdp', 4, '20020001'],
    ['MQTT', 6, '2003008400'],
    ['MQTT', 0x84, '2003008400'],
  ])('[M-1] %s level %i is refused', async (name, level, start) => {
    const client = await bench.open()
    const received: Buffer[] = []
    client.socket.on('data', (chunk: Buffer) => received.push(chunk))
    client.send(rawConnect(name, level, '0000'))
    await client.closedWithin(1_000)
    const answer = Buffer.concat(received).toString('hex')
    if (level < 5) expect(answer).toBe(start)
    else expect(answer).toMatch(/^20..0084/)
    expect(bench.refused.at(-1)).toMatchObject({ reason: 'protocol_level' })
  })

  it('[M-1] what is not MQTT at all is closed without answer', async () => {
    for (const bytes of [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), rawConnect('HTTP', 4, '0000'), Buffer.from('16030100', 'hex')]) {
      const client = await bench.open()
      client.send(bytes)
      await client.closedWithin(500)
      expect(client.socket.bytesRead).toBe(0)
    }
  })

  it('[M-2] a CONNECT that is not complete in time is closed without answer', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { connectMs: 200 } })
    const silent = await bench.open()
    const slow = await bench.open()
    slow.send('10 10')
    const [first, second] = await Promise.all([silent.closedWithin(1_000), slow.closedWithin(1_000)])
    expect(Math.min(first, second)).toBeGreaterThan(150)
    expect(silent.socket.bytesRead).toBe(0)
  })

  it('[M-2] [S-06] a second CONNECT closes the session, MQTT 5 with 0x82', async () => {
    const five = await bench.session('five', { protocolVersion: 5 })
    five.connect({ protocolVersion: 5, username: 'token-five' })
    expect((await five.next('disconnect')).reasonCode).toBe(0x82)
    await five.closedWithin(1_000)
    const four = await bench.session('four')
    four.connect({ username: 'token-four' })
    await four.closedWithin(1_000)
    expect(four.packets).toEqual([])
    expect(bench.rejects.map(({ reject }) => reject.code)).toEqual(['PROTOCOL_ERROR', 'PROTOCOL_ERROR'])
    expect(bench.events.filter(([event]) => event === 'closed').map(([, , reason]) => reason)).toEqual(['protocol', 'protocol'])
  })

  it('[S-06] a PUBLISH before CONNECT is closed without answer', async () => {
    const client = await bench.open()
    client.publish('v1/devices/me/telemetry', '{"a":1}')
    await client.closedWithin(500)
    expect(client.socket.bytesRead).toBe(0)
  })

  it('[M-3] a first packet that declares more than 4,096 bytes is closed at once', async () => {
    const client = await bench.open()
    client.send('10 81 20')
    await client.closedWithin(500)
    expect(client.socket.bytesRead).toBe(0)
    const largest = await bench.open()
    largest.send('10 80 20 00 04')
    await sleep(100)
    expect(largest.isClosed).toBe(false)
  })

  it('[M-4] MQTT 5 with an empty client id gets one assigned', async () => {
    bench.addDevice('d')
    const [code, connack] = await tryConnect({ protocolVersion: 5, clientId: '', username: 'token-d' })
    expect(code).toBe(0)
    expect(connack.properties?.assignedClientIdentifier).toMatch(/^auto-[0-9A-Za-z]{22}$/)
    expect([...bench.sessions.all()][0]?.clientId).toBe(connack.properties?.assignedClientIdentifier)
  })

  it('[M-4] 3.1.1 with an empty client id needs clean session 1', async () => {
    bench.addDevice('d')
    expect(await tryConnect({ clientId: '', clean: true, username: 'token-d' })).toMatchObject([0, {}])
    const client = await bench.open()
    client.connect()
    const bytes = rawConnect('MQTT', 4, Buffer.concat([Buffer.from([0, 0, 0, 7]), Buffer.from('token-d')]), 0x80)
    const other = await bench.open()
    const received: Buffer[] = []
    other.socket.on('data', (chunk: Buffer) => received.push(chunk))
    other.send(bytes)
    await other.closedWithin(1_000)
    expect(Buffer.concat(received).toString('hex')).toBe('20020002')
  })

  it('[M-4] client id and user name have at most 256 characters and are well-formed', async () => {
    bench.addDevice('d')
    expect((await tryConnect({ clientId: 'x'.repeat(256), username: 'token-d' }))[0]).toBe(0)
    expect((await tryConnect({ clientId: '温'.repeat(256), username: 'token-d' }))[0]).toBe(0)
    expect((await tryConnect({ clientId: 'x'.repeat(257), username: 'token-d' }))[0]).toBe(2)
    expect((await tryConnect({ protocolVersion: 5, clientId: 'x'.repeat(257), username: 'token-d' }))[0]).toBe(0x85)
    expect((await tryConnect({ protocolVersion: 5, username: 'x'.repeat(257) }))[0]).toBe(0x85)
    expect((await tryConnect({ clientId: 'a\0b', username: 'token-d' }))[0]).toBe(2)
    for (const name of ['c328', 'eda080', 'ff']) {
      const client = await bench.open()
      const received: Buffer[] = []
      client.socket.on('data', (chunk: Buffer) => received.push(chunk))
      client.send(rawConnect('MQTT', 4, `00 0${name.length / 2} ${name}`))
      await client.closedWithin(1_000)
      expect(Buffer.concat(received).toString('hex')).toBe('20020002')
    }
    expect((await tryConnect({ clientId: 'a\ufffdb', username: 'token-d' }))[0]).toBe(0)
  })

  it('[M-5] session-present is always 0 and a wish for expiry is answered with 0', async () => {
    bench.addDevice('d')
    const [, connack] = await tryConnect({
      protocolVersion: 5,
      clean: false,
      username: 'token-d',
      properties: { sessionExpiryInterval: 3600 },
    })
    expect(connack.properties?.sessionExpiryInterval).toBe(0)
    const [code, again] = await tryConnect({ protocolVersion: 5, clean: false, username: 'token-d' })
    expect(code).toBe(0)
    expect(again.properties).not.toHaveProperty('sessionExpiryInterval')
    expect((await tryConnect({ clean: false, username: 'token-d' }))[0]).toBe(0)
  })

  it('[M-6] a will is accepted and nothing comes of it', async () => {
    const watcher = await bench.session('watcher')
    const will = { topic: 'v1/devices/me/telemetry', payload: Buffer.from('{"gone":1}'), qos: 1 as const, retain: true }
    const client = await bench.session('d', { will })
    client.end()
    await bench.session('e', { protocolVersion: 5, will: { ...will, properties: { willDelayInterval: 0 } } }).then((one) => one.end())
    await sleep(50)
    await watcher.ping()
    expect(bench.sink.taken).toEqual([])
  })

  it('[M-6] enhanced authentication is refused', async () => {
    bench.addDevice('d')
    expect((await tryConnect({ protocolVersion: 5, username: 'token-d', properties: { authenticationMethod: 'SCRAM' } }))[0]).toBe(0x8c)
    const client = await bench.session('d', { protocolVersion: 5 })
    client.send('f0 00')
    expect((await client.next('disconnect')).reasonCode).toBe(0x82)
    const four = await bench.session('f')
    four.send('f0 00')
    await four.closedWithin(1_000)
  })

  it('properties that MQTT 5 forbids are refused', async () => {
    bench.addDevice('d')
    expect((await tryConnect({ protocolVersion: 5, username: 'token-d', properties: { receiveMaximum: 0 } }))[0]).toBe(0x82)
    expect((await tryConnect({ protocolVersion: 5, username: 'token-d', properties: { maximumPacketSize: 0 } }))[0]).toBe(0x82)
    expect((await tryConnect({ protocolVersion: 5, username: 'token-d', properties: { authenticationData: Buffer.from('x') } }))[0]).toBe(
      0x82,
    )
  })

  it('[M-7] packets behind CONNECT are processed after CONNACK in order', async () => {
    bench.addDevice('d')
    const client = await bench.open()
    client.connect({ username: 'token-d' })
    for (let messageId = 1; messageId <= 5; messageId++) client.publish('v2/t', `{"n":${messageId}}`, { messageId })
    client.put({ cmd: 'pingreq' })
    await client.next('connack')
    for (let messageId = 1; messageId <= 5; messageId++) await client.next('puback')
    expect(bench.sink.points.map((point) => point.value)).toEqual([1, 2, 3, 4, 5])
  })
})

describe('CONNACK', () => {
  it.each<[string, Parameters<RawClient['connect']>[0], number, number, string]>([
    ['a wrong token', { username: 'wrong' }, 0x86, 5, 'bad_credentials'],
    ['only an unknown client id', { clientId: 'unknown' }, 0x85, 2, 'unknown_client_id'],
    ['an empty user name counts as none', { clientId: 'unknown', username: '' }, 0x85, 2, 'unknown_client_id'],
    ['nothing', { clientId: '' }, 0x87, 5, 'nothing_given'],
    ['a disabled device', { username: 'token-off' }, 0x87, 5, 'disabled'],
  ])('[2.3] [M-13] %s', async (_, packet, v5, v3, reason) => {
    bench.addDevice('off', { isDisabled: true })
    expect((await tryConnect(packet))[0]).toBe(v3)
    const [code, connack] = await tryConnect({ ...packet, protocolVersion: 5 })
    expect(code).toBe(v5)
    expect(connack.properties?.reasonString).toMatch(/^[ -~]{10,}$/)
    expect(bench.refused.map((entry) => entry.reason)).toEqual([reason, reason])
  })

  it('[M-13] a refusal never shows the token', async () => {
    const [, connack] = await tryConnect({ protocolVersion: 5, username: 'pmsd_0123456789abcdef', clientId: 'c' })
    expect(JSON.stringify(connack)).not.toContain('pmsd_')
    expect(bench.refused).toMatchObject([{ address: '127.0.0.1', clientId: 'c', userNameLast4: 'cdef', reason: 'bad_credentials' }])
    await tryConnect({ username: 'short' })
    expect(bench.refused[1]?.userNameLast4).toBeUndefined()
  })

  it.each([
    ['starting', 0x88, 3],
    ['draining', 0x88, 3],
    ['overloaded', 0x89, 3],
    ['full', 0x97, 3],
  ] as const)('[2.3] the server is %s', async (state, v5, v3) => {
    bench.addDevice('d')
    bench.state.admission = state
    expect((await tryConnect({ username: 'token-d', protocolVersion: 5 }))[0]).toBe(v5)
    expect((await tryConnect({ username: 'token-d' }))[0]).toBe(v3)
    expect(bench.sessions.count).toBe(0)
    bench.state.admission = 'open'
    expect((await tryConnect({ username: 'token-d' }))[0]).toBe(0)
  })

  it('[2.3] the session limit refuses new devices and lets known ones take over', async () => {
    await bench.stop()
    bench = await startEndpoint({ maxSessions: 1 })
    await bench.session('d')
    bench.addDevice('e')
    expect((await tryConnect({ username: 'token-e', protocolVersion: 5 }))[0]).toBe(0x97)
    expect((await tryConnect({ username: 'token-e' }))[0]).toBe(3)
    expect((await tryConnect({ username: 'token-d' }))[0]).toBe(0)
  })

  it('[M-14] success tells what is available', async () => {
    bench.addDevice('d')
    const [, connack] = await tryConnect({ protocolVersion: 5, username: 'token-d' })
    expect(connack.properties).toEqual({
      receiveMaximum: 100,
      maximumPacketSize: 65_540,
      retainAvailable: false,
      sharedSubscriptionAvailable: false,
      subscriptionIdentifiersAvailable: false,
    })
  })

  it('[M-15] a keep-alive above 1,200 s is reduced', async () => {
    bench.addDevice('d')
    const [, connack] = await tryConnect({ protocolVersion: 5, username: 'token-d', keepalive: 1201 })
    expect(connack.properties?.serverKeepAlive).toBe(1200)
    expect([...bench.sessions.all()][0]?.keepAliveS).toBe(1200)
    const [, same] = await tryConnect({ protocolVersion: 5, username: 'token-d', keepalive: 1200 })
    expect(same.properties).not.toHaveProperty('serverKeepAlive')
    await tryConnect({ username: 'token-d', keepalive: 65_535 })
    expect([...bench.sessions.all()][0]?.keepAliveS).toBe(1200)
  })

  it('a device whose password is wrong finds that in its reject log', async () => {
    const device = bench.addDevice('off', { isDisabled: true })
    await tryConnect({ username: 'token-off', password: Buffer.from('secret') })
    expect(bench.rejects).toMatchObject([{ device, reject: { code: 'AUTH_FAILED' }, sample: '' }])
  })
})

describe('rates', () => {
  it('[M-11] refusals beyond 30 per address and minute wait, right credentials never do', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { refusals: 3, refusalDelayMs: 400, delayedRefusals: 2 } })
    bench.addDevice('d')
    for (let index = 0; index < 3; index++) await tryConnect({ username: 'wrong' })
    const start = performance.now()
    const refused = [tryConnect({ username: 'wrong' }), tryConnect({ username: 'wrong', protocolVersion: 5 })]
    await sleep(50)
    expect(bench.endpoint.depths.delayedRefusals).toBe(2)
    expect((await tryConnect({ username: 'token-d' }))[0]).toBe(0)
    expect(performance.now() - start).toBeLessThan(350)
    const surplus = await bench.open()
    surplus.connect({ username: 'wrong' })
    await surplus.closedWithin(300)
    expect(surplus.socket.bytesRead).toBe(0)
    expect((await Promise.all(refused)).map(([code]) => code)).toEqual([5, 0x86])
    expect(performance.now() - start).toBeGreaterThan(390)
    expect(bench.endpoint.depths.delayedRefusals).toBe(0)
    expect(bench.refused).toHaveLength(6)
  })

  it('[M-12] more CONNECTs of one device than its rate are refused', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { deviceConnects: 3, deviceConnectsS: 0.3 } })
    bench.addDevice('d')
    bench.addDevice('e')
    for (let index = 0; index < 3; index++) expect((await tryConnect({ username: 'token-d' }))[0]).toBe(0)
    expect((await tryConnect({ username: 'token-d', protocolVersion: 5 }))[0]).toBe(0x9f)
    expect((await tryConnect({ username: 'token-e' }))[0]).toBe(0)
    await sleep(150)
    expect((await tryConnect({ username: 'token-d' }))[0]).toBe(0)
  })

  it('new connections beyond the connect rate wait and are served', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { connectRate: 20 } })
    const names = Array.from({ length: 50 }, (_, index) => `d${index}`)
    const start = performance.now()
    const clients = await Promise.all(names.map((name) => bench.session(name)))
    // 40 in the burst, ten more at 20 per second.
    expect(performance.now() - start).toBeGreaterThan(350)
    expect(clients).toHaveLength(50)
    expect(bench.sessions.count).toBe(50)
  })

  it('what waits longer than the rate can serve is closed', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { connectRate: 1, waitingMs: 200 } })
    await bench.session('a')
    await bench.session('b')
    bench.addDevice('c')
    const late = await bench.open()
    late.connect({ username: 'token-c' })
    await late.closedWithin(800)
    expect(late.socket.bytesRead).toBe(0)
  })

  it('at most 50 unauthenticated sockets per address are read; a storm of honest clients gets through', async () => {
    await bench.stop()
    bench = await startEndpoint({ limits: { connectMs: 800 } })
    const silent = await Promise.all(Array.from({ length: 60 }, () => bench.open()))
    await until(() => bench.endpoint.depths.waiting === 10)
    expect(bench.endpoint.depths.unauthenticated).toBe(50)
    bench.addDevice('d')
    const honest = await bench.open()
    honest.connect({ username: 'token-d' })
    await honest.next('connack')
    // Those that had to wait get the rest of their time, not a turn of their own [M-2].
    const times = await Promise.all(silent.map((client) => client.closedWithin(2_000)))
    expect(Math.max(...times)).toBeLessThan(750)
    await until(() => bench.endpoint.depths.connections === 1)
    expect(bench.endpoint.depths).toMatchObject({ unauthenticated: 0, waiting: 0 })
    const storm = await Promise.all(Array.from({ length: 200 }, (_, index) => bench.session(`s${index}`)))
    expect(storm).toHaveLength(200)
  })

  it('a closed port and a wrong packet leave nothing behind', async () => {
    for (let index = 0; index < 20; index++) {
      const client = await bench.open()
      client.send(generate({ cmd: 'pingreq' }))
      client.end()
    }
    const nothing = { connections: 0, unauthenticated: 0, waiting: 0, delayedRefusals: 0, waitingRequests: 0 }
    await expect.poll(() => bench.endpoint.depths, { timeout: 10_000 }).toEqual(nothing)
  })
})
