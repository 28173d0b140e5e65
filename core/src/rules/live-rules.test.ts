// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Stored } from '../ingest/pipeline.ts'
import { createLog } from '../log.ts'
import type { CompiledRule } from './compile-rule.ts'
import { LiveRules } from './live-rules.ts'
import type { Judged } from './live-rules.ts'
import type { DeviceScene } from './moment.ts'
import { compile, emptyScene } from './testing.ts'

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

function startRules() {
  const clock = new HeldClock()
  const told: (Omit<Judged, 'state' | 'at' | 'transitions'> & { kind: string; at: number })[] = []
  const failing: string[] = []
  const scenes = new Map<string, DeviceScene>()
  const rules = new LiveRules({
    clock,
    log: createLog('silent'),
    sceneOf: (deviceId) => {
      const scene = emptyScene()
      scenes.set(deviceId, scene)
      return scene
    },
    onJudged: ({ ruleId, deviceId, transitions }) => {
      for (const one of transitions) {
        const at = one.kind === 'raised' ? one.confirmedTs : one.kind === 'cleared' ? one.clearedTs : one.ts
        told.push({ ruleId, deviceId, kind: one.kind, at })
      }
    },
    onFailing: (ruleId) => failing.push(ruleId),
  })
  running.push(rules)
  return { clock, told, failing, rules, scenes }
}

function message(deviceId: string, ts: number, value: number, receivedAt = ts): Stored {
  const device = { id: deviceId, tenantId: 't', rules: defaultPayloadRules } as Stored['device']
  return { device, kind: 'telemetry', transport: 'mqtt', points: [{ key: 't', ts, kind: 'double', value }], receivedAt, rejectCount: 0 }
}

const judged = (rules: LiveRules) => expect.poll(() => rules.depth, { timeout: 10_000 }).toBe(0)
const hot = { left: { key: 't' }, op: 'gt', right: 5 }
const rule = (id: string, logic: unknown, includes: (deviceId: string) => boolean = () => true) => ({
  id,
  compiled: compile(logic),
  includes,
})
const plain = { levels: [{ severity: 'major', when: hot }] }
const dwelling = { levels: [{ severity: 'major', when: hot, forMs: 60_000 }] }

describe('rules in force', () => {
  it('judge what was committed, each device for itself, and only where they are for', async () => {
    const { rules, told } = startRules()
    rules.addRule(
      rule('r', plain, (deviceId) => deviceId !== 'c'),
      ['a', 'b', 'c'],
    )
    for (const deviceId of ['a', 'b', 'c']) rules.take(message(deviceId, start, deviceId === 'b' ? 1 : 9))
    expect(told).toEqual([])
    await judged(rules)
    expect(told).toEqual([{ ruleId: 'r', deviceId: 'a', kind: 'raised', at: start }])
  })

  it('confirm a dwell at its exact end, when nothing came for a while', async () => {
    const { rules, told, clock } = startRules()
    rules.addRule(rule('r', dwelling), ['a'])
    rules.take(message('a', start, 9))
    await judged(rules)
    clock.goTo(start + 59_999)
    expect(told).toEqual([])
    clock.goTo(start + 60_000)
    expect(told).toEqual([{ ruleId: 'r', deviceId: 'a', kind: 'raised', at: start + 60_000 }])
    expect(rules.timerCount).toBe(0)
  })

  it('wait with timers while a device sends what it had kept', async () => {
    const { rules, told, clock } = startRules()
    rules.addRule(rule('r', dwelling), ['a'])
    // Long ago by its own clock, and just received.
    rules.take(message('a', start - 600_000, 9, start))
    await judged(rules)
    clock.goTo(start + 4000)
    expect(told).toEqual([])
    rules.take(message('a', start - 570_000, 1, start + 4000))
    await judged(rules)
    clock.goTo(start + 3_600_000)
    expect(told).toEqual([])
  })

  it('notice silence by the clock of the server, after the time to begin with', async () => {
    const { rules, told, clock } = startRules()
    rules.addRule(rule('r', { levels: [{ severity: 'major', when: { noData: { forMs: 600_000 } } }] }), ['a'])
    rules.take(message('a', start + 1000, 1))
    await judged(rules)
    clock.goTo(start + 601_000)
    expect(told).toEqual([{ ruleId: 'r', deviceId: 'a', kind: 'raised', at: start + 601_000 }])
  })

  it('take in devices that come later, and let go of those they are no longer for', async () => {
    const { rules, told } = startRules()
    const members = new Set<string>()
    rules.addRule(
      rule('r', plain, (deviceId) => members.has(deviceId)),
      [],
    )
    rules.take(message('a', start, 9))
    await judged(rules)
    members.add('a')
    expect(rules.join('a')).toEqual([])
    rules.take(message('a', start + 1, 9))
    await judged(rules)
    expect(told.map(({ kind }) => kind)).toEqual(['raised'])
    members.delete('a')
    expect(rules.join('a')).toMatchObject([{ ruleId: 'r', pair: { state: { open: { startTs: start + 1 } } } }])
  })

  it('give their pairs back when they are taken out of force', async () => {
    const { rules } = startRules()
    rules.addRule(rule('r', dwelling), ['a'])
    rules.take(message('a', start, 9))
    await judged(rules)
    expect(rules.timerCount).toBe(1)
    expect(rules.removeRule('r')).toMatchObject([{ deviceId: 'a' }])
    expect(rules.timerCount).toBe(0)
  })

  it('are judged at once when connectivity or an attribute they read changes', async () => {
    const { rules, told } = startRules()
    rules.addRule(rule('gone', { levels: [{ severity: 'major', when: { connection: 'offline' } }] }), ['a'])
    rules.takeConnection('a', { isOnline: false, since: start })
    expect(told).toEqual([{ ruleId: 'gone', deviceId: 'a', kind: 'raised', at: start }])
    const limits = { levels: [{ severity: 'minor', when: { left: { attr: 'max' }, op: 'gt', right: 5 } }] }
    const { rules: others, told: ofOthers, scenes } = startRules()
    others.addRule(rule('limit', limits), ['a'])
    const change = { tenantId: 't', deviceId: 'a', scope: 'server', values: [], deleted: ['max'] } as const
    others.takeAttributes(change, () => (scenes.get('a')!.readAttribute = () => 9))
    expect(ofOthers).toMatchObject([{ ruleId: 'limit', kind: 'raised' }])
  })

  it('that throw stop no other rule, and are reported once after ten times in a row', async () => {
    const { rules, told, failing } = startRules()
    const broken: CompiledRule = compile(plain)
    const when = {
      evaluate: () => {
        throw new Error('broken')
      },
      due: () => ({ event: Number.POSITIVE_INFINITY, server: Number.POSITIVE_INFINITY }),
    }
    rules.addRule({ id: 'broken', compiled: { ...broken, levels: [{ ...broken.levels[0]!, when }] }, includes: () => true }, ['a'])
    rules.addRule(rule('whole', plain), ['a'])
    for (let i = 0; i < 20; i++) rules.take(message('a', start + i, i % 2 === 0 ? 9 : 1))
    await judged(rules)
    expect(failing).toEqual(['broken'])
    expect(told.filter(({ ruleId }) => ruleId === 'whole')).toHaveLength(20)
  })
})
