// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { listTenants } from '../db/installation.ts'
import { schedules } from '../db/job-tables.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { Jobs } from './jobs.ts'

/** [jobs §5] */
const mostPerTenant = 200
const leastSpacingMs = 60_000
const mostPreviewed = 100
const tickMs = 5000
const dueAtOnce = 100

export type Schedule = typeof schedules.$inferSelect
export type ScheduleDraft = {
  name: string
  queue: string
  cron: string
  zone?: string
  data?: Record<string, unknown>
  missed?: 'once' | 'skip'
  overlap?: 'allow' | 'skip'
  jitterMs?: number
  enabled?: boolean
}

/** What recurs, and the loop that turns it into jobs: one per instant in the whole cluster. */
export class Schedules {
  readonly #context: Context
  readonly #jobs: Jobs
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined

  constructor(context: Context) {
    this.#context = context
    this.#jobs = context.jobs
  }

  async start(): Promise<void> {
    await this.#jobs.supervisor.add({
      name: 'schedules',
      expectedEveryMs: tickMs,
      start: async () => {
        this.#timer = setInterval(() => void this.run(), tickMs).unref()
      },
      stop: async () => {
        clearInterval(this.#timer)
        await this.#running
      },
    })
  }

  /** Fires what is due; never twice at a time in this process. */
  run(): Promise<void> {
    this.#running ??= this.#fireDue()
      .then(
        () => this.#jobs.supervisor.report('schedules', true),
        (error: unknown) => {
          this.#context.log.warn({ err: error }, 'firing schedules failed')
          this.#jobs.supervisor.report('schedules', false, error)
        },
      )
      .finally(() => (this.#running = undefined))
    return this.#running
  }

  /**
   * The next instants of an expression.
   *
   * @param cron five fields, on the clock of `zone`: what falls into an hour that is skipped fires shifted, what
   *   falls into one that is repeated fires once
   * @throws {ProblemError} `CRON_INVALID`, `TIME_ZONE_UNKNOWN`, `SCHEDULE_EMPTY`
   */
  preview(cron: string, zone: string, count: number, from = new Date(this.#context.clock.now())): Date[] {
    if (!isZone(zone)) throw new ProblemError('TIME_ZONE_UNKNOWN', { params: { timeZone: zone } })
    if (cron.trim().split(/\s+/).length !== 5) {
      throw new ProblemError('CRON_INVALID', { params: { reason: 'five fields are needed: minute hour day month weekday' } })
    }
    let instants: Date[]
    try {
      instants = this.#jobs.boss.previewSchedule(cron, { tz: zone, from, count: Math.min(count, mostPreviewed) })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new ProblemError(reason.includes('explicit day of month') ? 'SCHEDULE_EMPTY' : 'CRON_INVALID', {
        params: { reason },
        cause: error,
      })
    }
    if (instants.length === 0) throw new ProblemError('SCHEDULE_EMPTY')
    return instants
  }

  async list(scope: Scope, limit: number, cursor?: string): Promise<{ items: Schedule[]; nextCursor: string | null }> {
    const [, after] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx
        .select()
        .from(schedules)
        .where(after === undefined ? undefined : sql`${schedules.name} > ${after}`)
        .orderBy(schedules.name)
        .limit(limit + 1),
    )
    const page = rows.slice(0, limit)
    return { items: page, nextCursor: rows.length > limit ? formatCursor(['schedules', page.at(-1)!.name]) : null }
  }

  async get(scope: Scope, id: string): Promise<Schedule> {
    return this.#context.db.withTenant(scope, (tx) => readSchedule(tx, id))
  }

  /** @throws {ProblemError} those of {@link preview}, `NAME_TAKEN`, `QUEUE_UNKNOWN`, `SCHEDULE_LIMIT` */
  async create(scope: Scope, draft: ScheduleDraft, ownerId?: string): Promise<Schedule> {
    const row = this.#toRow(scope, draft)
    return this.#context.db.withTenant(scope, async (tx) => {
      const [count] = await tx.execute<{ count: number }>(sql`select count(*)::int as count from schedules`)
      if (count!.count >= mostPerTenant) throw new ProblemError('SCHEDULE_LIMIT', { params: { limit: mostPerTenant } })
      const [made] = await tx
        .insert(schedules)
        .values({ ...row, tenantId: scope.tenantId, id: randomUUIDv7(), ownerId: ownerId ?? null })
        .returning()
        .catch((error: unknown) => {
          throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: draft.name }, cause: error }) : error
        })
      recordAudit(tx, {
        type: 'schedule.create',
        subject: `schedule:${made!.id}`,
        targetName: made!.name,
        changes: { from: null, to: draft },
      })
      return made!
    })
  }

  /** Makes or updates a schedule that code wants, found by its name. */
  async ensure(scope: Scope, draft: ScheduleDraft): Promise<void> {
    const { nextAt, ...row } = this.#toRow(scope, draft)
    await this.#context.db.withTenant(scope, (tx) =>
      tx
        .insert(schedules)
        .values({ ...row, nextAt, tenantId: scope.tenantId, id: randomUUIDv7() })
        .onConflictDoUpdate({
          target: [schedules.tenantId, schedules.name],
          set: {
            ...row,
            nextAt: sql`case when ${schedules.cron} = ${row.cron} and ${schedules.zone} = ${row.zone} then ${schedules.nextAt} else ${nextAt} end`,
          },
        }),
    )
  }

  /** @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT`, and those of {@link create} */
  async update(scope: Scope, id: string, patch: Partial<ScheduleDraft>, version?: number): Promise<Schedule> {
    return this.#context.db.withTenant(scope, async (tx) => {
      await tx.execute(sql`select 1 from schedules where id = ${id} for update`)
      const current = await readSchedule(tx, id)
      if (version !== undefined && version !== current.version) throw new ProblemError('VERSION_CONFLICT')
      const row = this.#toRow(scope, { ...current, ...patch })
      const [updated] = await tx
        .update(schedules)
        .set({ ...row, version: current.version + 1, updatedAt: new Date(this.#context.clock.now()) })
        .where(eq(schedules.id, id))
        .returning()
        .catch((error: unknown) => {
          throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: row.name }, cause: error }) : error
        })
      recordAudit(tx, {
        type: 'schedule.update',
        subject: `schedule:${id}`,
        targetName: updated!.name,
        changes: { from: current, to: updated },
      })
      return updated!
    })
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async delete(scope: Scope, id: string): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      const rows = await tx.delete(schedules).where(eq(schedules.id, id)).returning({ name: schedules.name })
      if (!rows[0]) throw new ProblemError('NOT_FOUND')
      recordAudit(tx, { type: 'schedule.delete', subject: `schedule:${id}`, targetName: rows[0].name })
    })
  }

  /** Runs it now, beside its plan; @returns the job's id */
  async runNow(scope: Scope, id: string): Promise<string | null> {
    return this.#context.db.withTenant(scope, async (tx) => {
      const schedule = await readSchedule(tx, id)
      recordAudit(tx, { type: 'schedule.run', subject: `schedule:${id}`, targetName: schedule.name })
      return this.#send(tx, schedule, new Date(this.#context.clock.now()), 0)
    })
  }

  #toRow(scope: Scope, draft: ScheduleDraft) {
    const def = this.#jobs.definitions.get(draft.queue)
    if (!def) throw new ProblemError('QUEUE_UNKNOWN', { params: { queue: draft.queue } })
    const zone = draft.zone ?? 'UTC'
    const [next, second] = this.preview(draft.cron, zone, 2)
    if (second && second.getTime() - next!.getTime() < leastSpacingMs) {
      throw new ProblemError('CRON_INVALID', { params: { reason: 'once a minute at most' } })
    }
    return {
      name: draft.name,
      queue: draft.queue,
      cron: draft.cron.trim(),
      zone,
      data: { ...draft.data, tenantId: scope.tenantId },
      missed: draft.missed ?? ('once' as const),
      overlap: draft.overlap ?? ('skip' as const),
      jitterMs: draft.jitterMs ?? 0,
      enabled: draft.enabled ?? true,
      nextAt: next!,
    }
  }

  /** The row's next instant and its job commit together, and rows that another server has in hand are passed over. */
  async #fireDue(): Promise<void> {
    for (const tenant of await listTenants(this.#context.db)) {
      await this.#context.db.withTenant(tenant, async (tx) => {
        const due = await tx
          .select()
          .from(schedules)
          .where(and(eq(schedules.enabled, true), sql`${schedules.nextAt} <= now()`))
          .orderBy(schedules.nextAt)
          .limit(dueAtOnce)
          .for('update', { skipLocked: true })
        for (const schedule of due) await this.#fire(tx, schedule)
      })
    }
  }

  async #fire(tx: Tx, schedule: Schedule): Promise<void> {
    const now = new Date(this.#context.clock.now())
    const { instant, next } = this.#newestDue(schedule, now)
    const isLate = now.getTime() - instant.getTime() > leastSpacingMs
    let outcome = 'sent'
    let jobId: string | null = null
    if (!this.#jobs.definitions.has(schedule.queue)) outcome = 'no_handler'
    else if (isLate && schedule.missed === 'skip') outcome = 'missed'
    else if (schedule.overlap === 'skip' && (await this.#isActive(schedule))) outcome = 'overlap'
    else jobId = await this.#send(tx, schedule, instant, jitterOf(schedule))
    await tx
      .update(schedules)
      .set({ nextAt: next ?? null, lastAt: instant, lastOutcome: outcome, ...(jobId ? { lastJobId: jobId } : {}) })
      .where(and(eq(schedules.tenantId, schedule.tenantId), eq(schedules.id, schedule.id)))
  }

  /** The last instant that is due, and the first that is not: those between were missed together. */
  #newestDue(schedule: Schedule, now: Date): { instant: Date; next: Date | undefined } {
    let instant = schedule.nextAt!
    // Days without the server are many instants: what came before the last spacing cannot be the newest one.
    const spacing = this.#spacing(schedule, instant)
    if (spacing > 0 && now.getTime() - instant.getTime() > 3 * spacing) instant = new Date(now.getTime() - 2 * spacing)
    for (;;) {
      const [next] = this.#jobs.boss.previewSchedule(schedule.cron, { tz: schedule.zone, from: instant, count: 1 })
      if (!next || next > now) return { instant: instant < schedule.nextAt! ? schedule.nextAt! : instant, next }
      instant = next
    }
  }

  #spacing(schedule: Schedule, from: Date): number {
    const [first, second] = this.#jobs.boss.previewSchedule(schedule.cron, { tz: schedule.zone, from, count: 2 })
    return first && second ? second.getTime() - first.getTime() : 0
  }

  async #isActive(schedule: Schedule): Promise<boolean> {
    if (!schedule.lastJobId) return false
    const [job] = await this.#jobs.boss.findJobs(schedule.queue, { id: schedule.lastJobId })
    return job !== undefined && ['created', 'retry', 'active'].includes(job.state)
  }

  #send(tx: Tx, schedule: Schedule, instant: Date, delayMs: number): Promise<string | null> {
    const def = this.#jobs.definitions.get(schedule.queue)
    if (!def) throw new ProblemError('QUEUE_UNKNOWN', { params: { queue: schedule.queue } })
    return this.#jobs.send(def, schedule.data, {
      tx,
      key: `schedule/${schedule.id}/${instant.toISOString()}`,
      scheduledFor: instant,
      ...(delayMs > 0 ? { delayMs } : {}),
    })
  }
}

/** Spreads schedules of one expression: always the same wait for the same name. */
function jitterOf({ name, jitterMs }: Pick<Schedule, 'name' | 'jitterMs'>): number {
  return jitterMs === 0 ? 0 : createHash('sha256').update(name).digest().readUInt32BE(0) % jitterMs
}

async function readSchedule(tx: Tx, id: string): Promise<Schedule> {
  const [row] = await tx.select().from(schedules).where(eq(schedules.id, id))
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

function isZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
