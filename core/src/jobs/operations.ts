// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static, TObject } from 'typebox'
import { Value } from 'typebox/value'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { operations } from '../db/job-tables.ts'
import type { OperationFailure } from '../db/job-tables.ts'
import { ProblemError, toProblem } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { defineJob } from './define.ts'

export type OperationRow = typeof operations.$inferSelect

/** What one step did. Without a cursor it was the last one. */
export type StepDone = { done: number; cursor?: unknown; failures?: OperationFailure[]; result?: unknown }

/**
 * A long request of a person. It is done in steps, each in a transaction of its own together with how far it is: after
 * a crash the next step is the one that did not commit, and nothing is done twice.
 */
export type OperationDef<T extends TObject = TObject> = {
  kind: string
  input: T
  /** How many items there are, for its progress. */
  count?: (tx: Tx, input: Static<T>) => Promise<number>
  /** Should take a second at most: between steps it can be canceled. */
  step: (tx: Tx, scope: Scope, input: Static<T>, cursor: unknown) => Promise<StepDone>
  /** The input that does the failed items once more; absent where they cannot be done alone. */
  only?: (input: Static<T>, items: string[]) => Static<T>
}

const bulk = defineJob({
  name: 'bulk',
  title: { zh: '批量操作', en: 'Bulk operations' },
  data: Type.Object({ tenantId: Type.String(), operationId: Type.String() }),
  group: (data) => data.tenantId,
  perGroup: 1,
  batch: 4,
  perNode: 1,
  retry: { strategy: 'exponential', baseMs: 1000, maxMs: 60_000, limit: 20 },
  expireMs: 3_600_000,
  heartbeatMs: 30_000,
  deadLetter: true,
})

const mostFailures = 1000
const keptDays = 30
const ended = ['succeeded', 'failed', 'canceled'] as const

/** Operations that people see [jobs §9]. */
export class Operations {
  readonly #context: Context
  readonly #defs = new Map<string, OperationDef>()

  constructor(context: Context) {
    this.#context = context
  }

  define<T extends TObject>(def: OperationDef<T>): void {
    this.#defs.set(def.kind, def)
  }

  async start(): Promise<void> {
    await this.#context.jobs.handle(bulk, async ({ data, scope }, signal) => {
      while (await this.#step(scope, data.operationId)) if (signal.aborted) throw new Error('it goes on elsewhere')
    })
  }

  /** Takes an operation as part of a transaction. */
  async create<T extends TObject>(tx: Tx, actor: Actor, def: OperationDef<T>, input: Static<T>): Promise<OperationRow> {
    const { tenantId } = actor.scope
    const [row] = await tx
      .insert(operations)
      .values({
        tenantId,
        id: randomUUIDv7(),
        kind: def.kind,
        state: 'queued',
        input: input as Record<string, unknown>,
        total: (await def.count?.(tx, input)) ?? null,
        createdById: actor.userId,
        createdBy: actor.name,
      })
      .returning()
    await this.#context.jobs.send(bulk, { tenantId, operationId: row!.id }, { tx, key: row!.id, priority: 5 })
    recordAudit(tx, { type: 'operation.create', subject: `operation:${row!.id}`, targetName: def.kind })
    return row!
  }

  /** Newest first: one's own, or all of them for whoever may read jobs. */
  async list(actor: Actor, limit: number, cursor?: string): Promise<{ items: OperationRow[]; nextCursor: string | null }> {
    const [after] = cursor ? parseCursor(cursor, 1) : []
    if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
    const rows = await this.#context.db.withTenant(actor.scope, (tx) =>
      tx
        .select()
        .from(operations)
        .where(
          and(
            actor.permissions.has('job.read') ? undefined : eq(operations.createdById, actor.userId),
            after === undefined ? undefined : sql`${operations.id} < ${after}`,
          ),
        )
        .orderBy(sql`${operations.id} desc`)
        .limit(limit + 1),
    )
    const items = rows.slice(0, limit)
    return { items, nextCursor: rows.length > limit ? formatCursor([items.at(-1)!.id]) : null }
  }

  /** @throws {ProblemError} `NOT_FOUND` also for others' */
  async get(actor: Actor, id: string): Promise<OperationRow> {
    return this.#context.db.withTenant(actor.scope, (tx) => readOwn(tx, actor, id, 'job.read'))
  }

  /** Ends it after the step that runs. @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` when it has ended */
  async cancel(actor: Actor, id: string): Promise<OperationRow> {
    return this.#context.db.withTenant(actor.scope, async (tx) => {
      const { state } = await readOwn(tx, actor, id, 'job.write')
      recordAudit(tx, { type: 'operation.cancel', subject: `operation:${id}` })
      if (isEnd(state)) throw new ProblemError('JOB_STATE', { params: { state } })
      const isWaiting = state === 'queued'
      const [row] = await tx
        .update(operations)
        .set({ cancels: true, ...(isWaiting ? { state: 'canceled' as const, finishedAt: sql`now()` } : {}) })
        .where(eq(operations.id, id))
        .returning()
      return row!
    })
  }

  /** The failed items once more, as an operation of their own. @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` */
  async retry(actor: Actor, id: string): Promise<OperationRow> {
    return this.#context.db.withTenant(actor.scope, async (tx) => {
      const row = await readOwn(tx, actor, id, 'job.write')
      const def = this.#defs.get(row.kind)
      const items = row.failures.flatMap((one) => (one.item === '' ? [] : one.item))
      // What ended as a whole is done as a whole.
      const input = items.length > 0 ? def?.only?.(row.input, items) : row.input
      const canRetry = isEnd(row.state) && row.failures.length > 0
      if (!canRetry || !def || !Value.Check(def.input, input)) throw new ProblemError('JOB_STATE', { params: { state: row.state } })
      return this.create(tx, actor, def, input)
    })
  }

  /** @returns whether there is more to do */
  async #step(scope: Scope, id: string): Promise<boolean> {
    const { db, log } = this.#context
    try {
      return await db.withTenant(scope, (tx) => this.#stepIn(tx, scope, id))
    } catch (error) {
      // What the operation itself cannot do ends it; what is not its fault is tried again.
      if (!(error instanceof ProblemError) || error.status >= 500) throw error
      const { code, detail } = toProblem(error, 'zh', '')
      log.warn({ operation: id, code }, 'an operation failed')
      const failure = [{ item: '', code, detail }]
      await db.withTenant(scope, (tx) => this.#end(tx, id, { state: 'failed', failures: failure, failureCount: 1 }))
      return false
    }
  }

  async #stepIn(tx: Tx, scope: Scope, id: string): Promise<boolean> {
    const [row] = await tx.select().from(operations).where(eq(operations.id, id)).for('update')
    if (!row || isEnd(row.state)) return false
    if (row.cancels) {
      await this.#end(tx, id, { state: 'canceled' })
      return false
    }
    const def = this.#defs.get(row.kind)
    if (!def || !Value.Check(def.input, row.input)) {
      // Of another release.
      const failures = [{ item: '', code: 'OPERATION_UNKNOWN', detail: `Nobody here knows the operation ${row.kind}.` }]
      await this.#end(tx, id, { state: 'failed', failures, failureCount: 1 })
      return false
    }
    const { done, cursor, failures = [], result } = await def.step(tx, scope, row.input, row.cursor)
    const now = {
      done: row.done + done,
      failures: [...row.failures, ...failures].slice(0, mostFailures),
      failureCount: row.failureCount + failures.length,
      ...(result === undefined ? {} : { result }),
    }
    if (cursor !== undefined) {
      const startedAt = row.startedAt ?? sql`now()`
      await tx
        .update(operations)
        .set({ ...now, cursor, state: 'running', startedAt })
        .where(eq(operations.id, id))
      return true
    }
    await this.#end(tx, id, { ...now, state: 'succeeded' })
    return false
  }

  async #end(tx: Tx, id: string, set: Partial<typeof operations.$inferInsert>): Promise<void> {
    await tx
      .update(operations)
      .set({ ...set, startedAt: sql`coalesce(started_at, now())`, finishedAt: sql`now()` })
      .where(and(eq(operations.id, id), inArray(operations.state, ['queued', 'running'])))
  }
}

export async function removeOldOperations(tx: Tx): Promise<void> {
  await tx.execute(sql`delete from operations where created_at < now() - ${keptDays} * interval '1 day'`)
}

const isEnd = (state: string): boolean => (ended as readonly string[]).includes(state)

async function readOwn(tx: Tx, actor: Actor, id: string, permission: 'job.read' | 'job.write'): Promise<OperationRow> {
  const [row] = await tx.select().from(operations).where(eq(operations.id, id)).for('update')
  if (!row || (row.createdById !== actor.userId && !actor.permissions.has(permission))) throw new ProblemError('NOT_FOUND')
  return row
}
