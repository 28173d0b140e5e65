// SPDX-License-Identifier: AGPL-3.0-only
import { maxPointsPerMessage, readAttributes, readTelemetry } from '../ingest/codecs.ts'
import { JsonReader } from '../ingest/json.ts'
import type { Pipeline } from '../ingest/pipeline.ts'
import type { Reject } from '../ingest/rejects.ts'
import { readPoint } from '../ingest/values.ts'
import type { DeviceRequest } from '../ingest/requests.ts'
import type { Outcome, UplinkKind } from '../ingest/uplink.ts'
import type { Point } from '../telemetry/points.ts'
import type { ChildSession } from './child-session.ts'
import { sourceOfChild } from './gateway-link.ts'
import type { ChildReject, GatewayLink, Taken } from './gateway-link.ts'

/** What reading and storing the data of children needs of their gateways. */
export type ChildDataParts = {
  pipeline: Pipeline
  /** Connects children by name, blanks around it removed. */
  connect(link: GatewayLink, names: readonly string[]): Promise<Map<string, ChildSession | Reject> | 'unavailable'>
  /** Counts a message that names the child. @returns why it comes too fast [G-8] */
  admit(link: GatewayLink, child: ChildSession, isTelemetry: boolean): Reject | undefined
  /** Notes what is refused of one child. */
  refuse(refusal: ChildReject): void
  /** Hears the metadata of an element. @returns whether it is one [G-4] */
  measure(link: GatewayLink, text: string, receivedAt: number): boolean
}

/** What a message says of one child: the bytes, and what they hold once they are read. */
type Part = {
  name: string
  start: number
  end: number
  child: ChildSession | undefined
  points: readonly Point[]
  rejects: readonly Reject[]
  /** Why nothing of it is stored. */
  refused: Reject | undefined
}

const openBrace = 0x7b
const openBracket = 0x5b
const noPoints: readonly Point[] = []
const noRejects: readonly Reject[] = []

const wrongMessage: Reject = { code: 'SHAPE_INVALID', detail: 'expected one object with a member for each child: {"A":…}' }
const wrongPart: Record<UplinkKind, string> = {
  telemetry: 'expected an array of telemetry, or one object of it',
  attributes: 'expected one object of values without "ts" and "values"',
}

/**
 * Telemetry and client attributes of children [G-4], [G-5]. A message is read once: what it says of children
 * that are connected at once, the rest when those are. Nothing is stored before all of it is known to be well-formed.
 */
export class ChildData {
  readonly #parts: ChildDataParts

  constructor(parts: ChildDataParts) {
    this.#parts = parts
  }

  take(link: GatewayLink, request: DeviceRequest, kind: UplinkKind): Taken | Promise<Taken> {
    const message = new ChildMessage(this.#parts, link, request, kind)
    const refused = message.read()
    if (refused !== undefined) return { outcome: { status: 'refused', reject: refused } }
    const unknown = message.unknownNames()
    if (unknown.length === 0) return message.store()
    return this.#parts.connect(link, unknown).then((children) => {
      if (children === 'unavailable') return { outcome: { status: 'unavailable' } }
      message.readRest(children)
      return message.store()
    })
  }
}

class ChildMessage {
  readonly #parts: ChildDataParts
  readonly #link: GatewayLink
  readonly #request: DeviceRequest
  readonly #kind: UplinkKind
  readonly #reader: JsonReader
  readonly #found = new Map<string, Part>()
  readonly #takesMetadata: (text: string) => boolean

  constructor(parts: ChildDataParts, link: GatewayLink, request: DeviceRequest, kind: UplinkKind) {
    this.#parts = parts
    this.#link = link
    this.#request = request
    this.#kind = kind
    this.#reader = new JsonReader(request.payload, request.device.rules)
    this.#takesMetadata = (text) => parts.measure(link, text, request.receivedAt)
  }

  /** @returns why the message as a whole is refused */
  read(): Reject | undefined {
    const reader = this.#reader
    if (!reader.isAtObject()) {
      skip(reader)
      return reader.finish() ?? wrongMessage
    }
    reader.enter()
    for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) {
      reader.next()
      const child = this.#link.find(name)
      const part: Part = { name, start: reader.at, end: 0, child, points: noPoints, rejects: noRejects, refused: undefined }
      if (child === undefined) skip(reader)
      else this.#readPart(part, child)
      part.end = reader.at
      if (this.#found.has(name)) reader.noteDuplicate(name)
      this.#found.set(name, part)
    }
    return reader.finish()
  }

  /** Children that have to be connected. What is no data makes no device. */
  unknownNames(): string[] {
    const names = new Set<string>()
    for (const part of this.#found.values()) {
      if (part.child !== undefined) continue
      const first = this.#reader.bytes[part.start]
      if (first === openBrace || (first === openBracket && this.#kind === 'telemetry')) names.add(part.name.trim())
      else part.refused = this.#wrongPart
    }
    return [...names]
  }

  readRest(children: ReadonlyMap<string, ChildSession | Reject>): void {
    for (const part of this.#found.values()) {
      if (part.child !== undefined || part.refused !== undefined) continue
      const child = children.get(part.name.trim())!
      if ('code' in child) part.refused = child
      else {
        part.child = child
        this.#reader.at = part.start
        this.#readPart(part, child)
      }
    }
  }

  /** Commits what each child has, and tells the gateway once all of it is committed. */
  store(): Taken {
    let count = 0
    for (const { points, rejects } of this.#found.values()) count += points.length + rejects.length
    if (count > maxPointsPerMessage) {
      const detail = `${count} points; a message may hold ${maxPointsPerMessage}`
      return { outcome: { status: 'refused', reject: { code: 'TOO_MANY_POINTS', detail } } }
    }
    if (this.#kind === 'telemetry') this.#request.device.limits?.own?.takePoints(count)
    const gathered = new Gathered()
    for (const part of this.#found.values()) this.#storePart(part, gathered)
    return { outcome: gathered.finish() }
  }

  #readPart(part: Part, child: ChildSession): void {
    const { receivedAt } = this.#request
    const reader = this.#reader
    const { device } = child
    const isTelemetry = this.#kind === 'telemetry'
    child.lastActivityAt = receivedAt
    const excess = this.#parts.admit(this.#link, child, isTelemetry)
    if (excess !== undefined) {
      part.refused = excess
      return skip(reader)
    }
    const options = { rules: device.rules, device, receivedAt, takesMetadata: this.#takesMetadata }
    const read = isTelemetry ? readTelemetry(reader, options) : readAttributes(reader, device.rules, receivedAt).message
    if (read.isShapeInvalid) {
      part.refused = this.#wrongPart
      return
    }
    part.points = read.points
    part.rejects = read.rejects
    if (isTelemetry) this.#request.device.limits?.childLimiter(device)?.takePoints(read.points.length + read.rejects.length)
  }

  #storePart(part: Part, gathered: Gathered): void {
    const { child, name, points, rejects, refused } = part
    const payload = this.#request.payload.subarray(part.start, part.end)
    if (refused !== undefined) this.#parts.refuse({ request: this.#request, child, name, reject: refused, payload })
    if (refused !== undefined || child === undefined) return gathered.addRefused(refused)
    const { receivedAt } = this.#request
    const source = sourceOfChild(this.#request)
    const uplink = { device: child.device, kind: this.#kind, payload, transport: 'gateway', source, receivedAt } as const
    this.#parts.pipeline.take(uplink, { points, rejects }, gathered.expect())
  }

  get #wrongPart(): Reject {
    return { code: 'SHAPE_INVALID', detail: wrongPart[this.#kind] }
  }
}

/** The outcome of a message, from those of its children. */
class Gathered {
  #open = 0
  #accepted = 0
  #isUnavailable = false
  readonly #rejects: Reject[] = []
  #resolve: ((outcome: Outcome) => void) | undefined

  addRefused(reject: Reject | undefined): void {
    if (reject !== undefined) this.#rejects.push(reject)
  }

  /** One more outcome will come. */
  expect(): (outcome: Outcome) => void {
    this.#open++
    return (outcome) => {
      this.#open--
      if (outcome.status === 'unavailable') this.#isUnavailable = true
      else if (outcome.status === 'refused') this.#rejects.push(outcome.reject)
      else {
        this.#rejects.push(...outcome.rejects)
        if (outcome.status === 'stored') this.#accepted += outcome.accepted
      }
      if (this.#open === 0) this.#resolve?.(this.#outcome())
    }
  }

  /** All are expected. */
  finish(): Outcome | Promise<Outcome> {
    return this.#open === 0 ? this.#outcome() : new Promise((resolve) => (this.#resolve = resolve))
  }

  #outcome(): Outcome {
    const rejects = this.#rejects
    if (this.#isUnavailable) return { status: 'unavailable' }
    // [G-8] An error code only when nothing of the message was stored.
    if (this.#accepted === 0 && rejects.length > 0) return { status: 'rejected', rejects }
    return { status: 'stored', accepted: this.#accepted, rejects }
  }
}

function skip(reader: JsonReader): void {
  readPoint(reader, '', false)
}
