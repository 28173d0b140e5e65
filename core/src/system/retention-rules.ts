// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { eq, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation, sqlStateOf } from '../db/errors.ts'
import { retentionRules } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import { Id, Instant, Nullable, formatCursor, isUuid, parseCursor } from '../http/schemas.ts'

/** Each key of a tenant is compared with each rule, every hour. */
const maxRules = 500
/** A century: later than that nobody asks. */
const maxDays = 36_500

export const KeepDays = Nullable(Type.Integer({ minimum: 1, maximum: maxDays }))
const KeyPattern = Type.String({ minLength: 1, maxLength: 255 })

export const RetentionRule = Type.Object({
  id: Id,
  productId: Nullable(Id),
  keyPattern: Nullable(Type.String()),
  /** Null: for ever. */
  keepDays: Nullable(Type.Integer()),
  createdAt: Instant,
  updatedAt: Instant,
})
export type RetentionRule = Static<typeof RetentionRule>

/** Where a rule applies is what it is; to apply it elsewhere is another rule. */
export const RetentionRuleCreate = Type.Object(
  { productId: Type.Optional(Nullable(Id)), keyPattern: Type.Optional(Nullable(KeyPattern)), keepDays: KeepDays },
  { additionalProperties: false },
)
export type RetentionRuleCreate = Static<typeof RetentionRuleCreate>
export const RetentionRulePatch = Type.Object({ keepDays: KeepDays }, { additionalProperties: false })

/** A rule as the plan needs it; `id` is null for one that is only thought of. */
export type RuleDraft = { id: string | null; productId: string | null; keyPattern: string | null; keepDays: number | null }

type Versioned = { rule: RetentionRule; version: number }
type Row = {
  id: string
  productId: string | null
  keyPattern: string | null
  keepDays: number | null
  version: number
  createdAt: number
  updatedAt: number
}

const ruleColumns = sql`id, product_id as "productId", key_pattern as "keyPattern", keep_days as "keepDays", version,
  floor(extract(epoch from created_at) * 1000)::float8 as "createdAt", floor(extract(epoch from updated_at) * 1000)::float8 as "updatedAt"`

/** All rules of a tenant; there are few. */
export async function listAllRules(context: Context, scope: Scope): Promise<RuleDraft[]> {
  const rows = await context.db.withTenant(scope, (tx) => tx.execute<Row>(sql`select ${ruleColumns} from retention_rules order by id`))
  return rows.map(({ id, productId, keyPattern, keepDays }) => ({ id, productId, keyPattern, keepDays }))
}

/** Oldest first. */
export async function listRules(
  context: Context,
  scope: Scope,
  limit: number,
  cursor?: string,
): Promise<{ items: RetentionRule[]; nextCursor: string | null }> {
  const [after] = cursor ? parseCursor(cursor, 1) : []
  if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<Row>(
      sql`select ${ruleColumns} from retention_rules ${after ? sql`where id > ${after}` : sql``} order by id limit ${limit + 1}`,
    ),
  )
  const page = rows.slice(0, limit)
  return { items: page.map(toRule), nextCursor: rows.length > limit ? formatCursor([page.at(-1)!.id]) : null }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getRule(context: Context, scope: Scope, id: string): Promise<Versioned> {
  return context.db.withTenant(scope, async (tx) => toVersioned(await readRow(tx, id)))
}

/** @throws {ProblemError} `RETENTION_RULE_EXISTS`, `UNPROCESSABLE` for an unknown product or too many rules */
export async function createRule(context: Context, scope: Scope, wanted: RetentionRuleCreate): Promise<Versioned> {
  const id = randomUUIDv7()
  const { productId = null, keyPattern = null, keepDays } = wanted
  return context.db.withTenant(scope, async (tx) => {
    const [count] = await tx.execute<{ count: number }>(sql`select count(*)::int4 as count from retention_rules`)
    if (count!.count >= maxRules) throw unprocessable('', `There are at most ${maxRules} retention rules.`)
    await tx
      .insert(retentionRules)
      .values({ tenantId: scope.tenantId, id, productId, keyPattern, keepDays })
      .catch((error: unknown) => {
        if (isUniqueViolation(error)) throw new ProblemError('RETENTION_RULE_EXISTS', { cause: error })
        if (sqlStateOf(error) === '23503') throw unprocessable('/productId', 'There is no such product.')
        throw error
      })
    recordAudit(tx, {
      type: 'settings.update',
      subject: `retention-rule:${id}`,
      changes: { from: null, to: { productId, keyPattern, keepDays } },
    })
    return toVersioned(await readRow(tx, id))
  })
}

/** @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` when `version` is not the stored one */
export async function updateRule(
  context: Context,
  scope: Scope,
  id: string,
  patch: Static<typeof RetentionRulePatch>,
  version?: number,
): Promise<Versioned> {
  return context.db.withTenant(scope, async (tx) => {
    const { keepDays } = await checkVersion(tx, id, version)
    recordAudit(tx, { type: 'settings.update', subject: `retention-rule:${id}`, changes: { from: { keepDays }, to: patch } })
    await tx
      .update(retentionRules)
      .set({ keepDays: patch.keepDays, version: sql`${retentionRules.version} + 1`, updatedAt: new Date(context.clock.now()) })
      .where(eq(retentionRules.id, id))
    return toVersioned(await readRow(tx, id))
  })
}

/** @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` when `version` is not the stored one */
export async function deleteRule(context: Context, scope: Scope, id: string, version?: number): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const { productId, keyPattern, keepDays } = await checkVersion(tx, id, version)
    recordAudit(tx, {
      type: 'settings.update',
      subject: `retention-rule:${id}`,
      changes: { from: { productId, keyPattern, keepDays }, to: null },
    })
    await tx.delete(retentionRules).where(eq(retentionRules.id, id))
  })
}

async function checkVersion(tx: Tx, id: string, version: number | undefined): Promise<Row> {
  await tx.execute(sql`select 1 from retention_rules where id = ${id} for update`)
  const row = await readRow(tx, id)
  if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
  return row
}

async function readRow(tx: Tx, id: string): Promise<Row> {
  const [row] = await tx.execute<Row>(sql`select ${ruleColumns} from retention_rules where id = ${id}`)
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

function toVersioned(row: Row): Versioned {
  return { rule: toRule(row), version: row.version }
}

function toRule({ id, productId, keyPattern, keepDays, createdAt, updatedAt }: Row): RetentionRule {
  return { id, productId, keyPattern, keepDays, createdAt: new Date(createdAt).toISOString(), updatedAt: new Date(updatedAt).toISOString() }
}

function unprocessable(pointer: string, detail: string): ProblemError {
  return new ProblemError('UNPROCESSABLE', { errors: [{ pointer, detail }] })
}
