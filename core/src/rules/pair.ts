// SPDX-License-Identifier: AGPL-3.0-only
import type { CompiledLevel, CompiledRule } from './compile-rule.ts'
import { earliest, never, neverDue } from './moment.ts'
import type { Due, Moment } from './moment.ts'
import type { Severity } from './schemas.ts'
import type { Truth } from './values.ts'

/** State of one level of a pair. Members are absent while they have nothing to say. */
export type LevelState = {
  /** The condition has been true since then, and the level is not active yet. */
  since?: number
  /** Instants that count for `repeat`, ascending. */
  hits?: number[]
  /** The level is active, and its condition was true from then on. */
  start?: number
  /** The level is active, and its condition has been false since then. */
  offSince?: number
  /** Cleared by a person: it is not raised until the condition was once not true. */
  isHeld?: boolean
}

/** State of a pair (rule, device); plain data, in which times are ms since 1970. */
export type PairState = {
  /** In the order of the rule's levels. */
  levels: LevelState[]
  latches: Truth[]
  /** The alarm that is open. */
  open?: { startTs: number; severity: Severity }
  /** The explicit clear condition has held since then. */
  clearSince?: number
  /** The last instant told of in a transition: nothing is told of earlier ones afterwards. */
  toldAt?: number
}

export type ClearReason =
  | 'condition'
  | 'manual'
  | 'schedule'
  | 'rule_changed'
  | 'rule_disabled'
  | 'rule_deleted'
  | 'out_of_scope'
  | 'device_deleted'
  | 'api'

/** What happens to the alarm of a pair. */
export type Transition =
  | { kind: 'raised'; startTs: number; confirmedTs: number; severity: Severity }
  | { kind: 'severity'; ts: number; severity: Severity }
  | { kind: 'cleared'; endTs: number; clearedTs: number; reason: ClearReason }

export function newPairState(rule: CompiledRule): PairState {
  return { levels: rule.levels.map(() => ({})), latches: [] }
}

/** Whether there is nothing to remember of the pair. */
export function isDefault({ levels, latches, open, clearSince }: PairState): boolean {
  if (open !== undefined || clearSince !== undefined || latches.includes(true)) return false
  return levels.every((level) => Object.keys(level).length === 0)
}

/** Judges the pair at one instant and changes its state; what comes of it is returned in order [4.4]. */
export function evaluatePair(rule: CompiledRule, state: PairState, moment: Moment): Transition[] {
  const at = Math.max(moment.at, state.toldAt ?? Number.NEGATIVE_INFINITY)
  if (rule.schedule && !rule.schedule.isOpen(at)) return rest(rule, state, at)
  const truths = rule.levels.map(({ when }) => when.evaluate(moment))
  const entered: Entered[] = []
  let lastLeft: { endTs: number; ts: number } | undefined
  for (const [index, level] of rule.levels.entries()) {
    const own = state.levels[index]!
    if (own.start === undefined) {
      const one = enter(level, own, truths[index], { at, applied: moment.applied })
      if (one) entered.push(one)
    } else if (!rule.clearWhen) {
      const left = leave(own, truths[index], at, rule.clearForMs)
      if (left && (!lastLeft || left.ts >= lastLeft.ts)) lastLeft = left
    }
  }
  if (rule.clearWhen) lastLeft = leaveTogether(rule, state, { moment, truths, at })
  return tell(rule, state, entered, lastLeft)
}

type Entered = { start: number; ts: number }

/** Takes the truth of an inactive level in; answers once it becomes active. */
function enter(level: CompiledLevel, own: LevelState, truth: Truth, { at, applied }: Pick<Moment, 'at' | 'applied'>): Entered | undefined {
  if (truth !== true) {
    // Unknown drops a dwell too, but only what is false breaks a row of consecutive hits.
    delete own.since
    delete own.isHeld
    if (truth === false && level.repeat?.isConsecutive) delete own.hits
    return undefined
  }
  if (own.isHeld) return undefined
  if (level.repeat) return countHit(level, own, { at, applied })
  own.since ??= at
  if (at < own.since + level.forMs) return undefined
  const start = own.since
  delete own.since
  own.start = start
  return { start, ts: start + level.forMs }
}

function countHit({ repeat, keys }: CompiledLevel, own: LevelState, { at, applied }: Pick<Moment, 'at' | 'applied'>): Entered | undefined {
  if (!repeat || ![...applied].some((key) => keys.has(key))) return undefined
  const hits = (own.hits ?? []).filter((hit) => hit > at - repeat.withinMs)
  if (!hits.includes(at)) hits.push(at)
  own.hits = hits
  if (hits.length < repeat.count) return undefined
  own.start = hits[0]!
  return { start: own.start, ts: at }
}

/** Takes the truth of an active level in; answers once it leaves. */
function leave(own: LevelState, truth: Truth, at: number, clearForMs: number): { endTs: number; ts: number } | undefined {
  if (truth !== false) {
    delete own.offSince
    return undefined
  }
  own.offSince ??= at
  if (at < own.offSince + clearForMs) return undefined
  const endTs = own.offSince
  for (const name of ['start', 'offSince', 'hits'] as const) delete own[name]
  return { endTs, ts: endTs + clearForMs }
}

type Judged = { moment: Moment; truths: readonly Truth[]; at: number }

/** With an explicit clear condition all levels leave together, once it has held while none of them is true. */
function leaveTogether(rule: CompiledRule, state: PairState, { moment, truths, at }: Judged): { endTs: number; ts: number } | undefined {
  // Evaluated in any case: its leaves keep latches.
  const truth = rule.clearWhen?.evaluate(moment)
  if (!state.open || truth !== true || truths.includes(true)) {
    delete state.clearSince
    return undefined
  }
  state.clearSince ??= at
  if (at < state.clearSince + rule.clearForMs) return undefined
  const endTs = state.clearSince
  reset(state)
  return { endTs, ts: endTs + rule.clearForMs }
}

/** Compares what was told with what is, and says what has changed. */
function tell(
  rule: CompiledRule,
  state: PairState,
  entered: readonly Entered[],
  left: { endTs: number; ts: number } | undefined,
): Transition[] {
  const highest = rule.levels[state.levels.findIndex((level) => level.start !== undefined)]?.severity
  const { open } = state
  if (!open && highest) {
    const startTs = Math.min(...entered.map(({ start }) => start))
    const confirmedTs = Math.min(...entered.map(({ ts }) => ts))
    state.open = { startTs, severity: highest }
    state.toldAt = confirmedTs
    return [{ kind: 'raised', startTs, confirmedTs, severity: highest }]
  }
  if (open && !highest && left) {
    delete state.open
    // An end before the confirmation is possible when the confirmation did not wait for a point on its way.
    const clearedTs = Math.max(left.ts, state.toldAt ?? left.ts)
    state.toldAt = clearedTs
    return [{ kind: 'cleared', endTs: Math.max(left.endTs, open.startTs), clearedTs, reason: 'condition' }]
  }
  if (!open || !highest || open.severity === highest) return []
  const ts = Math.max(...entered.map((one) => one.ts), left?.ts ?? Number.NEGATIVE_INFINITY)
  open.severity = highest
  state.toldAt = ts
  return [{ kind: 'severity', ts, severity: highest }]
}

/** Outside of the schedule every condition is unknown, and what is pending begins anew afterwards. */
function rest(rule: CompiledRule, state: PairState, at: number): Transition[] {
  delete state.clearSince
  for (const level of state.levels) {
    for (const name of ['since', 'offSince', 'isHeld'] as const) delete level[name]
    if (level.start === undefined) delete level.hits
  }
  return rule.clearsOutside ? closePair(state, at, 'schedule') : []
}

/** Ends the alarm of a pair for another reason than its condition; its levels begin anew. */
export function closePair(state: PairState, at: number, reason: ClearReason): Transition[] {
  const { open } = state
  reset(state)
  if (!open) return []
  const ts = Math.max(at, state.toldAt ?? at)
  delete state.open
  state.toldAt = ts
  return [{ kind: 'cleared', endTs: ts, clearedTs: ts, reason }]
}

/** A person clears the alarm [6.2]: without `rearms` it stays away until the condition was once not true. */
export function clearByHand(rule: CompiledRule, state: PairState, at: number): Transition[] {
  const told = closePair(state, at, 'manual')
  if (!rule.rearms) for (const level of state.levels) level.isHeld = true
  return told
}

function reset(state: PairState): void {
  state.levels = state.levels.map(() => ({}))
  delete state.clearSince
}

/**
 * Takes the state over to a new version of the rule [6.5]: dwells begin anew, an open alarm stays while a level
 * of the new version is true, or unknown and was active before; else it is cleared as `rule_changed`.
 */
export function adoptRule(
  before: CompiledRule,
  state: PairState,
  rule: CompiledRule,
  moment: Moment,
): { state: PairState; told: Transition[] } {
  const next = newPairState(rule)
  if (state.toldAt !== undefined) next.toldAt = state.toldAt
  const { open } = state
  if (open) {
    const probe = { ...moment, latches: [] }
    const isRunning = !rule.schedule || rule.schedule.isOpen(moment.at)
    for (const [index, level] of rule.levels.entries()) {
      const old = state.levels[before.levels.findIndex(({ severity }) => severity === level.severity)]
      const truth = isRunning ? level.when.evaluate(probe) : undefined
      if (truth === true || (truth === undefined && old?.start !== undefined)) next.levels[index] = { start: old?.start ?? open.startTs }
    }
    next.open = { ...open }
    if (next.levels.every((level) => level.start === undefined)) return { state: next, told: closePair(next, moment.at, 'rule_changed') }
  }
  return { state: next, told: evaluatePair(rule, next, { ...moment, latches: next.latches, applied: new Set() }) }
}

/** When the pair must be judged next although nothing comes. */
export function dueOfPair(rule: CompiledRule, state: PairState, moment: Moment): Due {
  let event = rule.schedule?.nextEdge(moment.at) ?? never
  if (rule.schedule && !rule.schedule.isOpen(moment.at)) return { event, server: never }
  if (state.clearSince !== undefined) event = Math.min(event, state.clearSince + rule.clearForMs)
  let due: Due = neverDue
  for (const [index, level] of rule.levels.entries()) {
    const { since, offSince } = state.levels[index]!
    if (since !== undefined) event = Math.min(event, since + level.forMs)
    if (offSince !== undefined) event = Math.min(event, offSince + rule.clearForMs)
    if (rule.reads.hasTimers) due = earliest(due, level.when.due(moment))
  }
  if (rule.reads.hasTimers && rule.clearWhen && state.open) due = earliest(due, rule.clearWhen.due(moment))
  return earliest(due, { event, server: never })
}
