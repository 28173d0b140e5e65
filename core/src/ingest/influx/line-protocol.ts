// SPDX-License-Identifier: AGPL-3.0-only
import type { TypedValue } from '../../telemetry/points.ts'

/** A line of the InfluxDB line protocol: `measurement,tag=value field=1.5,other="text" 1700000000000000000`. */
export type InfluxLine = {
  /** Counted from 1, as the sender counts them. */
  no: number
  measurement: string
  tags: [key: string, value: string][]
  fields: [key: string, value: TypedValue][]
  /** As it was written, in the unit of the request; undefined when the server's time is meant. */
  time: bigint | undefined
}

/** A line that is no line protocol; `text` is the line. */
export type InfluxFault = { no: number; detail: string; text: string }

const minInteger = -(2n ** 63n)
const maxInteger = 2n ** 63n - 1n
const maxUnsigned = 2n ** 64n - 1n
const words = new Map([
  ...['t', 'T', 'true', 'True', 'TRUE'].map((word) => [word, true] as const),
  ...['f', 'F', 'false', 'False', 'FALSE'].map((word) => [word, false] as const),
])
const float = /^-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/

/** Each line of a body, well-formed or not; empty lines and comments are none. */
export function* parseLines(text: string): Generator<InfluxLine | InfluxFault> {
  const reader = new LineReader(text)
  while (reader.nextLine()) yield reader.read()
}

class LineFault extends Error {}

class LineReader {
  readonly #text: string
  #at = 0
  #start = 0
  #no = 0
  /** Lines inside the text of a field count too. */
  #extraLines = 0

  constructor(text: string) {
    this.#text = text
  }

  /** Goes to the next line that says something. */
  nextLine(): boolean {
    this.#no += this.#extraLines
    this.#extraLines = 0
    while (this.#at < this.#text.length) {
      this.#no++
      this.#skipBlanks()
      if (this.#text[this.#at] !== '#' && !this.#isAtEnd()) {
        this.#start = this.#at
        return true
      }
      this.#skipLine()
    }
    return false
  }

  read(): InfluxLine | InfluxFault {
    const no = this.#no
    try {
      return { no, ...this.#readLine() }
    } catch (error) {
      if (!(error instanceof LineFault)) throw error
      // What follows a broken text of a field is looked at line by line again.
      this.#at = this.#start
      this.#extraLines = 0
      this.#skipLine()
      return { no, detail: error.message, text: this.#text.slice(this.#start, this.#at).trimEnd() }
    }
  }

  #readLine(): Omit<InfluxLine, 'no'> {
    const measurement = this.#readName(', ')
    if (measurement === '') fail('missing measurement')
    const tags: InfluxLine['tags'] = []
    while (this.#take(',')) {
      const key = this.#readName('=, ')
      if (key === '' || !this.#take('=')) fail('missing tag value')
      const value = this.#readName('=, ')
      if (value === '') fail('missing tag value')
      tags.push([key, value])
    }
    if (!this.#take(' ')) fail('missing fields')
    this.#skipBlanks()
    const fields: InfluxLine['fields'] = []
    do {
      const key = this.#readName('=, ')
      if (key === '' || !this.#take('=')) fail('missing field value')
      fields.push([key, this.#readValue()])
    } while (this.#take(','))
    this.#skipBlanks()
    const time = this.#isAtEnd() ? undefined : this.#readTime()
    this.#skipBlanks()
    if (!this.#isAtEnd()) fail('text after the timestamp')
    this.#skipLine()
    return { measurement, tags, fields, time }
  }

  /** A name up to one of the stops. A backslash counts only before what it can escape. */
  #readName(stops: string): string {
    let name = ''
    for (; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at]!
      if (char === '\n' || stops.includes(char) || (char === '\r' && this.#isAtEnd())) break
      const next = this.#text[this.#at + 1]
      if (char === '\\' && next !== undefined && ',= '.includes(next)) this.#at++
      name += this.#text[this.#at]
    }
    return name
  }

  #readValue(): TypedValue {
    if (this.#take('"')) return { kind: 'string', value: this.#readText() }
    const text = this.#readName(', ')
    const word = words.get(text)
    if (word !== undefined) return { kind: 'boolean', value: word }
    const whole = /^(-?\d{1,20})([iu])$/.exec(text)
    if (whole) return readWhole(BigInt(whole[1]!), whole[2] === 'u')
    if (text.length > 400 || !float.test(text)) fail(`invalid value ${JSON.stringify(text.slice(0, 40))}`)
    const value = Number(text) + 0
    return Number.isFinite(value) ? { kind: 'double', value } : fail('the number is too large for a double')
  }

  /** A text between quotes: may hold line ends; a backslash counts only before a quote or itself. */
  #readText(): string {
    let start = this.#at
    let value = ''
    for (; this.#at < this.#text.length; this.#at++) {
      const char = this.#text[this.#at]
      if (char === '"') return value + this.#text.slice(start, this.#at++)
      if (char === '\n') this.#extraLines++
      const next = this.#text[this.#at + 1]
      if (char !== '\\' || (next !== '"' && next !== '\\')) continue
      value += this.#text.slice(start, this.#at++)
      start = this.#at
    }
    return fail('unbalanced quotes')
  }

  #readTime(): bigint {
    const text = this.#readName(' ')
    const time = /^-?\d{1,19}$/.test(text) ? BigInt(text) : fail('bad timestamp')
    return time >= minInteger && time <= maxInteger ? time : fail('bad timestamp')
  }

  #take(char: string): boolean {
    if (this.#text[this.#at] !== char) return false
    this.#at++
    return true
  }

  #skipBlanks(): void {
    while (this.#text[this.#at] === ' ' || this.#text[this.#at] === '\t') this.#at++
  }

  #isAtEnd(): boolean {
    const char = this.#text[this.#at]
    return char === undefined || char === '\n' || (char === '\r' && ['\n', undefined].includes(this.#text[this.#at + 1]))
  }

  #skipLine(): void {
    const end = this.#text.indexOf('\n', this.#at)
    this.#at = end < 0 ? this.#text.length : end + 1
  }
}

/** Unsigned numbers beyond 64 bit signed are kept as the text of their digits, as JSON ones are (device API §4.4). */
function readWhole(exact: bigint, isUnsigned: boolean): TypedValue {
  if (isUnsigned ? exact < 0n || exact > maxUnsigned : exact < minInteger || exact > maxInteger) fail('the integer is out of range')
  if (exact > maxInteger) return { kind: 'string', value: String(exact) }
  const value = Number(exact)
  return { kind: 'integer', value: Number.isSafeInteger(value) ? value : exact }
}

function fail(detail: string): never {
  throw new LineFault(detail)
}
