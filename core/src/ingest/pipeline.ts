// SPDX-License-Identifier: AGPL-3.0-only
import type { Log } from '../log.ts'
import type { Point } from '../telemetry/points.ts'
import { decodeAttributes, decodeTelemetry } from './codecs.ts'
import type { Device } from './registry.ts'
import type { RejectLog } from './reject-log.ts'
import type { Reject } from './rejects.ts'
import type { IngestSink, Outcome, Uplink, UplinkKind, UplinkSource } from './uplink.ts'
import type { Writer } from './writer.ts'

/** A committed message, as the steps after the commit see it. */
export type Stored = {
  device: Device
  kind: UplinkKind
  transport: UplinkSource['transport']
  points: readonly Point[]
  receivedAt: number
  rejectCount: number
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
}

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
    return this.#options.telemetry.isFull || this.#options.attributes.isFull
  }

  onRoom(listener: () => void): () => void {
    const stops = [this.#options.telemetry, this.#options.attributes].map((writer) => writer.onRoom(() => !this.isFull && listener()))
    return () => stops.forEach((stop) => stop())
  }

  accept(uplink: Uplink, settle: (outcome: Outcome) => void): void {
    const decoded = decode(uplink)
    if ('refused' in decoded) {
      this.#record(uplink, decoded.refused)
      return settle({ status: 'refused', reject: decoded.refused })
    }
    for (const reject of decoded.rejects) this.#record(uplink, reject)
    if (decoded.points.length === 0) {
      // An empty message is an uplink all the same: the device is alive.
      this.#follow({
        device: uplink.device,
        kind: uplink.kind,
        transport: uplink.source.transport,
        points: [],
        receivedAt: uplink.receivedAt,
        rejectCount: decoded.rejects.length,
      })
      return settle(
        decoded.rejects.length > 0 ? { status: 'rejected', rejects: decoded.rejects } : { status: 'stored', accepted: 0, rejects: [] },
      )
    }
    this.write(uplink, decoded.points, decoded.rejects, settle)
  }

  /** Commits decoded points; `early` are the refusals the message already has. */
  write(uplink: Uplink, points: readonly Point[], early: readonly Reject[], settle: (outcome: Outcome) => void): void {
    const { device, kind, receivedAt } = uplink
    // The payload belongs to the entrance's buffer; only the reject log may still need its beginning.
    const sample = uplink.payload.toString('latin1', 0, 256)
    const writer = kind === 'telemetry' ? this.#options.telemetry : this.#options.attributes
    writer.enqueue({
      device,
      points,
      sizeBytes: uplink.payload.length,
      settle: (outcome) => {
        if (outcome.status === 'unavailable') return settle({ status: 'unavailable' })
        for (const reject of outcome.rejects) this.#record({ ...uplink, payload: Buffer.from(sample, 'latin1') }, reject)
        const rejects = outcome.rejects.length > 0 ? [...early, ...outcome.rejects] : early
        const accepted = points.length - outcome.rejects.length
        settle(accepted > 0 ? { status: 'stored', accepted, rejects } : { status: 'rejected', rejects })
        this.#follow({
          device,
          kind,
          transport: uplink.source.transport,
          points: outcome.rejects.length > 0 ? without(points, outcome.rejects) : points,
          receivedAt,
          rejectCount: rejects.length,
        })
      },
    })
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

  #record(uplink: Uplink, reject: Reject): void {
    this.#options.rejects.record({ device: uplink.device, source: uplink.source, reject, payload: uplink.payload })
  }
}

function decode(uplink: Uplink): { points: Point[]; rejects: Reject[] } | { refused: Reject } {
  const { device, payload, receivedAt } = uplink
  if (uplink.kind === 'telemetry') return decodeTelemetry(payload, device.rules, device, receivedAt)
  const decoded = decodeAttributes(payload, device.rules)
  if ('refused' in decoded) return decoded
  return { points: decoded.attributes.map((attribute) => ({ ...attribute, ts: receivedAt })), rejects: decoded.rejects }
}

function without(points: readonly Point[], rejects: readonly Reject[]): Point[] {
  const refused = new Set(rejects.map((reject) => `${reject.ts} ${reject.key}`))
  return points.filter((point) => !refused.has(`${point.ts} ${point.key}`))
}
