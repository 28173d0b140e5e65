// SPDX-License-Identifier: AGPL-3.0-only
import { formatExact, parseExact } from '../../exact-json.ts'
import type { Attribute } from '../../api/types.ts'

export const valueTypes = ['number', 'text', 'boolean', 'json'] as const
export type ValueType = (typeof valueTypes)[number]
/** A value as it is typed in, before it is JSON. */
export type Draft = { type: ValueType; text: string }

/** Views of the device's state, which nobody writes. */
const reservedKeys = new Set(['active', 'lastActivityTime', 'lastConnectTime', 'lastDisconnectTime', 'inactivityAlarmTime'])

export function isReserved(scope: string, key: string): boolean {
  return scope === 'server' && reservedKeys.has(key)
}

const maxInteger = 2n ** 63n - 1n
const minInteger = -(2n ** 63n)

/** JSON of a draft with every digit of it; else the name of what is wrong. */
export function parseDraft({ type, text }: Draft): { json: string } | { problem: 'number' | 'integer' | 'json' | 'null' } {
  const trimmed = text.trim()
  switch (type) {
    case 'text':
      return { json: JSON.stringify(text) }
    case 'boolean':
      return { json: trimmed === 'true' ? 'true' : 'false' }
    case 'number':
      if (!/^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(trimmed) || !Number.isFinite(Number(trimmed))) return { problem: 'number' }
      if (/^-?\d+$/.test(trimmed) && (BigInt(trimmed) > maxInteger || BigInt(trimmed) < minInteger)) return { problem: 'integer' }
      return { json: trimmed }
    case 'json':
      try {
        // Null would delete the attribute, which has a button of its own.
        return parseExact(trimmed) === null ? { problem: 'null' } : { json: trimmed }
      } catch {
        return { problem: 'json' }
      }
  }
}

/** What is there already, for editing. */
export function toDraft({ kind, value }: Pick<Attribute, 'kind' | 'value'>): Draft {
  switch (kind) {
    case 'string':
      return { type: 'text', text: String(value) }
    case 'boolean':
      return { type: 'boolean', text: String(value) }
    case 'json':
      return { type: 'json', text: formatExact(value, 2) }
    default:
      return { type: 'number', text: String(value) }
  }
}

/** Whether the device reports what it shall have: numbers by value, JSON without regard to the order of members. */
export function agrees(desired: Pick<Attribute, 'kind' | 'value'>, reported: Pick<Attribute, 'kind' | 'value'>): boolean {
  const isNumber = ({ kind }: Pick<Attribute, 'kind'>) => kind === 'integer' || kind === 'double'
  if (isNumber(desired) && isNumber(reported)) return String(desired.value) === String(reported.value)
  return desired.kind === reported.kind && formatExact(sortMembers(desired.value)) === formatExact(sortMembers(reported.value))
}

function sortMembers(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortMembers)
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([name, member]) => [name, sortMembers(member)]),
  )
}
