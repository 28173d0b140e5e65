// SPDX-License-Identifier: AGPL-3.0-only
import type { TypedValue } from '../telemetry/points.ts'

/** An object or a list: it is there and has no order, and equals nothing. */
export type JsonText = { readonly json: string }
/** A value as rules see it; `bigint` only beyond ±(2⁵³−1). */
export type RuleValue = number | bigint | string | boolean | null | JsonText
/** What a rule can know: `undefined` is unknown. */
export type Known = RuleValue | undefined
/** Three-valued truth [3.1]. */
export type Truth = boolean | undefined

export type ScalarType = 'number' | 'string' | 'boolean'

/** @returns the value of a point or an attribute as rules see it */
export function toRuleValue(typed: TypedValue): RuleValue {
  if (typed.kind !== 'json') return typed.value
  return typed.value === 'null' ? null : { json: typed.value }
}

export function isNumeric(value: Known): value is number | bigint {
  return typeof value === 'number' || typeof value === 'bigint'
}

/** @returns the type of a value that can be compared; undefined for null, JSON and unknown */
export function scalarTypeOf(value: Known): ScalarType | undefined {
  if (isNumeric(value)) return 'number'
  return typeof value === 'string' || typeof value === 'boolean' ? (typeof value as 'string' | 'boolean') : undefined
}

/** Equality within one type, exact between number and bigint; unknown between types. */
export function isEqual(one: Known, other: Known): Truth {
  if (isNumeric(one) && isNumeric(other)) return !(one < other) && !(one > other)
  const type = scalarTypeOf(one)
  return type !== undefined && type === scalarTypeOf(other) ? one === other : undefined
}

/** Whether two values are the same, of whatever type: for "has it changed". */
export function isSame(one: RuleValue, other: RuleValue): boolean {
  if (typeof one === 'object' && typeof other === 'object' && one !== null && other !== null) return one.json === other.json
  return one === other || isEqual(one, other) === true
}

/** Adds exactly where one of the two is an exact integer beyond 2⁵³ and the other an integer. */
export function addExactly(one: number | bigint, other: number | bigint): number | bigint {
  if (typeof one === 'number' && typeof other === 'number') return one + other
  const isExact = [one, other].every((value) => typeof value === 'bigint' || Number.isInteger(value))
  return isExact ? BigInt(one) + BigInt(other) : Number(one) + Number(other)
}

/** Whether `text` is of the pattern, in which `*` is any text and `?` one character; linear in practice, never exponential. */
export function isLike(text: string, pattern: string): boolean {
  const characters = Array.from(text)
  const wanted = Array.from(pattern)
  let at = 0
  let next = 0
  let star = -1
  let starAt = 0
  while (at < characters.length) {
    if (wanted[next] === '*') {
      star = next++
      starAt = at
    } else if (next < wanted.length && (wanted[next] === '?' || wanted[next] === characters[at])) {
      at++
      next++
    } else if (star >= 0) {
      next = star + 1
      at = ++starAt
    } else return false
  }
  while (wanted[next] === '*') next++
  return next === wanted.length
}
