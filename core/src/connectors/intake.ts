// SPDX-License-Identifier: AGPL-3.0-only
import type { IPublishPacket } from 'mqtt'
import type { Clock } from '../clock.ts'
import type { Pipeline } from '../ingest/pipeline.ts'
import type { Device } from '../ingest/registry.ts'
import { receiveMaximum } from './broker.ts'
import type { Broker } from './broker.ts'
import type { Fed, Message } from './feed.ts'

export type IntakeParts = {
  clock: Clock
  pipeline: Pick<Pipeline, 'isFull' | 'onRoom'>
  gateway: Device
  /** Stores a message and calls back once. */
  feed: (message: Omit<Message, 'source'>, packet: IPublishPacket, settle: (fed: Fed) => void) => void
  taken: (fed: Exclude<Fed, 'unavailable'>) => void
}

type InFlight = { messageId: number | undefined; sizeBytes: number; at: number; isDone: boolean }

/** Payloads that wait for their commit together; a broker that sends larger ones is read more slowly. */
const maxBytes = 33_554_432

/**
 * The messages of one connection between their receipt and their acknowledgement: bounded, acknowledged in the order
 * they came and never before the commit. While there is no room, the broker is not read.
 */
export class Intake {
  readonly #parts: IntakeParts
  readonly #queue: InFlight[] = []
  #broker: Broker | undefined
  #bytes = 0
  #isStopped = false
  #cancel: (() => void) | undefined
  #resume: (() => void) | undefined
  #drained: (() => void) | undefined

  constructor(parts: IntakeParts) {
    this.#parts = parts
  }

  /** Messages may come before the connection is known to its owner; they are acknowledged from here on. */
  open(broker: Broker): void {
    this.#broker = broker
    this.#acknowledge()
  }

  get size(): number {
    return this.#queue.length
  }

  /** When the oldest message came that is not acknowledged, ms since 1970. */
  get oldestAt(): number | undefined {
    return this.#queue[0]?.at
  }

  /** Takes a message as soon as there is room, and lets the next one come. */
  readonly take = (packet: IPublishPacket, goOn: () => void): void => {
    if (this.#isStopped) return
    this.#cancel?.()
    this.#cancel = undefined
    const again = () => this.take(packet, goOn)
    if (this.#queue.length >= receiveMaximum || this.#bytes >= maxBytes) {
      this.#resume = again
      return
    }
    const { pipeline, clock, gateway } = this.#parts
    if (pipeline.isFull) {
      this.#cancel = pipeline.onRoom(again)
      return
    }
    // A limit of the connector's device is kept by reading more slowly, so that nothing is refused for it.
    const excess = gateway.limits?.own?.admit(true, clock.monotonic())
    if (excess) {
      this.#cancel = clock.after(excess.waitMs, again)
      return
    }
    this.#feed(packet, goOn)
  }

  /** Takes nothing more, and resolves when all that was taken is acknowledged, or after `deadlineMs`. */
  async drain(deadlineMs: number): Promise<void> {
    this.stop()
    if (this.#queue.length === 0) return
    await new Promise<void>((resolve) => {
      const cancel = this.#parts.clock.after(deadlineMs, resolve)
      this.#drained = () => {
        cancel()
        resolve()
      }
    })
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel?.()
    this.#resume = undefined
  }

  #feed(packet: IPublishPacket, goOn: () => void): void {
    const payload = typeof packet.payload === 'string' ? Buffer.from(packet.payload) : packet.payload
    const at = this.#parts.clock.now()
    const entry: InFlight = { messageId: packet.qos === 1 ? packet.messageId : undefined, sizeBytes: payload.length, at, isDone: false }
    this.#queue.push(entry)
    this.#bytes += entry.sizeBytes
    this.#parts.feed({ topic: packet.topic, payload, receivedAt: at }, packet, (fed) => {
      // Not committed: it stays unacknowledged, and the broker sends it again.
      if (fed === 'unavailable') return
      entry.isDone = true
      this.#parts.taken(fed)
      // With QoS 2, which nobody here asked for, going on is the acknowledgement.
      if (packet.qos === 2) goOn()
      this.#acknowledge()
    })
    if (packet.qos !== 2) goOn()
  }

  #acknowledge(): void {
    if (!this.#broker) return
    while (this.#queue[0]?.isDone) {
      const { messageId, sizeBytes } = this.#queue.shift()!
      this.#bytes -= sizeBytes
      if (messageId !== undefined) this.#broker.acknowledge(messageId)
    }
    if (this.#queue.length === 0) this.#drained?.()
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }
}
