// SPDX-License-Identifier: AGPL-3.0-only

/** An integer that a JavaScript number would round: its digits as they came. */
export class ExactInteger {
  readonly digits: string

  constructor(digits: string) {
    this.digits = digits
  }

  toJSON(): string {
    return this.digits
  }
}

/** A text, or a number, of JSON; whatever is in quotes is no number. */
const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g
/** Stands in front of digits that wait in a string; no text of JSON can hold it unescaped. */
const mark = 'exact-integer:'

/**
 * JSON with all digits of its integers: those a number would round become {@link ExactInteger}.
 * (The reviver's `source` would tell, but our browsers are older than that [D-12].)
 *
 * @throws {SyntaxError}
 */
export function parseExact(text: string): unknown {
  // Nearly every answer is without such digits; a text in it that begins with our mark stays a text then, too.
  if (!/\d{16}/.test(text) || text.includes(mark)) return JSON.parse(text)
  const marked = text.replace(tokens, (token) => (isRounded(token) ? `"${mark}${token}"` : token))
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith(mark) ? new ExactInteger(value.slice(mark.length)) : value,
  )
}

function isRounded(token: string): boolean {
  return /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token))
}

/** The JSON of a value of {@link parseExact}; `indent` puts each member on a line of its own. */
export function formatExact(value: unknown, indent = 0): string {
  const write = (one: unknown, depth: number): string => {
    if (one instanceof ExactInteger) return one.digits
    if (typeof one !== 'object' || one === null) return JSON.stringify(one) ?? 'null'
    const isList = Array.isArray(one)
    const parts = isList
      ? one.map((item) => write(item, depth + 1))
      : Object.entries(one).map(([name, member]) => `${JSON.stringify(name)}:${indent > 0 ? ' ' : ''}${write(member, depth + 1)}`)
    const [open, close] = isList ? '[]' : '{}'
    if (parts.length === 0 || indent === 0) return `${open}${parts.join(',')}${close}`
    const pad = ' '.repeat(indent * (depth + 1))
    return `${open}\n${pad}${parts.join(`,\n${pad}`)}\n${' '.repeat(indent * depth)}${close}`
  }
  return write(value, 0)
}

/** Whether JSON text holds an integer that a number would round. */
export function hasRoundedInteger(text: string): boolean {
  return [...text.matchAll(tokens)].some(([token]) => isRounded(token))
}
