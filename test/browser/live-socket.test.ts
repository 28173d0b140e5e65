// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LiveSocket } from '../../core/dashboard/src/live/socket.ts'
import type { LiveStatus } from '../../core/dashboard/src/live/socket.ts'
import { SocketServer } from './socket-server.ts'

/** The dashboard's one socket against a server that says what the test wants. */
describe('the live socket', () => {
  let server: SocketServer
  let port = 0
  let socket: LiveSocket
  let frames: Record<string, unknown>[] = []
  let statuses: LiveStatus[] = []
  let ended = 0

  beforeEach(async () => {
    frames = []
    statuses = []
    ended = 0
    port = await listen(0)
    socket = new LiveSocket({
      address: async () => new URL(`ws://127.0.0.1:${port}/`),
      status: (status) => statuses.push(status),
      sessionEnded: () => ended++,
      event: () => undefined,
    })
  })
  afterEach(async () => {
    socket.stop()
    await server.stop()
  })

  function listen(on: number): Promise<number> {
    server = new SocketServer((text, reply) => {
      const frame = JSON.parse(text) as Record<string, unknown>
      frames.push(frame)
      if (frame['op'] === 'sub') reply(JSON.stringify({ op: 'ok', id: frame['id'] }))
    })
    return server.start(on)
  }

  const subscribed = () => frames.filter((frame) => frame['op'] === 'sub')

  it('shares equal subscriptions, and ends one with its last listener [D-38]', async () => {
    socket.start()
    const got: unknown[][] = [[], []]
    const first = socket.subscribe('devices', { ids: ['a'] }, { items: (items) => got[0]!.push(...items) })
    const second = socket.subscribe('devices', { ids: ['a'] }, { items: (items) => got[1]!.push(...items) })
    await expect.poll(() => subscribed().length).toBe(1)
    server.send(JSON.stringify({ op: 'data', id: subscribed()[0]!['id'], seq: 0, items: [{ id: 'a' }] }))
    await expect.poll(() => got).toEqual([[{ id: 'a' }], [{ id: 'a' }]])
    first()
    second()
    await expect.poll(() => frames.filter((frame) => frame['op'] === 'unsub').length).toBe(1)
  })

  it('comes back after a loss, subscribes again and asks for what was missed [D-39]', async () => {
    socket.start()
    const resyncs: boolean[] = []
    socket.subscribe('overview', {}, { items: () => {}, resync: (isFirst) => resyncs.push(isFirst) })
    await expect.poll(() => resyncs).toEqual([true])
    await server.stop()
    await expect.poll(() => statuses.at(-1)).toBe('connecting')
    await listen(port)
    await expect.poll(() => statuses.at(-1), { timeout: 5000 }).toBe('open')
    await expect.poll(() => [subscribed().length, resyncs]).toEqual([2, [true, false]])
  })

  it('says that sockets do not get through after three failures, and goes on trying', async () => {
    await server.stop()
    socket.start()
    await expect.poll(() => statuses.includes('polling'), { timeout: 10_000 }).toBe(true)
    await listen(port)
    await expect.poll(() => statuses.at(-1), { timeout: 15_000 }).toBe('open')
  })

  it('tells when the session is over, and when the server dropped something', async () => {
    socket.start()
    const resyncs: boolean[] = []
    socket.subscribe('system', {}, { items: () => {}, resync: (isFirst) => resyncs.push(isFirst) })
    await expect.poll(() => resyncs).toEqual([true])
    server.send(JSON.stringify({ op: 'resync', id: subscribed()[0]!['id'] }))
    server.send('not a frame')
    server.send(JSON.stringify({ op: 'err', id: subscribed()[0]!['id'], code: 'NOT_FOUND' }))
    await expect.poll(() => resyncs).toEqual([true, false, false])
    server.end(4401)
    await expect.poll(() => ended).toBe(1)
  })

  it('lets a hidden tab rest, and catches up when it is seen again', async () => {
    socket.start()
    const resyncs: boolean[] = []
    socket.subscribe('overview', {}, { items: () => {}, resync: (isFirst) => resyncs.push(isFirst) })
    await expect.poll(() => resyncs).toEqual([true])
    socket.suspend(true)
    await expect.poll(() => frames.filter((frame) => frame['op'] === 'unsub').length).toBe(1)
    socket.suspend(false)
    await expect.poll(() => [subscribed().length, resyncs]).toEqual([2, [true, false]])
  })

  it('lets a page fetch that joins a stream begun for others', async () => {
    socket.start()
    const resyncs: string[] = []
    socket.subscribe('deviceLog', { id: 'a' }, { items: () => {}, resync: (isFirst) => resyncs.push(`one ${isFirst}`) })
    await expect.poll(() => resyncs).toEqual(['one true'])
    socket.subscribe('deviceLog', { id: 'a' }, { items: () => {}, resync: (isFirst) => resyncs.push(`two ${isFirst}`) })
    expect(resyncs).toEqual(['one true', 'two false'])
    expect(subscribed()).toHaveLength(1)
  })
})
