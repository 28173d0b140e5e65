// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type pg from 'pg'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { Compactor } from './compactor.ts'
import { FirstStore } from './first-store.ts'
import { registerKeys, withoutRefused } from './keys.ts'
import type { FoundValue } from './latest-read.ts'
import { LatestValues } from './latest.ts'
import { MergeThread, mergeConnections } from './merge-thread.ts'
import { Reader } from './reader.ts'
import { Removal } from './removal.ts'
import type { DeviceNumber } from './removal.ts'
import { readSegmentLog } from './segment-log.ts'
import type { LogRow } from './segment-log.ts'
import { Segments } from './segments.ts'
import type { LogPosition } from './segments.ts'
import { readStats } from './stats.ts'
import type {
  DeviceWrite,
  Freed,
  LatestOptions,
  LatestPoint,
  Piece,
  ReadOptions,
  RetentionBatch,
  SeriesRange,
  StoreStats,
  StoredPoint,
  Summaries,
  TelemetryStore,
  WriteRefusals,
} from './store.ts'

/** Connections of opening and sealing, and of what compaction asks for. */
const keeperConnections = 3
/** Deletions and retention wait for each other anyway; on connections of their own they keep nobody else waiting. */
const removalConnections = 2
const stopMs = 1000
/** A segment of the fault tests, which want to meet each step often. */
const eagerRows = 1000

export type TelemetryLogOptions = {
  /** How long the table of a compacted segment stays for readers that began before; 60 s. */
  graceMs?: number
  /** False: segments are sealed and merged only when asked to (tests). */
  compacts?: boolean
}

/**
 * The store: log-structured, inside PostgreSQL. A batch goes into an unindexed segment and is durable with
 * that commit; full segments are sealed and indexed; a compactor brings them into compressed chunks of one
 * series each. Readers see the union, what was written last wins. See docs/architecture.md, "Telemetry".
 */
export class TelemetryLog implements TelemetryStore {
  readonly #context: Context
  readonly #options: TelemetryLogOptions
  readonly #first: FirstStore
  readonly #latest: LatestValues
  readonly #reader: Reader
  #parts: { writer: pg.Pool; keeper: pg.Pool; remover: pg.Pool; segments: Segments; compactor: Compactor; removal: Removal } | undefined

  constructor(context: Context, options: TelemetryLogOptions = {}) {
    this.#context = context
    this.#options = options
    this.#first = new FirstStore(context)
    this.#latest = new LatestValues(context, this.#first)
    this.#reader = new Reader(context, this.#first)
  }

  async start(): Promise<void> {
    if (this.#parts) return
    const { config, db, log, clock } = this.#context
    const synchronousCommit = config.testHooks.has('sync-commit-off') ? 'off' : 'on'
    const writer = db.openPool({ role: 'pms_ingest', connections: config.writer.connections, synchronousCommit }, log)
    const keeper = db.openPool({ role: 'pms_store', connections: keeperConnections }, log)
    const remover = db.openPool({ role: 'pms_store', connections: removalConnections }, log)
    const { graceMs, compacts = true } = this.#options
    const isEager = config.testHooks.has('eager-compaction')
    const segments = new Segments({ writer, keeper, clock, log, graceMs, maxRows: isEager ? eagerRows : undefined })
    const merger = new MergeThread(db.poolOptions({ role: 'pms_store', connections: mergeConnections }), { clock, log })
    const compactor = new Compactor({ segments, keeper, first: this.#first, merger, clock, log, isEager })
    this.#parts = { writer, keeper, segments, compactor, remover, removal: new Removal(remover, this.#first, log) }
    await this.#first.start()
    await segments.start()
    this.#latest.start()
    if (compacts) compactor.start()
  }

  async stop(): Promise<void> {
    const parts = this.#parts
    if (!parts) return
    this.#parts = undefined
    this.#latest.stop()
    const stopped = (async () => {
      await parts.compactor.stop()
      await parts.segments.stop()
      await Promise.all([parts.writer.end(), parts.keeper.end(), parts.remover.end()])
    })()
    // A statement the database does not answer ends with its connection, at the latest when the process does.
    await Promise.race([stopped, sleep(stopMs, undefined, { ref: false })])
  }

  async write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    const { writer, segments } = this.#started()
    const refusals = await registerKeys(writer, batch)
    const accepted = withoutRefused(batch, refusals)
    await segments.write(accepted)
    for (const { device, points } of accepted) this.#latest.follow(device, points)
    return refusals
  }

  async probe(batch: readonly DeviceWrite[]): Promise<void> {
    const { writer, segments } = this.#started()
    const refusals = await registerKeys(writer, batch)
    await segments.probe(withoutRefused(batch, refusals))
  }

  async *read(scope: Scope, range: SeriesRange, options: ReadOptions = {}): AsyncGenerator<StoredPoint[]> {
    let left = options.limit ?? Number.POSITIVE_INFINITY
    if (left <= 0) return
    for await (const piece of this.#reader.read(scope, range, options)) {
      if (!('points' in piece)) continue
      yield piece.points.length > left ? piece.points.slice(0, left) : piece.points
      left -= piece.points.length
      if (left <= 0) return
    }
  }

  summarize(scope: Scope, range: SeriesRange, summaries: Summaries, options: Pick<ReadOptions, 'onDamaged'> = {}): AsyncGenerator<Piece> {
    return this.#reader.read(scope, range, options, summaries)
  }

  latest(scope: Scope, deviceIds: readonly string[], options: LatestOptions = {}): Promise<Map<string, LatestPoint[]>> {
    return this.#latest.read(scope, deviceIds, options)
  }

  get position(): LogPosition {
    return this.#started().segments.position
  }

  readLog(from: LogPosition | undefined, before: LogPosition): AsyncGenerator<LogRow[]> {
    return readSegmentLog(this.#started().keeper, from, before)
  }

  readMerged(
    scope: Scope,
    deviceNos: readonly number[],
    keys: readonly string[] | undefined,
    take: (found: FoundValue[]) => void,
  ): Promise<void> {
    return this.#latest.readMerged(scope, deviceNos, keys, take)
  }

  async count(scope: Scope, deviceId: string, keys: readonly string[], from: number, to: number): Promise<number> {
    let count = 0
    for (const key of new Set(keys)) {
      for await (const piece of this.summarize(scope, { deviceId, key, from, to }, countsOnly)) {
        count += 'points' in piece ? piece.points.length : piece.summary.count
      }
    }
    return count
  }

  async delete(scope: Scope, deviceId: string, keys: readonly string[] | undefined, from: number, to: number): Promise<number> {
    const device = await this.#findDevice(scope, deviceId)
    if (!device) return 0
    const { keeper, removal } = this.#started()
    try {
      const keyNos = keys && (await keeper.query<{ key_no: number }>(keysByName, [scope.tenantNo, keys])).rows.map((row) => row.key_no)
      return await removal.deleteRange(device, keyNos, from, to)
    } finally {
      this.#latest.forget(device.deviceNo)
    }
  }

  async deleteDevice(scope: Scope, deviceId: string): Promise<void> {
    const device = await this.#findDevice(scope, deviceId)
    if (!device) return
    const { removal } = this.#started()
    await removal.deleteRange(device, undefined, 0, Number.MAX_SAFE_INTEGER)
    await removal.forgetKeys(device)
    this.#latest.forget(device.deviceNo)
  }

  async listKeys(scope: Scope): Promise<{ key: string; keyNo: number }[]> {
    const { rows } = await this.#started().keeper.query<{ key: string; keyNo: number }>(
      `select key, key_no as "keyNo" from telemetry_keys where tenant_no = $1 order by key_no`,
      [scope.tenantNo],
    )
    return rows
  }

  previewRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed> {
    return this.#started().removal.previewRetention(tenantNo, batch)
  }

  async applyRetention(tenantNo: number, batch: RetentionBatch): Promise<Freed> {
    const freed = await this.#started().removal.applyRetention(tenantNo, batch)
    if (freed.chunks > 0) for (const deviceNo of batch.deviceNos) this.#latest.forget(deviceNo)
    return freed
  }

  stats(): Promise<StoreStats> {
    return readStats(this.#started().keeper)
  }

  /** Seals what is there and brings all of it into chunks. */
  compact(): Promise<void> {
    return this.#started().compactor.compactAll()
  }

  /** Also of a device in the bin: its points are removed with it. */
  async #findDevice(scope: Scope, deviceId: string): Promise<DeviceNumber | undefined> {
    const [row] = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ number: number }>(sql`select number from devices where id = ${deviceId}`),
    )
    return row && { tenantNo: scope.tenantNo, deviceNo: row.number }
  }

  #started() {
    if (!this.#parts) throw new Error('the telemetry store is not started')
    return this.#parts
  }
}

/** A count needs no point. */
const countsOnly: Summaries = { accepts: () => true, longestMs: Number.POSITIVE_INFINITY }

const keysByName = 'select key_no from telemetry_keys where tenant_no = $1 and key = any($2)'
