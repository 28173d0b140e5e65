// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, describe, expect, it } from 'vitest'
import type { DownlinkProgress } from '../downlink.ts'
import { attributePushFilters, rpcRequestFilters } from './topics.ts'
import { startEndpoint, until } from './testing.ts'
import type { Bench, RawClient } from './testing.ts'

let bench: Bench
afterEach(() => bench.stop())

async function open(name: string, connect: Parameters<Bench['session']>[1] = {}) {
  const client = await bench.session(name, connect)
  const session = bench.sessions.get(bench.devices.get(`token-${name}`)!.id)!
  return { client, session }
}

async function subscribe(client: RawClient, ...subscriptions: { topic: string; qos: 0 | 1 | 2 }[]) {
  client.put({ cmd: 'subscribe', messageId: 7, subscriptions })
  return (await client.next('suback')).granted
}

const rpc = 'v1/devices/me/rpc/request/'

describe('a message to a device', () => {
  it('has the QoS of the subscription it belongs to, else 1 [M-38]', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d')
    await subscribe(client, { topic: `${rpc}+`, qos: 0 }, { topic: 'v1/devices/me/attributes', qos: 2 })
    session.send({ topic: `${rpc}12`, payload: Buffer.from('a') })
    session.send({ topic: 'v1/devices/me/attributes', payload: Buffer.from('b') })
    session.send({ topic: 'v2/fw/response/1/chunk/0', payload: Buffer.from('c') })
    expect(await client.next('publish')).toMatchObject({ topic: `${rpc}12`, qos: 0, payload: Buffer.from('a') })
    expect(await client.next('publish')).toMatchObject({ topic: 'v1/devices/me/attributes', qos: 1, messageId: 1 })
    expect(await client.next('publish')).toMatchObject({ topic: 'v2/fw/response/1/chunk/0', qos: 1, messageId: 2 })
  })

  it('tells its sender how far it got', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d', { protocolVersion: 5 })
    const progress: string[] = []
    const note = (name: string) => (step: DownlinkProgress) => progress.push(`${name} ${step}`)
    session.send({ topic: 'a', payload: Buffer.from('1'), qos: 0, done: note('zero') })
    session.send({ topic: 'b', payload: Buffer.from('1'), done: note('one') })
    session.send({ topic: 'c', payload: Buffer.from('1'), done: note('two') })
    expect(progress).toEqual([])
    await client.next('publish')
    client.put({ cmd: 'puback', messageId: (await client.next('publish')).messageId! })
    await until(() => progress.includes('one acknowledged'))
    client.end()
    await until(() => progress.includes('two closed'))
    session.send({ topic: 'd', payload: Buffer.from('1'), done: note('late') })
    await until(() => progress.includes('late closed'))
    expect(progress).toEqual(['zero written', 'one written', 'two written', 'one acknowledged', 'two closed', 'late closed'])
  })

  it.each([
    { name: 'the Receive Maximum of the client', connect: { protocolVersion: 5 as const, properties: { receiveMaximum: 3 } }, window: 3 },
    { name: '50', connect: {}, window: 50 },
  ])('waits while as many as $name are unacknowledged [M-25]', async ({ connect, window }) => {
    bench = await startEndpoint()
    const { client, session } = await open('d', connect)
    for (let no = 1; no <= 60; no++) session.send({ topic: 'a', payload: Buffer.from(String(no)) })
    const ids: number[] = []
    for (let no = 1; no <= window; no++) ids.push((await client.next('publish')).messageId!)
    await client.ping()
    expect(client.packets).toEqual([])
    expect(new Set(ids).size).toBe(window)
    for (let no = window + 1; no <= 60; no++) {
      client.put({ cmd: 'puback', messageId: ids.shift()! })
      const next = await client.next('publish')
      expect(String(next.payload)).toBe(String(no))
      ids.push(next.messageId!)
    }
  })

  it('is merged or dropped when 1,000 wait already [M-25]', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d')
    const progress: string[] = []
    const merge = (older: Buffer, newer: Buffer) => Buffer.concat([older, newer])
    for (let no = 1; no <= 1049; no++) session.send({ topic: 'a', payload: Buffer.from(`${no} `) })
    session.send({ topic: 'a', payload: Buffer.from('first'), key: 'k', merge })
    session.send({ topic: 'a', payload: Buffer.from('+second'), key: 'k', merge, done: (step) => progress.push(`merged ${step}`) })
    session.send({ topic: 'a', payload: Buffer.from('no'), done: (step) => progress.push(`other ${step}`) })
    await until(() => progress.length > 0)
    expect(progress).toEqual(['other dropped'])
    let last = ''
    for (let no = 1; no <= 1050; no++) {
      const publish = await client.next('publish')
      last = String(publish.payload)
      client.put({ cmd: 'puback', messageId: publish.messageId! })
    }
    expect(last).toBe('first+second')
    await until(() => progress.includes('merged acknowledged'))
    expect(progress).toEqual(['other dropped', 'merged written', 'merged acknowledged'])
  })

  it('waits within bounds while the client reads nothing, until its session is closed [M-21] [M-25]', { timeout: 30_000 }, async () => {
    bench = await startEndpoint({ limits: { unsentMs: 500 } })
    const { client, session } = await open('d', { protocolVersion: 5 })
    const counts: Record<string, number> = { written: 0, dropped: 0, closed: 0 }
    client.socket.pause()
    for (let no = 0; no < 400; no++) {
      session.send({ topic: 'a', payload: Buffer.alloc(60_000), qos: 0, done: (step) => (counts[step] = (counts[step] ?? 0) + 1) })
      // So that what the socket takes has been handed to it.
      await new Promise((resolve) => setImmediate(resolve))
    }
    const waiting = 400 - counts['written']! - counts['dropped']!
    expect(counts['dropped']).toBeGreaterThan(0)
    expect(waiting).toBeLessThanOrEqual(Math.ceil(4_194_304 / 60_000))
    await until(() => bench.events.some(([event, , reason]) => event === 'closed' && reason === 'network'), 20_000)
    await until(() => counts['closed'] === waiting, 10_000)
  })

  it('can be taken back until it is written', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d', { protocolVersion: 5, properties: { receiveMaximum: 1 } })
    const takeBackWritten = session.send({ topic: 'a', payload: Buffer.from('1') })
    const takeBack = session.send({ topic: 'a', payload: Buffer.from('2') })
    session.send({ topic: 'a', payload: Buffer.from('3') })
    const first = await client.next('publish')
    expect([takeBackWritten(), takeBack(), takeBack()]).toEqual([false, true, false])
    client.put({ cmd: 'puback', messageId: first.messageId! })
    expect(String((await client.next('publish')).payload)).toBe('3')
  })

  it('is not sent when it is larger than an MQTT 5 client takes [M-40]', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d', { protocolVersion: 5, properties: { maximumPacketSize: 100 } })
    const progress: DownlinkProgress[] = []
    // 100 bytes: 2 of the fixed header, 3 of the topic, 2 of the packet id, 1 of the properties.
    session.send({ topic: 'a', payload: Buffer.alloc(93), done: (step) => progress.push(step) })
    session.send({ topic: 'a', payload: Buffer.alloc(92) })
    expect((await client.next('publish')).payload).toHaveLength(92)
    await client.ping()
    expect(progress).toEqual(['too_large'])
    expect(bench.rejects.map(({ reject, source }) => [reject.code, source.topic])).toEqual([['DOWNLINK_TOO_LARGE', 'a']])
  })

  it('may be of any size where the client sets no limit', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d')
    for (const size of [0, 121, 122, 16_377, 16_378, 2_097_146, 2_097_147]) {
      session.send({ topic: 'a', payload: Buffer.alloc(size, 'x') })
      const publish = await client.next('publish', 10_000)
      expect(publish.payload).toHaveLength(size)
      client.put({ cmd: 'puback', messageId: publish.messageId! })
    }
  })

  it('goes out in the form subscribed last [M-39]', async () => {
    bench = await startEndpoint()
    const { client, session } = await open('d')
    expect(session.pushTopic(attributePushFilters)).toBeUndefined()
    await subscribe(client, { topic: 'v2/a', qos: 1 }, { topic: 'v1/devices/me/attributes', qos: 1 }, { topic: 'v2/r/req/+', qos: 1 })
    expect(session.pushTopic(attributePushFilters)).toBe('v1/devices/me/attributes')
    expect(session.pushTopic(rpcRequestFilters, 5)).toBe('v2/r/req/5')
    await subscribe(client, { topic: 'v2/a', qos: 0 })
    expect(session.pushTopic(attributePushFilters)).toBe('v2/a')
    client.put({ cmd: 'unsubscribe', messageId: 8, unsubscriptions: ['v2/a'] })
    await client.next('unsuback')
    expect(session.pushTopic(attributePushFilters)).toBe('v1/devices/me/attributes')
  })

  it('follows the SUBACK when it is sent as soon as the device subscribes', async () => {
    bench = await startEndpoint()
    const { client } = await open('d')
    bench.sessions.on('subscribed', (session, filters) => session.send({ topic: 'a', payload: Buffer.from(filters.join()) }))
    client.put({
      cmd: 'subscribe',
      messageId: 7,
      subscriptions: [
        { topic: `${rpc}+`, qos: 1 },
        { topic: '#', qos: 1 },
      ],
    })
    expect(await client.next('suback')).toMatchObject({ granted: [1, 128] })
    expect(String((await client.next('publish')).payload)).toBe(`${rpc}+`)
  })
})
