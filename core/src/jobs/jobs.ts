// SPDX-License-Identifier: AGPL-3.0-only
import { PgBoss } from 'pg-boss'
import type { JobInsert, JobWithMetadata } from 'pg-boss'
import type { Static, TObject } from 'typebox'
import { Value } from 'typebox/value'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { ProblemError } from '../errors.ts'
import { asJobs } from './outbox.ts'
import { ensureQueue } from './ensure-queue.ts'
import { assertAcyclic } from './flow.ts'
import type { FlowNode } from './flow.ts'
import type { JobDef, RunJob } from './define.ts'
import { Poison } from './poison.ts'
import { serialiseGroupFetches } from './group-fetch.ts'
import { runBatch } from './run.ts'
import type { Envelope, RunOutcome, RunParts } from './run.ts'
import { jobsSchema } from '../db/jobs-schema.ts'
import { Supervisor } from './supervisor.ts'
import { Wakes } from './wakes.ts'

export type SendOptions = {
  /** The transaction whose change the job follows from: both are there, or neither [jobs 4.3]. */
  tx?: Tx
  /** Idempotency key that handlers pass on; the job's own id when absent. */
  key?: string
  /** Higher goes first: {@link priorityOf}. */
  priority?: number
  startAfter?: Date
  delayMs?: number
  /** Suppresses a second one: within the window, or (exclusive queues) while the first waits or runs. */
  unique?: { key: string; windowMs?: number; mode: 'throttle' | 'debounce' | 'exclusive' }
  scheduledFor?: Date
}

/** [jobs 4.4] Of the payload as JSON. */
const maxPayloadBytes = 65_536
const maxSend = 10_000
const usualMaxReady = 1_000_000
const pollMs = 1000
/** With NOTIFY only what becomes due by itself is found by looking, and what this server made due wakes it: {@link Wakes}. */
const notifiedPollMs = 5000
/** [jobs 6.4] Running jobs have so long after the stop began. */
const graceMs = 10_000

type JobsContext = Pick<Context, 'config' | 'log' | 'clock' | 'db' | 'rootTenant'>

/**
 * Everything that runs outside the ingest path: `ctx.jobs`. A feature declares its queues as constants
 * ({@link defineJob}), runs them with {@link handle} at the start, and sends with {@link send}, together with the
 * change that the job follows from:
 *
 * ```ts
 * export const report = defineJob({ name: 'report', data: Type.Object({ tenantId: Id, reportId: Id }), … })
 * await jobs.handle(report, async ({ scope, data, key }, signal) => { … })
 * await db.withTenant(scope, async (tx) => {
 *   await tx.insert(reports).values(…)
 *   await jobs.send(report, { tenantId: scope.tenantId, reportId }, { tx })
 * })
 * ```
 *
 * At least once: a handler may run again for the same `key`, and says what it did with that key.
 */
export class Jobs {
  readonly supervisor: Supervisor
  readonly poison: Poison
  readonly #context: JobsContext
  readonly #boss: PgBoss
  readonly #defs = new Map<string, JobDef>()
  readonly #topics = new Map<string, JobDef[]>()
  readonly #scopes = new Map<string, Scope>()
  /** Workers of each queue here. */
  readonly #workers = new Map<string, string[]>()
  readonly #wakes = new Wakes((queue) => this.#wake(queue))
  #onRun: RunParts['onRun'] = () => {}
  #isStarted = false
  #starting: Promise<void> | undefined

  constructor(context: JobsContext, options: { connections?: number } = {}) {
    this.#context = context
    this.supervisor = new Supervisor(context)
    const findScope = (tenantId: string) => this.#findScope(tenantId)
    this.poison = new Poison(context.db, findScope)
    this.#boss = new PgBoss({
      connectionString: context.db.url,
      application_name: 'iot-pms-jobs',
      options: '-c role=pms_jobs -c timezone=UTC -c synchronous_commit=on',
      max: options.connections ?? 4,
      schema: jobsSchema,
      // Installed and raised by the migration run, inside its lock.
      migrate: false,
      createSchema: false,
      // Our own loop fires what recurs: schedules.ts.
      schedule: false,
      superviseIntervalSeconds: 10,
      monitorIntervalSeconds: 10,
      persistWarnings: true,
      persistQueueStats: true,
      useListenNotify: context.config.jobs.listens,
    })
    // Without a listener an error would end the process.
    this.#boss.on('error', (error) => this.#isStarted && context.log.warn({ err: error }, 'the job queues met an error'))
    this.#boss.on('warning', ({ message }) => context.log.debug({ warning: message }, 'the job queues warn'))
  }

  /** Connects; nothing runs before {@link handle}. Safe to call twice. */
  start(): Promise<void> {
    this.#starting ??= this.#boss.start().then(() => {
      serialiseGroupFetches(this.#boss)
      this.#isStarted = true
      this.supervisor.start()
    })
    return this.#starting
  }

  /** Takes no more, gives running jobs their time, then hands what is left back to the queue [jobs 6.4]. */
  async stop(timeoutMs = graceMs): Promise<void> {
    if (!this.#starting) return
    await this.#starting.catch(() => {})
    this.#isStarted = false
    this.#wakes.stop()
    await this.supervisor.stop()
    await this.#boss.stop({ graceful: true, timeout: timeoutMs, close: true })
  }

  /** The library, for the console's own queries. */
  get boss(): PgBoss {
    return this.#boss
  }

  get definitions(): ReadonlyMap<string, JobDef> {
    return this.#defs
  }

  /** Called for every run; one listener. */
  onRun(listener: RunParts['onRun']): void {
    this.#onRun = listener
  }

  /** Makes the queue, so that it can be sent to from here. `handle` does so too. */
  async declare<T extends TObject>(def: JobDef<T>): Promise<void> {
    if (this.#defs.has(def.name)) return
    await ensureQueue(this.#boss, def)
    this.#defs.set(def.name, def)
  }

  /** Runs the queue's jobs in this process, as a supervised worker of its name. */
  async handle<T extends TObject>(def: JobDef<T>, run: RunJob<Static<T>>): Promise<void> {
    await this.declare(def)
    const parts: RunParts = {
      boss: this.#boss,
      log: this.#context.log,
      poison: this.poison,
      findScope: (tenantId) => this.#findScope(tenantId),
      onRun: (queue, ended) => {
        this.supervisor.report(queue, isGood(ended.outcome))
        this.#onRun(queue, ended)
      },
      wakeIn: (ms) => this.#wakes.add(def.name, ms),
    }
    await this.supervisor.add({
      name: def.name,
      start: () => this.#startWorkers(parts, def, run as RunJob<unknown>),
      stop: async () => {
        this.#workers.delete(def.name)
        if (this.#isStarted) await this.#boss.offWork(def.name, { wait: false })
      },
    })
  }

  async #startWorkers(parts: RunParts, def: JobDef, run: RunJob<unknown>): Promise<void> {
    const ids: string[] = []
    for (let i = 0; i < def.perNode; i++) {
      const id: string = await this.#boss.work(
        def.name,
        {
          includeMetadata: true,
          perJobResults: true,
          batchSize: def.batch,
          burstWhenBatchFull: true,
          pollingIntervalSeconds: pollMs / 1000,
          notifyPollingIntervalSeconds: notifiedPollMs / 1000,
          ...(def.perGroup === undefined ? {} : { groupConcurrency: def.perGroup }),
        },
        async (jobs: JobWithMetadata<Envelope>[]) => {
          const results = await this.supervisor.attribute(def.name, () => runBatch(parts, def, run, jobs))
          // Looks again before it sleeps: a batch that is not full says nothing where groups have limits.
          this.#boss.notifyWorker(id)
          return results
        },
      )
      ids.push(id)
    }
    this.#workers.set(def.name, ids)
  }

  #wake(queue: string): void {
    for (const id of this.#workers.get(queue) ?? []) this.#boss.notifyWorker(id)
  }

  /**
   * Puts one job into its queue.
   *
   * @returns its id, or null when `unique` suppressed it
   * @throws {ProblemError} `JOB_DATA_INVALID`, `JOB_TOO_LARGE`, `QUEUE_FULL`
   */
  async send<T extends TObject>(def: JobDef<T>, data: Static<T>, options: SendOptions = {}): Promise<string | null> {
    this.#assertDeclared(def)
    const { unique, tx } = options
    await this.#assertRoom(def)
    const insert = this.#toInsert(def, data, options)
    const dueInMs = options.delayMs ?? (options.startAfter ? options.startAfter.getTime() - Date.now() : 0)
    if (dueInMs > 0) this.#wakes.add(def.name, dueInMs)
    return this.#boss.send(def.name, insert.data ?? {}, {
      ...withoutData(insert),
      ...(unique ? uniqueOptions(def, unique) : {}),
      ...(tx ? { db: asJobs(tx) } : {}),
    })
  }

  /** Up to 10,000 jobs at once, all or none. */
  async sendMany<T extends TObject>(
    def: JobDef<T>,
    many: readonly { data: Static<T>; key?: string; priority?: number; startAfter?: Date; delayMs?: number }[],
    options: { tx?: Tx } = {},
  ): Promise<void> {
    this.#assertDeclared(def)
    if (many.length > maxSend) throw new Error(`${many.length} jobs are more than ${maxSend} at once`)
    if (many.length === 0) return
    await this.#assertRoom(def)
    const inserts = many.map((one) => this.#toInsert(def, one.data, one))
    for (const { delayMs = 0 } of many) if (delayMs > 0) this.#wakes.add(def.name, delayMs)
    await this.#boss.insert(def.name, inserts, { returnId: false, ...(options.tx ? { db: asJobs(options.tx) } : {}) })
  }

  /**
   * Jobs of which some wait for others.
   *
   * @returns the id of each by its `ref`
   * @throws {ProblemError} `FLOW_CYCLE` also for a name that is not there
   */
  async flow(nodes: readonly FlowNode[], options: { tx?: Tx } = {}): Promise<Record<string, string>> {
    assertAcyclic(nodes)
    const jobs = nodes.map((node) => {
      this.#assertDeclared(node.def)
      const insert = this.#toInsert(node.def, node.data, {})
      return {
        ref: node.ref,
        name: node.def.name,
        data: insert.data ?? {},
        options: withoutData(insert),
        ...(node.dependsOn ? { dependsOn: node.dependsOn } : {}),
      }
    })
    return this.#boss.flow(jobs, options.tx ? { db: asJobs(options.tx) } : {})
  }

  /** From now on everything published under the topic becomes a job of this queue too. */
  async subscribe(topic: string, def: JobDef): Promise<void> {
    await this.declare(def)
    this.#topics.set(topic, [...(this.#topics.get(topic) ?? []), def])
  }

  /** One job in every queue that subscribed to the topic. */
  async publish(topic: string, data: { tenantId: string } & Record<string, unknown>, options: SendOptions = {}): Promise<void> {
    for (const def of this.#topics.get(topic) ?? []) await this.send(def, data, options)
  }

  #toInsert<T extends TObject>(def: JobDef<T>, data: Static<T>, options: SendOptions): JobInsert & { data: Envelope } {
    if (!Value.Check(def.data, data)) {
      const errors = Value.Errors(def.data, data).map((one) => ({ pointer: one.instancePath, detail: one.message }))
      throw new ProblemError('JOB_DATA_INVALID', { errors: errors.slice(0, 20) })
    }
    const payload = data as Envelope['data']
    if (Buffer.byteLength(JSON.stringify(payload)) > maxPayloadBytes) {
      throw new ProblemError('JOB_TOO_LARGE', { params: { limit: maxPayloadBytes } })
    }
    const group = def.group?.(data)
    return {
      data: {
        data: payload,
        ...(options.key === undefined ? {} : { key: options.key }),
        ...(options.scheduledFor === undefined ? {} : { scheduledFor: options.scheduledFor.toISOString() }),
      },
      ...(options.priority === undefined ? {} : { priority: options.priority }),
      ...(options.startAfter === undefined ? {} : { startAfter: options.startAfter }),
      ...(options.delayMs === undefined ? {} : { startAfter: options.delayMs / 1000 }),
      ...(group === undefined ? {} : { group: { id: group } }),
    }
  }

  #assertDeclared<T extends TObject>(def: JobDef<T>): void {
    if (!this.#defs.has(def.name)) throw new Error(`QUEUE_UNKNOWN: nobody declared the queue ${def.name}`)
  }

  /** [jobs 4.5] As the last look at the queue found it, at most a minute ago. */
  async #assertRoom<T extends TObject>(def: JobDef<T>): Promise<void> {
    const ready = this.supervisor.readyOf(def.name)
    if (ready > (def.maxReady ?? usualMaxReady)) throw new ProblemError('QUEUE_FULL', { params: { queue: def.name }, retryAfterS: 30 })
  }

  /** Tenants are few and keep their numbers: looked up once. */
  async #findScope(tenantId: string): Promise<Scope | undefined> {
    if (tenantId === this.#context.rootTenant.tenantId) return this.#context.rootTenant
    if (!this.#scopes.has(tenantId)) for (const one of await listTenants(this.#context.db)) this.#scopes.set(one.tenantId, one)
    return this.#scopes.get(tenantId)
  }
}

const isGood = (outcome: RunOutcome) => outcome === 'completed' || outcome === 'skipped'

function withoutData(insert: JobInsert): Omit<JobInsert, 'data'> {
  const { data: _, ...rest } = insert
  return rest
}

function uniqueOptions(def: { name: string; exclusive?: boolean }, unique: NonNullable<SendOptions['unique']>) {
  if (unique.mode === 'exclusive') {
    if (!def.exclusive) throw new Error(`queue ${def.name} is not declared exclusive`)
    return { singletonKey: unique.key }
  }
  return {
    singletonKey: unique.key,
    singletonSeconds: Math.max(1, Math.ceil((unique.windowMs ?? 1000) / 1000)),
    singletonNextSlot: unique.mode === 'debounce',
  }
}
