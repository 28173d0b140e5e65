// SPDX-License-Identifier: AGPL-3.0-only
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { makeDevice } from './mqtt/testing.ts'
import type { Device } from './registry.ts'
import { Sessions } from './sessions.ts'
import type { Session, TakeoverLoop } from './sessions.ts'

function setUp(limit = 100) {
  let now = 1_000
  const clock: Clock = { now: () => now, monotonic: () => now, after: () => () => {} }
  const lines: string[] = []
  const sessions = new Sessions({ clock, log: pino({ level: 'error' }, { write: (line: string) => lines.push(line) }), limit })
  const events: string[] = []
  const loops: TakeoverLoop[] = []
  sessions.on('opened', (session) => events.push(`opened ${session.clientId}`))
  sessions.on('closed', (session, reason) => events.push(`closed ${session.clientId} ${reason}`))
  sessions.on('takeoverLoop', (event) => loops.push(event))
  const make = (device: Device, clientId: string): Session => ({
    device,
    protocol: 5,
    clientId,
    address: `address of ${clientId}`,
    tls: false,
    keepAliveS: 60,
    connectedAt: now,
    lastActivityAt: now,
    messagesIn: 0,
    pointsIn: 0,
    inFlight: 0,
    subscriptions: new Map(),
    close(reason) {
      events.push(`close ${clientId} ${reason}`)
      sessions.end(this, reason)
    },
    send: () => () => false,
    pushTopic: () => undefined,
  })
  return { sessions, events, loops, lines, make, advance: (ms: number) => (now += ms) }
}

describe('sessions', () => {
  it('[M-17] the newer session of a device stays, the older one is closed', () => {
    const { sessions, events, make } = setUp()
    const device = makeDevice()
    const newer = make(device, 'b')
    sessions.open(make(device, 'a'))
    sessions.open(newer)
    expect(events).toEqual(['opened a', 'close a takeover', 'closed a takeover', 'opened b'])
    expect(sessions.get(device.id)).toBe(newer)
    expect(sessions.count).toBe(1)
  })

  it('[M-17] another device with the same client id disturbs nobody', () => {
    const { sessions, events, make } = setUp()
    sessions.open(make(makeDevice(), 'same'))
    sessions.open(make(makeDevice(), 'same'))
    expect(events).toEqual(['opened same', 'opened same'])
    expect(sessions.count).toBe(2)
  })

  it('the end of a session that was taken over changes nothing', () => {
    const { sessions, events, make } = setUp()
    const device = makeDevice()
    const older = make(device, 'a')
    const newer = make(device, 'b')
    sessions.open(older)
    sessions.open(newer)
    sessions.end(older, 'network')
    expect(sessions.get(device.id)).toBe(newer)
    sessions.end(newer, 'client')
    sessions.end(newer, 'network')
    expect(events.slice(-1)).toEqual(['closed b client'])
    expect(sessions.count).toBe(0)
  })

  it('[M-18] five take-overs within 60 s are reported, at most once per 10 min', () => {
    const { sessions, loops, make, advance } = setUp()
    const device = makeDevice()
    const other = makeDevice()
    const reconnect = (index: number) => sessions.open(make(device, index % 2 === 0 ? 'even' : 'odd'))
    for (let index = 0; index < 5; index++) {
      reconnect(index)
      sessions.open(make(other, 'other'))
      advance(15_000)
    }
    expect(loops).toEqual([])
    for (let index = 0; index < 20; index++) {
      reconnect(index)
      advance(1_000)
    }
    expect(loops).toHaveLength(1)
    expect(loops[0]).toMatchObject({ device, count: 5 })
    expect(new Set([loops[0]?.older.clientId, loops[0]?.newer.clientId])).toEqual(new Set(['even', 'odd']))
    expect(loops[0]?.older.address).toBe(`address of ${loops[0]?.older.clientId}`)
    advance(600_000)
    for (let index = 0; index < 4; index++) reconnect(index)
    expect(loops).toHaveLength(1)
    reconnect(4)
    expect(loops).toHaveLength(2)
  })

  it('[M-19] closes the session of a device by request', () => {
    const { sessions, events, make } = setUp()
    const device = makeDevice()
    expect(sessions.close(device.id, 'admin')).toBe(false)
    sessions.open(make(device, 'a'))
    expect(sessions.close(device.id, 'admin')).toBe(true)
    expect(events).toEqual(['opened a', 'close a admin', 'closed a admin'])
  })

  it('knows when there is no room, which a take-over does not need', () => {
    const { sessions, make } = setUp(1)
    const device = makeDevice()
    expect(sessions.hasRoomFor(device.id)).toBe(true)
    sessions.open(make(device, 'a'))
    expect(sessions.hasRoomFor(device.id)).toBe(true)
    expect(sessions.hasRoomFor(makeDevice().id)).toBe(false)
  })

  it('a failing listener stops neither the others nor the session', () => {
    const { sessions, events, lines, make } = setUp()
    sessions.on('opened', () => {
      throw new Error('listener')
    })
    const leave = sessions.on('opened', () => events.push('second'))
    sessions.open(make(makeDevice(), 'a'))
    expect(events).toEqual(['opened a', 'second'])
    expect(lines).toHaveLength(1)
    leave()
    sessions.open(make(makeDevice(), 'b'))
    expect(events.filter((event) => event === 'second')).toHaveLength(1)
    expect([...sessions.all()]).toHaveLength(2)
  })
})
