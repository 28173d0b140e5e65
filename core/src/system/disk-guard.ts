// SPDX-License-Identifier: AGPL-3.0-only
import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import { sqlStateOf } from '../db/errors.ts'
import { ProblemError } from '../errors.ts'
import type { BatchStore } from '../ingest/writer.ts'
import { DiskTrend } from './disk-trend.ts'
import { watchGauge } from './ingest-counters.ts'

export const diskLevels = ['ok', 'warn', 'high', 'critical'] as const
export type DiskLevel = (typeof diskLevels)[number]

export type Space = { freeBytes: number; totalBytes: number }

/** Room left for the database; undefined where nobody can know: an external database without a quota. */
export type ReadSpace = () => Promise<Space | undefined>

/** A level holds below either bound, and is left above both plus the margins [RE-80]. */
export type DiskLimits = {
  bounds: Record<Exclude<DiskLevel, 'ok'>, { share: number; bytes: number }>
  marginShare: number
  marginBytes: number
}

const gib = 2 ** 30

/** [RE §10] */
export const defaultDiskLimits: DiskLimits = {
  bounds: {
    warn: { share: 0.15, bytes: 10 * gib },
    high: { share: 0.08, bytes: 4 * gib },
    critical: { share: 0.03, bytes: gib },
  },
  marginShare: 0.02,
  marginBytes: 0.5 * gib,
}

const checkMs = 10_000
/** A writer that still has no room repeats its batch every 2 s, so this long a silence means that it found some. */
const fullMs = 15_000
const remindMs = 86_400_000
const retryAfterS = 60
/** SQLSTATE disk_full. */
const diskFull = '53100'

export type DiskStatus = {
  level: DiskLevel
  freeBytes: number | null
  totalBytes: number | null
  /** Bytes used up per day, null until known. */
  growthBytesPerDay: number | null
  forecastDays: number | null
}

/**
 * Watches the room left for the database and says what has to wait: heavy work from `high` on, telemetry
 * while `critical`. Signing in, reading, deleting and settings always go on. It recovers by itself.
 */
export class DiskGuard {
  readonly #context: Pick<Context, 'clock' | 'log' | 'events'>
  readonly #readSpace: ReadSpace
  readonly #limits: DiskLimits
  readonly #trend = new DiskTrend()
  readonly #listeners = new Set<() => void>()
  #level: DiskLevel = 'ok'
  /** By free space alone, for the margins: a refused write is no measurement. */
  #measured: DiskLevel = 'ok'
  #space: Space | undefined
  #fullAt = Number.NEGATIVE_INFINITY
  #remindedAt = Number.NEGATIVE_INFINITY
  #checking: Promise<void> | undefined
  #cancelTimer: (() => void) | undefined
  #isStopped = false
  #couldRead = true

  constructor(context: Pick<Context, 'clock' | 'log' | 'events'>, readSpace: ReadSpace, limits: DiskLimits = defaultDiskLimits) {
    this.#context = context
    this.#readSpace = readSpace
    this.#limits = limits
  }

  /** Measures once before anything is let in, then every 10 s. */
  async start(): Promise<void> {
    await this.check()
    this.#schedule()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancelTimer?.()
  }

  get level(): DiskLevel {
    return this.#level
  }

  /** True while no telemetry is taken. */
  get isClosed(): boolean {
    return this.#level === 'critical'
  }

  get status(): DiskStatus {
    const space = this.#space
    return {
      level: this.#level,
      freeBytes: space?.freeBytes ?? null,
      totalBytes: space?.totalBytes ?? null,
      growthBytesPerDay: this.#trend.bytesPerDay ?? null,
      forecastDays: (space && this.#trend.forecastDays(space.freeBytes)) ?? null,
    }
  }

  /** One sentence for the probe and the log. */
  get sentence(): string {
    const space = this.#space
    return space ? `${this.#level}: ${formatGib(space.freeBytes)} of ${formatGib(space.totalBytes)} free` : `${this.#level}: size unknown`
  }

  /** Calls back when telemetry is taken again; returns what ends that. */
  onOpen(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** @throws {ProblemError} `DISK_LOW` from level `high` on: for exports, reports and whatever else takes room and can wait */
  assertDiskHasRoom(): void {
    if (this.#level === 'high' || this.#level === 'critical') throw new ProblemError('DISK_LOW')
  }

  /** @throws {ProblemError} `STORAGE_FULL` while no telemetry is taken */
  assertTakesTelemetry(): void {
    if (this.isClosed) throw new ProblemError('STORAGE_FULL', { retryAfterS })
  }

  /** The same store; a write the database refuses for want of room is heard of here at once [RE-80]. */
  watch(store: BatchStore): BatchStore {
    return {
      write: (batch) => store.write(batch).catch((error: unknown) => this.#rethrow(error)),
      probe: (batch) => store.probe(batch).catch((error: unknown) => this.#rethrow(error)),
    }
  }

  /** Never fails; whoever calls while a check runs gets that one. */
  check(): Promise<void> {
    this.#checking ??= this.#check().finally(() => (this.#checking = undefined))
    return this.#checking
  }

  #rethrow(error: unknown): never {
    if (sqlStateOf(error) === diskFull) {
      this.#fullAt = this.#context.clock.monotonic()
      this.#setLevel('critical')
      void this.check()
    }
    throw error
  }

  #schedule(): void {
    if (this.#isStopped) return
    this.#cancelTimer = this.#context.clock.after(checkMs, () => void this.check().finally(() => this.#schedule()))
  }

  async #check(): Promise<void> {
    const { clock, log } = this.#context
    const space = await this.#readSpace().catch((error: unknown) => {
      // The last known space goes on to count; a database that does not answer is told of elsewhere.
      if (this.#couldRead && !this.#isStopped) log.warn({ err: error }, 'the room left for the database could not be read')
      return null
    })
    this.#couldRead = space !== null
    if (space !== null) this.#space = space
    if (space) this.#trend.add(clock.monotonic(), space)
    this.#measured = this.#space ? levelOf(this.#space, this.#measured, this.#limits) : 'ok'
    const isRefusing = clock.monotonic() - this.#fullAt < fullMs
    this.#setLevel(isRefusing ? 'critical' : this.#measured)
  }

  #setLevel(level: DiskLevel): void {
    if (this.#isStopped) return
    const before = this.#level
    this.#level = level
    this.#tell(before)
    if (level === before) return
    this.#context.events.emit('disk.level', { level, before })
    if (before === 'critical') for (const listener of this.#listeners) listener()
  }

  /** At every change, and once a day while there is something to do. */
  #tell(before: DiskLevel): void {
    const { clock, log } = this.#context
    const now = clock.monotonic()
    const isNews = before !== this.#level || (this.#level !== 'ok' && now - this.#remindedAt > remindMs)
    if (!isNews) return
    this.#remindedAt = now
    const { freeBytes, totalBytes, forecastDays } = this.status
    const facts = { diskLevel: this.#level, before, freeBytes, totalBytes, forecastDays }
    if (this.#level === 'critical') log.error(facts, 'the disk is almost full: no telemetry is accepted until there is room again')
    else if (this.#level === 'ok') log.info(facts, 'there is room on the disk again')
    else log.warn(facts, 'the disk of the database is filling up')
  }
}

/** The level by free space; `current` is left only above its bounds and margins. */
export function levelOf({ freeBytes, totalBytes }: Space, current: DiskLevel, limits: DiskLimits): DiskLevel {
  for (const level of ['critical', 'high', 'warn'] as const) {
    const { share, bytes } = limits.bounds[level]
    const isLeaving = diskLevels.indexOf(current) >= diskLevels.indexOf(level)
    const leastShare = share + (isLeaving ? limits.marginShare : 0)
    const leastBytes = bytes + (isLeaving ? limits.marginBytes : 0)
    if (freeBytes < leastShare * totalBytes || freeBytes < leastBytes) return level
  }
  return 'ok'
}

/** Of the volume of the embedded cluster, or of the quota of an external database. */
export function databaseSpace(context: Pick<Context, 'config' | 'db'>): ReadSpace {
  const { config } = context
  if (!config.database.url) return () => volumeSpace(join(config.dataDir, 'postgres'))
  return async () => {
    const { quotaBytes } = config.database
    if (quotaBytes === 0) return undefined
    return { freeBytes: Math.max(0, quotaBytes - (await readDatabaseBytes(context))), totalBytes: quotaBytes }
  }
}

/** What an unprivileged process, such as PostgreSQL, may still use of the volume of this path. */
export async function volumeSpace(path: string): Promise<Space> {
  const { bavail, blocks, bsize } = await statfs(path)
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
}

export async function readDatabaseBytes({ db }: Pick<Context, 'db'>): Promise<number> {
  const [row] = await db.withRole('pms_jobs', (tx) =>
    tx.execute<{ bytes: number }>(sql`select pg_database_size(current_database())::float8 as bytes`),
  )
  return row!.bytes
}

export function watchDisk(metrics: Registry, guard: DiskGuard): void {
  watchGauge(metrics, 'iot_pms_disk_level', 'Level of the disk guard: 0 ok, 1 warn, 2 high, 3 critical', () =>
    diskLevels.indexOf(guard.level),
  )
  for (const name of ['free', 'total'] as const) {
    watchGauge(
      metrics,
      `iot_pms_disk_${name}_bytes`,
      'Room of the volume or quota of the database; NaN when unknown',
      () => guard.status[`${name}Bytes`] ?? Number.NaN,
    )
  }
}

function formatGib(bytes: number): string {
  return `${(bytes / gib).toFixed(1)} GiB`
}
