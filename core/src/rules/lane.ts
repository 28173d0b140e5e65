// SPDX-License-Identifier: AGPL-3.0-only
import type { CompiledRule } from './compile-rule.ts'
import { instantOf } from './device-values.ts'
import type { DeviceValues, RulePoint } from './device-values.ts'
import { never, neverDue } from './moment.ts'
import type { DeviceScene, Due, Moment } from './moment.ts'
import { dueOfPair, evaluatePair, isDefault, newPairState } from './pair.ts'
import type { PairState, Transition } from './pair.ts'
import { isSame } from './values.ts'

/** One rule at one device, as far as there is something to remember of it. */
export type Pair = {
  readonly rule: CompiledRule
  state: PairState
  /** The last instant it was judged at. */
  at: number
  due: Due
  activeSince: number
  /** How its state was stored, for whoever does that; such a pair is not let go of. */
  saved?: string | undefined
}

/** Told whenever a pair was judged; `transitions` may be empty. */
export type OnJudged<S> = (pair: Pair, transitions: readonly Transition[], at: number, device: S, applied: ReadonlySet<string>) => void

/** Told when a rule threw: its pair rests until the next point. Without a listener the error goes on. */
export type OnFailed = (pair: Pair, error: unknown) => void

export type LaneOptions = {
  onFailed?: OnFailed
  readyAt?: number
  /** Lets go of pairs that have nothing to remember and wait for nothing: most of them, most of the time [5.1]. */
  forgets?: boolean
}

const nothing: ReadonlySet<string> = new Set()
const none: readonly never[] = []

/**
 * A device with the rules it is subject to: takes points and instants, judges, and tells of transitions. What
 * comes out depends on the points and their order alone, not on how they were delivered [4.3].
 */
export class Lane<S extends DeviceScene = DeviceScene> {
  readonly device: S
  /** Points that were older than the newest of their key [4.2]. */
  lateCount = 0
  evaluationCount = 0
  /** The list may be shared with other devices: it is replaced, never changed. */
  #rules: readonly CompiledRule[] = none
  #pairs: readonly Pair[] = none
  readonly #onJudged: OnJudged<S>
  readonly #options: LaneOptions
  #serverNow = Number.NEGATIVE_INFINITY

  /** @param options may be shared with other devices */
  constructor(device: S, onJudged: OnJudged<S>, options: LaneOptions = {}) {
    this.device = device
    this.#onJudged = onJudged
    this.#options = options
  }

  get rules(): readonly CompiledRule[] {
    return this.#rules
  }

  /** Those there is something to remember of. */
  get pairs(): readonly Pair[] {
    return this.#pairs
  }

  /** Puts the device under a rule and judges it with the values of now. */
  add(rule: CompiledRule, now: number): Pair {
    this.hold(rule)
    const pair = this.#hold({ rule, state: newPairState(rule), at: now, activeSince: now })
    this.#judge(pair, Math.max(now, clockOf(pair, this.device.values)), nothing, now)
    return pair
  }

  /** Puts the device under a rule without judging it: what is known now was judged before. */
  hold(rule: CompiledRule, rules?: readonly CompiledRule[]): void {
    if (this.#rules.includes(rule)) return
    for (const [key, windowMs] of rule.reads.keys) if (windowMs > 0) this.device.values.hold(key, windowMs)
    this.#rules = rules ?? [...this.#rules, rule]
  }

  /** Goes on with a pair as it was, when the same values are known again: it was judged with them already. */
  restore(saved: Omit<Pair, 'due'>): Pair {
    this.hold(saved.rule)
    const pair = this.#hold(saved)
    pair.due = dueOfPair(pair.rule, pair.state, this.#momentOf(pair, pair.at, nothing, pair.at))
    return pair
  }

  #hold(saved: Omit<Pair, 'due'>): Pair {
    const pair: Pair = { ...saved, due: neverDue }
    this.#pairs = [...this.#pairs, pair]
    return pair
  }

  /** Takes a rule away; @returns what was remembered of it. */
  remove(rule: CompiledRule, rules?: readonly CompiledRule[]): Pair | undefined {
    this.#rules = rules ?? this.#rules.filter((one) => one !== rule)
    const pair = this.#pairs.find((one) => one.rule === rule)
    if (pair) this.#let(pair)
    return pair
  }

  /** Lets go of a pair that has nothing to remember, waits for nothing and is stored nowhere. */
  forget(pair: Pair): void {
    const { due, saved, state } = pair
    if (saved === undefined && due.event === never && due.server === never && isDefault(state)) this.#let(pair)
  }

  #let(pair: Pair): void {
    this.#pairs = this.#pairs.length === 1 ? none : this.#pairs.filter((one) => one !== pair)
  }

  /** The earliest instant any pair waits for. */
  get due(): Due {
    if (this.#pairs.length === 0) return neverDue
    return this.#pairs.reduce(
      (due, pair) => ({ event: Math.min(due.event, pair.due.event), server: Math.min(due.server, pair.due.server) }),
      neverDue,
    )
  }

  /** Applies the points of one message, the oldest first; those of one instant together. */
  apply(points: readonly RulePoint[]): void {
    const ordered = points.length === 1 ? points : points.toSorted((one, other) => instantOf(one) - instantOf(other))
    for (let from = 0; from < ordered.length;) {
      const ts = instantOf(ordered[from]!)
      let to = from + 1
      while (to < ordered.length && instantOf(ordered[to]!) === ts) to++
      this.#applyTogether(from === 0 && to === ordered.length ? ordered : ordered.slice(from, to), ts)
      from = to
    }
  }

  /** Judges every rule that reads what has changed beside telemetry: an attribute, a field, connectivity. */
  change(now: number, isConcerned: (rule: CompiledRule) => boolean, apply: () => void): void {
    const concerned = this.#rules.filter(isConcerned)
    for (const pair of this.#pairs) if (concerned.includes(pair.rule)) this.#runTimers(pair, now, now)
    apply()
    for (const rule of concerned) {
      const pair = this.#pairOf(rule, now)
      this.#judge(pair, Math.max(now, clockOf(pair, this.device.values)), nothing, now)
    }
  }

  /** Runs what is due strictly before these instants of the clock of events and of the server's. */
  runTimers(beforeEvent: number, beforeServer: number): void {
    for (const pair of this.#pairs) this.#runTimers(pair, beforeEvent, beforeServer)
  }

  /** How the device looks to a rule that is taken over at an instant. */
  momentOf(pair: Pick<Pair, 'rule' | 'state' | 'activeSince'>, now: number): Moment {
    return this.#momentOf(pair, Math.max(now, clockOf(pair, this.device.values)), nothing, now)
  }

  #pairOf(rule: CompiledRule, at: number): Pair {
    for (const pair of this.#pairs) if (pair.rule === rule) return pair
    return this.#hold({ rule, state: newPairState(rule), at, activeSince: at })
  }

  #applyTogether(points: readonly RulePoint[], ts: number): void {
    const { values } = this.device
    const applied = new Set<string>()
    for (const point of points) {
      const slot = values.slots.get(point.key)
      if (slot && ts < slot.ts) this.lateCount++
      else if (!slot || ts > slot.ts || !isSame(point.value, slot.value)) applied.add(point.key)
    }
    let receivedAt = Number.NEGATIVE_INFINITY
    for (const point of points) receivedAt = Math.max(receivedAt, point.receivedAt)
    const isTouched = ({ reads }: CompiledRule) => reads.isAnyKey || points.some(({ key }) => reads.keys.has(key))
    const isMoved = ({ reads }: CompiledRule) => reads.isAnyKey || hasAny(applied, reads.keys)
    for (const pair of this.#pairs) {
      if (isMoved(pair.rule)) this.#runTimers(pair, Math.max(ts, clockOf(pair, values)), receivedAt)
    }
    for (const point of points) values.apply(point)
    this.#serverNow = Math.max(this.#serverNow, receivedAt)
    for (const rule of this.#rules) {
      if (!isTouched(rule)) continue
      // What changes nothing of the values is a sign of life all the same.
      if (isMoved(rule)) this.#judge(this.#pairOf(rule, receivedAt), Math.max(ts, clockOf({ rule }, values)), applied, receivedAt)
      else if (rule.reads.hasTimers) {
        const pair = this.#pairOf(rule, receivedAt)
        this.#judge(pair, pair.at, nothing, receivedAt)
      }
    }
  }

  #runTimers(pair: Pair, beforeEvent: number, beforeServer: number): void {
    for (;;) {
      const { event, server } = pair.due
      const isServerDue = server < beforeServer
      // Before the server judges a silence, all that was due before it has run: nothing was on its way any more.
      const isEventDue = event < beforeEvent || (isServerDue && event <= server)
      if (!isServerDue && !isEventDue) return
      if (isEventDue && event <= server) this.#judge(pair, event, nothing, Math.min(event, beforeServer))
      else if (isServerDue) this.#judge(pair, server, nothing, server)
      else this.#judge(pair, event, nothing, beforeServer)
    }
  }

  #judge(pair: Pair, at: number, applied: ReadonlySet<string>, serverNow: number): void {
    this.#serverNow = Math.max(this.#serverNow, serverNow)
    pair.at = at
    this.evaluationCount++
    const moment = this.#momentOf(pair, at, applied, serverNow)
    let transitions: readonly Transition[] = []
    try {
      transitions = evaluatePair(pair.rule, pair.state, moment)
      pair.due = dueOfPair(pair.rule, pair.state, moment)
    } catch (error) {
      const { onFailed } = this.#options
      if (!onFailed) throw error
      // One rule that throws stops no other of the device.
      pair.due = neverDue
      return onFailed(pair, error)
    }
    if (this.#options.forgets) this.forget(pair)
    this.#onJudged(pair, transitions, at, this.device, applied)
  }

  #momentOf(pair: Pick<Pair, 'rule' | 'state' | 'activeSince'>, at: number, applied: ReadonlySet<string>, serverNow: number): Moment {
    return {
      device: this.device,
      at,
      serverNow: Math.max(serverNow, Math.min(this.#serverNow, at)),
      clock: clockOf(pair, this.device.values),
      applied,
      activeSince: pair.activeSince,
      readyAt: this.#options.readyAt ?? Number.NEGATIVE_INFINITY,
      latches: pair.state.latches,
    }
  }
}

function hasAny(applied: ReadonlySet<string>, keys: ReadonlyMap<string, unknown>): boolean {
  for (const key of applied) if (keys.has(key)) return true
  return false
}

/**
 * The largest instant of the points a pair has seen: that of the newest value of what it reads. It needs no
 * memory of its own.
 */
export function clockOf({ rule: { reads } }: Pick<Pair, 'rule'>, { slots }: DeviceValues): number {
  let clock = Number.NEGATIVE_INFINITY
  if (reads.isAnyKey) for (const { ts } of slots.values()) clock = Math.max(clock, ts)
  else for (const key of reads.keys.keys()) clock = Math.max(clock, slots.get(key)?.ts ?? clock)
  return clock
}
