// SPDX-License-Identifier: AGPL-3.0-only
import { AsyncLocalStorage } from 'node:async_hooks'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Context } from '../context.ts'
import { inOrder, isUp, newWorker } from './workers.ts'
import type { Worker, WorkerDef, WorkerState, WorkerView } from './workers.ts'

const checkEveryMs = 5000
const healthMs = 5000
const firstWaitMs = 1000
const longestWaitMs = 60_000
const jitter = 0.2
/** [jobs 6.3] So many restarts in ten minutes open the circuit. */
const mostRestarts = 5
const restartWindowMs = 600_000
const brokenMs = 300_000
const lagMs = 200
const lagForMs = 30_000

/** What the console's look at the queues tells the supervisor; see console.ts. */
export type QueueLook = { ready: number; oldestReadyMs: number; slaMs: number }

/** Starts workers in the order they need each other, watches them, and starts those again that are not well. */
export class Supervisor {
  readonly #context: Pick<Context, 'log' | 'clock'>
  readonly #workers = new Map<string, Worker>()
  readonly #running = new AsyncLocalStorage<string>()
  #queues: ReadonlyMap<string, QueueLook> = new Map()
  #onBroken: (name: string, error: string) => void = () => {}
  #lag: ReturnType<typeof monitorEventLoopDelay> | undefined
  #laggingSince: number | undefined
  #timer: NodeJS.Timeout | undefined
  #isStopped = false

  constructor(context: Pick<Context, 'log' | 'clock'>) {
    this.#context = context
  }

  /** The event loop's delay at the 99th percentile since the last check, in ms. */
  lagMs = 0

  start(): void {
    this.#lag ??= monitorEventLoopDelay({ resolution: 20 })
    this.#lag.enable()
    this.#timer ??= setInterval(() => void this.check(), checkEveryMs).unref()
  }

  /** In the reverse of the order of the start; safe to call twice. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearInterval(this.#timer)
    this.#lag?.disable()
    for (const worker of [...this.#workers.values()].reverse()) {
      worker.cancel?.()
      if (worker.state === 'stopped') continue
      this.#move(worker, 'stopping')
      await worker.def
        .stop()
        .catch((error: unknown) => this.#context.log.warn({ err: error, worker: worker.def.name }, 'a worker did not stop'))
      this.#move(worker, 'stopped')
    }
  }

  onBroken(listener: (name: string, error: string) => void): void {
    this.#onBroken = listener
  }

  /** Takes a worker in and starts it, unless one that it needs does not run. */
  async add(def: WorkerDef): Promise<void> {
    await this.addAll([def])
  }

  /**
   * Starts several in the order of their needs. A cycle or a missing one is named and keeps only its chain from starting.
   *
   * @throws when one that is `critical` does not start
   */
  async addAll(defs: readonly WorkerDef[]): Promise<void> {
    const ordered = inOrder(defs)
    for (const def of ordered) this.#workers.set(def.name, newWorker(def, this.#context.clock.now()))
    for (const def of ordered) {
      const worker = this.#workers.get(def.name)!
      const missing = (def.dependsOn ?? []).find((name) => !isUp(this.#workers.get(name)?.state))
      if (missing === undefined) {
        await this.#start(worker)
      } else {
        worker.reason = this.#workers.has(missing) ? `needs ${missing}, which does not run` : `needs ${missing}, which does not exist`
        this.#context.log.error({ worker: def.name, reason: worker.reason }, 'a worker cannot start')
      }
      if (def.critical && !isUp(worker.state)) throw new Error(`the worker ${def.name} did not start: ${worker.reason ?? worker.lastError}`)
    }
  }

  /** How a run of the worker ended. */
  report(name: string, ok: boolean, error?: unknown): void {
    const worker = this.#workers.get(name)
    if (!worker) return
    const now = this.#context.clock.now()
    worker.lastRunAt = now
    worker.window.add(now, ok)
    if (!ok && error !== undefined) worker.lastError = String(error).slice(0, 500)
  }

  /** Errors that nobody catches inside of `work` are the worker's: {@link takeUncaught}. */
  attribute<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.#running.run(name, work)
  }

  /** @returns whether the error came from a worker, which is started again; else the process should end */
  takeUncaught(error: unknown): boolean {
    const worker = this.#workers.get(this.#running.getStore() ?? '')
    if (!worker || this.#isStopped) return false
    this.#context.log.error({ err: error, worker: worker.def.name }, 'an error in a worker was caught by nobody')
    worker.lastError = String(error).slice(0, 500)
    void this.#restart(worker, 'uncaught error')
    return true
  }

  /** The last look at the queues, for readiness and {@link readyOf}. */
  setQueues(queues: ReadonlyMap<string, QueueLook>): void {
    this.#queues = queues
  }

  readyOf(queue: string): number {
    return this.#queues.get(queue)?.ready ?? 0
  }

  list(): WorkerView[] {
    const now = this.#context.clock.now()
    return [...this.#workers.values()].map((worker) => {
      const { score, runs, errors } = worker.window.read(now)
      return {
        name: worker.def.name,
        state: worker.state,
        score,
        runs,
        errors,
        restarts: worker.restarts,
        since: new Date(worker.since),
        lastRunAt: worker.lastRunAt === undefined ? null : new Date(worker.lastRunAt),
        lastError: worker.lastError ?? null,
        reason: worker.reason ?? null,
      }
    })
  }

  /** Whether a worker the server cannot do without is out of order. */
  get hasBrokenCritical(): boolean {
    return [...this.#workers.values()].some((worker) => worker.def.critical === true && worker.state === 'broken')
  }

  /** By a person, from the console; @returns false when there is none of that name. */
  async restart(name: string): Promise<boolean> {
    const worker = this.#workers.get(name)
    if (!worker || this.#isStopped) return false
    worker.recent = []
    worker.cancel?.()
    await this.#stopAndStart(worker)
    return true
  }

  /** One look at every worker; runs by itself every 5 s. */
  async check(): Promise<void> {
    this.#readLag()
    await Promise.all([...this.#workers.values()].map((worker) => this.#check(worker)))
  }

  async #check(worker: Worker): Promise<void> {
    if (worker.checking || !isUp(worker.state)) return
    worker.checking = true
    try {
      const problem = await this.#askHealth(worker)
      // The state may have changed while it was asked.
      if (this.#isStopped || !isUp(worker.state)) return
      const now = this.#context.clock.now()
      const health = worker.window.read(now)
      if (problem !== undefined || health.state === 'unhealthy') {
        worker.lastError = problem ?? worker.lastError
        this.#move(worker, 'unhealthy', problem ?? `${health.errors} of ${health.runs} runs failed`)
        await this.#restart(worker, worker.reason ?? 'not well')
        return
      }
      const warning = health.state === 'warning' ? `${health.errors} of ${health.runs} runs failed` : this.#warningOf(worker, now)
      this.#move(worker, warning === undefined ? 'running' : 'warning', warning)
      if (worker.recent.length > 0 && now - worker.recent.at(-1)! > restartWindowMs) worker.recent = []
    } finally {
      worker.checking = false
    }
  }

  #warningOf(worker: Worker, now: number): string | undefined {
    if (this.#laggingSince !== undefined && now - this.#laggingSince >= lagForMs) {
      return `the event loop is late by ${Math.round(this.lagMs)} ms`
    }
    const { expectedEveryMs } = worker.def
    if (expectedEveryMs !== undefined && now - (worker.lastRunAt ?? worker.since) > 3 * expectedEveryMs) {
      return 'no run for three times its interval'
    }
    const queue = this.#queues.get(worker.def.name)
    return queue && queue.oldestReadyMs > queue.slaMs ? `the oldest job waits for ${Math.round(queue.oldestReadyMs / 1000)} s` : undefined
  }

  /** @returns what is wrong */
  async #askHealth(worker: Worker): Promise<string | undefined> {
    if (!worker.def.health) return undefined
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<string>((resolve) => (timer = setTimeout(resolve, healthMs, 'the health check takes longer than 5 s')))
    const answer = worker.def.health().then(
      () => undefined,
      (error: unknown) => String(error).slice(0, 500),
    )
    return Promise.race([answer, late]).finally(() => clearTimeout(timer))
  }

  #readLag(): void {
    if (!this.#lag) return
    this.lagMs = this.#lag.percentile(99) / 1e6
    this.#lag.reset()
    if (this.lagMs > lagMs) this.#laggingSince ??= this.#context.clock.now()
    else this.#laggingSince = undefined
  }

  async #start(worker: Worker): Promise<void> {
    this.#move(worker, 'starting')
    try {
      await worker.def.start()
      if (this.#isStopped) return
      worker.window.clear()
      this.#move(worker, 'running')
    } catch (error) {
      worker.lastError = String(error).slice(0, 500)
      this.#context.log.warn({ err: error, worker: worker.def.name }, 'a worker did not start')
      this.#scheduleRestart(worker, 'the start failed')
    }
  }

  async #restart(worker: Worker, reason: string): Promise<void> {
    if (this.#isStopped || worker.state === 'restarting' || worker.state === 'broken') return
    this.#move(worker, 'restarting', reason)
    await worker.def
      .stop()
      .catch((error: unknown) => this.#context.log.warn({ err: error, worker: worker.def.name }, 'a worker did not stop'))
    this.#scheduleRestart(worker, reason)
  }

  /** [jobs 6.3] After a wait that doubles, or, after too many of them, when the circuit closes again. */
  #scheduleRestart(worker: Worker, reason: string): void {
    if (this.#isStopped) return
    const now = this.#context.clock.now()
    worker.recent = [...worker.recent.filter((at) => now - at < restartWindowMs), now]
    worker.restarts++
    const isBroken = worker.recent.length >= mostRestarts
    if (isBroken && worker.state !== 'broken') {
      this.#context.log.error({ worker: worker.def.name, reason }, 'a worker is out of order and is tried again in five minutes')
      this.#onBroken(worker.def.name, worker.lastError ?? reason)
    }
    this.#move(worker, isBroken ? 'broken' : 'restarting', reason)
    const waitMs = Math.min(longestWaitMs, firstWaitMs * 2 ** (worker.recent.length - 1)) * (1 - jitter + 2 * jitter * Math.random())
    worker.cancel?.()
    worker.cancel = this.#context.clock.after(isBroken ? brokenMs : waitMs, () => void this.#start(worker))
  }

  async #stopAndStart(worker: Worker): Promise<void> {
    if (isUp(worker.state)) await worker.def.stop().catch(() => {})
    worker.restarts++
    await this.#start(worker)
  }

  #move(worker: Worker, state: WorkerState, reason?: string): void {
    worker.reason = reason
    if (worker.state === state) return
    worker.state = state
    worker.since = this.#context.clock.now()
  }
}
