// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import { classifyDbError, needsAdministrator, sqlStateOf } from '../db/errors.ts'
import type { Log } from '../log.ts'
import type { DeviceWrite, WriteRefusals } from '../telemetry/store.ts'
import type { Point } from '../telemetry/points.ts'
import type { Reject } from './rejects.ts'

/** Where batches are committed; the telemetry store and the attribute store both are one. */
export type BatchStore = {
  write(batch: readonly DeviceWrite[]): Promise<WriteRefusals>
  /** Tries a write and takes it back: throws what the write would throw, stores nothing. */
  probe(batch: readonly DeviceWrite[]): Promise<void>
}

/** How a write ended: committed but for the rejects, or never tried because the server stops. */
export type WriteOutcome = { status: 'committed'; rejects: readonly Reject[] } | { status: 'unavailable' }

export type Write = DeviceWrite & {
  readonly sizeBytes: number
  /** The writer's own mark, kept here since one object per message is enough. */
  isSettled?: boolean
  settle(outcome: WriteOutcome): void
}

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
    this.#lanes = Array.from({ length: options.lanes }, () => ({
      queue: [],
      committing: [],
      points: 0,
      isFlushing: false,
      cancelTimer: undefined,
    }))
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
  enqueue(write: Write): void {
    if (this.#isStopping) return this.#settle(write, { status: 'unavailable' })
    if (this.#options.faults.ackEarly) this.#settle(write, committed)
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

  /**
   * Commits what waits. What is not committed after `deadlineMs` is settled as unavailable, the batch
   * on its way to a database that does not answer included: no answer is sent for it, it may yet be stored.
   */
  async stop(deadlineMs: number): Promise<void> {
    const { clock } = this.#options
    const deadline = clock.monotonic() + deadlineMs
    for (const lane of this.#lanes) this.#startFlush(lane)
    while (this.#points > 0 && clock.monotonic() < deadline) await this.#sleep(5)
    this.#isStopping = true
    for (const lane of this.#lanes) this.#settleAll([...lane.committing, ...lane.queue.splice(0)], { status: 'unavailable' })
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
      lane.committing = takeBatch(lane)
      await this.#commit(lane.committing)
      this.#release(lane.committing)
      lane.committing = []
    }
    lane.isFlushing = false
  }

  async #commit(batch: readonly Write[]): Promise<void> {
    const result = await this.#try(batch, () => this.#options.store.write(batch))
    if (result.status === 'unavailable') return this.#settleAll(batch, { status: 'unavailable' })
    if (result.status === 'refused') return this.#bisect(batch, result.error)
    for (const [index, write] of batch.entries()) {
      const rejects = result.value.get(index)
      this.#settle(write, rejects ? { status: 'committed', rejects } : committed)
    }
  }

  /**
   * Does something with the store until it is done or refused for a value. While the database is away
   * it is repeated for ever: after an unclear commit the same batch goes again before any later one of
   * these devices, and a repeated point only overwrites itself [RE-41, RE-42].
   */
  async #try<T>(
    batch: readonly DeviceWrite[],
    work: () => Promise<T>,
  ): Promise<{ status: 'done'; value: T } | { status: 'refused'; error: unknown } | { status: 'unavailable' }> {
    const { log, random } = this.#options
    for (let attempt = 0; ; attempt++) {
      try {
        return { status: 'done', value: await work() }
      } catch (error) {
        const kind = classifyDbError(error)
        if (kind === 'data' || (kind === 'unknown' && attempt > 0)) return { status: 'refused', error }
        if (this.#isStopping) return { status: 'unavailable' }
        if (kind === 'unknown') continue
        const level = needsAdministrator(error) ? 'error' : 'warn'
        if (attempt === 0) log[level]({ err: error, messages: batch.length }, 'the database does not take points, waiting')
        await this.#sleep(Math.min(2000, 100 * 2 ** Math.min(attempt, 5)) * (0.5 + random() / 2))
      }
    }
  }

  /** [RE-40] Halves a refused batch until the offending message is alone; the rest is committed in order. */
  async #bisect(batch: readonly Write[], error: unknown): Promise<void> {
    if (this.#options.faults.noBisect) {
      const rejects = batch.flatMap((write) => write.points.map((point) => storeFailed(point, error)))
      return this.#settleAll(batch, { status: 'committed', rejects })
    }
    if (batch.length === 1) return this.#commitWithoutOffenders(batch[0]!, error)
    const middle = batch.length >> 1
    await this.#commit(batch.slice(0, middle))
    await this.#commit(batch.slice(middle))
  }

  /** Looks for the offending points with writes that are taken back, so that the rest of the message is one commit [RE-2]. */
  async #commitWithoutOffenders(write: Write, error: unknown): Promise<void> {
    const offenders = await this.#findOffenders(write, write.points, error)
    if (offenders === undefined) return this.#settle(write, { status: 'unavailable' })
    for (const { key } of offenders.keys()) {
      this.#options.log.warn({ err: error, device: write.device.id, name: key }, 'the database refused a point')
    }
    const rejects = [...offenders].map(([point, reason]) => storeFailed(point, reason))
    const points = write.points.filter((point) => !offenders.has(point))
    if (points.length === 0) return this.#settle(write, { status: 'committed', rejects })
    const settle = (outcome: WriteOutcome) =>
      this.#settle(write, outcome.status === 'committed' ? { status: 'committed', rejects: [...rejects, ...outcome.rejects] } : outcome)
    // Refused although each half was fine: then the message as a whole is what the database refuses.
    const rest = { device: write.device, points }
    const result = await this.#try([rest], () => this.#options.store.write([rest]))
    if (result.status === 'unavailable') return settle({ status: 'unavailable' })
    if (result.status === 'refused') {
      return settle({ status: 'committed', rejects: points.map((point) => storeFailed(point, result.error)) })
    }
    settle({ status: 'committed', rejects: result.value.get(0) ?? [] })
  }

  /** @returns each offending point with its error; undefined when the server stops before that is known */
  async #findOffenders(write: Write, points: readonly Point[], error: unknown): Promise<Map<Point, unknown> | undefined> {
    if (points.length === 1) return new Map([[points[0]!, error]])
    const found = new Map<Point, unknown>()
    const middle = points.length >> 1
    for (const half of [points.slice(0, middle), points.slice(middle)]) {
      const part = [{ device: write.device, points: half }]
      const result = await this.#try(part, () => this.#options.store.probe(part))
      if (result.status === 'unavailable') return undefined
      if (result.status === 'done') continue
      const offenders = await this.#findOffenders(write, half, result.error)
      if (offenders === undefined) return undefined
      for (const [point, reason] of offenders) found.set(point, reason)
    }
    return found
  }

  /** Once per write, whatever the one who waits makes of it. */
  #settle(write: Write, outcome: WriteOutcome): void {
    if (write.isSettled === true) return
    write.isSettled = true
    try {
      write.settle(outcome)
    } catch (error) {
      this.#options.log.error({ err: error, device: write.device.id }, 'an answer to a stored message failed')
    }
  }

  #settleAll(batch: readonly Write[], outcome: WriteOutcome): void {
    for (const write of batch) this.#settle(write, outcome)
  }

  #release(batch: readonly Write[]): void {
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

type Lane = { queue: Write[]; committing: readonly Write[]; points: number; isFlushing: boolean; cancelTimer: (() => void) | undefined }

function takeBatch(lane: Lane): Write[] {
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

function storeFailed(point: Point, error: unknown): Reject {
  const state = sqlStateOf(error)
  return {
    code: 'STORE_FAILED',
    detail: `the database refused the value${state ? ` (${state})` : ''}`,
    key: point.key,
    ts: point.ts,
  }
}
