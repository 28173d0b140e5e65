// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import type { DeviceWrite, WriteRefusals } from '../telemetry/store.ts'
import type { Point } from '../telemetry/points.ts'
import type { Reject } from './rejects.ts'

/** Where batches are committed; the telemetry store and the attribute store both are one. */
export type BatchStore = { write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> }

/** How a write ended: committed but for the rejects, or never tried because the server stops. */
export type WriteOutcome = { status: 'committed'; rejects: readonly Reject[] } | { status: 'unavailable' }

type Pending = DeviceWrite & { sizeBytes: number; settle: (outcome: WriteOutcome) => void }

export type WriterOptions = {
  store: BatchStore
  clock: Clock
  log: Log
  /** Lanes commit side by side; a device always uses the same one, so its messages keep their order. */
  lanes: number
  windowMs: number
  random: () => number
  /** Fault tests only: answer before the commit, drop a failing batch whole. */
  faults: { ackEarly: boolean; noBisect: boolean }
}

/** A flush starts when this many points wait, even before the window is over [RE §7]. */
const flushPoints = 2000
/** Bounds of one batch; what comes in while a flush runs waits for the next. */
const maxBatchPoints = 20_000
const maxBatchBytes = 4 * 1024 * 1024
/** Bounds of everything accepted and not yet committed, all lanes together [M-29]. */
const maxPoints = 200_000
const maxBytes = 32 * 1024 * 1024
const roomShare = 0.75

const committed: WriteOutcome = { status: 'committed', rejects: [] }

/** Gathers writes into group commits and settles each one after its commit, never before. */
export class Writer {
  readonly #options: WriterOptions
  readonly #lanes: Lane[]
  readonly #listeners = new Set<() => void>()
  #points = 0
  #bytes = 0
  #isFull = false
  #isStopping = false

  constructor(options: WriterOptions) {
    this.#options = options
    this.#lanes = Array.from({ length: options.lanes }, () => ({ queue: [], points: 0, isFlushing: false, cancelTimer: undefined }))
  }

  /** True while the bound is reached: entrances stop reading until there is room. */
  get isFull(): boolean {
    return this.#isFull
  }

  /** Points accepted and not yet committed. */
  get depth(): number {
    return this.#points
  }

  onRoom(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Takes a write; it is bounded by entrances that heed {@link isFull}. */
  enqueue(write: Pending): void {
    if (this.#options.faults.ackEarly) {
      write.settle(committed)
      write = { ...write, settle: () => {} }
    }
    this.#points += write.points.length
    this.#bytes += write.sizeBytes
    if (this.#points >= maxPoints || this.#bytes >= maxBytes) this.#isFull = true
    const lane = this.#lanes[write.device.no % this.#lanes.length]!
    lane.queue.push(write)
    lane.points += write.points.length
    if (lane.isFlushing) return
    if (lane.points >= flushPoints || this.#options.windowMs === 0) this.#startFlush(lane)
    else lane.cancelTimer ??= this.#options.clock.after(this.#options.windowMs, () => this.#startFlush(lane))
  }

  /** Commits what waits; after `deadlineMs` the rest is settled as unavailable, so that no answer is sent for it. */
  async stop(deadlineMs: number): Promise<void> {
    const { clock } = this.#options
    const deadline = clock.monotonic() + deadlineMs
    for (const lane of this.#lanes) this.#startFlush(lane)
    while (this.#points > 0 && clock.monotonic() < deadline) await this.#sleep(5)
    this.#isStopping = true
    for (const lane of this.#lanes) {
      for (const write of lane.queue.splice(0)) write.settle({ status: 'unavailable' })
    }
  }

  #startFlush(lane: Lane): void {
    lane.cancelTimer?.()
    lane.cancelTimer = undefined
    if (lane.isFlushing || lane.queue.length === 0) return
    lane.isFlushing = true
    void this.#flush(lane)
  }

  /** One batch after the other until the lane is empty: while one commits, the next one grows. */
  async #flush(lane: Lane): Promise<void> {
    while (lane.queue.length > 0 && !this.#isStopping) {
      const batch = takeBatch(lane)
      await this.#commit(batch)
      this.#release(batch)
    }
    lane.isFlushing = false
  }

  async #commit(batch: readonly Pending[]): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        const refusals = await this.#options.store.write(batch)
        for (const [index, write] of batch.entries()) {
          const rejects = refusals.get(index)
          write.settle(rejects ? { status: 'committed', rejects } : committed)
        }
        return
      } catch (error) {
        const kind = classifyStoreError(error)
        if (kind === 'unavailable') {
          // Repeated for ever: after an unclear commit the same batch goes again before any later one
          // of these devices, and a repeated point only overwrites itself [RE-41, RE-42].
          if (attempt === 0) this.#options.log.warn({ err: error }, 'the database does not take points, waiting')
          if (this.#isStopping) return settleAll(batch, { status: 'unavailable' })
          await this.#sleep(Math.min(2000, 100 * 2 ** Math.min(attempt, 5)) * (0.5 + this.#options.random() / 2))
          continue
        }
        if (kind === 'unknown' && attempt === 0) continue
        return this.#bisect(batch, error)
      }
    }
  }

  /** [RE-40] Halves a refused batch until the offending points are alone; the rest is committed in order. */
  async #bisect(batch: readonly Pending[], error: unknown): Promise<void> {
    if (this.#options.faults.noBisect) {
      return settleAll(batch, {
        status: 'committed',
        rejects: batch.flatMap((write) => write.points.map((point) => storeFailed(point, error))),
      })
    }
    if (batch.length > 1) {
      const middle = batch.length >> 1
      await this.#commit(batch.slice(0, middle))
      await this.#commit(batch.slice(middle))
      return
    }
    const write = batch[0]!
    if (write.points.length === 1) {
      this.#options.log.warn({ err: error, device: write.device.id, key: write.points[0]!.key }, 'the database refused a point')
      return write.settle({ status: 'committed', rejects: [storeFailed(write.points[0]!, error)] })
    }
    const middle = write.points.length >> 1
    const rejects: Reject[] = []
    let isUnavailable = false
    const part = (points: readonly Point[]): Pending => ({
      ...write,
      points,
      settle: (outcome) => (outcome.status === 'committed' ? rejects.push(...outcome.rejects) : (isUnavailable = true)),
    })
    await this.#commit([part(write.points.slice(0, middle))])
    await this.#commit([part(write.points.slice(middle))])
    write.settle(isUnavailable ? { status: 'unavailable' } : { status: 'committed', rejects })
  }

  #release(batch: readonly Pending[]): void {
    for (const write of batch) {
      this.#points -= write.points.length
      this.#bytes -= write.sizeBytes
    }
    if (!this.#isFull || this.#points > maxPoints * roomShare || this.#bytes > maxBytes * roomShare) return
    this.#isFull = false
    for (const listener of this.#listeners) listener()
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#options.clock.after(ms, resolve))
  }
}

type Lane = { queue: Pending[]; points: number; isFlushing: boolean; cancelTimer: (() => void) | undefined }

function takeBatch(lane: Lane): Pending[] {
  let points = 0
  let bytes = 0
  let count = 0
  for (const write of lane.queue) {
    if (count > 0 && (points + write.points.length > maxBatchPoints || bytes + write.sizeBytes > maxBatchBytes)) break
    points += write.points.length
    bytes += write.sizeBytes
    count++
  }
  lane.points -= points
  return lane.queue.splice(0, count)
}

function settleAll(batch: readonly Pending[], outcome: WriteOutcome): void {
  for (const write of batch) write.settle(outcome)
}

function storeFailed(point: Point, error: unknown): Reject {
  const state = (error as { code?: unknown }).code
  return {
    code: 'STORE_FAILED',
    detail: `the database refused the value${typeof state === 'string' ? ` (${state})` : ''}`,
    key: point.key,
    ts: point.ts,
  }
}

/**
 * Sorts what a store throws [RE-40, RE-41]: `data` is the fault of a point (SQLSTATE classes 22, 23),
 * `unavailable` passes by itself (lost connections, shutdown, locks, full disk, time-outs).
 */
export function classifyStoreError(error: unknown): 'data' | 'unavailable' | 'unknown' {
  const { code, message } = error as { code?: unknown; message?: unknown }
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !code.startsWith('E')) {
    if (/^2[23]/.test(code)) return 'data'
    return /^(08|53|57|58)/.test(code) || ['25006', '40001', '40P01', '55P03'].includes(code) ? 'unavailable' : 'unknown'
  }
  // Without a SQLSTATE the error came from the socket or the pool.
  return typeof code === 'string' || /connect|terminated|ended|timeout/i.test(String(message)) ? 'unavailable' : 'unknown'
}
