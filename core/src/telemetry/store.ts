// SPDX-License-Identifier: AGPL-3.0-only
import type { Scope } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { Point, TypedValue } from './points.ts'

/** The accepted points of one message. All of them become readable together or not at all [RE-2]. */
export type DeviceWrite = { device: Device; points: readonly Point[] }

/** Points the store itself refused (`TOO_MANY_KEYS`), by their index in the batch. */
export type WriteRefusals = ReadonlyMap<number, readonly Reject[]>

/** A stored value and its time, ms since 1970 UTC. */
export type StoredPoint = TypedValue & { ts: number }

/** Newest point of a key. */
export type LatestPoint = StoredPoint & { key: string }

/** One key of one device in `from ≤ ts < to`. */
export type SeriesRange = { deviceId: string; key: string; from: number; to: number }

/**
 * The telemetry of all devices. Identified by (device, key, ts): a repeated point overwrites the
 * older one, so that repeating a write after an unclear commit is safe.
 * Reads look the device up under the caller's policies: foreign and unknown devices have no points.
 */
export interface TelemetryStore {
  start(): Promise<void>
  stop(): Promise<void>

  /**
   * Commits the points of all writes in one synchronous transaction.
   * @throws the database's error; nothing of the batch is stored then, or, when the connection was
   *   lost during the commit, possibly all of it
   */
  write(batch: readonly DeviceWrite[]): Promise<WriteRefusals>

  /** Tries a write and takes it back: throws what the write would throw, stores nothing. */
  probe(batch: readonly DeviceWrite[]): Promise<void>

  /** Points of a series in time order (or newest first), in blocks; at most `limit` in all. */
  read(scope: Scope, range: SeriesRange, options?: { newestFirst?: boolean; limit?: number }): AsyncGenerator<StoredPoint[]>

  /** Newest point of each key, keys in order: of the named keys, of the first `maxKeys` a device ever sent, or of all. */
  latest(
    scope: Scope,
    deviceIds: readonly string[],
    options?: { keys?: readonly string[]; maxKeys?: number },
  ): Promise<Map<string, LatestPoint[]>>

  /** How many points the keys have in the range. */
  count(scope: Scope, deviceId: string, keys: readonly string[], from: number, to: number): Promise<number>

  /** Removes points of the keys (undefined: all keys) in the range; returns how many. */
  delete(scope: Scope, deviceId: string, keys: readonly string[] | undefined, from: number, to: number): Promise<number>

  /** Removes all that is known of a device which goes for good: its points and the list of its keys. */
  deleteDevice(scope: Scope, deviceId: string): Promise<void>
}
