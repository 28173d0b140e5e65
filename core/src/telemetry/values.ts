// SPDX-License-Identifier: AGPL-3.0-only
import { textCell } from './csv.ts'
import type { TypedValue } from './points.ts'

/** Newer than the compiler's library: access to a number's source text, and numbers given as text. */
const exactJson = JSON as unknown as {
  parse(text: string, reviver: (name: string, value: unknown, context: { source?: string }) => unknown): unknown
  rawJSON(text: string): unknown
  isRawJSON(value: unknown): boolean
}

/**
 * A value as JSON text of the native API: integers beyond ±(2⁵³−1) as strings of their digits [N-6],
 * a JSON value as it was sent. A result no JSON number can hold (a sum beyond all doubles) is null.
 */
export function toJsonText(value: TypedValue): string {
  switch (value.kind) {
    case 'double':
      // Shortest decimal form that reads back as the same double.
      return Number.isFinite(value.value) ? String(value.value) : 'null'
    case 'integer':
      return typeof value.value === 'bigint' ? `"${value.value}"` : String(value.value)
    case 'boolean':
      return String(value.value)
    case 'string':
      return JSON.stringify(value.value)
    case 'json':
      return value.value
  }
}

/** The same as a value for `JSON.stringify`; numbers inside a JSON value keep their digits. */
export function toJsonValue(value: TypedValue): unknown {
  switch (value.kind) {
    case 'integer':
      return typeof value.value === 'bigint' ? String(value.value) : value.value
    case 'json':
      return parseExactly(value.value)
    case 'double':
    case 'boolean':
    case 'string':
      return value.value
  }
}

/**
 * `JSON.parse` whose numbers are written again with all their digits.
 * @throws {SyntaxError}
 */
export function parseExactly(text: string): unknown {
  return exactJson.parse(text, (_, member, { source }) =>
    typeof member === 'number' && source !== undefined && String(member) !== source ? exactJson.rawJSON(source) : member,
  )
}

/** Whether the value is a number that {@link parseExactly} keeps as its text. */
export function isExactNumber(value: unknown): boolean {
  return exactJson.isRawJSON(value)
}

/** True when the native API shows the value as a string of digits [N-6]. */
export function isBeyondJsonNumbers(value: TypedValue): boolean {
  return value.kind === 'integer' && typeof value.value === 'bigint'
}

/**
 * A value as JSON text of the ThingsBoard-style API [TB-6]: everything is a string, doubles have at
 * least one decimal; or, when `isStrict`, JSON types with all digits of integers.
 */
export function toCompatJsonText(value: TypedValue, isStrict: boolean): string {
  if (isStrict) return value.kind === 'integer' ? String(value.value) : toJsonText(value)
  switch (value.kind) {
    case 'double': {
      if (!Number.isFinite(value.value)) return 'null'
      const text = String(value.value)
      return `"${/^-?\d+$/.test(text) ? `${text}.0` : text}"`
    }
    case 'integer':
    case 'boolean':
      return `"${value.value}"`
    case 'string':
    case 'json':
      return JSON.stringify(value.value)
  }
}

/** A value as a CSV cell: numbers and booleans bare with all digits, texts quoted and guarded [N-9]. */
export function toCsvCell(value: TypedValue): string {
  switch (value.kind) {
    case 'double':
      return Number.isFinite(value.value) ? String(value.value) : ''
    case 'integer':
    case 'boolean':
      return String(value.value)
    case 'string':
    case 'json':
      return textCell(value.value)
  }
}
