// SPDX-License-Identifier: AGPL-3.0-only
import type { IPublishPacket } from 'mqtt'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import type { Device } from '../ingest/registry.ts'
import { receiveMaximum } from './broker.ts'
import type { Broker } from './broker.ts'
import type { Fed } from './feed.ts'
import { Intake } from './intake.ts'
import { MinuteRate } from './minute-rate.ts'

/** An intake whose messages are committed by hand. */
function setUp() {
  const waiting: ((fed: Fed) => void)[] = []
  const acknowledged: number[] = []
  let isFull = false
  let room: (() => void) | undefined
  const pipeline = {
    get isFull() {
      return isFull
    },
    onRoom(listener: () => void) {
      room = listener
      return () => (room = undefined)
    },
  }
  const intake = new Intake({
    clock: systemClock,
    pipeline,
    gateway: {} as Device,
    feed: (_message, _packet, settle) => waiting.push(settle),
    taken: () => {},
  })
  const broker = { acknowledge: (id: number) => acknowledged.push(id) } as unknown as Broker
  let wentOn = 0
  const take = (messageId: number, change: Partial<IPublishPacket> = {}) => {
    const packet = { cmd: 'publish', qos: 1, dup: false, retain: false, topic: 't', payload: Buffer.from('{}'), messageId, ...change }
    intake.take(packet as IPublishPacket, () => wentOn++)
  }
  const fill = (full: boolean) => {
    isFull = full
    if (!full) room?.()
  }
  return { intake, broker, waiting, acknowledged, take, fill, wentOn: () => wentOn }
}

const done: Fed = { points: 1, refused: 0 }

describe('messages between receipt and acknowledgement', () => {
  it('are acknowledged after their commit, in the order they came [MQTT-4.6.0-2]', () => {
    const { intake, broker, waiting, acknowledged, take } = setUp()
    intake.open(broker)
    for (const id of [1, 2, 3]) take(id)
    waiting[2]!(done)
    waiting[1]!(done)
    expect(acknowledged).toEqual([])
    expect(intake.size).toBe(3)
    waiting[0]!(done)
    expect(acknowledged).toEqual([1, 2, 3])
    expect(intake.oldestAt).toBeUndefined()
  })

  it('may come before the connection is known, and wait for it', () => {
    const { intake, broker, waiting, acknowledged, take } = setUp()
    take(1)
    waiting[0]!(done)
    expect(acknowledged).toEqual([])
    intake.open(broker)
    expect(acknowledged).toEqual([1])
  })

  it('are not acknowledged when they could not be committed', () => {
    const { intake, broker, waiting, acknowledged, take } = setUp()
    intake.open(broker)
    take(1)
    take(2)
    waiting[0]!('unavailable')
    waiting[1]!(done)
    expect(acknowledged).toEqual([])
  })

  it('are not read while there is no room, and go on where they stopped', () => {
    const { intake, broker, waiting, take, fill, wentOn } = setUp()
    intake.open(broker)
    fill(true)
    take(1)
    expect([waiting.length, wentOn()]).toEqual([0, 0])
    fill(false)
    expect([waiting.length, wentOn()]).toEqual([1, 1])
  })

  it('are bounded also where the broker knows no bound', () => {
    const { intake, broker, waiting, take, wentOn } = setUp()
    intake.open(broker)
    for (let id = 1; id <= receiveMaximum; id++) take(id)
    take(receiveMaximum + 1)
    expect([waiting.length, wentOn()]).toEqual([receiveMaximum, receiveMaximum])
    waiting[0]!(done)
    expect([waiting.length, wentOn()]).toEqual([receiveMaximum + 1, receiveMaximum + 1])
  })

  it('hold the next one back with QoS 2 until they are committed, and need no acknowledgement with QoS 0', () => {
    const { intake, broker, waiting, acknowledged, take, wentOn } = setUp()
    intake.open(broker)
    take(1, { qos: 2 })
    expect(wentOn()).toBe(0)
    waiting[0]!(done)
    expect(wentOn()).toBe(1)
    take(0, { qos: 0 })
    waiting[1]!(done)
    expect(acknowledged).toEqual([])
    expect(intake.size).toBe(0)
  })

  it('are waited for at a stop, and none is taken any more', async () => {
    const { intake, broker, waiting, acknowledged, take } = setUp()
    intake.open(broker)
    take(1)
    const drained = intake.drain(10_000)
    take(2)
    waiting[0]!(done)
    await drained
    expect(acknowledged).toEqual([1])
    expect(waiting).toHaveLength(1)
  })
})

describe('the rate of a minute', () => {
  it('forgets what is older, and survives long silence', () => {
    let now = 5000
    const rate = new MinuteRate({ monotonic: () => now })
    rate.add()
    now += 30_000
    rate.add()
    rate.add()
    expect(rate.perMinute).toBe(3)
    now += 30_000
    expect(rate.perMinute).toBe(2)
    now += 86_400_000
    expect(rate.perMinute).toBe(0)
    rate.add()
    expect(rate.perMinute).toBe(1)
  })
})
