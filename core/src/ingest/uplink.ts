// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'

export type UplinkKind = 'telemetry' | 'attributes'

/** Where a message came in, for the reject log. Nothing here is ever trusted as an identity. */
export type UplinkSource = {
  /**
   * `gateway`: sent by its gateway; `connector`: taken from a broker of others; `user`: sent by a person for the
   * device, no sign of its life.
   */
  transport: 'mqtt' | 'http' | 'gateway' | 'connector' | 'user'
  topic: string
  clientId?: string
  address: string
  packetId?: number
}

/** A message of an authenticated device, before decoding. The bytes of `payload` never change, but may lie in a much larger buffer. */
export type Uplink = {
  readonly device: Device
  readonly kind: UplinkKind
  readonly payload: Buffer
  readonly transport: UplinkSource['transport']
  /** Read only for the reject log, so it may be made when asked for. */
  readonly source: UplinkSource
  /** ms since 1970, server clock at receipt. */
  readonly receivedAt: number
}

/**
 * How a message ended. Reported exactly once, and `stored` only after the commit:
 * - `stored`: every point but the listed ones is committed (an empty message counts as stored),
 * - `refused`: the whole message is malformed, nothing of it was stored,
 * - `rejected`: well-formed, but each point was refused,
 * - `unavailable`: the server is stopping before it could be committed; no answer may be sent.
 */
export type Outcome =
  | { status: 'stored'; accepted: number; rejects: readonly Reject[] }
  | { status: 'refused'; reject: Reject }
  | { status: 'rejected'; rejects: readonly Reject[] }
  | { status: 'unavailable' }

/**
 * The ingest pipeline as its entrances see it.
 */
export type IngestSink = {
  /** Takes a message. `settle` is called once, later or at once, never before a needed commit. */
  accept(uplink: Uplink, settle: (outcome: Outcome) => void): void
  /** True while the buffer is full: entrances stop reading their sockets. */
  readonly isFull: boolean
  /** Calls back when room is available again; returns an unsubscribe function. */
  onRoom(listener: () => void): () => void
}
