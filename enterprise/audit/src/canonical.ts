// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial

/** Deeper or larger values than any event has are refused, not cut. */
const maxDepth = 32
const maxBytes = 256 * 1024

/**
 * RFC 8785: one text for one value. Members are sorted by UTF-16 code unit, numbers and strings are written as
 * JSON.stringify writes them, there are no blanks.
 *
 * @throws {TypeError} for NaN, Infinity, lone surrogates, depth above 32, more than 256 KiB, and what JSON has not
 */
export function canonical(value: unknown): string {
  const text = write(value, 1)
  if (Buffer.byteLength(text) > maxBytes) throw new TypeError('too large for a canonical form')
  return text
}

function write(value: unknown, depth: number): string {
  if (depth > maxDepth) throw new TypeError('too deep for a canonical form')
  switch (typeof value) {
    case 'boolean':
      return String(value)
    case 'number':
      if (!Number.isFinite(value)) throw new TypeError('a number that is not finite has no canonical form')
      return JSON.stringify(value)
    case 'string':
      return writeString(value)
    case 'object':
      if (value === null) return 'null'
      if (Array.isArray(value)) return `[${value.map((one) => write(one, depth + 1)).join(',')}]`
      return `{${Object.keys(value)
        .sort((a, b) => (a < b ? -1 : 1))
        .map((name) => `${writeString(name)}:${write((value as Record<string, unknown>)[name], depth + 1)}`)
        .join(',')}}`
    case 'bigint':
    case 'function':
    case 'symbol':
    case 'undefined':
      throw new TypeError(`${typeof value} has no canonical form`)
  }
}

function writeString(text: string): string {
  if (!text.isWellFormed()) throw new TypeError('text with half a surrogate pair has no canonical form')
  return JSON.stringify(text)
}
