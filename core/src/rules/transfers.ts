// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { CompiledRule } from './compile-rule.ts'
import type { Journal } from './journal.ts'
import type { Pair } from './lane.ts'
import type { LiveRules } from './live-rules.ts'
import type { LiveScene } from './live-scene.ts'
import { never } from './moment.ts'
import { adoptRule, clearByHand, closePair, newPairState } from './pair.ts'
import type { ClearReason, Transition } from './pair.ts'
import type { RuleInForce } from './rule-loader.ts'

/** How pairs change hands other than by judging: to a new version of their rule, out of force, by a person. */
export class Transfers {
  readonly #parts: { clock: Clock; live: LiveRules; journal: Journal }

  constructor(parts: { clock: Clock; live: LiveRules; journal: Journal }) {
    this.#parts = parts
  }

  /** [6.5] The pair goes on with a new version of its rule. */
  adopt(scene: LiveScene, before: CompiledRule, rule: RuleInForce): void {
    const now = this.#parts.clock.now()
    // First the new one: a device without any rule is forgotten.
    this.#parts.live.put(scene, rule.compiled, true)
    const old = this.#parts.live.take(scene, before)
    if (!old) return this.#parts.live.put(scene, rule.compiled)
    const moment = scene.lane.momentOf({ ...old, rule: rule.compiled }, now)
    const { state, told } = adoptRule(before, old.state, rule.compiled, moment)
    const pair = { rule: rule.compiled, state, at: now, activeSince: old.activeSince, saved: old.saved }
    this.#parts.live.restore(scene, pair)
    this.#note(scene, rule.compiled, told, now, pair)
  }

  /** Takes a rule out of force everywhere. */
  withdraw(rule: RuleInForce, reason: ClearReason, keeps: boolean): void {
    for (const scene of this.#parts.live.scenes.values()) this.leave(scene, rule, reason, keeps)
  }

  /** Takes a rule out of force at a device; `keeps` leaves its alarm open. */
  leave(scene: LiveScene, rule: RuleInForce, reason: ClearReason, keeps = false): void {
    if (!scene.lane.rules.includes(rule.compiled)) return
    const pair = this.#parts.live.take(scene, rule.compiled)
    if (!pair) return
    const now = this.#parts.clock.now()
    const told = keeps ? [] : closePair(pair.state, now, reason)
    this.#note(scene, rule.compiled, told, now, { ...pair, state: newPairState(rule.compiled) })
  }

  /** A person cleared the alarm [6.2]. */
  clearByHand(rule: RuleInForce | undefined, deviceId: string): void {
    const scene = this.#parts.live.scenes.get(deviceId)
    const pair = rule && scene?.lane.pairs.find((one) => one.rule === rule.compiled)
    if (!scene || !pair?.state.open) return
    const now = this.#parts.clock.now()
    clearByHand(pair.rule, pair.state, now)
    this.#parts.journal.note({ scene, pair, transitions: [], at: now })
    this.#parts.live.change(
      scene.id,
      (compiled) => compiled === pair.rule,
      () => {},
    )
  }

  #note(scene: LiveScene, compiled: CompiledRule, transitions: readonly Transition[], at: number, saved: Omit<Pair, 'due'>): void {
    const pair = scene.lane.pairs.find(({ rule }) => rule === compiled) ?? { ...saved, due: { event: never, server: never } }
    this.#parts.journal.note({ scene, pair, transitions, at })
  }
}
