// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startEndpoint } from './testing.ts'
import type { Bench, RawClient } from './testing.ts'

let bench: Bench
let requests: { text: string; answer: (text: string) => void; fail: (error: Error) => void }[]
let settings: { provisioningMs?: number } = {}
beforeEach(async () => {
  requests = []
  bench = await startEndpoint({
    limits: { provisioningSessions: 2, ...settings },
    provision: (payload) =>
      new Promise((resolve, reject) => {
        requests.push({ text: payload.toString(), answer: (text) => resolve(Buffer.from(text)), fail: reject })
      }),
  })
})
afterEach(() => bench.stop())

async function open(protocolVersion: 4 | 5 = 5): Promise<RawClient> {
  const client = await bench.open()
  client.connect({ username: 'provision', protocolVersion })
  await client.next('connack', 10_000)
  return client
}

async function waitFor(count: number): Promise<void> {
  await expect.poll(() => requests.length, { timeout: 10_000 }).toBe(count)
}

describe('the time of a provisioning session', () => {
  beforeAll(() => {
    settings = { provisioningMs: 1000 }
  })
  afterAll(() => {
    settings = {}
  })

  it('[P-5] ends when no request comes, and some time after the answer', async () => {
    const silent = await open()
    expect(await silent.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x98 })
    await silent.closedWithin(10_000)

    const client = await open()
    client.publish('/provision/request', 'a')
    await waitFor(1)
    requests[0]!.answer('{}')
    expect((await client.next('puback', 10_000)).reasonCode).toBe(0)
    expect(await client.next('publish', 10_000)).toMatchObject({ topic: '/provision/response', qos: 1 })
    expect(await client.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x98 })
    await client.closedWithin(10_000)
  })
})

describe('a provisioning session', () => {
  it('[P-5] makes at most 10 requests, one at a time', async () => {
    const client = await open()
    for (let i = 1; i <= 11; i++) client.publish('/provision/request', String(i), { messageId: i })
    for (let i = 1; i <= 10; i++) {
      await waitFor(i)
      expect(requests[i - 1]!.text).toBe(String(i))
      requests[i - 1]!.answer('{}')
      expect((await client.next('puback', 10_000)).messageId).toBe(i)
    }
    expect(await client.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x97 })
    await client.closedWithin(10_000)
    expect(requests).toHaveLength(10)
  })

  it('leaves a request unanswered that could not be served, and closes', async () => {
    const client = await open()
    client.publish('/provision/request', 'a')
    await waitFor(1)
    requests[0]!.fail(new Error('the database is away'))
    expect(await client.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x89 })
    await client.closedWithin(10_000)
    expect(client.packets.filter(({ cmd }) => cmd === 'puback')).toEqual([])
  })

  it('is no session of a device, and there are only so many', async () => {
    const first = await open()
    const second = await open(4)
    const third = await bench.open()
    third.connect({ username: 'provision', protocolVersion: 5 })
    expect((await third.next('connack', 10_000)).reasonCode).toBe(0x97)
    expect(bench.sessions.count).toBe(0)
    first.end()
    second.end()
    await expect.poll(() => bench.endpoint.depths.connections, { timeout: 10_000 }).toBe(0)
    await open()
  })

  it('goes on after a client that left while it was being served', async () => {
    const client = await open()
    client.publish('/provision/request', 'a')
    await waitFor(1)
    client.end()
    await expect.poll(() => bench.endpoint.depths.connections, { timeout: 10_000 }).toBe(0)
    requests[0]!.answer('{}')
    await (await open()).ping()
  })

  it('ends with the server, with the request that is being served', async () => {
    const client = await open()
    client.publish('/provision/request', 'a')
    await waitFor(1)
    const stopped = bench.endpoint.stop(10_000)
    requests[0]!.answer('{}')
    await client.next('publish', 10_000)
    expect(await client.next('disconnect', 10_000)).toMatchObject({ reasonCode: 0x8b })
    client.end()
    await stopped
  })
})
