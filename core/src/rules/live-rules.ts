// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { AttributeChange } from '../attributes/attributes.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Log } from '../log.ts'
import type { Point } from '../telemetry/points.ts'
import type { CompiledRule } from './compile-rule.ts'
import { DueQueue } from './due-queue.ts'
import type { LaneOptions, Pair } from './lane.ts'
import { LiveScene } from './live-scene.ts'
import type { DeviceCard } from './live-scene.ts'
import type { Transition } from './pair.ts'
import { toRuleValue } from './values.ts'

/** What came of judging a pair; told after the points were committed, in the order in which it came about. */
export type Judged = {
  scene: LiveScene
  pair: Pair
  transitions: readonly Transition[]
  at: number
  /** Keys whose points made it be judged. */
  applied?: ReadonlySet<string>
}

export type LiveRulesOptions = {
  clock: Clock
  log: Log
  /** Called for every judgement, also for those that change nothing. */
  onJudged: (judged: Judged) => void
  /** A rule threw ten times in a row and rests from now on [4.1]. */
  onFailing: (rule: CompiledRule, error: unknown) => void
  /** More waits than is held: all of it was let go of, and what is committed has to be read again. */
  onOverflow: () => void
}

/** A device that sends what it had kept is not judged on half of it [4.3]. */
const graceMs = 5000
/** Messages are judged in turns of so long, so that acknowledgements are not held up. */
const turnMs = 5
const mostFailures = 10
/** Messages that are judged and not yet let go of. */
const maxJudgedHeld = 10_000
/** Points that wait to be judged; the database holds them too, so that letting go of them loses nothing. */
const maxWaitingPoints = 200_000
/** A timer waits no longer at once: longer ones overflow. */
const longestWaitMs = 3_600_000

/**
 * Runs rules over what was committed, beside the way of acknowledgements: messages are queued by a step after
 * the commit and judged in turns of their own. It knows no database; whoever starts it keeps the states.
 */
export class LiveRules {
  readonly #options: LiveRulesOptions
  readonly #laneOptions: LaneOptions
  readonly #failures = new Map<CompiledRule, number>()
  readonly #scenes = new Map<string, LiveScene>()
  readonly #due = new DueQueue<LiveScene>()
  readonly #maxWaitingPoints: number
  /** Lists of rules that devices share: what comes of adding a rule to a list, and of taking it away. */
  readonly #added = new WeakMap<readonly CompiledRule[], Map<CompiledRule, readonly CompiledRule[]>>()
  readonly #removed = new WeakMap<readonly CompiledRule[], Map<CompiledRule, readonly CompiledRule[]>>()
  /** Keys that rules in force read; undefined while one reads all. */
  #keys: ReadonlySet<string> | undefined = new Set()
  #waiting: Stored[] = []
  #first = 0
  #waitingPoints = 0
  #isOn = false
  #isHeld = true
  #turn: NodeJS.Immediate | undefined
  #cancelTimer: (() => void) | undefined
  #timerAt = Number.POSITIVE_INFINITY
  /** Messages that were taken, and those of them that were judged. */
  takenCount = 0
  judgedCount = 0
  /** How often all that waited was let go of. */
  lossCount = 0
  overflowCount = 0
  evaluationCount = 0
  lateCount = 0

  constructor(options: LiveRulesOptions, maxPoints = maxWaitingPoints) {
    this.#options = options
    this.#maxWaitingPoints = maxPoints
    const onFailed = (pair: Pair, error: unknown) => this.#fail(pair, error)
    this.#laneOptions = { forgets: true, onFailed, readyAt: options.clock.now() }
  }

  /** Messages that wait to be judged. */
  get depth(): number {
    return this.#waiting.length - this.#first
  }

  /** Devices that wait for an instant. */
  get timerCount(): number {
    return this.#due.size
  }

  /** False while messages wait until {@link release}, or are not taken at all. */
  get isJudging(): boolean {
    return this.#isOn && !this.#isHeld
  }

  get scenes(): ReadonlyMap<string, LiveScene> {
    return this.#scenes
  }

  stop(): void {
    this.switch(false)
    this.#cancelTimer?.()
    this.#isHeld = true
  }

  /** On: what is committed from now on is taken, to be judged once nothing is {@link hold held}. */
  switch(isOn: boolean): void {
    this.#isOn = isOn
    if (isOn) return
    clearImmediate(this.#turn)
    this.#turn = undefined
    this.#letGo()
  }

  #letGo(): void {
    this.#waiting = []
    this.#first = this.#waitingPoints = 0
    this.judgedCount = this.takenCount
    this.lossCount++
  }

  /** Lets messages and timers wait until {@link release}. */
  hold(): void {
    this.#isHeld = true
    clearImmediate(this.#turn)
    this.#turn = undefined
  }

  release(): void {
    this.#isHeld = false
    if (this.depth > 0) this.#turn ??= setImmediate(this.#work)
    this.#runDue()
  }

  /** Which keys rules read; messages without any of them are passed over. */
  read(keys: ReadonlySet<string> | undefined): void {
    this.#keys = keys
  }

  ensure(card: DeviceCard): LiveScene {
    const known = this.#scenes.get(card.id)
    if (known) return known
    const scene = new LiveScene(card, this.#tell, this.#laneOptions)
    this.#scenes.set(card.id, scene)
    return scene
  }

  /** Puts a rule in force at a device; `isJudged` when that was so before a start and nothing has changed since. */
  put(scene: LiveScene, rule: CompiledRule, isJudged = false): void {
    const { lane } = scene
    const rules = remember(this.#added, lane.rules, rule, () => [...lane.rules, rule])
    lane.hold(rule, rules)
    if (!isJudged) lane.add(rule, this.#options.clock.now())
    this.#wait(scene)
  }

  restore(scene: LiveScene, saved: Omit<Pair, 'due'>): void {
    this.put(scene, saved.rule, true)
    scene.lane.restore(saved)
    this.#wait(scene)
  }

  /** Takes a rule out of force at a device; @returns what was remembered of it */
  take(scene: LiveScene, rule: CompiledRule): Pair | undefined {
    const { lane } = scene
    const rules = remember(this.#removed, lane.rules, rule, () => lane.rules.filter((one) => one !== rule))
    const pair = lane.remove(rule, rules)
    this.#wait(scene)
    if (lane.rules.length === 0) this.forget(scene)
    return pair
  }

  forget(scene: LiveScene): void {
    this.#due.set(scene, Number.POSITIVE_INFINITY)
    this.#scenes.delete(scene.id)
  }

  /** A step after the commit: no more than a place in a queue, and nothing at all without a rule. */
  enqueue(stored: Stored): void {
    if (!this.#isOn || stored.kind !== 'telemetry' || stored.points.length === 0) return
    this.takenCount++
    this.#waitingPoints += stored.points.length
    if (this.#waitingPoints > this.#maxWaitingPoints) {
      this.switch(false)
      this.overflowCount++
      return this.#options.onOverflow()
    }
    this.#waiting.push(stored)
    if (!this.#isHeld) this.#turn ??= setImmediate(this.#work)
  }

  /** An attribute changed, and that is committed. */
  takeAttributes({ deviceId, scope, values, deleted }: AttributeChange): void {
    const names = new Set([...values.map(({ key }) => key), ...deleted].map((key) => `${scope}/${key}`))
    this.change(
      deviceId,
      ({ reads }) => !reads.attributes.isDisjointFrom(names),
      (scene) => {
        for (const value of values) scene.setAttribute(`${scope}/${value.key}`, toRuleValue(value))
        for (const key of deleted) scene.setAttribute(`${scope}/${key}`, undefined)
      },
    )
  }

  /** A device came or went. */
  takeConnection(deviceId: string, connection: { isOnline: boolean; since: number }): void {
    const isConcerned = ({ reads }: CompiledRule) => reads.hasTimers || reads.fields.has('device.online')
    this.change(deviceId, isConcerned, (scene) => (scene.connection = connection))
  }

  /** Judges the rules that read what has changed of a device beside telemetry. */
  change(deviceId: string, isConcerned: (rule: CompiledRule) => boolean, apply: (scene: LiveScene) => void): void {
    const scene = this.#scenes.get(deviceId)
    if (!scene) return
    if (scene.lane.rules.some(isConcerned)) scene.lane.change(this.#options.clock.now(), isConcerned, () => apply(scene))
    else apply(scene)
    this.#wait(scene)
  }

  readonly #work = (): void => {
    this.#turn = undefined
    const { clock } = this.#options
    const until = clock.monotonic() + turnMs
    do {
      const stored = this.#waiting[this.#first]
      if (!stored) break
      this.#first++
      this.#waitingPoints -= stored.points.length
      this.judge(stored.device.id, stored.points, stored.receivedAt)
      this.judgedCount++
    } while (clock.monotonic() < until)
    if (this.#first >= this.#waiting.length) {
      this.#waiting = []
      this.#first = 0
      return
    }
    // What was judged goes before the queue is empty, which it may never be.
    if (this.#first > maxJudgedHeld) {
      this.#waiting.splice(0, this.#first)
      this.#first = 0
    }
    this.#turn = setImmediate(this.#work)
  }

  /** Judges one message. */
  judge(deviceId: string, points: readonly Point[], receivedAt: number): void {
    const scene = this.#scenes.get(deviceId)
    if (!scene) return
    scene.lastReceivedAt = Math.max(scene.lastReceivedAt, receivedAt)
    const keys = this.#keys
    const read = keys && points.some(({ key }) => !keys.has(key)) ? points.filter(({ key }) => keys.has(key)) : points
    if (read.length === 0) return
    const { lane } = scene
    const late = lane.lateCount
    lane.apply(read.map((point) => ({ key: point.key, ts: point.ts, value: toRuleValue(point), receivedAt })))
    this.lateCount += lane.lateCount - late
    this.#wait(scene)
  }

  readonly #tell = (pair: Pair, transitions: readonly Transition[], at: number, scene: LiveScene, applied: ReadonlySet<string>): void => {
    this.evaluationCount++
    if (this.#failures.size > 0) this.#failures.delete(pair.rule)
    this.#options.onJudged({ scene, pair, transitions, at, applied })
  }

  #fail({ rule }: Pair, error: unknown): void {
    const count = (this.#failures.get(rule) ?? 0) + 1
    this.#failures.set(rule, count)
    if (count === mostFailures) this.#options.onFailing(rule, error)
  }

  /** Lets the device wait for its next instant: silence by the server's clock, everything else after the grace. */
  #wait(scene: LiveScene): void {
    const { event, server } = scene.lane.due
    this.#due.set(scene, Math.min(server, Math.max(event, scene.lastReceivedAt + graceMs)))
    this.#setTimer()
  }

  #setTimer(): void {
    const { clock } = this.#options
    const at = this.#due.nextAt
    if (this.#isHeld || at >= this.#timerAt || at === Number.POSITIVE_INFINITY) return
    this.#cancelTimer?.()
    this.#timerAt = at
    this.#cancelTimer = clock.after(Math.min(Math.max(at - clock.now(), 0), longestWaitMs), this.#runDue)
  }

  readonly #runDue = (): void => {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
    if (this.#isHeld) return
    const { clock } = this.#options
    const now = clock.now()
    const until = clock.monotonic() + turnMs
    for (let scene = this.#due.take(now); scene; scene = this.#due.take(now)) {
      const isSettled = now >= scene.lastReceivedAt + graceMs
      scene.lane.runTimers(isSettled ? now + 1 : Number.NEGATIVE_INFINITY, now + 1)
      this.#wait(scene)
      // Many at once, such as after a start: acknowledgements go between.
      if (clock.monotonic() >= until) break
    }
    this.#setTimer()
  }
}

type Transits = WeakMap<readonly CompiledRule[], Map<CompiledRule, readonly CompiledRule[]>>

/** The same list for all devices that come from the same list the same way. */
function remember(from: Transits, list: readonly CompiledRule[], rule: CompiledRule, make: () => readonly CompiledRule[]) {
  const known = from.get(list) ?? new Map<CompiledRule, readonly CompiledRule[]>()
  from.set(list, known)
  const next = known.get(rule) ?? make()
  known.set(rule, next)
  return next
}
