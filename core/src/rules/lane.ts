// SPDX-License-Identifier: AGPL-3.0-only
import type { CompiledRule } from './compile-rule.ts'
import { instantOf } from './device-values.ts'
import type { DeviceValues, RulePoint } from './device-values.ts'
import { neverDue } from './moment.ts'
import type { DeviceScene, Due, Moment } from './moment.ts'
import { dueOfPair, evaluatePair, newPairState } from './pair.ts'
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
}

/** Told whenever a pair was judged; `transitions` may be empty. */
export type OnJudged = (pair: Pair, transitions: readonly Transition[], at: number) => void

/** Told when a rule threw: its pair rests until the next point. Without a listener the error goes on. */
export type OnFailed = (pair: Pair, error: unknown) => void

const nothing: ReadonlySet<string> = new Set()

/**
 * A device with the rules it is subject to: takes points and instants, judges, and tells of transitions. What
 * comes out depends on the points and their order alone, not on how they were delivered [4.3].
 */
export class Lane {
  readonly device: DeviceScene
  /** Points that were older than the newest of their key [4.2]. */
  lateCount = 0
  evaluationCount = 0
  readonly #pairs: Pair[] = []
  readonly #onJudged: OnJudged
  readonly #onFailed: OnFailed | undefined
  readonly #readyAt: number
  #serverNow = Number.NEGATIVE_INFINITY

  constructor(device: DeviceScene, onJudged: OnJudged, options: { onFailed?: OnFailed; readyAt?: number } = {}) {
    this.device = device
    this.#onJudged = onJudged
    this.#onFailed = options.onFailed
    this.#readyAt = options.readyAt ?? Number.NEGATIVE_INFINITY
  }

  get pairs(): readonly Pair[] {
    return this.#pairs
  }

  /** Puts the device under a rule and judges it with the values of now. */
  add(rule: CompiledRule, now: number): Pair {
    const pair = this.#hold({ rule, state: newPairState(rule), at: now, activeSince: now })
    this.#judge(pair, Math.max(now, clockOf(pair, this.device.values)), nothing, now)
    return pair
  }

  /** Goes on with a pair as it was, when the same values are known again: it was judged with them already. */
  restore(saved: Omit<Pair, 'due'>): Pair {
    const pair = this.#hold(saved)
    pair.due = dueOfPair(pair.rule, pair.state, this.#momentOf(pair, pair.at, nothing, pair.at))
    return pair
  }

  #hold(saved: Omit<Pair, 'due'>): Pair {
    const pair: Pair = { ...saved, due: neverDue }
    for (const [key, windowMs] of pair.rule.reads.keys) if (windowMs > 0) this.device.values.hold(key, windowMs)
    this.#pairs.push(pair)
    return pair
  }

  remove(pair: Pair): void {
    const index = this.#pairs.indexOf(pair)
    if (index >= 0) this.#pairs.splice(index, 1)
  }

  /** The earliest instant any pair waits for. */
  get due(): Due {
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
      this.#applyTogether(ordered.slice(from, to), ts)
      from = to
    }
  }

  /** Judges every pair that reads what has changed beside telemetry: an attribute, a field, connectivity. */
  change(now: number, isConcerned: (rule: CompiledRule) => boolean, apply: () => void): void {
    const concerned = this.#pairs.filter(({ rule }) => isConcerned(rule))
    for (const pair of concerned) this.#runTimers(pair, now, now)
    apply()
    for (const pair of concerned) this.#judge(pair, Math.max(now, clockOf(pair, this.device.values)), nothing, now)
  }

  /** Runs what is due strictly before these instants of the clock of events and of the server's. */
  runTimers(beforeEvent: number, beforeServer: number): void {
    for (const pair of this.#pairs) this.#runTimers(pair, beforeEvent, beforeServer)
  }

  #applyTogether(points: readonly RulePoint[], ts: number): void {
    const { values } = this.device
    const applied = new Set<string>()
    for (const point of points) {
      const slot = values.slots.get(point.key)
      if (slot && ts < slot.ts) this.lateCount++
      else if (!slot || ts > slot.ts || !isSame(point.value, slot.value)) applied.add(point.key)
    }
    const receivedAt = Math.max(...points.map((point) => point.receivedAt))
    const touched = this.#pairs.filter(({ rule: { reads } }) => reads.isAnyKey || points.some(({ key }) => reads.keys.has(key)))
    const isMoved = (pair: Pair) => pair.rule.reads.isAnyKey || [...applied].some((key) => pair.rule.reads.keys.has(key))
    for (const pair of touched) {
      if (isMoved(pair)) this.#runTimers(pair, Math.max(ts, clockOf(pair, values)), receivedAt)
    }
    for (const point of points) values.apply(point)
    this.#serverNow = Math.max(this.#serverNow, receivedAt)
    for (const pair of touched) {
      // What changes nothing of the values is a sign of life all the same.
      if (isMoved(pair)) this.#judge(pair, Math.max(ts, clockOf(pair, values)), applied, receivedAt)
      else if (pair.rule.reads.hasTimers) this.#judge(pair, pair.at, nothing, receivedAt)
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
      if (!this.#onFailed) throw error
      // One rule that throws stops no other of the device.
      pair.due = neverDue
      return this.#onFailed(pair, error)
    }
    this.#onJudged(pair, transitions, at)
  }

  #momentOf(pair: Pair, at: number, applied: ReadonlySet<string>, serverNow: number): Moment {
    return {
      device: this.device,
      at,
      serverNow: Math.max(serverNow, Math.min(this.#serverNow, at)),
      clock: clockOf(pair, this.device.values),
      applied,
      activeSince: pair.activeSince,
      readyAt: this.#readyAt,
      latches: pair.state.latches,
    }
  }
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
