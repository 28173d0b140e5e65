// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import type { Clock } from '../clock.ts'
import { classifyDbError } from '../db/errors.ts'
import { Lease } from '../db/lease.ts'
import { inTransaction } from '../db/transaction.ts'
import type { Log } from '../log.ts'
import { ChunkMerger, lockChunks } from './chunk-merge.ts'
import type { FirstStore } from './first-store.ts'
import type { MergeThread } from './merge-thread.ts'
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
const tickMs = 1000
const shortTickMs = 20
const leaseSeconds = 30

export type CompactorOptions = {
  segments: Segments
  /** Connections as `pms_store`. */
  keeper: pg.Pool
  first: FirstStore
  merger: MergeThread
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
    await this.#options.merger.stop()
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
    const segments = takeSome(sealed).map(({ no }) => no)
    await this.#options.merger.merge({ segments, lease: this.#lease.proof })
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
