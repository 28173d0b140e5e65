// SPDX-License-Identifier: AGPL-3.0-only
import { Counter, Gauge, Histogram } from 'prom-client'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { redact } from '../log.ts'
import type { Jobs } from './jobs.ts'
import { jobsSchema } from '../db/jobs-schema.ts'
import type { Envelope } from './run.ts'
import type { JobDetail, QueueView } from './schemas.ts'
import type { JobWithMetadata } from 'pg-boss'

const lookEveryMs = 15_000
const usualSlaMs = 300_000
const states = ['stopped', 'starting', 'running', 'warning', 'unhealthy', 'restarting', 'broken', 'stopping'] as const

type Look = { name: string; ready: number; deferred: number; active: number; failed: number; oldest: number | null }

/** One statement for all queues; what was completed does not count. */
const lookSql = `select q.name, count(j.id) filter (where j.state < 'active' and j.start_after <= now())::int as ready,
    count(j.id) filter (where j.state < 'active' and j.start_after > now())::int as deferred,
    count(j.id) filter (where j.state = 'active')::int as active,
    count(j.id) filter (where j.state = 'failed')::int as failed,
    (extract(epoch from now() - min(greatest(j.start_after, j.created_on)) filter (where j.state < 'active' and j.start_after <= now())))::float8 as oldest
  from ${jobsSchema}.queue q left join ${jobsSchema}.job j on j.name = q.name and j.state <> 'completed'
  where q.name not like '\\_\\_pgboss%' group by q.name order by q.name`

const listSql = `select id, state::text as state, priority, group_id as "group", retry_count::int as attempt, retry_limit::int as "retryLimit",
    created_on as "createdAt", start_after as "startAfter", started_on as "startedAt", completed_on as "completedAt"
  from ${jobsSchema}.job where name = $1 and ($2::text is null or state::text = $2) and ($3::text is null or group_id = $3)
    and ($4::timestamptz is null or created_on >= $4) and ($5::timestamptz is null or created_on < $5)
    and ($6::timestamptz is null or (created_on, id) < ($6, $7::uuid))
  order by created_on desc, id desc limit $8`

export type JobFilter = { state?: string | undefined; group?: string | undefined; from?: Date | undefined; to?: Date | undefined }
export type JobRow = {
  id: string
  state: string
  priority: number
  group: string | null
  attempt: number
  retryLimit: number
  createdAt: Date
  startAfter: Date
  startedAt: Date | null
  completedAt: Date | null
}

/** What people and metrics see of the queues, and what administrators do with single jobs. */
export class JobConsole {
  readonly #context: Context
  readonly #jobs: Jobs
  readonly #gauges: Record<'ready' | 'active' | 'dead' | 'oldest' | 'worker' | 'score' | 'restarts' | 'lag', Gauge>
  #timer: NodeJS.Timeout | undefined
  #last: Look[] = []

  constructor(context: Context, metrics: Registry) {
    this.#context = context
    this.#jobs = context.jobs
    const gauge = (name: string, help: string, labelNames: string[]) => new Gauge({ name, help, labelNames, registers: [metrics] })
    this.#gauges = {
      ready: gauge('iot_pms_jobs_ready', 'Jobs that could run now', ['queue']),
      active: gauge('iot_pms_jobs_active', 'Jobs that run', ['queue']),
      dead: gauge('iot_pms_jobs_dead', 'Jobs that failed for good', ['queue']),
      oldest: gauge('iot_pms_job_oldest_ready_seconds', 'Age of the oldest job that could run', ['queue']),
      worker: gauge('iot_pms_worker_state', 'Whether the worker is in this state', ['worker', 'state']),
      score: gauge('iot_pms_worker_score', 'Share of good runs of a worker in percent', ['worker']),
      restarts: gauge('iot_pms_worker_restarts', 'Restarts of a worker since the start', ['worker']),
      lag: gauge('iot_pms_event_loop_lag_seconds', 'Delay of the event loop at the 99th percentile', []),
    }
    const runs = new Counter({
      name: 'iot_pms_job_runs_total',
      help: 'Runs of jobs',
      labelNames: ['queue', 'outcome'],
      registers: [metrics],
    })
    const seconds = (name: string, help: string) => new Histogram({ name, help, labelNames: ['queue'], registers: [metrics] })
    const took = seconds('iot_pms_job_seconds', 'Duration of runs')
    const waited = seconds('iot_pms_job_wait_seconds', 'Time from due to run')
    context.jobs.onRun((queue, run) => {
      runs.inc({ queue, outcome: run.outcome })
      took.observe({ queue }, run.seconds)
      waited.observe({ queue }, run.waitedSeconds)
    })
  }

  async start(): Promise<void> {
    await this.#look()
    this.#timer ??= setInterval(() => void this.#look(), lookEveryMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async listQueues(): Promise<QueueView[]> {
    const rows = await this.#query<Look>(lookSql, [])
    const known = new Map((await this.#jobs.boss.getQueues()).map((queue) => [queue.name, queue]))
    return rows
      .filter((row) => !row.name.endsWith('.dead'))
      .map((row) => {
        const def = this.#jobs.definitions.get(row.name)
        const queue = known.get(row.name)
        return {
          name: row.name,
          title: def?.title ?? null,
          hasHandler: def !== undefined,
          ready: row.ready,
          deferred: row.deferred,
          active: row.active,
          failed: row.failed,
          dead: rows.find((one) => one.name === `${row.name}.dead`)?.ready ?? 0,
          oldestReadyMs: row.oldest === null ? null : Math.round(row.oldest * 1000),
          completedPerMinute: perMinute(queue?.completedDelta, queue?.deltaSeconds),
          failedPerMinute: perMinute(queue?.failedDelta, queue?.deltaSeconds),
        }
      })
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async getQueue(name: string): Promise<QueueView> {
    const queue = (await this.listQueues()).find((one) => one.name === name)
    if (!queue) throw new ProblemError('NOT_FOUND')
    return queue
  }

  /** Snapshots of the last hours, for a sparkline. */
  async series(
    name: string,
    from: Date,
  ): Promise<{ at: Date; ready: number; active: number; completed: number | null; failed: number | null }[]> {
    const stats = await this.#jobs.boss.getQueueStats(name, { from, maxDataPoints: 200 })
    return stats.map((one) => ({
      at: one.capturedOn,
      ready: one.readyCount,
      active: one.activeCount,
      completed: one.completedDelta,
      failed: one.failedDelta,
    }))
  }

  async listJobs(queue: string, filter: JobFilter, limit: number, after?: { at: string; id: string }): Promise<JobRow[]> {
    await this.getQueue(queue.replace(/\.dead$/, ''))
    return this.#query<JobRow>(listSql, [
      queue,
      filter.state ?? null,
      filter.group ?? null,
      filter.from ?? null,
      filter.to ?? null,
      after?.at ?? null,
      after?.id ?? null,
      limit,
    ])
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async getJob(queue: string, id: string): Promise<JobDetail> {
    const job = await this.#findJob(queue, id)
    return {
      id: job.id,
      queue: job.name,
      state: job.state,
      priority: job.priority,
      group: job.groupId ?? null,
      attempt: job.retryCount,
      retryLimit: job.retryLimit,
      data: mask(job.data?.data ?? {}),
      output: mask(job.output ?? job.sourceOutput),
      source: job.sourceName === null ? null : { queue: job.sourceName, id: job.sourceId, attempts: job.sourceRetryCount },
      createdAt: job.createdOn.toISOString(),
      startAfter: job.startAfter.toISOString(),
      startedAt: job.startedOn?.toISOString() ?? null,
      completedAt: job.completedOn?.toISOString() ?? null,
    }
  }

  /** Runs a failed or waiting job at once. @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` */
  async retry(queue: string, id: string): Promise<void> {
    const job = await this.#findJob(queue, id)
    if (job.state === 'failed') await this.#jobs.boss.retry(queue, id)
    else if (job.state === 'retry') await this.#jobs.boss.update(queue, undefined, { id, startAfter: 0.001 })
    else throw new ProblemError('JOB_STATE', { params: { state: job.state } })
  }

  /** @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` */
  async cancel(queue: string, id: string): Promise<void> {
    const job = await this.#findJob(queue, id)
    if (!['created', 'retry', 'active'].includes(job.state)) throw new ProblemError('JOB_STATE', { params: { state: job.state } })
    await this.#jobs.boss.cancel(queue, id)
  }

  /** Puts dead letters back where they came from. */
  async redrive(
    queue: string,
    filter: { ids?: string[]; sourceName?: string; createdBefore?: Date; limit?: number; dryRun?: boolean },
  ): Promise<{ total: number; destinations: { name: string; count: number }[]; unroutable: number; moved: number }> {
    await this.getQueue(queue)
    if (filter.sourceName !== undefined && !this.#jobs.definitions.has(filter.sourceName)) {
      throw new ProblemError('QUEUE_UNKNOWN', { params: { queue: filter.sourceName } })
    }
    const { dryRun, limit, ...wanted } = filter
    const dead = `${queue}.dead`
    if (!(await this.#jobs.boss.getQueue(dead))) return { total: 0, destinations: [], unroutable: 0, moved: 0 }
    const preview = await this.#jobs.boss.previewRedrive(dead, wanted)
    const moved = dryRun ? 0 : await this.#jobs.boss.redrive(dead, { ...wanted, limit: limit ?? 1000 })
    return { ...preview, moved }
  }

  async #findJob(queue: string, id: string): Promise<JobWithMetadata<Envelope>> {
    if (!(await this.#jobs.boss.getQueue(queue))) throw new ProblemError('NOT_FOUND')
    const [job] = await this.#jobs.boss.findJobs<Envelope>(queue, { id })
    if (!job) throw new ProblemError('NOT_FOUND')
    return job
  }

  async #query<T>(text: string, values: unknown[]): Promise<T[]> {
    const { rows } = await this.#jobs.boss.getDb().executeSql(text, values)
    return rows as T[]
  }

  async #look(): Promise<void> {
    try {
      this.#last = await this.#query<Look>(lookSql, [])
    } catch (error) {
      this.#context.log.debug({ err: error }, 'the queues could not be looked at')
      return
    }
    const slaOf = (name: string) => this.#jobs.definitions.get(name)?.slaMs ?? usualSlaMs
    const looks = this.#last.map(
      (row) => [row.name, { ready: row.ready, oldestReadyMs: (row.oldest ?? 0) * 1000, slaMs: slaOf(row.name) }] as const,
    )
    this.#jobs.supervisor.setQueues(new Map(looks))
    for (const row of this.#last) {
      if (row.name.endsWith('.dead')) {
        this.#gauges.dead.set({ queue: row.name.slice(0, -'.dead'.length) }, row.ready)
        continue
      }
      this.#gauges.ready.set({ queue: row.name }, row.ready)
      this.#gauges.active.set({ queue: row.name }, row.active)
      this.#gauges.oldest.set({ queue: row.name }, row.oldest ?? 0)
    }
    this.#gauges.lag.set(this.#jobs.supervisor.lagMs / 1000)
    for (const worker of this.#jobs.supervisor.list()) {
      for (const state of states) this.#gauges.worker.set({ worker: worker.name, state }, worker.state === state ? 1 : 0)
      this.#gauges.score.set({ worker: worker.name }, worker.score)
      this.#gauges.restarts.set({ worker: worker.name }, worker.restarts)
    }
  }
}

function perMinute(count: number | null | undefined, seconds: number | null | undefined): number | null {
  return count === null || count === undefined || !seconds ? null : Math.round((count / seconds) * 600) / 10
}

const secretName = /secret|token|password|authorization|apikey/i

/** Payloads hold no secrets; should one be there all the same, the console does not show it. */
function mask(value: unknown): unknown {
  if (typeof value === 'string') return redact(value)
  if (Array.isArray(value)) return value.map(mask)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, secretName.test(name) ? '***' : mask(one)]))
}
