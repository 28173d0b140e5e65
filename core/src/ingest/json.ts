// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import { names } from './names.ts'

/** Deepest nesting of a payload (device API §2.6). */
export const maxDepth = 32

/** Why a whole text is refused. */
export type JsonFailure = { code: 'PAYLOAD_MALFORMED' | 'JSON_TOO_DEEP' | 'DUPLICATE_KEY'; detail: string }

export type JsonRules = { json: 'relaxed' | 'strict'; duplicateKeys: 'last' | 'reject' }

const quote = 0x22
const apostrophe = 0x27
const comma = 0x2c
const colon = 0x3a
const openBracket = 0x5b
const backslash = 0x5c
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

/**
 * Steps through JSON text straight on its bytes, in one pass, without building a tree: device
 * payloads are small, flat and many. RFC 8259, and with `json: "relaxed"` also names without
 * quotes and strings in single quotes [V-1].
 *
 * A syntax error is kept, and the reader then stands at the end of the text where every further
 * step fails too. So callers loop without checking and ask `finish()` once.
 */
export class JsonReader {
  readonly bytes: Buffer
  /** Position of the next byte to read. */
  at = 0
  /** Where the contents of the string read last begin and end, and whether they hold an escape. */
  start = 0
  end = 0
  hasEscape = false
  /** True when the name read last is a valid key for certain: 1–255 bytes, no control, no escape. */
  isNamePlain = false
  readonly #isRelaxed: boolean
  readonly #rejectsDuplicates: boolean
  #hasHighByte = false
  #depth = 0
  #problem: string | undefined
  #duplicate: string | undefined

  constructor(payload: Buffer, rules: JsonRules) {
    this.bytes = payload
    this.#isRelaxed = rules.json === 'relaxed'
    this.#rejectsDuplicates = rules.duplicateKeys === 'reject'
    if (payload.length >= 3 && payload[0] === 0xef && payload[1] === 0xbb && payload[2] === 0xbf) this.at = 3
    if (!isUtf8(payload)) this.fail('not valid UTF-8')
  }

  /** True once the text turned out not to be JSON. */
  get hasFailed(): boolean {
    return this.#problem !== undefined
  }

  /** Keeps the first problem and moves to the end, so that all loops end too. */
  fail(problem: string): void {
    this.#problem ??= `${problem} at byte ${this.at}`
    this.at = this.bytes.length
  }

  /** Skips white space and returns the next byte, 0 at the end. */
  next(): number {
    const bytes = this.bytes
    while (this.at < bytes.length) {
      const byte = bytes[this.at]!
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte
      this.at++
    }
    return 0
  }

  isAtObject(): boolean {
    return this.next() === openBrace
  }

  isAtArray(): boolean {
    return this.next() === openBracket
  }

  isAtString(): boolean {
    const byte = this.next()
    return byte === quote || byte === apostrophe
  }

  /** Steps into the object or array that `isAtObject` or `isAtArray` found. */
  enter(): void {
    this.at++
    if (++this.#depth > maxDepth) this.fail('nested too deep')
  }

  /** Steps to the value of the next member of the entered object; `undefined` after the last one. */
  nextName(isFirst: boolean): string | undefined {
    let byte = this.next()
    if (byte === closeBrace) return this.#leave()
    if (!isFirst) {
      if (byte !== comma) {
        this.fail('expected , or }')
        return undefined
      }
      this.at++
      byte = this.next()
    }
    const name = byte === quote || byte === apostrophe ? this.#readName(byte) : this.#readBareName()
    if (this.next() !== colon) {
      this.fail('expected :')
      return undefined
    }
    this.at++
    return name
  }

  /** Steps to the next item of the entered array; false after the last one. */
  nextItem(isFirst: boolean): boolean {
    const byte = this.next()
    if (byte === closeBracket) {
      this.#leave()
      return false
    }
    if (isFirst && byte !== 0) return true
    if (byte !== comma) {
      this.fail('expected , or ]')
      return false
    }
    this.at++
    return true
  }

  /** Notes an equal name in one object; `finish` refuses the text for it if the product asks to [V-2]. */
  noteDuplicate(name: string): void {
    this.#duplicate ??= name
  }

  /** Steps over the string that begins here; `start`, `end`, `hasEscape` and `text()` tell about it. */
  readString(): boolean {
    const { bytes } = this
    const delimiter = bytes[this.at]!
    if (delimiter === apostrophe && !this.#isRelaxed) {
      this.fail('expected double quotes')
      return false
    }
    let seen = 0
    this.start = this.at + 1
    this.hasEscape = false
    let at = this.start
    while (at < bytes.length) {
      const byte = bytes[at]!
      if (byte === delimiter) {
        this.end = at
        this.at = at + 1
        this.#hasHighByte = seen >= 0x80
        return true
      }
      if (byte === backslash) {
        const length = escapeLength(bytes, at, delimiter)
        if (length === 0) break
        this.hasEscape = true
        at += length
        continue
      }
      if (byte < 0x20) break
      seen |= byte
      at++
    }
    this.at = at
    this.fail(at < bytes.length ? 'bad character or escape in a string' : 'unfinished string')
    return false
  }

  /** The string read last. */
  text(): string {
    const text = this.bytes.toString(this.#hasHighByte ? 'utf8' : 'latin1', this.start, this.end)
    return this.hasEscape ? unescape(text) : text
  }

  /** Steps over one of the words true, false and null. */
  readWord(word: string): void {
    if (this.bytes.toString('latin1', this.at, this.at + word.length) === word) this.at += word.length
    else this.fail('expected a value')
  }

  /** To be called at the end: what is wrong with the text as a whole, if anything. */
  finish(): JsonFailure | undefined {
    if (this.#problem === undefined && (this.next() !== 0 || this.at < this.bytes.length)) this.fail('text after the value')
    if (this.#problem !== undefined) {
      // Depth counts before other mistakes wherever the reader stopped. Only texts with a mistake
      // need the scan: the reader itself never gets deeper than `enter` lets it.
      if (isTooDeep(this.bytes)) return { code: 'JSON_TOO_DEEP', detail: `nested deeper than ${maxDepth} levels` }
      return { code: 'PAYLOAD_MALFORMED', detail: this.#problem }
    }
    if (this.#duplicate === undefined || !this.#rejectsDuplicates) return undefined
    return { code: 'DUPLICATE_KEY', detail: `the name "${showName(this.#duplicate)}" occurs twice in one object` }
  }

  #leave(): undefined {
    this.at++
    this.#depth--
  }

  #readName(delimiter: number): string {
    const { bytes } = this
    const start = this.at + 1
    if (delimiter === quote) {
      let hash = 0
      for (let at = start; at < bytes.length; at++) {
        const byte = bytes[at]!
        if (byte === quote) {
          if (at === start || at - start > 255) break
          this.isNamePlain = true
          this.at = at + 1
          return names.get(bytes, start, at, hash)
        }
        if (byte === backslash || byte < 0x20 || byte === 0x7f) break
        hash = (Math.imul(hash, 31) + byte) | 0
      }
    }
    this.isNamePlain = false
    return this.readString() ? this.text() : ''
  }

  #readBareName(): string {
    const { bytes } = this
    const start = this.at
    let at = start
    if (this.#isRelaxed) while (at < bytes.length && isBareNameByte(bytes[at]!, at === start)) at++
    if (at === start) this.fail(this.#isRelaxed ? 'expected a name' : 'expected a name in double quotes')
    else this.at = at
    this.isNamePlain = at > start && at - start <= 255
    return bytes.toString('latin1', start, at)
  }
}

/** A name as it may be shown and stored in a log: short, without controls or lone surrogates. */
export function showName(name: string): string {
  const short = name.slice(0, 255)
  // oxlint-disable-next-line no-control-regex -- controls are what is being replaced
  return short.replace(/[\u0000-\u001f\u007f]/g, '\ufffd').toWellFormed()
}

/** [A-Za-z_$][A-Za-z0-9_$.-]* of [V-1] */
function isBareNameByte(byte: number, isFirst: boolean): boolean {
  if ((byte >= 0x61 && byte <= 0x7a) || (byte >= 0x41 && byte <= 0x5a) || byte === 0x5f || byte === 0x24) return true
  return !isFirst && ((byte >= 0x30 && byte <= 0x39) || byte === 0x2e || byte === 0x2d)
}

/** Length of the escape at `at`, 0 when it is none of RFC 8259 (`\'` only inside single quotes). */
function escapeLength(bytes: Buffer, at: number, delimiter: number): number {
  const byte = bytes[at + 1]
  switch (byte) {
    case quote: // " \ / b f n r t
    case backslash:
    case 0x2f:
    case 0x62:
    case 0x66:
    case 0x6e:
    case 0x72:
    case 0x74:
      return 2
    case apostrophe:
      return delimiter === apostrophe ? 2 : 0
    case 0x75:
      for (let digit = at + 2; digit < at + 6; digit++) if (!isHex(bytes[digit])) return 0
      return 6
    default:
      return 0
  }
}

function isHex(byte: number | undefined): boolean {
  return byte !== undefined && ((byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66))
}

const shortEscapes: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

/** Resolves the escapes of a scanned string. Two `\u` halves meet as a pair by themselves. */
function unescape(text: string): string {
  return text.replace(/\\(?:u([0-9a-fA-F]{4})|(.))/g, (_, hex: string | undefined, char: string) =>
    hex === undefined ? (shortEscapes[char] ?? char) : String.fromCharCode(Number.parseInt(hex, 16)),
  )
}

/**
 * Counts brackets outside strings, whatever else is in the bytes: one pass, no recursion, so a text
 * of only brackets costs what its length costs.
 */
export function isTooDeep(bytes: Buffer): boolean {
  let depth = 0
  let delimiter = 0
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!
    if (delimiter !== 0) {
      if (byte === backslash) at++
      else if (byte === delimiter) delimiter = 0
    } else if (byte === quote || byte === apostrophe) delimiter = byte
    else if (byte === openBrace || byte === openBracket) {
      if (++depth > maxDepth) return true
    } else if (byte === closeBrace || byte === closeBracket) depth--
  }
  return false
}
