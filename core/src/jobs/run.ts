// SPDX-License-Identifier: AGPL-3.0-only
import type { JobResult, JobWithMetadata, PgBoss } from 'pg-boss'
import type { TObject } from 'typebox'
import { Value } from 'typebox/value'
import type { Scope } from '../db/client.ts'
import type { Log } from '../log.ts'
import { redact } from '../log.ts'
import { alwaysMs, longestWaitMs, outcomeOf, waitAfter } from './define.ts'
import type { Job, JobDef, RunJob } from './define.ts'
import type { Poison } from './poison.ts'

/** What a queue's row holds: the payload beside what only the wrapper needs. */
export type Envelope = { data: { tenantId: string } & Record<string, unknown>; key?: string; scheduledFor?: string }

export type RunParts = {
  boss: PgBoss
  log: Log
  poison: Poison
  /** The tenant of a payload; undefined when there is none of that id any more. */
  findScope: (tenantId: string) => Promise<Scope | undefined>
  /** Told how each run ended, for metrics and the worker's health. */
  /** A job of the queue becomes due. */
  wakeIn: (ms: number) => void
  onRun: (queue: string, run: { outcome: RunOutcome; seconds: number; waitedSeconds: number }) => void
}

export type RunOutcome = 'completed' | 'retry' | 'dead' | 'skipped'

const keptOutputBytes = 8192
const messageLength = 500
const stackLength = 4096

type Ended = { outcome: RunOutcome; output: object | undefined; waitMs?: number }

/**
 * Runs a fetched batch: every job on its own, so that one that throws fails none of its neighbours.
 *
 * @returns what the library settles; jobs that wait a chosen time are settled here already
 */
export async function runBatch<T extends TObject>(
  parts: RunParts,
  def: JobDef<T>,
  run: RunJob<unknown>,
  fetched: readonly JobWithMetadata<Envelope>[],
): Promise<JobResult[]> {
  // A fetch takes the right jobs, but hands them over in any order.
  const jobs = fetched.toSorted((a, b) => b.priority - a.priority || a.createdOn.getTime() - b.createdOn.getTime())
  const ends = await Promise.all(jobs.map((job) => runOne(parts, def, run, job)))
  const waiting = jobs.flatMap((job, index) => (ends[index]!.waitMs === undefined ? [] : [{ job, end: ends[index]! }]))
  if (waiting.length > 0) await settleWaiting(parts.boss, def.name, waiting)
  for (const { end } of waiting) parts.wakeIn(end.waitMs!)
  return jobs.map((job, index): JobResult => {
    const { outcome, output, waitMs } = ends[index]!
    // Settled above: the row is not active any more, and what is said here of the attempt has no effect.
    if (waitMs !== undefined) return { id: job.id, status: 'failed' }
    const status = outcome === 'dead' ? 'deadletter' : 'completed'
    return { id: job.id, status, ...(output ? { output } : {}) }
  })
}

async function runOne<T extends TObject>(
  parts: RunParts,
  def: JobDef<T>,
  run: RunJob<unknown>,
  job: JobWithMetadata<Envelope>,
): Promise<Ended> {
  const startedAt = performance.now()
  const waitedSeconds = Math.max(0, (Date.now() - Math.max(job.createdOn.getTime(), job.startAfter.getTime())) / 1000)
  const end = await attempt(parts, def, run, job).catch((error: unknown): Ended => {
    // Only the wrapper's own queries come here; the handler's errors are ends already.
    parts.log.warn({ err: error, queue: def.name, job: job.id }, 'a job could not be run')
    return failed(def, job, error)
  })
  if (end.outcome === 'dead') {
    await parts.poison.note(def.name, job.data.data).catch((error: unknown) => parts.log.warn({ err: error }, 'noting a dead job failed'))
    parts.log.warn({ queue: def.name, job: job.id, output: end.output }, 'a job failed for good')
  }
  parts.onRun(def.name, { outcome: end.outcome, seconds: (performance.now() - startedAt) / 1000, waitedSeconds })
  return end
}

async function attempt<T extends TObject>(
  parts: RunParts,
  def: JobDef<T>,
  run: RunJob<unknown>,
  job: JobWithMetadata<Envelope>,
): Promise<Ended> {
  const { data, key, scheduledFor } = job.data
  if (!Value.Check(def.data, data)) return dead('DATA_INVALID', firstError(def.data, data))
  const scope = await parts.findScope(data.tenantId)
  if (!scope) return dead('DATA_INVALID', `There is no tenant ${data.tenantId}.`)
  if (await parts.poison.isQuarantined(scope, def.name, data)) return dead('QUARANTINED', 'Jobs with this payload kept failing.')
  const given: Job<unknown> = {
    id: job.id,
    key: key ?? job.sourceRootId ?? job.id,
    data,
    attempt: job.retryCount,
    priority: job.priority,
    scope,
    scheduledFor: scheduledFor === undefined ? undefined : new Date(scheduledFor),
    createdAt: job.createdOn,
  }
  try {
    return ended(def, job, await run(given, job.signal), parts.log)
  } catch (error) {
    return failed(def, job, error)
  }
}

function ended<T extends TObject>(def: JobDef<T>, job: JobWithMetadata<Envelope>, value: unknown, log: Log): Ended {
  const made = outcomeOf(value)
  if (!made) return { outcome: 'completed', output: keptOutput(value, def, log) }
  const output = { reason: made.reason.slice(0, messageLength) }
  switch (made.kind) {
    case 'skip':
      return { outcome: 'skipped', output }
    case 'dead':
      return { outcome: 'dead', output }
    case 'retry': {
      const waitMs = Number.isNaN(made.ms) ? 0 : Math.min(longestWaitMs, Math.max(0, made.ms))
      if (waitMs !== made.ms) log.warn({ queue: def.name, ms: String(made.ms) }, 'a wait was out of bounds')
      return isLast(job) ? { outcome: 'dead', output } : { outcome: 'retry', output, waitMs }
    }
  }
}

function failed<T extends TObject>(def: JobDef<T>, job: JobWithMetadata<Envelope>, error: unknown): Ended {
  const output = describeError(error)
  const isTooOld = def.retry.strategy === 'always' && Date.now() - job.createdOn.getTime() > alwaysMs
  if (isLast(job) || isTooOld) return { outcome: 'dead', output }
  return { outcome: 'retry', output, waitMs: waitAfter(def.retry, job.retryCount) }
}

const isLast = (job: JobWithMetadata<Envelope>) => job.retryCount >= job.retryLimit

const dead = (code: string, message: string): Ended => ({ outcome: 'dead', output: { code, message } })

/** `{code, message, stack}` in bounds and without secrets. */
export function describeError(error: unknown): { code?: string; message: string; stack?: string } {
  if (!(error instanceof Error)) return { message: redact(String(error)).slice(0, messageLength) }
  const { code } = error as { code?: unknown }
  return {
    ...(typeof code === 'string' ? { code } : {}),
    message: redact(error.message).slice(0, messageLength),
    stack: redact(error.stack ?? '').slice(0, stackLength),
  }
}

function keptOutput<T extends TObject>(value: unknown, def: JobDef<T>, log: Log): object | undefined {
  if (value === undefined || value === null) return undefined
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    text = undefined
  }
  if (text !== undefined && Buffer.byteLength(text) <= keptOutputBytes) return typeof value === 'object' ? value : { value }
  log.warn({ queue: def.name }, 'the result of a job is too large or no JSON, and is not kept')
  return { value: '[truncated]' }
}

function firstError(schema: TObject, value: unknown): string {
  const [error] = Value.Errors(schema, value)
  return error ? `${error.instancePath || '/'} ${error.message}` : 'The payload has another shape.'
}

/** Fail and the exact wait in one transaction: neither a lost wait nor an early run [jobs §1]. */
async function settleWaiting(
  boss: PgBoss,
  name: string,
  waiting: readonly { job: JobWithMetadata<Envelope>; end: Ended }[],
): Promise<void> {
  const transaction = await boss.getDb().beginTransaction!()
  try {
    const { db } = transaction
    for (const { job, end } of waiting) {
      await boss.fail(name, { id: job.id, retryCount: job.retryCount }, end.output ?? null, { db })
      // The first argument of an update is new data: none. Whoever lost the job changes nothing: it is not waiting.
      await boss.update(name, undefined, { id: job.id, startAfter: secondsOf(end.waitMs!), db })
    }
    await transaction.commit()
  } catch (error) {
    await transaction.rollback()
    throw error
  }
}

/** The library takes whole and broken seconds, on the database's clock. */
const secondsOf = (ms: number): number => Math.max(0.001, ms / 1000)
