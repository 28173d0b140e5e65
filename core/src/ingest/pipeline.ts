// SPDX-License-Identifier: AGPL-3.0-only
import type { Log } from '../log.ts'
import type { Point } from '../telemetry/points.ts'
import { decodeAttributes, decodeTelemetry } from './codecs.ts'
import type { Device } from './registry.ts'
import type { RejectLog } from './reject-log.ts'
import type { Reject } from './rejects.ts'
import type { IngestSink, Outcome, Uplink, UplinkKind, UplinkSource } from './uplink.ts'
import type { Write, WriteOutcome, Writer } from './writer.ts'

/** A committed message, as the steps after the commit see it. */
export type Stored = {
  readonly device: Device
  readonly kind: UplinkKind
  readonly transport: UplinkSource['transport']
  readonly points: readonly Point[]
  readonly receivedAt: number
  readonly rejectCount: number
}

/** One thing to do after the commit. It must be quick; what is slow gathers and works later. */
export type AfterCommit = { name: string; run: (stored: Stored) => void }

export type PipelineOptions = {
  telemetry: Writer
  attributes: Writer
  rejects: RejectLog
  /** In order. A failing step stops no other and holds no acknowledgement. */
  afterCommit: readonly AfterCommit[]
  log: Log
  /** While closed nothing is taken in: sockets stay unread. */
  gate: { readonly isClosed: boolean; onOpen(listener: () => void): () => void }
}

/** What of a payload the reject log may ask for, and the largest buffer that is kept instead of copying it. */
const sampleBytes = 256
const keptBytes = 512

/**
 * The way of a message from an entrance to its commit:
 * decode → refuse bad points one by one → write → settle → what follows the commit.
 */
export class Pipeline implements IngestSink {
  readonly #options: PipelineOptions

  constructor(options: PipelineOptions) {
    this.#options = options
  }

  get isFull(): boolean {
    const { telemetry, attributes, gate } = this.#options
    return telemetry.isFull || attributes.isFull || gate.isClosed
  }

  onRoom(listener: () => void): () => void {
    const { telemetry, attributes, gate } = this.#options
    const listen = () => !this.isFull && listener()
    const stops = [telemetry.onRoom(listen), attributes.onRoom(listen), gate.onOpen(listen)]
    return () => stops.forEach((stop) => stop())
  }

  accept(uplink: Uplink, settle: (outcome: Outcome) => void): void {
    const decoded = decode(uplink)
    if ('refused' in decoded) {
      this.#record(uplink, uplink.payload, decoded.refused)
      return settle({ status: 'refused', reject: decoded.refused })
    }
    if (uplink.device.limits !== undefined) countPoints(uplink, decoded.points.length + decoded.rejects.length)
    this.take(uplink, decoded, settle)
  }

  /** Takes a message that is decoded already: logs what is refused of it, and commits the rest. */
  take(
    uplink: Uplink,
    { points, rejects }: { points: readonly Point[]; rejects: readonly Reject[] },
    settle: (outcome: Outcome) => void,
  ): void {
    const { device } = uplink
    for (const reject of rejects) this.#record(uplink, uplink.payload, reject)
    if (points.length > 0) return this.write(uplink, points, rejects, settle)
    // An empty message is an uplink all the same: the device is alive.
    const { kind, transport, receivedAt } = uplink
    this.#follow({ device, kind, transport, points, receivedAt, rejectCount: rejects.length })
    settle(rejects.length > 0 ? { status: 'rejected', rejects } : { status: 'stored', accepted: 0, rejects })
  }

  /** Commits decoded points; `early` are the refusals the message already has. */
  write(uplink: Uplink, points: readonly Point[], early: readonly Reject[], settle: (outcome: Outcome) => void): void {
    const writer = uplink.kind === 'telemetry' ? this.#options.telemetry : this.#options.attributes
    writer.enqueue(new Message(this.#finish, uplink, points, early, settle))
  }

  /** Called for each message once its write is over. */
  readonly #finish = (message: Message, outcome: WriteOutcome): void => {
    const { uplink, early, answer } = message
    if (outcome.status === 'unavailable') return answer({ status: 'unavailable' })
    const late = outcome.rejects
    if (late.length === 0) answer({ status: 'stored', accepted: message.points.length, rejects: early })
    else {
      for (const reject of late) this.#record(uplink, message.sample, reject)
      const rejects = [...early, ...late]
      const accepted = message.points.length - late.length
      answer(accepted > 0 ? { status: 'stored', accepted, rejects } : { status: 'rejected', rejects })
      const { device, kind, transport, receivedAt } = message
      const points = without(message.points, late)
      return this.#follow({ device, kind, transport, points, receivedAt, rejectCount: rejects.length })
    }
    this.#follow(message)
  }

  #follow(stored: Stored): void {
    for (const step of this.#options.afterCommit) {
      try {
        step.run(stored)
      } catch (error) {
        this.#options.log.error({ err: error, step: step.name }, 'a step after the commit failed')
      }
    }
  }

  #record({ device, source }: Uplink, payload: Buffer, reject: Reject): void {
    this.#options.rejects.record({ device, source, reject, payload })
  }
}

/** One object per message from its decoding to the last step: what the writer writes, and then what the steps see. */
class Message implements Write, Stored {
  readonly uplink: Uplink
  readonly device: Device
  readonly points: readonly Point[]
  readonly early: readonly Reject[]
  readonly rejectCount: number
  readonly sizeBytes: number
  /** Beginning of the payload, for the reject log. */
  readonly sample: Buffer
  readonly answer: (outcome: Outcome) => void
  isSettled = false
  readonly #finish: (message: Message, outcome: WriteOutcome) => void

  constructor(
    finish: (message: Message, outcome: WriteOutcome) => void,
    uplink: Uplink,
    points: readonly Point[],
    early: readonly Reject[],
    answer: (outcome: Outcome) => void,
  ) {
    this.uplink = uplink
    this.device = uplink.device
    this.points = points
    this.early = early
    this.rejectCount = early.length
    this.sizeBytes = uplink.payload.length
    this.sample = sampleOf(uplink.payload)
    this.answer = answer
    this.#finish = finish
  }

  get kind(): UplinkKind {
    return this.uplink.kind
  }

  get transport(): UplinkSource['transport'] {
    return this.uplink.transport
  }

  get receivedAt(): number {
    return this.uplink.receivedAt
  }

  settle(outcome: WriteOutcome): void {
    this.#finish(this, outcome)
  }
}

/** The payload itself where that keeps little else in memory, as it does for a message that came alone; else a copy. */
function sampleOf(payload: Buffer): Buffer {
  return payload.buffer.byteLength <= keptBytes ? payload : Buffer.from(payload.subarray(0, sampleBytes))
}

function decode(uplink: Uplink): { points: readonly Point[]; rejects: readonly Reject[] } | { refused: Reject } {
  const { device, payload, receivedAt } = uplink
  if (uplink.kind === 'telemetry') return decodeTelemetry(payload, device.rules, device, receivedAt)
  const decoded = decodeAttributes(payload, device.rules)
  if ('refused' in decoded) return decoded
  return { points: decoded.attributes.map((attribute) => ({ ...attribute, ts: receivedAt })), rejects: decoded.rejects }
}

/** Only what the device itself has sent: what a person writes, or a gateway for it, is not its rate. */
function countPoints({ device, kind, transport }: Uplink, count: number): void {
  if (kind === 'telemetry' && (transport === 'mqtt' || transport === 'http')) device.limits?.own?.takePoints(count)
}

function without(points: readonly Point[], rejects: readonly Reject[]): Point[] {
  const refused = new Set(rejects.map((reject) => `${reject.ts} ${reject.key}`))
  return points.filter((point) => !refused.has(`${point.ts} ${point.key}`))
}
