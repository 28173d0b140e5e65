// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../clock.ts'
import type { Clock } from '../../clock.ts'
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

const reasonOf = (clientId: string) => bench.events.find(([event, id]) => event === 'closed' && id === clientId)?.[2]

describe('keep-alive', () => {
  it('[M-15] a session without a packet for 1.5 times its keep-alive is closed, MQTT 5 with 0x8D', async () => {
    const start = performance.now()
    const five = await bench.session('five', { protocolVersion: 5, keepalive: 1, clientId: 'five' })
    const four = await bench.session('four', { keepalive: 1, clientId: 'four' })
    expect((await five.next('disconnect', 2_500)).reasonCode).toBe(0x8d)
    expect(performance.now() - start).toBeGreaterThan(1_450)
    await Promise.all([five.closedWithin(1_000), four.closedWithin(1_000)])
    expect(performance.now() - start).toBeLessThan(2_400)
    expect(four.packets).toEqual([])
    expect([reasonOf('five'), reasonOf('four')]).toEqual(['keepalive', 'keepalive'])
  })

  it('[M-16] PINGREQ is answered and keeps the session', async () => {
    const client = await bench.session('d', { keepalive: 1 })
    for (let index = 0; index < 5; index++) {
      await sleep(500)
      await client.ping()
    }
    expect(client.isClosed).toBe(false)
  })

  it('[M-15] keep-alive 0 means the inactivity time of the product', async () => {
    bench.addDevice('d', { inactivityTimeoutMs: 300 })
    const client = await bench.session('d', { protocolVersion: 5, keepalive: 0 })
    expect((await client.next('disconnect', 1_000)).reasonCode).toBe(0x8d)
    bench.addDevice('e')
    const patient = await bench.session('e', { keepalive: 0 })
    await sleep(500)
    await patient.ping()
  })

  it('[M-15] [RE-51] keep-alive stands still while the server does not read, and starts anew', async () => {
    const client = await bench.session('d', { protocolVersion: 5, keepalive: 1 })
    bench.sink.isFull = true
    client.publish('v2/t', '{"a":1}')
    await sleep(2_000)
    expect(client.isClosed).toBe(false)
    bench.sink.giveRoom()
    await client.next('puback')
    await sleep(1_200)
    await client.ping()
    expect(client.isClosed).toBe(false)
  })

  it('without the pause of keep-alive the same session would be closed', async () => {
    await restart({ pausesKeepAlive: false })
    const client = await bench.session('d', { protocolVersion: 5, keepalive: 1 })
    bench.sink.isFull = true
    client.publish('v2/t', '{"a":1}')
    expect((await client.next('disconnect', 2_500)).reasonCode).toBe(0x8d)
  })

  it('[RE-51] after a pause of the whole process nobody is late', async () => {
    let offset = 0
    const clock: Clock = { ...systemClock, monotonic: () => systemClock.monotonic() + offset }
    await restart({ clock })
    const client = await bench.session('d', { keepalive: 2 })
    const connecting = await bench.open()
    await until(() => bench.endpoint.depths.unauthenticated === 1)
    offset = 30_000
    await sleep(200)
    await client.ping()
    expect(connecting.isClosed).toBe(false)
  })
})

describe('take-over and closing', () => {
  it('[M-17] a second CONNECT of the device closes the first with 0x8E, across protocols', async () => {
    const first = await bench.session('d', { protocolVersion: 5, clientId: 'one' })
    const second = await bench.session('d', { protocolVersion: 5, clientId: 'two' })
    expect((await first.next('disconnect', 1_000)).reasonCode).toBe(0x8e)
    await first.closedWithin(1_000)
    const third = await bench.session('d', { clientId: 'three' })
    expect((await second.next('disconnect', 1_000)).reasonCode).toBe(0x8e)
    const fourth = await bench.session('d', { clientId: 'four' })
    await third.closedWithin(1_000)
    expect(third.packets).toEqual([])
    await fourth.ping()
    fourth.publish('v2/t', '{"a":1}')
    await fourth.next('puback')
    expect(['one', 'two', 'three'].map(reasonOf)).toEqual(['takeover', 'takeover', 'takeover'])
    expect(bench.sessions.count).toBe(1)
  })

  it('[M-17] another device with the same client id disturbs nobody', async () => {
    const first = await bench.session('d', { clientId: 'same' })
    const second = await bench.session('e', { clientId: 'same' })
    await first.ping()
    await second.ping()
    expect(bench.sessions.count).toBe(2)
  })

  it('[M-18] two clients in a loop are reported with both addresses and client ids', async () => {
    for (let index = 0; index < 6; index++) await bench.session('d', { clientId: index % 2 === 0 ? 'a' : 'b' })
    expect(bench.loops).toMatchObject([
      { count: 5, older: { clientId: 'a', address: '127.0.0.1' }, newer: { clientId: 'b', address: '127.0.0.1' } },
    ])
  })

  it('[M-19] a session closed by the server gets 0x98', async () => {
    const five = await bench.session('five', { protocolVersion: 5, clientId: 'five' })
    const four = await bench.session('four', { clientId: 'four' })
    for (const device of bench.devices.values()) bench.sessions.close(device.id, 'admin')
    expect((await five.next('disconnect', 1_000)).reasonCode).toBe(0x98)
    await Promise.all([five.closedWithin(1_000), four.closedWithin(1_000)])
    expect([reasonOf('five'), reasonOf('four')]).toEqual(['admin', 'admin'])
    expect(bench.sessions.count).toBe(0)
  })

  it('[M-19] what is not yet acknowledged then gets no answer', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    bench.sink.settlesByItself = false
    client.publish('v2/t', '{"a":1}')
    await until(() => bench.sink.taken.length === 1)
    bench.sessions.close(bench.devices.get('token-d')!.id, 'admin')
    bench.sink.settleAll()
    await client.closedWithin(1_000)
    expect(client.packets.map((packet) => packet.cmd)).toEqual(['disconnect'])
  })

  it('[M-21] DISCONNECT of the client ends the session without answer', async () => {
    for (const protocolVersion of [4, 5] as const) {
      const clientId = `v${protocolVersion}`
      const client = await bench.session(clientId, { protocolVersion, clientId })
      client.put({ cmd: 'disconnect' })
      await client.closedWithin(1_000)
      expect(client.packets).toEqual([])
      expect(reasonOf(clientId)).toBe('client')
    }
  })

  it('a socket that just ends is a network problem', async () => {
    const client = await bench.session('d', { clientId: 'd' })
    client.end()
    await until(() => reasonOf('d') === 'network')
    const half = await bench.session('h', { clientId: 'h' })
    half.socket.end()
    await half.closedWithin(1_000)
    expect(reasonOf('h')).toBe('network')
  })

  it('[M-21] a session whose client takes nothing is closed when too much is unsent for too long', async () => {
    await restart({ limits: { unsentBytes: 64 * 1024, unsentMs: 300 } })
    const client = await bench.session('d', { protocolVersion: 5, clientId: 'd' })
    const other = await bench.session('other')
    client.socket.pause()
    const memory = process.memoryUsage().rss
    // An unknown filter asks for an answer of one byte per 7 sent; pings are answered with as much as they are.
    const pings = Buffer.alloc(1 << 20, Buffer.from([0xc0, 0]))
    const feed = () => {
      while (!client.socket.destroyed && client.socket.write(pings));
    }
    client.socket.on('drain', feed)
    feed()
    await until(() => reasonOf('d') === 'network', 10_000)
    await other.ping()
    expect(process.memoryUsage().rss - memory).toBeLessThan(100 << 20)
    client.end()
  })
})

describe('stop', () => {
  it('[M-20] answers what is pending, then says 0x8B to each session', async () => {
    const five = await bench.session('five', { protocolVersion: 5, clientId: 'five' })
    const idle = await bench.session('idle', { protocolVersion: 5, clientId: 'idle' })
    const four = await bench.session('four', { clientId: 'four' })
    const silent = await bench.open()
    bench.sink.settlesByItself = false
    five.publish('v2/t', '{"a":1}', { messageId: 7 })
    four.publish('v2/t', '{"a":1}', { messageId: 8 })
    await until(() => bench.sink.taken.length === 2)
    const stopped = bench.endpoint.stop(5_000)
    expect((await idle.next('disconnect')).reasonCode).toBe(0x8b)
    await silent.closedWithin(500)
    five.publish('v2/t', '{"late":1}', { messageId: 9 })
    await sleep(50)
    expect([five.isClosed, four.isClosed]).toEqual([false, false])
    bench.sink.settleAll()
    expect((await five.next('puback')).messageId).toBe(7)
    expect((await five.next('disconnect')).reasonCode).toBe(0x8b)
    expect((await four.next('puback')).messageId).toBe(8)
    await stopped
    expect(bench.sink.taken).toHaveLength(2)
    expect(['five', 'idle', 'four'].map(reasonOf)).toEqual(['shutdown', 'shutdown', 'shutdown'])
    await expect(bench.open()).rejects.toThrow('ECONNREFUSED')
  })

  it('[M-20] what is not settled by the deadline gets no answer', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    bench.sink.settlesByItself = false
    client.publish('v2/t', '{"a":1}')
    await until(() => bench.sink.taken.length === 1)
    const start = performance.now()
    await bench.endpoint.stop(300)
    expect(performance.now() - start).toBeLessThan(1_500)
    await client.closed
    expect(client.packets).toMatchObject([{ cmd: 'disconnect', reasonCode: 0x8b }])
  })

  it('an outcome "unavailable" is no answer either', async () => {
    const client = await bench.session('d', { protocolVersion: 5 })
    bench.sink.outcome = { status: 'unavailable' }
    client.publish('v2/t', '{"a":1}')
    await until(() => bench.sink.taken.length === 1)
    await bench.endpoint.stop(5_000)
    await client.closed
    expect(client.packets).toMatchObject([{ cmd: 'disconnect', reasonCode: 0x8b }])
  })

  it('start and stop are safe to call twice', async () => {
    const { port } = bench.endpoint
    await bench.endpoint.start()
    expect(bench.endpoint.port).toBe(port)
    await Promise.all([bench.endpoint.stop(), bench.endpoint.stop()])
    await bench.endpoint.stop()
  })

  it('a port that is taken fails the start', async () => {
    const { port } = bench.endpoint
    const other = await startEndpoint()
    await other.stop()
    await expect(startEndpoint({ port })).rejects.toThrow('EADDRINUSE')
  })
})
