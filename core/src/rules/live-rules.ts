// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { AttributeChange } from '../attributes/attributes.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Log } from '../log.ts'
import type { CompiledRule } from './compile-rule.ts'
import { DueQueue } from './due-queue.ts'
import { Lane } from './lane.ts'
import type { Pair } from './lane.ts'
import type { DeviceScene } from './moment.ts'
import type { PairState, Transition } from './pair.ts'
import { toRuleValue } from './values.ts'

/** A rule in force, and the devices it is for. */
export type LiveRule = { id: string; compiled: CompiledRule; includes: (deviceId: string) => boolean }

/** What came of judging a pair; told after the points were committed, in the order in which it came about. */
export type Judged = { ruleId: string; deviceId: string; transitions: readonly Transition[]; state: PairState; at: number }

export type LiveRulesOptions = {
  clock: Clock
  log: Log
  /** What is known of a device beside its telemetry. */
  sceneOf: (deviceId: string) => DeviceScene
  onJudged: (judged: Judged) => void
  /** A rule threw ten times in a row and rests from now on [4.1]. */
  onFailing: (ruleId: string, error: unknown) => void
}

type LiveLane = { lane: Lane; deviceId: string; lastReceivedAt: number; rules: Map<Pair, string> }

/** A device that sends what it had kept is not judged on half of it [4.3]. */
const graceMs = 5000
/** Messages are judged in turns of so long, so that acknowledgements are not held up. */
const turnMs = 5
const mostFailures = 10
/** Messages that are judged and not yet let go of. */
const maxJudgedHeld = 10_000
/** A timer waits no longer at once: longer ones overflow. */
const longestWaitMs = 3_600_000

/**
 * Runs rules over what was committed, beside the way of acknowledgements: messages are queued by a step after
 * the commit and judged in turns of their own. It knows no database; whoever starts it keeps the states.
 */
export class LiveRules {
  readonly #options: LiveRulesOptions
  readonly #rules = new Map<string, LiveRule>()
  readonly #failures = new Map<string, number>()
  readonly #lanes = new Map<string, LiveLane>()
  readonly #due = new DueQueue<LiveLane>()
  readonly #waiting: Stored[] = []
  #first = 0
  #turn: NodeJS.Immediate | undefined
  #cancelTimer: (() => void) | undefined
  #timerAt = Number.POSITIVE_INFINITY
  readonly #readyAt: number
  /** The rule that is being put in force at a device: its pair has no name yet. */
  #joining: string | undefined

  constructor(options: LiveRulesOptions) {
    this.#options = options
    this.#readyAt = options.clock.now()
  }

  /** Messages that wait to be judged. */
  get depth(): number {
    return this.#waiting.length - this.#first
  }

  /** Devices that wait for an instant. */
  get timerCount(): number {
    return this.#due.size
  }

  stop(): void {
    clearImmediate(this.#turn)
    this.#cancelTimer?.()
    this.#waiting.length = this.#first = 0
  }

  /** Puts a rule in force, for these devices that are there already; others come in with {@link join}. */
  addRule(rule: LiveRule, deviceIds: Iterable<string>): void {
    this.#rules.set(rule.id, rule)
    this.#failures.delete(rule.id)
    for (const deviceId of deviceIds) if (rule.includes(deviceId)) this.#put(this.#laneOf(deviceId), rule)
  }

  /** Takes a rule out of force; @returns the pairs it had, for whoever closes their alarms. */
  removeRule(ruleId: string): { deviceId: string; pair: Pair }[] {
    this.#rules.delete(ruleId)
    const removed: { deviceId: string; pair: Pair }[] = []
    for (const live of this.#lanes.values()) {
      for (const [pair, id] of live.rules) if (id === ruleId) removed.push({ deviceId: live.deviceId, pair: this.#take(live, pair) })
    }
    return removed
  }

  /** A device is new, or what rules are for it has changed; @returns the pairs it has left. */
  join(deviceId: string): { ruleId: string; pair: Pair }[] {
    const live = this.#laneOf(deviceId)
    const left: { ruleId: string; pair: Pair }[] = []
    for (const [pair, ruleId] of live.rules) {
      if (this.#rules.get(ruleId)?.includes(deviceId) !== true) left.push({ ruleId, pair: this.#take(live, pair) })
    }
    const present = new Set(live.rules.values())
    for (const rule of this.#rules.values()) if (!present.has(rule.id) && rule.includes(deviceId)) this.#put(live, rule)
    if (live.rules.size === 0) this.#forget(live)
    return left
  }

  /** A step after the commit: no more than a place in a queue, and nothing at all without a rule. */
  take(stored: Stored): void {
    if (this.#rules.size === 0 || stored.kind !== 'telemetry' || stored.points.length === 0) return
    this.#waiting.push(stored)
    this.#turn ??= setImmediate(this.#work)
  }

  /** An attribute changed, and that is committed; `apply` is what makes the scene know it. */
  takeAttributes({ deviceId, scope, values, deleted }: AttributeChange, apply: () => void): void {
    const names = new Set([...values.map(({ key }) => key), ...deleted].map((key) => `${scope}/${key}`))
    this.#change(deviceId, ({ reads }) => !reads.attributes.isDisjointFrom(names), apply)
  }

  /** A device came or went. */
  takeConnection(deviceId: string, connection: { isOnline: boolean; since: number }): void {
    const isConcerned = ({ reads }: CompiledRule) => reads.hasTimers || reads.fields.has('device.online')
    this.#change(deviceId, isConcerned, (scene) => (scene.connection = connection))
  }

  #change(deviceId: string, isConcerned: (rule: CompiledRule) => boolean, apply: (scene: DeviceScene) => void): void {
    const live = this.#lanes.get(deviceId)
    if (!live) return
    live.lane.change(this.#options.clock.now(), isConcerned, () => apply(live.lane.device))
    this.#wait(live)
  }

  readonly #work = (): void => {
    this.#turn = undefined
    const { clock } = this.#options
    const until = clock.monotonic() + turnMs
    do {
      const stored = this.#waiting[this.#first++]
      if (!stored) break
      this.#judge(stored)
    } while (clock.monotonic() < until)
    if (this.#first >= this.#waiting.length) {
      this.#waiting.length = this.#first = 0
      return
    }
    // What was judged goes before the queue is empty, which it may never be.
    if (this.#first > maxJudgedHeld) {
      this.#waiting.splice(0, this.#first)
      this.#first = 0
    }
    this.#turn = setImmediate(this.#work)
  }

  #judge({ device, points, receivedAt }: Stored): void {
    const live = this.#lanes.get(device.id)
    if (!live) return
    live.lastReceivedAt = Math.max(live.lastReceivedAt, receivedAt)
    live.lane.apply(points.map((point) => ({ key: point.key, ts: point.ts, value: toRuleValue(point), receivedAt })))
    this.#wait(live)
  }

  #laneOf(deviceId: string): LiveLane {
    const known = this.#lanes.get(deviceId)
    if (known) return known
    const rules = new Map<Pair, string>()
    const lane = new Lane(this.#options.sceneOf(deviceId), (pair, transitions, at) => this.#tell(live, pair, transitions, at), {
      onFailed: (pair, error) => this.#fail(live, pair, error),
      readyAt: this.#readyAt,
    })
    const live: LiveLane = { lane, deviceId, lastReceivedAt: Number.NEGATIVE_INFINITY, rules }
    this.#lanes.set(deviceId, live)
    return live
  }

  #put(live: LiveLane, rule: LiveRule): void {
    this.#joining = rule.id
    const pair = live.lane.add(rule.compiled, this.#options.clock.now())
    live.rules.set(pair, rule.id)
    this.#joining = undefined
    this.#wait(live)
  }

  #take(live: LiveLane, pair: Pair): Pair {
    live.lane.remove(pair)
    live.rules.delete(pair)
    this.#wait(live)
    return pair
  }

  #forget(live: LiveLane): void {
    this.#due.set(live, Number.POSITIVE_INFINITY)
    this.#lanes.delete(live.deviceId)
  }

  #tell({ deviceId, rules }: LiveLane, pair: Pair, transitions: readonly Transition[], at: number): void {
    const ruleId = rules.get(pair) ?? this.#joining!
    this.#failures.delete(ruleId)
    if (transitions.length > 0) this.#options.onJudged({ ruleId, deviceId, transitions, state: pair.state, at })
  }

  #fail({ rules }: LiveLane, pair: Pair, error: unknown): void {
    const ruleId = rules.get(pair) ?? this.#joining!
    const count = (this.#failures.get(ruleId) ?? 0) + 1
    this.#failures.set(ruleId, count)
    if (count !== mostFailures) return
    this.#options.log.error({ err: error, ruleId }, 'a rule failed again and again and rests')
    this.#options.onFailing(ruleId, error)
  }

  /** Lets the device wait for its next instant: silence by the server's clock, everything else after the grace. */
  #wait(live: LiveLane): void {
    const { event, server } = live.lane.due
    this.#due.set(live, Math.min(server, Math.max(event, live.lastReceivedAt + graceMs)))
    this.#setTimer()
  }

  #setTimer(): void {
    const { clock } = this.#options
    const at = this.#due.nextAt
    if (at >= this.#timerAt || at === Number.POSITIVE_INFINITY) return
    this.#cancelTimer?.()
    this.#timerAt = at
    this.#cancelTimer = clock.after(Math.min(Math.max(at - clock.now(), 0), longestWaitMs), this.#runDue)
  }

  readonly #runDue = (): void => {
    this.#cancelTimer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
    const now = this.#options.clock.now()
    for (let live = this.#due.take(now); live; live = this.#due.take(now)) {
      const isSettled = now >= live.lastReceivedAt + graceMs
      live.lane.runTimers(isSettled ? now + 1 : Number.NEGATIVE_INFINITY, now + 1)
      this.#wait(live)
    }
    this.#setTimer()
  }
}
