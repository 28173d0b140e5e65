// SPDX-License-Identifier: AGPL-3.0-only
import type { Point } from '../telemetry/points.ts'
import { names } from './names.ts'
import { powersOfTen } from './values.ts'

/** Up to this many members an equal name is found faster by looking than by hashing. */
const maxMembers = 16
const maxKeyBytes = 255
/** So many digits are one exact integer in a double, before and after the point together. */
const maxDigits = 15

const space = 0x20
const quote = 0x22
const comma = 0x2c
const minus = 0x2d
const dot = 0x2e
const zero = 0x30
const colon = 0x3a
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const wordTrue = Buffer.from('true')
const wordFalse = Buffer.from('false')

/**
 * Reads what most devices send: one flat object of plain names with plain numbers and booleans, as
 * `{"temperature":21.5,"on":true}`, with a space after `:` and `,` or without. It saves the reader, the
 * list of members and the second look at each number, half of the time and most of the garbage of a
 * message. It never refuses: `undefined` sends everything else, mistakes included, to the full codec,
 * and what it reads is what that would have read. The points have `ts` 0.
 */
export function readFlat(payload: Buffer): Point[] | undefined {
  return payload[0] === openBrace ? new FlatReader(payload).read() : undefined
}

class FlatReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  read(): Point[] | undefined {
    const bytes = this.#bytes
    const points: Point[] = []
    do {
      this.#at++
      if (bytes[this.#at] === space) this.#at++
      const key = this.#readKey()
      if (key === undefined || points.length === maxMembers || holds(points, key)) return undefined
      const point = this.#readValue(key)
      if (point === undefined) return undefined
      points.push(point)
    } while (bytes[this.#at] === comma)
    return bytes[this.#at] === closeBrace && this.#at + 1 === bytes.length ? points : undefined
  }

  /** A name that is a valid key for certain, and the colon. */
  #readKey(): string | undefined {
    const bytes = this.#bytes
    let at = this.#at
    if (bytes[at++] !== quote) return undefined
    const start = at
    let hash = 0
    for (let byte = bytes[at]; byte !== quote; byte = bytes[++at]) {
      if (byte === undefined || byte < 0x20 || byte > 0x7e || byte === backslash) return undefined
      hash = (Math.imul(hash, 31) + byte) | 0
    }
    if (at === start || at - start > maxKeyBytes || bytes[at + 1] !== colon) return undefined
    this.#at = bytes[at + 2] === space ? at + 3 : at + 2
    const key = names.get(bytes, start, at, hash)
    // These two may make it a message of another shape.
    return key === 'ts' || key === 'values' ? undefined : key
  }

  #readValue(key: string): Point | undefined {
    const bytes = this.#bytes
    let at = this.#at
    const isNegative = bytes[at] === minus
    if (isNegative) at++
    const start = at
    let mantissa = 0
    let byte = bytes[at]
    for (; isDigit(byte); byte = bytes[++at]) mantissa = mantissa * 10 + byte - zero
    const whole = at - start
    if (whole === 0) return isNegative ? undefined : this.#readBoolean(key)
    if (whole > 1 && bytes[start] === zero) return undefined
    let fraction = 0
    if (byte === dot) {
      const fractionAt = at + 1
      for (byte = bytes[++at]; isDigit(byte); byte = bytes[++at]) mantissa = mantissa * 10 + byte - zero
      fraction = at - fractionAt
      if (fraction === 0) return undefined
    }
    if (whole + fraction > maxDigits) return undefined
    this.#at = at
    // Adding 0 turns -0 into 0. A quotient of two exact doubles is the nearest double of the literal.
    if (fraction === 0) return { kind: 'integer', value: (isNegative ? -mantissa : mantissa) + 0, key, ts: 0 }
    const value = mantissa / powersOfTen[fraction]!
    return { kind: 'double', value: (isNegative ? -value : value) + 0, key, ts: 0 }
  }

  #readBoolean(key: string): Point | undefined {
    const value = this.#bytes[this.#at] === wordTrue[0]
    const word = value ? wordTrue : wordFalse
    for (let index = 0; index < word.length; index++) if (this.#bytes[this.#at + index] !== word[index]) return undefined
    this.#at += word.length
    return { kind: 'boolean', value, key, ts: 0 }
  }
}

function isDigit(byte: number | undefined): byte is number {
  return byte !== undefined && byte >= zero && byte <= 0x39
}

/** Kept names are the same string mostly, which makes this a comparison of pointers. */
function holds(points: readonly Point[], key: string): boolean {
  for (const point of points) if (point.key === key) return true
  return false
}
