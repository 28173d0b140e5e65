// SPDX-License-Identifier: AGPL-3.0-only
import { compileRule } from './compile-rule.ts'
import type { CompiledRule } from './compile-rule.ts'
import { DeviceValues } from './device-values.ts'
import type { RulePoint } from './device-values.ts'
import { Lane } from './lane.ts'
import type { DeviceScene } from './moment.ts'
import { previewRule, record } from './preview.ts'
import type { Episode } from './preview.ts'
import type { RuleValue } from './values.ts'

/** [key, ts, value, receivedAt?], the receipt being ts when it is left out. */
export type TestPoint = readonly [key: string, ts: number, value: RuleValue, receivedAt?: number]

export function toPoints(points: readonly TestPoint[]): RulePoint[] {
  return points.map(([key, ts, value, receivedAt = ts]) => ({ key, ts, value, receivedAt }))
}

/** @throws with what is wrong with the rule */
export function compile(logic: unknown): CompiledRule {
  const rule = compileRule(logic)
  if (!('levels' in rule)) throw new Error(JSON.stringify(rule))
  return rule
}

/** A device of which nothing is known yet. */
export function emptyScene(): DeviceScene {
  return { values: new DeviceValues(), readAttribute: () => undefined, readField: () => undefined, connection: undefined, createdAt: 0 }
}

/** Episodes of a rule over points from 0 on. */
export function preview(logic: unknown, points: readonly TestPoint[], to: number, { isOneMessage = false } = {}): Episode[] {
  const rule = compile(logic)
  if (!isOneMessage) return previewRule(rule, { from: 0, to, points: toPoints(points) }).episodes
  const episodes: Episode[] = []
  const lane = new Lane(emptyScene(), (_, transitions) => transitions.forEach((one) => record(episodes, one)))
  lane.add(rule, 0)
  lane.apply(toPoints(points))
  lane.runTimers(to + 1, to + 1)
  return episodes
}
