// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, describe, expect, it } from 'vitest'
import { served } from '../requests.ts'
import type { DeviceRequest, RequestHandler, RequestHandlers, RequestKind } from '../requests.ts'
import type { Outcome } from '../uplink.ts'
import { startEndpoint } from './testing.ts'
import type { Bench } from './testing.ts'
import { routeTopic } from './topics.ts'

let bench: Bench
afterEach(() => bench?.stop())

const kinds: RequestKind[] = ['attributeRequest', 'rpcResponse', 'rpcRequest', 'claim', 'firmwareChunk', 'softwareChunk', 'gateway']
const serveAll = (handler: RequestHandler): RequestHandlers => Object.fromEntries(kinds.map((kind) => [kind, handler]))

describe('a topic', () => {
  it.each([
    ['v1/devices/me/attributes/request/0', { kind: 'attributeRequest', form: 'v1', id: 0 }],
    ['v2/a/req/2147483647', { kind: 'attributeRequest', form: 'v2', id: 2147483647 }],
    ['v2/a/req/j/5', { kind: 'attributeRequest', form: 'v2/j', id: 5 }],
    ['v1/devices/me/rpc/response/1', { kind: 'rpcResponse', form: 'v1', id: 1 }],
    ['v2/r/res/1', { kind: 'rpcResponse', form: 'v2', id: 1 }],
    ['v2/r/res/j/1', { kind: 'rpcResponse', form: 'v2/j', id: 1 }],
    ['v1/devices/me/rpc/request/1', { kind: 'rpcRequest', form: 'v1', id: 1 }],
    ['v2/r/req/1', { kind: 'rpcRequest', form: 'v2', id: 1 }],
    ['v2/r/req/j/1', { kind: 'rpcRequest', form: 'v2/j', id: 1 }],
    ['v1/devices/me/claim', { kind: 'claim', form: 'v1', id: 0 }],
    ['v2/fw/request/3/chunk/4', { kind: 'firmwareChunk', form: 'v2', id: 3, chunk: 4 }],
    ['v2/sw/request/3/chunk/0', { kind: 'softwareChunk', form: 'v2', id: 3, chunk: 0 }],
    ['v1/gateway/attributes/request', { kind: 'gateway', form: 'v1', id: 0 }],
  ])('%s is routed by its form, with its number', (topic, route) => {
    expect(routeTopic(topic)).toEqual(route)
  })

  it.each(['abc', '', '-1', '+1', '1.0', '01', '2147483648', '99999999999', '1e3', ' 1', '１'])(
    'with %j for its number is misshaped',
    (id) => {
      expect(routeTopic(`v1/devices/me/attributes/request/${id}`)).toBe('bad_id')
      expect(routeTopic(`v2/fw/request/1/chunk/${id}`)).toBe('bad_id')
    },
  )

  it.each(['v2/a/req/p/1', 'v2/r/req/j/1/2', 'v2/fw/request/1', 'v2/fw/request/1/chunk/2/3', 'v1/gateway/x', 'v1/devices/me', 'foo'])(
    '%s is unknown [T-2]',
    (topic) => {
      expect(routeTopic(topic)).toBeUndefined()
    },
  )
})

describe('a request', () => {
  it('reaches its handler with all it needs, and is answered by the outcome', async () => {
    const seen: DeviceRequest[] = []
    bench = await startEndpoint({ requests: serveAll((request) => (seen.push(request), served)) })
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish('v2/a/req/j/9', '{"sharedKeys":"a"}', { messageId: 4 })
    expect(await client.next('puback')).toMatchObject({ messageId: 4, reasonCode: 0 })
    client.publish('v2/fw/request/1/chunk/2', '', { qos: 2, messageId: 5 })
    expect(await client.next('pubrec')).toMatchObject({ messageId: 5, reasonCode: 0 })
    expect(seen).toMatchObject([
      { kind: 'attributeRequest', form: 'v2/j', id: 9, topic: 'v2/a/req/j/9', source: { transport: 'mqtt', packetId: 4 } },
      { kind: 'firmwareChunk', id: 1, chunk: 2 },
    ])
    expect(seen[0]?.payload.toString()).toBe('{"sharedKeys":"a"}')
    expect(seen[0]?.session).toBe(bench.sessions.get(seen[0]!.device.id))
  })

  it('waits for room while too many wait for their outcome, those of ended sessions included [M-29]', async () => {
    const waiting: { id: number; settle: (outcome: Outcome) => void }[] = []
    const handler: RequestHandler = ({ id }) => new Promise((settle) => waiting.push({ id, settle }))
    const ids = () => waiting.map(({ id }) => id)
    bench = await startEndpoint({ requests: serveAll(handler), limits: { requests: 2 } })
    const gone = await bench.session('gone')
    gone.publish('v2/r/req/1', '{}', { messageId: 1 })
    gone.publish('v2/r/req/2', '{}', { messageId: 2 })
    await expect.poll(ids).toEqual([1, 2])
    gone.end()
    const busy = await bench.session('busy')
    for (const id of [3, 4, 5]) busy.publish(`v2/r/req/${id}`, '{}', { messageId: id })
    const other = await bench.session('other')
    other.publish('v2/t', '{"a":1}', { messageId: 6 })
    expect((await other.next('puback')).messageId).toBe(6)
    other.publish('v2/r/req/7', '{}', { messageId: 7 })
    await expect.poll(() => bench.endpoint.depths.waitingRequests).toBe(2)
    expect(ids()).toEqual([1, 2])
    // One of each connection in turn.
    waiting[0]!.settle(served)
    await expect.poll(ids).toEqual([1, 2, 3])
    waiting[1]!.settle(served)
    await expect.poll(ids).toEqual([1, 2, 3, 7])
    waiting[3]!.settle(served)
    expect((await other.next('puback')).messageId).toBe(7)
    await expect.poll(ids).toEqual([1, 2, 3, 7, 4])
    for (const at of [2, 4]) waiting[at]!.settle(served)
    await expect.poll(ids).toEqual([1, 2, 3, 7, 4, 5])
    waiting[5]!.settle(served)
    for (const id of [3, 4, 5]) expect((await busy.next('puback')).messageId).toBe(id)
  })

  it('is answered in its turn, after the messages before it [M-23]', async () => {
    const { promise, resolve } = Promise.withResolvers<Outcome>()
    bench = await startEndpoint({ requests: serveAll(({ id }) => (id === 1 ? promise : served)) })
    const client = await bench.session('d')
    client.publish('v2/r/req/1', '{}', { messageId: 1 })
    client.publish('v2/r/req/2', '{}', { messageId: 2 })
    client.publish('v2/t', '{"a":1}', { messageId: 3 })
    await client.ping()
    resolve(served)
    expect((await client.next('puback')).messageId).toBe(1)
    expect((await client.next('puback')).messageId).toBe(2)
    expect((await client.next('puback')).messageId).toBe(3)
  })

  it('gets its PUBACK before what a handler sends that is done at once', async () => {
    bench = await startEndpoint({
      requests: serveAll(({ session, id }) => (session.send({ topic: `v2/a/res/${id}`, payload: Buffer.from('{}') }), served)),
    })
    const client = await bench.session('d')
    client.publish('v2/a/req/3', '{}', { messageId: 1 })
    await client.next('puback')
    expect(await client.next('publish')).toMatchObject({ topic: 'v2/a/res/3', qos: 1 })
  })

  it.each([
    { protocolVersion: 5 as const, code: 'SHAPE_INVALID' as const, answer: 0x99 },
    { protocolVersion: 5 as const, code: 'DEVICE_LIMIT' as const, answer: 0x97 },
    { protocolVersion: 5 as const, code: 'CHILD_FORBIDDEN' as const, answer: 0x87 },
    { protocolVersion: 5 as const, code: 'RPC_STALE' as const, answer: 0 },
    { protocolVersion: 4 as const, code: 'DEVICE_LIMIT' as const, answer: undefined },
    { protocolVersion: 4 as const, code: 'RPC_STALE' as const, answer: undefined },
  ])('that is refused with $code over level $protocolVersion is answered by the table and logged [M-42]', async (row) => {
    const { protocolVersion, code, answer } = row
    bench = await startEndpoint({ requests: serveAll(() => ({ status: 'refused', reject: { code, detail: 'why' } })) })
    const client = await bench.session('d', { protocolVersion })
    client.publish('v2/r/res/1', 'secret')
    expect((await client.next('puback')).reasonCode).toBe(answer)
    expect(bench.rejects).toMatchObject([{ reject: { code }, sample: 'secret', source: { topic: 'v2/r/res/1' } }])
  })

  it('of a kind nobody serves is an unknown topic, one with a bad number is misshaped', async () => {
    bench = await startEndpoint()
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish('v1/devices/me/claim', '{"secretKey":"s"}')
    expect((await client.next('puback')).reasonCode).toBe(0x90)
    client.publish('v2/a/req/x', '{}')
    expect((await client.next('puback')).reasonCode).toBe(0x99)
    expect(bench.rejects.map(({ reject, sample }) => [reject.code, sample])).toEqual([
      ['TOPIC_UNKNOWN', ''],
      ['SHAPE_INVALID', '{}'],
    ])
  })

  it('on a gateway topic is served for gateways only', async () => {
    const seen: string[] = []
    bench = await startEndpoint({ requests: serveAll(({ topic }) => (seen.push(topic), served)) })
    bench.addDevice('g', { isGateway: true })
    const gateway = await bench.session('g', { protocolVersion: 5 })
    gateway.publish('v1/gateway/connect', '{"device":"A"}')
    expect((await gateway.next('puback')).reasonCode).toBe(0)
    gateway.publish('v1/gateway/other', '{}')
    expect((await gateway.next('puback')).reasonCode).toBe(0x90)
    const device = await bench.session('d', { protocolVersion: 5 })
    device.publish('v1/gateway/connect', '{"device":"A"}')
    expect((await device.next('puback')).reasonCode).toBe(0x87)
    expect(seen).toEqual(['v1/gateway/connect'])
  })

  it('whose handler fails is not acknowledged, and the session goes on', async () => {
    bench = await startEndpoint({
      requests: serveAll(({ id }) => {
        if (id === 1) throw new Error('broken')
        return id === 2 ? Promise.reject(new Error('broken later')) : served
      }),
    })
    const client = await bench.session('d')
    for (const id of [1, 2, 3]) client.publish(`v2/a/req/${id}`, '{}', { messageId: id })
    expect((await client.next('puback')).messageId).toBe(3)
    expect(bench.errors.splice(0)).toHaveLength(2)
  })
})

describe('filters of a gateway', () => {
  it.each([
    { isGateway: true, granted: [0, 1, 1, 1] },
    { isGateway: false, granted: [0x8f, 0x8f, 0x8f, 0x8f] },
  ])('are granted when the device is one: $isGateway [M-33] [M-34]', async ({ isGateway, granted }) => {
    bench = await startEndpoint()
    bench.addDevice('g', { isGateway })
    const client = await bench.session('g', { protocolVersion: 5 })
    const filters = ['v1/gateway/attributes', 'v1/gateway/attributes/response', 'v1/gateway/rpc', 'v1/gateway/disconnect']
    client.put({
      cmd: 'subscribe',
      messageId: 1,
      subscriptions: filters.map((topic, qos) => ({ topic, qos: Math.min(qos, 2) as 0 | 1 | 2 })),
    })
    expect((await client.next('suback')).granted).toEqual(granted)
  })
})
