// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { createLog } from '../log.ts'
import { HealthWindow } from './health.ts'
import { Supervisor } from './supervisor.ts'

/** Time that only moves when told, and what waits for it. */
function testClock() {
  let now = 1_000_000
  let waiting: { at: number; call: () => void }[] = []
  return {
    now: () => now,
    monotonic: () => now,
    after(ms: number, call: () => void) {
      const entry = { at: now + ms, call }
      waiting.push(entry)
      return () => (waiting = waiting.filter((one) => one !== entry))
    },
    async pass(ms: number) {
      now += ms
      const due = waiting.filter((one) => one.at <= now)
      waiting = waiting.filter((one) => one.at > now)
      for (const one of due) one.call()
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}

function newSupervisor() {
  const clock = testClock()
  return { clock, supervisor: new Supervisor({ log: createLog('silent'), clock }) }
}

const idle = { start: async () => {}, stop: async () => {} }
const stateOf = (supervisor: Supervisor, name: string) => supervisor.list().find((one) => one.name === name)!

describe('a health window', () => {
  it('says nothing of ten runs, and judges eleven [J7]', () => {
    const window = new HealthWindow()
    for (let i = 0; i < 10; i++) window.add(i, true)
    expect(window.read(10)).toMatchObject({ state: 'running', score: 100 })
    const mixed = new HealthWindow()
    for (let i = 0; i < 11; i++) mixed.add(i, i >= 3)
    expect(mixed.read(11)).toMatchObject({ state: 'warning', score: 72 })
  })

  it('forgets what is more than 50 runs or 15 minutes ago', () => {
    const window = new HealthWindow()
    for (let i = 0; i < 50; i++) window.add(0, false)
    expect(window.read(0).state).toBe('unhealthy')
    for (let i = 0; i < 50; i++) window.add(1, true)
    expect(window.read(1)).toMatchObject({ state: 'running', score: 100 })
    for (let i = 0; i < 50; i++) window.add(2, false)
    expect(window.read(2 + 15 * 60_000 + 1)).toMatchObject({ runs: 0, state: 'running' })
  })
})

describe('the supervisor', () => {
  it('starts in the order of needs, stops in the reverse, and names a circle and what is missing', async () => {
    const { supervisor } = newSupervisor()
    const order: string[] = []
    const worker = (name: string, ...dependsOn: string[]) => ({
      name,
      dependsOn,
      start: async () => void order.push(`+${name}`),
      stop: async () => void order.push(`-${name}`),
    })
    await supervisor.addAll([worker('c', 'b'), worker('b', 'a'), worker('a'), worker('x', 'y'), worker('y', 'x'), worker('z', 'nobody')])
    expect(order).toEqual(['+a', '+b', '+c'])
    expect(stateOf(supervisor, 'z').reason).toBe('needs nobody, which does not exist')
    expect(stateOf(supervisor, 'x').state).toBe('stopped')
    await supervisor.stop()
    await supervisor.stop()
    expect(order.slice(3)).toEqual(['-c', '-b', '-a'])
  })

  it('keeps a server from starting without what is critical', async () => {
    const { supervisor } = newSupervisor()
    await expect(supervisor.add({ ...idle, name: 'needed', critical: true, start: () => Promise.reject(new Error('no')) })).rejects.toThrow(
      'needed',
    )
    await supervisor.stop()
  })

  it('starts a worker that is not well again, with waits that double, then leaves it alone for five minutes', async () => {
    const { supervisor, clock } = newSupervisor()
    let starts = 0
    let broken = ''
    supervisor.onBroken((name) => (broken = name))
    await supervisor.add({
      ...idle,
      name: 'sick',
      start: async () => void starts++,
      health: () => Promise.reject(new Error('no heartbeat')),
    })
    for (let i = 1; i <= 4; i++) {
      await supervisor.check()
      expect(stateOf(supervisor, 'sick')).toMatchObject({ state: 'restarting', lastError: 'Error: no heartbeat' })
      await clock.pass(2 ** (i - 1) * 1000 * 0.79)
      expect(starts).toBe(i)
      await clock.pass(2 ** (i - 1) * 1000 * 0.42)
      expect(starts).toBe(i + 1)
    }
    await supervisor.check()
    expect(stateOf(supervisor, 'sick').state).toBe('broken')
    expect(broken).toBe('sick')
    await clock.pass(299_000)
    expect(starts).toBe(5)
    await clock.pass(2000)
    expect(starts).toBe(6)
    await supervisor.stop()
  })

  it('does not let one that fails touch another, and warns of what gives no sign', async () => {
    const { supervisor, clock } = newSupervisor()
    await supervisor.add({ ...idle, name: 'fails', start: () => Promise.reject(new Error('no')) })
    await supervisor.add({ ...idle, name: 'well', expectedEveryMs: 1000 })
    supervisor.report('well', true)
    await supervisor.check()
    expect(stateOf(supervisor, 'well').state).toBe('running')
    await clock.pass(3001)
    await supervisor.check()
    expect(stateOf(supervisor, 'well')).toMatchObject({ state: 'warning' })
    for (let i = 0; i < 11; i++) supervisor.report('well', i > 6)
    await supervisor.check()
    expect(stateOf(supervisor, 'well').state).toBe('restarting')
    await supervisor.stop()
  })

  it('knows whose error it is that nobody caught', async () => {
    const { supervisor } = newSupervisor()
    await supervisor.add({ ...idle, name: 'throws' })
    expect(supervisor.takeUncaught(new Error('of nobody'))).toBe(false)
    await supervisor.attribute('throws', async () => expect(supervisor.takeUncaught(new Error('of mine'))).toBe(true))
    await expect.poll(() => stateOf(supervisor, 'throws').state).toBe('restarting')
    await supervisor.stop()
  })
})
