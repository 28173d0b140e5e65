// SPDX-License-Identifier: AGPL-3.0-only
import type { Scope } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { ChunkSummary } from './chunk-summary.ts'
import type { FoundValue } from './latest-read.ts'
import type { Point, TypedValue } from './points.ts'
import type { LogRow } from './segment-log.ts'
import type { LogPosition } from './segments.ts'

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

export type ReadOptions = {
  newestFirst?: boolean
  /** Points in all; no bound without it. */
  limit?: number
  /** Hears of stored points that cannot be read any more: their range, both ends included. */
  onDamaged?: (range: { from: number; to: number }) => void
}

/** Which newest values: of the named keys, of the first `maxKeys` a device ever sent, or of all. */
export type LatestOptions = { keys?: readonly string[]; maxKeys?: number }

/** Of each series (device × key; undefined: all keys) the chunks whose newest point is older than `before`, ms. */
export type RetentionBatch = { deviceNos: readonly number[]; keyNos: readonly number[] | undefined; before: number }

/** What retention removes. `bytes`: of rows as they lie on the disk, without indexes. */
export type Freed = { chunks: number; points: number; bytes: number; oldestTs: number | null }

/** How much is stored, and where. `points` and bytes per point are of chunks, indexes included. */
export type StoreStats = {
  segments: { active: number; sealed: number; waitingRows: number; oldestSealedAt: string | null }
  chunks: number
  points: number
  bytes: { segments: number; chunks: number; indexes: number }
  bytesPerPoint: number | null
  /** Chunks that were put aside since they could not be decoded. */
  damaged: number
  /** What still lies in the table of version 0.1. */
  firstStoreBytes: number
}

/** Which chunks that lie in the range as a whole may come as statistics; of those that are longer none is accepted. */
export type Summaries = { accepts: (summary: ChunkSummary) => boolean; longestMs: number }

/** A stretch of a series in time order: its points, or what is known of them without looking at each. */
export type Piece = { points: StoredPoint[] } | { summary: ChunkSummary }

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

  /** Points of a series in time order (or newest first), in blocks of up to some thousand. */
  read(scope: Scope, range: SeriesRange, options?: ReadOptions): AsyncGenerator<StoredPoint[]>

  /** The same in time order for those who need not see each point. */
  summarize(scope: Scope, range: SeriesRange, summaries: Summaries, options?: Pick<ReadOptions, 'onDamaged'>): AsyncGenerator<Piece>

  /** Newest point of each key, keys in order. */
  latest(scope: Scope, deviceIds: readonly string[], options?: LatestOptions): Promise<Map<string, LatestPoint[]>>

  /** Every message before it is committed, and whoever wrote it was told. */
  readonly position: LogPosition

  /** Messages that are not merged into chunks yet, in the order of their commits. */
  readLog(from: LogPosition | undefined, before: LogPosition): AsyncGenerator<LogRow[]>

  /** Newest values of what is merged into chunks, in parts. */
  readMerged(
    scope: Scope,
    deviceNos: readonly number[],
    keys: readonly string[] | undefined,
    take: (found: FoundValue[]) => void,
  ): Promise<void>

  /** How many points the keys have in the range. */
  count(scope: Scope, deviceId: string, keys: readonly string[], from: number, to: number): Promise<number>

  /** Removes points of the keys (undefined: all keys) in the range; returns how many. */
  delete(scope: Scope, deviceId: string, keys: readonly string[] | undefined, from: number, to: number): Promise<number>

  /** Removes all that is known of a device which goes for good: its points and the list of its keys. */
  deleteDevice(scope: Scope, deviceId: string): Promise<void>

  /** Keys of a tenant with the numbers that retention takes. */
  listKeys(scope: Scope): Promise<{ key: string; keyNo: number }[]>

  /** What {@link applyRetention} would remove now. At most 1,000 devices. */
  previewRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed>

  /** Removes whole chunks, so a point may stay up to one chunk (7 days) longer, never shorter. */
  applyRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed>

  stats(): Promise<StoreStats>
}
