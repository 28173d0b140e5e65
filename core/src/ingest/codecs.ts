// SPDX-License-Identifier: AGPL-3.0-only
import type { Point, TypedValue } from '../telemetry/points.ts'
import { readFlat } from './flat.ts'
import { JsonReader, showName } from './json.ts'
import { maxValueBytes, readPoint } from './values.ts'
import type { ValueIssue } from './values.ts'
import type { Device, PayloadRules } from './registry.ts'
import type { Reject, RejectCode } from './rejects.ts'

/** Points or attributes of one message (device API §2.6). */
export const maxPointsPerMessage = 10_000
/** Longest key in characters [V-14]. */
export const maxKeyLength = 255

/** What a message holds: the points to store and the refused ones, or why all of it is refused. */
export type DecodedTelemetry = { points: readonly Point[]; rejects: readonly Reject[] } | { refused: Reject }
export type Attribute = TypedValue & { key: string }
/** `nulls`: members without a value, which say nothing in a message of a device. */
export type DecodedAttributes = { attributes: Attribute[]; rejects: Reject[]; nulls: readonly string[] } | { refused: Reject }

/** Largest instant of ECMAScript, and the span in which a number looks like seconds, 2000–2100 [V-9]. */
const maxTs = 8_640_000_000_000_000
const minSeconds = 946_684_800
const maxSeconds = 4_102_444_800
/** How far server-made timestamps may run ahead of the clock [V-6]. */
const maxLeadMs = 1_000

/** Up to this many members an equal name is found faster by looking than by hashing. */
const fewMembers = 16

const noRejects: readonly Reject[] = []

const issueDetails: Record<ValueIssue, string> = {
  VALUE_NOT_FINITE: 'the number is too large for a double',
  STRING_INVALID: 'U+0000 or a lone surrogate in a text',
  VALUE_TOO_LARGE: `longer than ${maxValueBytes} bytes`,
}

const shapeInvalid = 'expected an object of values, {"ts":…,"values":{…}} or an array of these'
const attributesInvalid = 'expected one object of values without "ts" and "values"'

/**
 * Decodes a telemetry message by device API §4. Points without `ts` get the time of receipt, made
 * strictly increasing per device by moving `device.lastServerTs`; the points of one object share it.
 */
export function decodeTelemetry(
  payload: Buffer,
  rules: PayloadRules,
  device: Pick<Device, 'lastServerTs'>,
  receivedAt: number,
): DecodedTelemetry {
  const flat = readFlat(payload)
  if (flat !== undefined) {
    const ts = nextServerTs(device, receivedAt)
    for (const point of flat) point.ts = ts
    return { points: flat, rejects: noRejects }
  }
  const message = readTelemetry(new JsonReader(payload, rules), { rules, device, receivedAt })
  const refused = refuse(message, shapeInvalid)
  return refused === undefined ? { points: message.points, rejects: message.rejects } : { refused }
}

/** How the value at which a reader stands is to be read. */
export type ReadOptions = Pick<Message, 'rules' | 'device' | 'receivedAt' | 'takesMetadata'>

/**
 * Reads the telemetry of one device from where the reader stands, which may be inside a larger text: whether
 * that is well-formed is known once the reader has finished it.
 */
export function readTelemetry(reader: JsonReader, options: ReadOptions): Message {
  const message: Message = { reader, ...options, points: [], rejects: [], isShapeInvalid: false }
  if (reader.isAtObject()) readObject(message)
  else if (reader.isAtArray()) {
    reader.enter()
    for (let more = reader.nextItem(true); more; more = reader.nextItem(false)) {
      if (reader.isAtObject()) readObject(message)
      else skipWrongShape(message)
    }
  } else skipWrongShape(message)
  return message
}

/** Decodes client attributes: one object of values. */
export function decodeAttributes(payload: Buffer, rules: PayloadRules): DecodedAttributes {
  const { message, nulls } = readAttributes(new JsonReader(payload, rules), rules, 0)
  const refused = refuse(message, attributesInvalid)
  if (refused !== undefined) return { refused }
  return { attributes: message.points.map(toAttribute), rejects: message.rejects, nulls }
}

/** Reads client attributes as {@link readTelemetry} reads telemetry; `ts` of the points is that of the message. */
export function readAttributes(reader: JsonReader, rules: PayloadRules, ts: number): { message: Message; nulls: readonly string[] } {
  const message: Message = { reader, rules, device: { lastServerTs: 0 }, receivedAt: ts, points: [], rejects: [], isShapeInvalid: false }
  let nulls: readonly string[] = []
  if (reader.isAtObject()) {
    const members = new Members(message).readAll()
    nulls = members.nulls()
    message.isShapeInvalid = members.has('ts') && members.has('values')
    members.moveTo(message, ts)
  } else skipWrongShape(message)
  return { message, nulls }
}

function toAttribute(point: Point): Attribute {
  const attribute: Attribute & { ts?: number } = { ...point }
  delete attribute.ts
  return attribute
}

type Message = {
  reader: JsonReader
  rules: PayloadRules
  device: Pick<Device, 'lastServerTs'>
  receivedAt: number
  /** Hears the JSON text of a member `metadata` and says whether it is one of a gateway's element, which is not stored [G-4]. */
  takesMetadata?: (text: string) => boolean
  points: Point[]
  rejects: Reject[]
  isShapeInvalid: boolean
}

function refuse(message: Message, shape: string): Reject | undefined {
  const failure = message.reader.finish()
  if (failure !== undefined) return failure
  if (message.isShapeInvalid) return { code: 'SHAPE_INVALID', detail: shape }
  const count = message.points.length + message.rejects.length
  if (count <= maxPointsPerMessage) return undefined
  return { code: 'TOO_MANY_POINTS', detail: `${count} points; a message may hold ${maxPointsPerMessage}` }
}

/** Reads on, so that a text that is not JSON at all is reported as that. */
function skipWrongShape(message: Message): void {
  readPoint(message.reader, '', false)
  message.isShapeInvalid = true
}

/**
 * One object of the message: timestamped if it has both `ts` and `values`, in whichever order
 * they come, and then its other members don't count; else an object of values [V-4].
 */
function readObject(message: Message): void {
  const { reader } = message
  const outer = new Members(message)
  let inner: Members | undefined
  let valuesAt = -1
  reader.enter()
  for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) {
    if (name === 'values') {
      inner = undefined
      valuesAt = reader.isAtObject() ? reader.at : -1
      if (valuesAt >= 0 && outer.has('ts')) {
        inner = new Members(message).readAll()
        outer.put(name, null)
        continue
      }
    }
    outer.read(name)
  }
  if (message.takesMetadata !== undefined) outer.takeOut('metadata', message.takesMetadata)
  if (!outer.has('ts') || !outer.has('values')) {
    outer.moveTo(message, outer.hasPoint() ? nextServerTs(message.device, message.receivedAt) : 0)
    return
  }
  if (valuesAt < 0) {
    message.isShapeInvalid = true
    return
  }
  inner ??= readAgain(message, valuesAt)
  inner.moveTo(message, resolveTs(outer.get('ts') ?? null, message))
}

/** Reads an object of values that was passed before its `ts` was seen. */
function readAgain(message: Message, at: number): Members {
  const { reader } = message
  const after = reader.at
  const members = new Members(message)
  if (reader.hasFailed) return members
  reader.at = at
  members.readAll()
  reader.at = after
  return members
}

type Refusal = { code: RejectCode; detail: string; ts?: number }
type Entry = Point | (Reject & { key: string }) | null

/** The members of one object: what each name came to, the last of equal names winning [V-2]. */
class Members {
  readonly #message: Message
  readonly #names: string[] = []
  readonly #entries: Entry[] = []
  #places: Map<string, number> | undefined

  constructor(message: Message) {
    this.#message = message
  }

  /** Reads the object the reader stands at. */
  readAll(): this {
    const { reader } = this.#message
    reader.enter()
    for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) this.read(name)
    return this
  }

  /** Reads the value of the member `name`. */
  read(name: string): void {
    const { reader, rules } = this.#message
    const isKey = reader.isNamePlain || isValidKey(name)
    const entry = readPoint(reader, name, rules.castNumericStrings)
    if (entry !== null && !isKey) {
      const detail = `a key has 1–${maxKeyLength} characters, none of them a control or a lone surrogate`
      this.put(name, { code: 'KEY_INVALID', detail, key: showName(name) })
    } else if (typeof entry === 'string') this.put(name, { code: entry, detail: issueDetails[entry], key: showName(name) })
    else this.put(name, entry)
  }

  put(name: string, entry: Entry): void {
    const place = this.#find(name)
    if (place >= 0) {
      this.#message.reader.noteDuplicate(name)
      this.#entries[place] = entry
      return
    }
    this.#places?.set(name, this.#names.length)
    this.#names.push(name)
    this.#entries.push(entry)
    if (this.#names.length === fewMembers) this.#places = new Map(this.#names.map((one, index) => [one, index]))
  }

  has(name: string): boolean {
    return this.#find(name) >= 0
  }

  get(name: string): Entry | undefined {
    return this.#entries[this.#find(name)]
  }

  /** Takes a member out that holds JSON and is none of the values. */
  takeOut(name: string, isTaken: (text: string) => boolean): void {
    const entry = this.get(name)
    if (entry && 'kind' in entry && entry.kind === 'json' && isTaken(entry.value)) this.#entries[this.#find(name)] = null
  }

  hasPoint(): boolean {
    return this.#entries.some((entry) => entry !== null && 'kind' in entry)
  }

  nulls(): string[] {
    return this.#names.filter((_, index) => this.#entries[index] === null)
  }

  /** Hands the members to the message: its points at `ts`, or refused because of their `ts`. */
  moveTo(message: Message, ts: number | Refusal): void {
    for (const entry of this.#entries) {
      if (entry === null) continue
      if (!('kind' in entry)) message.rejects.push(typeof ts === 'number' && ts > 0 ? { ...entry, ts } : entry)
      else if (typeof ts === 'number') {
        entry.ts = ts
        message.points.push(entry)
      } else message.rejects.push({ ...ts, key: entry.key })
    }
  }

  #find(name: string): number {
    return this.#places === undefined ? this.#names.indexOf(name) : (this.#places.get(name) ?? -1)
  }
}

export function isValidKey(name: string): boolean {
  if (name === '' || name.length > 2 * maxKeyLength || !name.isWellFormed()) return false
  // oxlint-disable-next-line no-control-regex -- controls are what is being looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) return false
  return name.length <= maxKeyLength || [...name].length <= maxKeyLength
}

/**
 * The next server-made timestamp of a device [V-6]. A burst may take it 1,000 ms ahead of the clock
 * and not further; when the clock itself went back by more than that, growing strictly comes first.
 */
export function nextServerTs(device: Pick<Device, 'lastServerTs'>, receivedAt: number): number {
  const last = device.lastServerTs
  const isBurst = last === receivedAt + maxLeadMs
  device.lastServerTs = isBurst ? last : Math.max(receivedAt, last + 1)
  return device.lastServerTs
}

/** A device-given timestamp in ms, or why its points are refused [V-9]…[V-11]. */
function resolveTs(given: Entry, { rules, receivedAt }: Message): number | Refusal {
  const number = integerOf(given)
  const looksLikeSeconds = number !== undefined && number >= minSeconds && number <= maxSeconds
  const isSeconds = rules.timestampUnit === 's' || (rules.timestampUnit === 'auto' && looksLikeSeconds)
  const ts = (number ?? Number.NaN) * (isSeconds ? 1000 : 1)
  if (!(ts >= 1 && ts <= maxTs)) return { code: 'TS_INVALID', detail: 'ts is not an integer between 1 and 8640000000000000' }
  if (looksLikeSeconds && rules.timestampUnit === 'ms') {
    const detail = 'ts looks like seconds; send milliseconds, or set payload.timestampUnit of the product to "s" or "auto"'
    return { code: 'TS_SECONDS', detail, ts }
  }
  if (ts <= receivedAt + rules.maxFutureMs) return ts
  return {
    code: 'TS_FUTURE',
    detail: `ts is more than ${rules.maxFutureMs} ms ahead of the server (payload.maxFutureMs of the product)`,
    ts,
  }
}

function integerOf(given: Entry): number | undefined {
  if (given === null || !('kind' in given)) return undefined
  if (given.kind === 'integer') return Number(given.value)
  return given.kind === 'string' && /^\d{1,40}$/.test(given.value) ? Number(given.value) : undefined
}
