// SPDX-License-Identifier: AGPL-3.0-only
import type { Point } from '../telemetry/points.ts'
import type { JsonReader } from './json.ts'
import type { RejectCode } from './rejects.ts'

/** Longest string or serialised JSON value [V-15]. */
export const maxValueBytes = 65_536
/** Longest string that is looked at as a number (§4.4). */
const maxNumericString = 40

const minInteger = -(2n ** 63n)
const maxInteger = 2n ** 63n - 1n
/** Powers of ten that a double holds exactly. */
export const powersOfTen = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)

/** Why a value of a well-formed text can't be stored. */
export type ValueIssue = RejectCode & ('VALUE_NOT_FINITE' | 'STRING_INVALID' | 'VALUE_TOO_LARGE')

/**
 * Reads the value the reader stands at as a point of `key`, by the table of device API §4.4; `ts`
 * is left 0. Gives `null` for JSON null and after a syntax error.
 */
export function readPoint(reader: JsonReader, key: string, castsNumericStrings: boolean): Point | null | ValueIssue {
  const byte = reader.next()
  switch (byte) {
    case 0x22: // " and '
    case 0x27:
      return reader.readString() ? pointFromString(reader, key, castsNumericStrings) : null
    case 0x7b: // { and [
    case 0x5b:
      return pointFromJson(reader, key)
    case 0x74:
      reader.readWord('true')
      return { kind: 'boolean', value: true, key, ts: 0 }
    case 0x66:
      reader.readWord('false')
      return { kind: 'boolean', value: false, key, ts: 0 }
    case 0x6e:
      reader.readWord('null')
      return null
    default:
      return readNumber(reader, key)
  }
}

/** True when PostgreSQL and every reader can hold the text: no U+0000, no lone surrogate. */
export function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

function pointFromString(reader: JsonReader, key: string, castsNumericStrings: boolean): Point | ValueIssue {
  const { bytes, start, end } = reader
  if (!reader.hasEscape) {
    const number = castsNumericStrings ? pointFromNumericString(bytes, start, end, key) : undefined
    if (number !== undefined) return number
    // Valid UTF-8 without escapes can hold neither U+0000 nor a lone surrogate.
    return end - start > maxValueBytes ? 'VALUE_TOO_LARGE' : { kind: 'string', value: reader.text(), key, ts: 0 }
  }
  const value = reader.text()
  if (castsNumericStrings && value.length <= maxNumericString) {
    const plain = Buffer.from(value)
    const number = pointFromNumericString(plain, 0, plain.length, key)
    if (number !== undefined) return number
  }
  if (!isStorable(value)) return 'STRING_INVALID'
  return Buffer.byteLength(value) > maxValueBytes ? 'VALUE_TOO_LARGE' : { kind: 'string', value, key, ts: 0 }
}

function pointFromNumericString(bytes: Buffer, start: number, end: number, key: string): Point | undefined {
  if (end - start > maxNumericString || end === start) return undefined
  const first = bytes[start]!
  if (first > 0x39 || (first < 0x30 && first !== 0x2d)) return undefined
  const number = scanNumber(bytes, start, end)
  if (number === undefined || number.end !== end || number.hasExponent) return undefined
  return pointFromNumber(bytes, start, number, key)
}

function readNumber(reader: JsonReader, key: string): Point | null | ValueIssue {
  const start = reader.at
  const number = scanNumber(reader.bytes, start, reader.bytes.length)
  if (number === undefined) {
    reader.fail('expected a value')
    return null
  }
  reader.at = number.end
  return pointFromNumber(reader.bytes, start, number, key) ?? (number.end - start > maxValueBytes ? 'VALUE_TOO_LARGE' : 'VALUE_NOT_FINITE')
}

type NumberScan = {
  end: number
  /** All digits as one integer, exact up to 15 digits. */
  mantissa: number
  digits: number
  /** How many of the digits stand behind the point. */
  fraction: number
  isNegative: boolean
  hasExponent: boolean
}

/** Steps over a number of RFC 8259; `undefined` when there is none. */
function scanNumber(bytes: Buffer, start: number, limit: number): NumberScan | undefined {
  let at = start
  let mantissa = 0
  let fraction = 0
  const isNegative = bytes[at] === 0x2d
  if (isNegative) at++
  const first = at
  while (at < limit && isDigit(bytes[at]!)) mantissa = mantissa * 10 + bytes[at++]! - 0x30
  let digits = at - first
  if (digits === 0 || (digits > 1 && bytes[first] === 0x30)) return undefined
  if (at < limit && bytes[at] === 0x2e) {
    const point = ++at
    while (at < limit && isDigit(bytes[at]!)) mantissa = mantissa * 10 + bytes[at++]! - 0x30
    fraction = at - point
    if (fraction === 0) return undefined
    digits += fraction
  }
  const hasExponent = at < limit && (bytes[at] === 0x65 || bytes[at] === 0x45)
  if (hasExponent) {
    at++
    if (at < limit && (bytes[at] === 0x2b || bytes[at] === 0x2d)) at++
    const exponent = at
    while (at < limit && isDigit(bytes[at]!)) at++
    if (at === exponent) return undefined
  }
  return { end: at, mantissa, digits, fraction, isNegative, hasExponent }
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

/** `undefined` when the number is not finite as a double, or is too long to be kept as text. */
function pointFromNumber(bytes: Buffer, start: number, number: NumberScan, key: string): Point | undefined {
  const { mantissa, digits, fraction, isNegative } = number
  if (digits <= 15 && !number.hasExponent) {
    // Adding 0 turns -0 into 0. A quotient of two exact doubles is the nearest double of the literal.
    if (fraction === 0) return { kind: 'integer', value: (isNegative ? -mantissa : mantissa) + 0, key, ts: 0 }
    const value = mantissa / powersOfTen[fraction]!
    return { kind: 'double', value: (isNegative ? -value : value) + 0, key, ts: 0 }
  }
  const text = bytes.toString('latin1', start, number.end)
  if (number.hasExponent) return pointFromExponent(text, key)
  if (fraction > 0) {
    const value = Number(text) + 0
    return Number.isFinite(value) ? { kind: 'double', value, key, ts: 0 } : undefined
  }
  return text.length > maxValueBytes ? undefined : { ...integerFromDigits(text), key, ts: 0 }
}

/** Integer literal of any length: 64-bit integer, or the text of its digits beyond that. */
function integerFromDigits(text: string): { kind: 'integer'; value: number | bigint } | { kind: 'string'; value: string } {
  // A 64-bit integer has at most 19 digits; longer ones need not be calculated with.
  const exact = text.length <= 20 ? BigInt(text) : undefined
  if (exact === undefined || exact < minInteger || exact > maxInteger) return { kind: 'string', value: text }
  const value = Number(exact)
  return { kind: 'integer', value: Number.isSafeInteger(value) ? value : exact }
}

/** Literal with an exponent: an integer when it is integral and within 64 bit, exact; else a double. */
function pointFromExponent(text: string, key: string): Point | undefined {
  const [, sign = '', whole = '', fraction = '', exponent = ''] = /^(-?)(\d+)(?:\.(\d+))?[eE](.*)$/.exec(text) ?? []
  const value = Number(text) + 0
  if (!Number.isFinite(value)) return undefined
  const significant = (whole + fraction).replace(/^0+/, '')
  // Not by regular expression: that would take the square of the length for a run of inner zeros.
  let end = significant.length
  while (end > 0 && significant.charCodeAt(end - 1) === 0x30) end--
  if (end === 0) return { kind: 'integer', value: 0, key, ts: 0 }
  const trimmed = significant.slice(0, end)
  const zeros = Number(exponent) - fraction.length + significant.length - end
  if (zeros >= 0 && trimmed.length + zeros <= 19) {
    const integer = integerFromDigits(sign + trimmed + '0'.repeat(zeros))
    if (integer.kind === 'integer') return { ...integer, key, ts: 0 }
  }
  return { kind: 'double', value, key, ts: 0 }
}

function pointFromJson(reader: JsonReader, key: string): Point | null | ValueIssue {
  const found: { issue?: ValueIssue } = {}
  const value = readCompact(reader, found)
  if (reader.hasFailed) return null
  return found.issue ?? (Buffer.byteLength(value) > maxValueBytes ? 'VALUE_TOO_LARGE' : { kind: 'json', value, key, ts: 0 })
}

/**
 * Reads any value as compact JSON text: member order and number literals are kept, the last of equal
 * names wins. It can call itself as the reader refuses to enter more than 32 levels.
 */
function readCompact(reader: JsonReader, found: { issue?: ValueIssue }): string {
  const byte = reader.next()
  switch (byte) {
    case 0x7b: {
      const members = new Map<string, string>()
      reader.enter()
      for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) {
        if (!reader.isNamePlain && !isStorable(name)) found.issue ??= 'STRING_INVALID'
        const label = reader.isNamePlain ? `"${name}":` : `${JSON.stringify(name)}:`
        if (members.has(label)) reader.noteDuplicate(name)
        members.set(label, label + readCompact(reader, found))
      }
      return `{${[...members.values()].join(',')}}`
    }
    case 0x5b: {
      const items: string[] = []
      reader.enter()
      for (let more = reader.nextItem(true); more; more = reader.nextItem(false)) items.push(readCompact(reader, found))
      return `[${items.join(',')}]`
    }
    case 0x22:
    case 0x27: {
      if (!reader.readString()) return ''
      const text = reader.text()
      if (reader.hasEscape && !isStorable(text)) found.issue ??= 'STRING_INVALID'
      return reader.hasEscape || byte === 0x27 ? JSON.stringify(text) : `"${text}"`
    }
    case 0x74:
      reader.readWord('true')
      return 'true'
    case 0x66:
      reader.readWord('false')
      return 'false'
    case 0x6e:
      reader.readWord('null')
      return 'null'
    default:
      return readLiteral(reader, found)
  }
}

/** A number inside a JSON value keeps its source text; only one that no reader could hold is refused. */
function readLiteral(reader: JsonReader, found: { issue?: ValueIssue }): string {
  const start = reader.at
  const number = scanNumber(reader.bytes, start, reader.bytes.length)
  if (number === undefined) {
    reader.fail('expected a value')
    return ''
  }
  reader.at = number.end
  const text = reader.bytes.toString('latin1', start, number.end)
  if ((number.hasExponent || number.digits > 300) && !Number.isFinite(Number(text))) found.issue ??= 'VALUE_NOT_FINITE'
  return text
}
