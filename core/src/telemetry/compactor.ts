// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import type { Clock } from '../clock.ts'
import { copyOut } from '../db/copy-out.ts'
import { classifyDbError } from '../db/errors.ts'
import { Lease } from '../db/lease.ts'
import { inTransaction } from '../db/transaction.ts'
import type { Log } from '../log.ts'
import { ChunkMerger } from './chunk-merge.ts'
import type { SeriesPoints } from './chunk-merge.ts'
import type { FirstStore } from './first-store.ts'
import { sortNewest } from './overlay.ts'
import { RowCursor } from './segment-rows.ts'
import { selectByDevice } from './segment-sql.ts'
import type { SealedSegment, Segments } from './segments.ts'

/** Sealed segments wait for this many rows, so that a chunk gets more than a few points at once, but not for ever. */
const wantedRows = 500_000
const maxWaitMs = 900_000
const maxWaiting = 8
/** Waiting segments beyond this are told [RE-83]. */
const alarmingCount = 20
const wantedBytes = 48 * 1024 * 1024
/** Rows and bytes of one transaction: some seconds of work. */
const maxRows = 2_000_000
const maxBytes = 128 * 1024 * 1024
/** Points, series and UTF-16 units of texts merged at a time: what is held in memory. */
const slicePoints = 100_000
const sliceSeries = 10_000
const sliceText = 8_000_000
const tickMs = 1000
const shortTickMs = 20
const leaseSeconds = 30

export type CompactorOptions = {
  segments: Segments
  /** Connections as `pms_store`. */
  keeper: pg.Pool
  first: FirstStore
  clock: Clock
  log: Log
  /** Merges as soon as a segment is sealed. */
  isEager?: boolean
}

/**
 * Brings points from sealed segments into chunks. One server at a time does so, by a lease; chunks are
 * written and segments marked in one transaction, so that a crash at any moment leaves each point readable once.
 */
export class Compactor {
  readonly #options: CompactorOptions
  readonly #lease = new Lease('telemetry-compactor', leaseSeconds)
  #cancel: (() => void) | undefined
  #running: Promise<void> = Promise.resolve()
  #isStopped = false
  #isWarned = false
  #isBehind = false

  constructor(options: CompactorOptions) {
    this.#options = options
  }

  start(): void {
    this.#isStopped = false
    this.#schedule()
  }

  /** Takes back what is under way: it is done again after the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancel?.()
    await this.#running
    await this.#lease.release(this.#options.keeper).catch(() => {})
  }

  /** Seals what is there and brings all of it into chunks. */
  async compactAll(): Promise<void> {
    await this.#running
    // Twice: one that is on its way already leaves behind what was written since.
    await this.#options.segments.rotate()
    await this.#options.segments.rotate()
    for (;;) {
      const sealed = await this.#options.segments.listSealed()
      if (sealed.length === 0) return this.#lease.release(this.#options.keeper)
      if (await this.#lease.acquire(this.#options.keeper)) await this.#compact(sealed)
      else await new Promise((resolve) => this.#options.clock.after(100, () => resolve(undefined)))
    }
  }

  #schedule(): void {
    const pauseMs = this.#isBehind || this.#options.isEager ? shortTickMs : tickMs
    this.#isBehind = false
    this.#cancel = this.#options.clock.after(pauseMs, () => {
      this.#running = this.#tick()
        .catch((error: unknown) => this.#report(error))
        .finally(() => {
          if (!this.#isStopped) this.#schedule()
        })
    })
  }

  /** One step that fails keeps no other from its work. */
  async #tick(): Promise<void> {
    const { segments, keeper } = this.#options
    const attempt = (step: () => Promise<void>) => step().catch((error: unknown) => this.#report(error))
    await attempt(() => segments.dropCompacted())
    await attempt(() => segments.tick())
    const sealed = await segments.listSealed()
    this.#watch(sealed)
    if (!(await this.#lease.acquire(keeper))) return
    await attempt(() => segments.sealForsaken())
    await this.#merge(sealed)
  }

  async #merge(sealed: readonly SealedSegment[]): Promise<void> {
    const { segments, first, isEager = false } = this.#options
    if (isDue(sealed) || (isEager && sealed.length > 0)) {
      await this.#compact(sealed)
      // At once again while there is enough for another round.
      this.#isBehind = isDue(await segments.listSealed())
    } else if (!this.#isStopped && !first.isGone) await this.#emptyFirstStore()
  }

  async #compact(sealed: readonly SealedSegment[]): Promise<void> {
    const { keeper, log } = this.#options
    const chosen = takeSome(sealed)
    const startedAt = performance.now()
    log.debug({ segments: chosen.map(({ no }) => no) }, 'telemetry: merging')
    // Both connections before the lock: whoever waits for the lock holds one of its own.
    const reader = await keeper.connect()
    let isComplete = false
    try {
      const points = await inTransaction(keeper, async (client) => {
        await lockChunks(client)
        await this.#lease.assertHeld(client)
        const written = await this.#mergeRows(reader, new ChunkMerger(client, log), chosen)
        isComplete = true
        const { rowCount } = await client.query(
          `update telemetry_segments set state = 'compacted', compacted_at = clock_timestamp() where segment_no = any($1) and state = 'sealed'`,
          [chosen.map(({ no }) => no)],
        )
        if (rowCount !== chosen.length) throw new Error('a segment was compacted by another server')
        log.debug('telemetry: committing chunks')
        return written
      })
      log.debug({ segments: chosen.length, points, ms: Math.round(performance.now() - startedAt) }, 'telemetry: merged')
    } finally {
      // A COPY that was left in the middle cannot be taken up again.
      reader.release(!isComplete)
    }
  }

  /** All points of the segments by device, in slices; rows of a device come in the order they were written. */
  async #mergeRows(reader: pg.PoolClient, merger: ChunkMerger, chosen: readonly SealedSegment[]): Promise<number> {
    const slice = new Slice()
    let total = 0
    await reader.query(`set work_mem = '32MB'; set statement_timeout = 0`)
    for await (const rows of copyOut(reader, selectByDevice(chosen.map(({ no }) => no)))) {
      for (const row of rows) {
        if (this.#isStopped) throw new Error('the server is stopping')
        for (const cursor = slice.open(row); slice.fill(cursor);) {
          total += slice.points
          await merger.merge(slice.take())
        }
      }
    }
    total += slice.points
    await merger.merge(slice.take())
    await reader.query('reset work_mem; reset statement_timeout')
    return total
  }

  async #emptyFirstStore(): Promise<void> {
    const { keeper, first, log } = this.#options
    await inTransaction(keeper, async (client) => {
      await lockChunks(client)
      await this.#lease.assertHeld(client)
      const series = await first.take(client)
      if (series) await new ChunkMerger(client, log).merge([series], 'chunks')
    })
  }

  #watch(sealed: readonly SealedSegment[]): void {
    const isAlarming = sealed.length > alarmingCount
    if (isAlarming && !this.#isWarned) this.#options.log.warn({ segments: sealed.length }, 'telemetry segments wait to be merged')
    this.#isWarned = isAlarming
  }

  #report(error: unknown): void {
    if (this.#isStopped) return
    const level = classifyDbError(error) === 'unavailable' ? 'warn' : 'error'
    this.#options.log[level]({ err: error }, 'telemetry segments could not be merged yet')
  }
}

/** Points of several series on their way into chunks, in the order they were written. */
class Slice {
  #series = new Map<string, SeriesPoints>()
  #tenantNo = 0
  #deviceNo = 0
  points = 0
  #text = 0

  /** A row of three fields: tenant, device, bytes. */
  open(row: Buffer): RowCursor {
    this.#tenantNo = row.readInt32BE(6)
    this.#deviceNo = row.readInt32BE(14)
    return new RowCursor(row.subarray(22))
  }

  /** Takes points in. @returns true when the slice is full and must be taken, false at the end of the row */
  fill(cursor: RowCursor): boolean {
    let keyNo = -1
    let points: StoredPoints | undefined
    while (this.points < slicePoints && this.#series.size < sliceSeries && this.#text < sliceText) {
      if (!cursor.next()) return false
      if (cursor.keyNo !== keyNo || !points) {
        keyNo = cursor.keyNo
        points = this.#pointsOf(keyNo)
      }
      const point = cursor.point()
      if (point.kind === 'string' || point.kind === 'json') this.#text += point.value.length
      points.push(point)
      this.points++
    }
    return true
  }

  take(): SeriesPoints[] {
    const all = [...this.#series.values()]
    for (const one of all) one.points = sortNewest(one.points)
    this.#series = new Map()
    this.points = 0
    this.#text = 0
    return all
  }

  #pointsOf(keyNo: number): StoredPoints {
    const id = `${this.#tenantNo} ${this.#deviceNo} ${keyNo}`
    let series = this.#series.get(id)
    if (!series) {
      series = { tenantNo: this.#tenantNo, deviceNo: this.#deviceNo, keyNo, points: [] }
      this.#series.set(id, series)
    }
    return series.points
  }
}

type StoredPoints = SeriesPoints['points']

/**
 * Changes of chunks, by compaction, deletion or retention, happen one after the other.
 * Waits at most as long as a statement may take.
 */
export async function lockChunks(client: pg.PoolClient): Promise<void> {
  await client.query('select pg_advisory_xact_lock($1)', [chunkLock])
}

/** Any number that no other program on the same database uses. */
const chunkLock = 7_316_204_913

function isDue(sealed: readonly SealedSegment[]): boolean {
  const rows = sealed.reduce((sum, segment) => sum + segment.rows, 0)
  const bytes = sealed.reduce((sum, segment) => sum + segment.bytes, 0)
  return sealed.length > 0 && (rows >= wantedRows || bytes >= wantedBytes || sealed.length >= maxWaiting || sealed[0]!.ageMs >= maxWaitMs)
}

/** The first segments, as many as one transaction should hold, at least one. */
function takeSome(sealed: readonly SealedSegment[]): SealedSegment[] {
  let [rows, bytes] = [0, 0]
  return sealed.filter((segment, index) => {
    rows += segment.rows
    bytes += segment.bytes
    return index === 0 || (rows <= maxRows && bytes <= maxBytes)
  })
}
