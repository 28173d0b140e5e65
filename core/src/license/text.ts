// SPDX-License-Identifier: AGPL-3.0-only

/** Nesting that a license needs is 3; more than this is an attempt to find the end of our stack. */
const maxDepth = 8

/** What mail programs, editors and consoles put between the characters of a token [L-10]. */
const dropped = /[\t\n\v\f\r \u00a0]+/g

/** [L-10] The token inside a text that has been through mail: byte order mark, armour lines, breaks and blanks are taken out. */
export function normaliseToken(text: string): string {
  return text
    .replace(/^\ufeff/, '')
    .split(/\r\n|\r|\n/)
    .filter((line) => !isArmour(line.trimEnd()))
    .join('')
    .replace(dropped, '')
}

function isArmour(line: string): boolean {
  return /^-----(?:BEGIN|END) /.test(line) && line.endsWith('-----')
}

/** [L-12] The text of a `.lic` file. */
export function armourToken(token: string, what = 'LICENSE'): string {
  const lines = token.match(/.{1,64}/g) ?? []
  return `-----BEGIN IOT-PMS ${what}-----\n${lines.join('\n')}\n-----END IOT-PMS ${what}-----\n`
}

export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject
export type JsonObject = { [member: string]: JsonValue }

/**
 * [L-17] Reads one JSON object from UTF-8 that leaves no room for two readings: no byte order mark, no duplicate
 * member at any depth, no `__proto__`, depth up to 8. Objects have a null prototype.
 *
 * @returns undefined for everything else
 */
export function parseStrictJson(bytes: Uint8Array): JsonObject | undefined {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    // The grammar is JSON's own; what follows only has to find out what JSON.parse forgives.
    JSON.parse(text)
  } catch {
    return undefined
  }
  const reader = new StrictReader(text)
  try {
    const value = reader.readValue(1)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Reads text that is known to be JSON; throws where it is not strict. */
class StrictReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  readValue(depth: number): JsonValue {
    if (depth > maxDepth) throw new Error('too deep')
    switch (this.#next()) {
      case '{':
        return this.#readObject(depth)
      case '[':
        return this.#readArray(depth)
      case '"':
        return this.#readString()
      default:
        return this.#readScalar()
    }
  }

  #readObject(depth: number): JsonObject {
    const object = Object.create(null) as JsonObject
    this.#at++
    while (this.#next() !== '}') {
      const name = this.#readString()
      if (name === '__proto__' || Object.hasOwn(object, name)) throw new Error('a member that is not allowed or comes twice')
      this.#next()
      this.#at++
      object[name] = this.readValue(depth + 1)
      if (this.#next() === ',') this.#at++
    }
    this.#at++
    return object
  }

  #readArray(depth: number): JsonValue[] {
    const array: JsonValue[] = []
    this.#at++
    while (this.#next() !== ']') {
      array.push(this.readValue(depth + 1))
      if (this.#next() === ',') this.#at++
    }
    this.#at++
    return array
  }

  #readString(): string {
    const start = this.#at
    let end = start + 1
    while (this.#text[end] !== '"') end += this.#text[end] === '\\' ? 2 : 1
    this.#at = end + 1
    const value = JSON.parse(this.#text.slice(start, this.#at)) as string
    // Half a surrogate pair is no text in any encoding.
    if (!value.isWellFormed()) throw new Error('not well-formed')
    return value
  }

  #readScalar(): JsonValue {
    const match = /[^\s,\]}]+/y
    match.lastIndex = this.#at
    const [token] = match.exec(this.#text) ?? ['']
    this.#at += token.length
    return JSON.parse(token) as JsonValue
  }

  /** The next character that is no blank. */
  #next(): string {
    while (/[\t\n\r ]/.test(this.#text[this.#at] ?? '')) this.#at++
    return this.#text[this.#at] ?? ''
  }
}

/**
 * [L-41] One text for one value: RFC 8785 for strings, safe integers, booleans, null, arrays and objects.
 * Members are sorted by code unit, there are no blanks.
 *
 * @throws {TypeError} for anything else, such as 1.5 or undefined inside an array
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new TypeError('text with half a surrogate pair has no canonical form')
    return JSON.stringify(value)
  }
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw new TypeError('a number that is no safe integer has no canonical form')
    return String(value === 0 ? 0 : value)
  }
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (typeof value !== 'object') throw new TypeError(`a ${typeof value} has no canonical form`)
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`)
  return `{${members.join(',')}}`
}

/** The bytes of canonical base64url; undefined when decoding and encoding again gives another text. */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}
