// SPDX-License-Identifier: AGPL-3.0-only
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { Admission, Refusals, TokenBucket } from './admission.ts'
import { defaultMqttLimits } from './limits.ts'
import type { MqttLimits } from './limits.ts'

describe('token bucket', () => {
  it('is full at the start and refilled continuously', () => {
    const bucket = new TokenBucket(3, 2, 0)
    expect([bucket.take(0), bucket.take(0), bucket.take(0), bucket.take(0)]).toEqual([true, true, true, false])
    expect([bucket.take(499), bucket.take(501), bucket.take(502)]).toEqual([false, true, false])
    expect(Array.from({ length: 4 }, () => bucket.take(60_000))).toEqual([true, true, true, false])
  })
})

/** An admission on a clock that the test moves; every socket stays silent until it is released. */
function bench(changes: Partial<MqttLimits> = {}) {
  const timers = new Set<{ at: number; callback: () => void }>()
  const state = { now: 0, wakeUps: 0 }
  const clock = {
    now: () => state.now,
    monotonic: () => state.now,
    after(ms: number, callback: () => void) {
      const timer = { at: state.now + ms, callback }
      timers.add(timer)
      return () => timers.delete(timer)
    },
  }
  const begun: { socket: Duplex; address: string; since: number }[] = []
  const limits = { ...defaultMqttLimits, ...changes }
  const admission = new Admission(clock, limits, (socket, address, since) => begun.push({ socket, address, since }))
  return {
    admission,
    begun,
    state,
    from: (address: string) => begun.filter((one) => one.address === address).length,
    add: (address: string, count = 1): Socket[] => {
      const sockets = Array.from({ length: count }, () => new Socket())
      for (const socket of sockets) admission.add(socket, address)
      return sockets
    },
    advance: (ms: number): void => {
      for (const end = state.now + ms; state.now < end; state.now++) {
        for (const timer of timers) {
          if (timer.at > state.now) continue
          timers.delete(timer)
          state.wakeUps++
          timer.callback()
        }
      }
    },
  }
}

const alive = (sockets: Socket[]) => sockets.filter((socket) => !socket.destroyed).length

describe('admission', () => {
  it('drops the newest of an address that has too many waiting, and lets others in at once', () => {
    const { admission, add, from } = bench()
    const flood = add('flood', 20_000)
    expect([alive(flood), admission.waiting, from('flood')]).toEqual([5_050, 5_000, 50])
    expect(flood.findIndex((socket) => socket.destroyed)).toBe(5_050)
    const honest = add('honest', 10)
    expect([alive(honest), from('honest')]).toEqual([10, 10])
  })

  it('a full queue makes room for an address that has less waiting than another', () => {
    const { admission, add, from, advance } = bench({ connectRate: 100 })
    for (let i = 0; i < 4; i++) add(`flood ${i}`, 5_050)
    expect([admission.waiting, admission.unauthenticated]).toEqual([20_000, 200])
    const honest = add('honest', 20)
    expect([alive(honest), admission.waiting]).toEqual([20, 20_000])
    advance(1_000)
    expect(from('honest')).toBe(20)
  })

  it('takes turns between addresses, so that a storm of one does not hold up another', () => {
    const { add, from, advance } = bench({ connectRate: 10, unauthenticatedPerAddress: 1_000 })
    add('storm', 500)
    add('single', 1)
    expect([from('storm'), from('single')]).toEqual([20, 0])
    advance(250)
    expect(from('single')).toBe(1)
  })

  it('does not look through the waiting while none of them can begin', () => {
    const { add, advance, state } = bench()
    add('flood', 2_000)
    advance(2_000)
    expect(state.wakeUps).toBeLessThan(30)
  })

  it('begins the next of an address when one of it is released, and those that waited too long are closed', () => {
    const { admission, add, from, advance } = bench()
    const sockets = add('a', 60)
    expect([from('a'), admission.waiting]).toEqual([50, 10])
    admission.release('a')
    advance(50)
    expect([from('a'), admission.waiting]).toEqual([51, 9])
    advance(5_500)
    expect([alive(sockets), admission.waiting]).toEqual([51, 0])
  })

  it('a storm of honest devices from one address gets through at the connect rate', () => {
    const { admission, begun, add, advance } = bench()
    const storm = add('balancer', 5_000)
    for (let ms = 0, released = 0; ms < 9_000; ms += 10) {
      for (; released < begun.length; released++) admission.release('balancer')
      advance(10)
    }
    expect([begun.length, alive(storm)]).toEqual([5_000, 5_000])
  })
})

describe('refusals', () => {
  it('[M-11] the 31st within 60 s is delayed, per address', () => {
    const refusals = new Refusals(defaultMqttLimits)
    const delayed = Array.from({ length: 32 }, (_, index) => refusals.add('a', index * 100))
    expect(delayed.lastIndexOf(false)).toBe(29)
    expect(refusals.add('b', 3_200)).toBe(false)
    expect(refusals.add('a', 60_000)).toBe(true)
    expect(refusals.add('a', 130_000)).toBe(false)
  })

  it('[RE-50] remembers a bounded number of addresses', () => {
    const refusals = new Refusals(defaultMqttLimits)
    for (let index = 0; index < 10_000; index++) refusals.add(`10.0.${index}`, index)
    expect(refusals.addresses).toBe(4_096)
  })
})
