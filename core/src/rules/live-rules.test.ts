// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Stored } from '../ingest/pipeline.ts'
import { createLog } from '../log.ts'
import type { CompiledRule } from './compile-rule.ts'
import { LiveRules } from './live-rules.ts'
import type { Judged } from './live-rules.ts'
import type { DeviceCard } from './live-scene.ts'
import { compile } from './testing.ts'

/** A clock that stands still until it is told to go on. */
class HeldClock implements Clock {
  #now = 1_000_000
  readonly #timers = new Set<{ at: number; callback: () => void }>()

  now = () => this.#now
  monotonic = () => this.#now

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, callback }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  goTo(now: number): void {
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= now).sort((one, other) => one.at - other.at)
      if (!next) break
      this.#timers.delete(next)
      this.#now = Math.max(this.#now, next.at)
      next.callback()
    }
    this.#now = now
  }
}

const start = 1_000_000
const running: LiveRules[] = []
afterEach(() => running.splice(0).forEach((rules) => rules.stop()))

function startRules(maxPoints?: number) {
  const clock = new HeldClock()
  const told: { rule: CompiledRule; deviceId: string; kind: string; at: number }[] = []
  const failing: CompiledRule[] = []
  const overflows: number[] = []
  const onJudged = ({ pair, scene, transitions }: Judged) => {
    for (const one of transitions) {
      const at = one.kind === 'raised' ? one.confirmedTs : one.kind === 'cleared' ? one.clearedTs : one.ts
      told.push({ rule: pair.rule, deviceId: scene.id, kind: one.kind, at })
    }
  }
  const onFailing = (rule: CompiledRule) => failing.push(rule)
  const options = { clock, log: createLog('silent'), onJudged, onFailing, onOverflow: () => overflows.push(rules.depth) }
  const rules: LiveRules = new LiveRules(options, maxPoints)
  rules.read(undefined)
  rules.switch(true)
  rules.release()
  running.push(rules)
  return { clock, told, failing, rules, overflows, sceneOf: (id: string) => rules.ensure(cardOf(id)) }
}

function cardOf(id: string): DeviceCard {
  const common = { tenantId: 't', tenantNo: 1, no: 1, name: id, label: null, product: 'p', productId: 'p', tags: [], createdAt: 0 }
  return { ...common, id, connection: undefined }
}

function message(deviceId: string, ts: number, value: number, receivedAt = ts): Stored {
  const device = { id: deviceId, tenantId: 't', rules: defaultPayloadRules } as Stored['device']
  return { device, kind: 'telemetry', transport: 'mqtt', points: [{ key: 't', ts, kind: 'double', value }], receivedAt, rejectCount: 0 }
}

const judged = (rules: LiveRules) => expect.poll(() => rules.depth, { timeout: 10_000 }).toBe(0)
const hot = { left: { key: 't' }, op: 'gt', right: 5 }
const plain = compile({ levels: [{ severity: 'major', when: hot }] })
const dwelling = compile({ levels: [{ severity: 'major', when: hot, forMs: 60_000 }] })

describe('rules in force', () => {
  it('judge what was committed, each device for itself, and only where they are for', async () => {
    const { rules, told, sceneOf } = startRules()
    for (const id of ['a', 'b']) rules.put(sceneOf(id), plain)
    for (const deviceId of ['a', 'b', 'c']) rules.enqueue(message(deviceId, start, deviceId === 'b' ? 1 : 9))
    expect(told).toEqual([])
    await judged(rules)
    expect(told).toEqual([{ rule: plain, deviceId: 'a', kind: 'raised', at: start }])
  })

  it('confirm a dwell at its exact end, when nothing came for a while', async () => {
    const { rules, told, clock, sceneOf } = startRules()
    rules.put(sceneOf('a'), dwelling)
    rules.enqueue(message('a', start, 9))
    await judged(rules)
    clock.goTo(start + 59_999)
    expect(told).toEqual([])
    clock.goTo(start + 60_000)
    expect(told).toEqual([{ rule: dwelling, deviceId: 'a', kind: 'raised', at: start + 60_000 }])
    expect(rules.timerCount).toBe(0)
  })

  it('wait with timers while a device sends what it had kept', async () => {
    const { rules, told, clock, sceneOf } = startRules()
    rules.put(sceneOf('a'), dwelling)
    // Long ago by its own clock, and just received.
    rules.enqueue(message('a', start - 600_000, 9, start))
    await judged(rules)
    clock.goTo(start + 4000)
    expect(told).toEqual([])
    rules.enqueue(message('a', start - 570_000, 1, start + 4000))
    await judged(rules)
    clock.goTo(start + 3_600_000)
    expect(told).toEqual([])
  })

  it('notice silence by the clock of the server, after the time to begin with', async () => {
    const { rules, told, clock, sceneOf } = startRules()
    const silent = compile({ levels: [{ severity: 'major', when: { noData: { forMs: 600_000 } } }] })
    rules.put(sceneOf('a'), silent)
    rules.enqueue(message('a', start + 1000, 1))
    await judged(rules)
    clock.goTo(start + 601_000)
    expect(told).toEqual([{ rule: silent, deviceId: 'a', kind: 'raised', at: start + 601_000 }])
  })

  it('remember nothing of what is as usual, and give back what they remember when they are taken out of force', async () => {
    const { rules, sceneOf } = startRules()
    const [usual, unusual] = [sceneOf('a'), sceneOf('b')]
    for (const scene of [usual, unusual]) rules.put(scene, dwelling)
    rules.enqueue(message('a', start, 1))
    rules.enqueue(message('b', start, 9))
    await judged(rules)
    expect(usual.lane.pairs).toEqual([])
    // Devices that are subject to the same rules share one list of them.
    expect(usual.lane.rules).toBe(unusual.lane.rules)
    expect(rules.timerCount).toBe(1)
    expect(rules.take(unusual, dwelling)).toMatchObject({ state: { levels: [{ since: start }] } })
    expect(rules.take(usual, dwelling)).toBe(undefined)
    expect([rules.timerCount, rules.scenes.size]).toEqual([0, 0])
  })

  it('are judged at once when connectivity or an attribute they read changes', () => {
    const { rules, told, sceneOf } = startRules()
    const gone = compile({ levels: [{ severity: 'major', when: { connection: 'offline' } }] })
    const limit = compile({ levels: [{ severity: 'minor', when: { left: { attr: 'max' }, op: 'gt', right: 5 } }] })
    for (const rule of [gone, limit]) rules.put(sceneOf('a'), rule)
    rules.takeConnection('a', { isOnline: false, since: start })
    expect(told).toEqual([{ rule: gone, deviceId: 'a', kind: 'raised', at: start }])
    const max = { key: 'max', kind: 'integer', value: 9, updatedAt: start } as const
    rules.takeAttributes({ tenantId: 't', deviceId: 'a', scope: 'server', values: [max], deleted: [] })
    expect(told.at(-1)).toMatchObject({ rule: limit, kind: 'raised' })
    rules.takeAttributes({ tenantId: 't', deviceId: 'a', scope: 'server', values: [], deleted: ['max'] })
    expect(told).toHaveLength(2)
  })

  it('that throw stop no other rule, and are reported once after ten times in a row', async () => {
    const { rules, told, failing, sceneOf } = startRules()
    const when = {
      evaluate: () => {
        throw new Error('broken')
      },
      due: () => ({ event: Number.POSITIVE_INFINITY, server: Number.POSITIVE_INFINITY }),
    }
    const broken: CompiledRule = { ...plain, levels: [{ ...plain.levels[0]!, when }] }
    for (const rule of [broken, plain]) rules.put(sceneOf('a'), rule)
    for (let i = 0; i < 20; i++) rules.enqueue(message('a', start + i, i % 2 === 0 ? 9 : 1))
    await judged(rules)
    expect(failing).toEqual([broken])
    expect(told.filter(({ rule }) => rule === plain)).toHaveLength(20)
  })

  it('let go of all that waits when it is too much, and say so once', async () => {
    const { rules, overflows, sceneOf } = startRules(10)
    rules.put(sceneOf('a'), plain)
    for (let i = 0; i < 30; i++) rules.enqueue(message('a', start + i, 1))
    expect(overflows).toEqual([0])
    expect(rules.depth).toBe(0)
    rules.switch(true)
    rules.enqueue(message('a', start + 40, 1))
    expect(rules.depth).toBe(1)
    await judged(rules)
  })

  it('judge nothing while they are held', async () => {
    const { rules, told, clock, sceneOf } = startRules()
    rules.put(sceneOf('a'), dwelling)
    rules.hold()
    rules.enqueue(message('a', start, 9))
    clock.goTo(start + 70_000)
    expect([rules.depth, told]).toEqual([1, []])
    rules.release()
    await judged(rules)
    clock.goTo(start + 75_000)
    expect(told).toMatchObject([{ kind: 'raised', at: start + 60_000 }])
  })
})
