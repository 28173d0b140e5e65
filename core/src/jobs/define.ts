// SPDX-License-Identifier: AGPL-3.0-only
import type { Static, TObject } from 'typebox'
import type { Scope } from '../db/client.ts'

/** How often and when a failed run is repeated. A failed run never counts as success anywhere. */
export type Retry =
  | { strategy: 'never' }
  | { strategy: 'once' }
  | { strategy: 'times'; limit: number; delayMs?: number }
  | { strategy: 'exponential'; baseMs: number; maxMs: number; limit: number }
  /** Waits one after the other; the last one repeats up to `limit` retries (default: as many as there are waits). */
  | { strategy: 'delays'; delaysMs: readonly number[]; jitter?: number; limit?: number }
  /** Until it is a day old, or was tried 1,000 times. */
  | { strategy: 'always' }

/** A queue and what its jobs hold. One per kind of work, as a constant beside the code that runs it. */
export type JobDef<T extends TObject = TObject> = {
  /** `^[a-z][a-z0-9.-]{0,62}$`; the dead letters are in `<name>.dead`. */
  name: string
  title: { zh: string; en: string }
  /** Schema of the payload; `tenantId` is one of its members. Checked at send and at run. */
  data: T
  /** Jobs of one group run at most `perGroup` at a time in the whole cluster. */
  group?: (data: Static<T>) => string
  perGroup?: number
  /** Jobs fetched at a time, at least 2; a batch runs concurrently. */
  batch: number
  /** Batches at a time in this process. */
  perNode: number
  retry: Retry
  expireMs: number
  /** A worker that gives no sign for so long has lost its jobs. */
  heartbeatMs?: number
  /** Finished jobs are kept for so long; a day by default. */
  keepMs?: number
  deadLetter: boolean
  /** One job per key waits or runs at a time; sent with `unique: {mode: 'exclusive'}`. Cannot be changed later. */
  exclusive?: boolean
  /** Ready jobs beyond this refuse more of them: `QUEUE_FULL`. */
  maxReady?: number
  /** The oldest ready job should not be older than this. */
  slaMs?: number
}

/** One attempt at a job. */
export type Job<T> = {
  id: string
  /** Idempotency key: the same in every attempt and every redrive. */
  key: string
  data: T
  /** 0 for the first attempt. */
  attempt: number
  priority: number
  /** Whose job it is. Handlers never run as all tenants. */
  scope: Scope
  /** Instant of the schedule that made it. */
  scheduledFor: Date | undefined
  createdAt: Date
}

const outcome = Symbol('outcome')

/** What a run ends as when it is not plainly done. Made by {@link retryIn}, {@link deadLetter}, {@link skip}. */
export type Outcome =
  | { [outcome]: 'retry'; ms: number; reason: string }
  | { [outcome]: 'dead'; reason: string }
  | { [outcome]: 'skip'; reason: string }

/** Repeats the job after `ms` (0 … 7 days, else clamped); counts as a failed attempt. */
export const retryIn = (ms: number, reason: string): Outcome => ({ [outcome]: 'retry', ms, reason })
/** The job will never succeed. */
export const deadLetter = (reason: string): Outcome => ({ [outcome]: 'dead', reason })
/** There is nothing to do any more. */
export const skip = (reason: string): Outcome => ({ [outcome]: 'skip', reason })

/** How a returned value ends the job; undefined for a plain result. */
export function outcomeOf(value: unknown): { kind: 'retry' | 'dead' | 'skip'; ms: number; reason: string } | undefined {
  if (typeof value !== 'object' || value === null || !(outcome in value)) return undefined
  const made = value as Outcome
  return { kind: made[outcome], ms: 'ms' in made ? made.ms : 0, reason: made.reason }
}

/** Runs one attempt. A value (kept up to 8 KiB) or nothing ends it well; a throw is a failed attempt. */
export type RunJob<T> = (job: Job<T>, signal: AbortSignal) => Promise<unknown>

const namePattern = /^[a-z][a-z0-9.-]{0,62}$/

/** @throws for a definition that could not work, so that a server with it does not start */
export function defineJob<T extends TObject>(def: JobDef<T>): JobDef<T> {
  if (!namePattern.test(def.name)) throw new Error(`${def.name} is no name for a queue`)
  // With a batch of one, a worker waits its whole polling interval after every job.
  if (def.batch < 2) throw new Error(`queue ${def.name}: a batch is at least 2`)
  if (!('tenantId' in def.data.properties)) throw new Error(`queue ${def.name}: every payload holds tenantId`)
  return def
}

/** Our priorities 1 (urgent) … 5 as the queue's, where higher goes first. */
export const priorityOf = (level: 1 | 2 | 3 | 4 | 5): number => (5 - level) * 10

export const longestWaitMs = 7 * 86_400_000
const alwaysLimit = 1000
export const alwaysMs = 86_400_000

/** Retries after the first attempt. */
export function retryLimitOf(retry: Retry): number {
  switch (retry.strategy) {
    case 'never':
      return 0
    case 'once':
      return 1
    case 'times':
    case 'exponential':
      return retry.limit
    case 'delays':
      return retry.limit ?? retry.delaysMs.length
    case 'always':
      return alwaysLimit
  }
}

/**
 * The wait after failed attempt `attempt` (0 is the first): exponential draws from [½, 1] · base · 2ⁿ⁺¹, capped [J6];
 * a list of waits varies by ± its jitter.
 *
 * @param random in [0, 1)
 */
export function waitAfter(retry: Retry, attempt: number, random = Math.random()): number {
  switch (retry.strategy) {
    case 'never':
    case 'once':
      return 0
    case 'times':
      return retry.delayMs ?? 0
    case 'exponential':
      return Math.min(retry.maxMs, retry.baseMs * 2 ** (attempt + 1) * (0.5 + random / 2))
    case 'always':
      return Math.min(3_600_000, 1000 * 2 ** Math.min(20, attempt + 1) * (0.5 + random / 2))
    case 'delays': {
      const ms = retry.delaysMs[Math.min(attempt, retry.delaysMs.length - 1)] ?? 0
      return ms * (1 + (retry.jitter ?? 0) * (2 * random - 1))
    }
  }
}
