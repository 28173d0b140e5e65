// SPDX-License-Identifier: AGPL-3.0-only
import { Worker } from 'node:worker_threads'
import type pg from 'pg'
import type { Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import type { MergeTask } from './merge-segments.ts'
import type { MergeOrder, MergeReport, MergeSetup } from './merge-worker.ts'

/** One reads, one writes. */
export const mergeConnections = 2
/** Merging holds some megabytes at a time; the thread of an idle server is not worth its memory. */
const resourceLimits = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 24 }
const idleMs = 120_000

type Waiting = { resolve: () => void; reject: (error: Error) => void }

/**
 * A thread that merges segments, so that no acknowledgement waits for the work of compression. It is there
 * while there is something to merge.
 */
export class MergeThread {
  readonly #pool: pg.PoolConfig
  readonly #clock: Clock
  readonly #log: Log
  #worker: Worker | undefined
  #waiting: Waiting | undefined
  #cancelEnd: (() => void) | undefined
  #isStopped = false

  /** @param pool of {@link mergeConnections} connections as `pms_store` */
  constructor(pool: pg.PoolConfig, { clock, log }: { clock: Clock; log: Log }) {
    this.#pool = pool
    this.#clock = clock
    this.#log = log
  }

  /** One task at a time. @throws what {@link mergeSegments} throws */
  async merge(task: MergeTask): Promise<void> {
    if (this.#isStopped) throw new Error('the server is stopping')
    this.#cancelEnd?.()
    const worker = (this.#worker ??= this.#start())
    try {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { resolve, reject }
        this.#send(worker, task)
      })
    } finally {
      this.#waiting = undefined
      this.#cancelEnd = this.#clock.after(idleMs, () => this.#end())
    }
  }

  /** Takes back what is under way and ends the thread. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelEnd?.()
    const worker = this.#worker
    if (worker === undefined) return
    if (this.#waiting === undefined) return this.#end()
    this.#send(worker, 'stop')
    await new Promise((resolve) => worker.once('exit', resolve))
  }

  #send(worker: Worker, order: MergeOrder): void {
    worker.postMessage(order)
  }

  #start(): Worker {
    const setup: MergeSetup = { pool: this.#pool, isDebugging: this.#log.isLevelEnabled('debug') }
    const worker = new Worker(new URL('./merge-worker.ts', import.meta.url), { workerData: setup, resourceLimits })
    worker.unref()
    worker.on('message', (report: MergeReport) => this.#receive(report))
    // The end of one that was sent away may come when the next one is at work.
    const fail = (error: Error) => {
      if (this.#worker === worker) this.#waiting?.reject(error)
    }
    worker.on('error', (error) => fail(error instanceof Error ? error : new Error(String(error))))
    worker.on('exit', () => {
      fail(new Error('the thread that merges has ended'))
      if (this.#worker === worker) this.#worker = undefined
    })
    return worker
  }

  #receive(report: MergeReport): void {
    if ('error' in report) return this.#log.error(report.error, report.message)
    if ('done' in report) this.#waiting?.resolve()
    else this.#waiting?.reject(Object.assign(new Error(report.failed.message), report.failed))
    if (this.#isStopped) this.#end()
  }

  #end(): void {
    void this.#worker?.terminate()
    this.#worker = undefined
  }
}
