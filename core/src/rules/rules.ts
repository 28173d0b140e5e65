// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { checkTemplate } from '../notifications/liquid.ts'
import { chainProblems } from './calculated.ts'
import type { CalculatedRule } from './calculated.ts'
import { compileDocument } from './compile-rule.ts'
import type { RuleProblem } from './problems.ts'
import { isObject } from './problems.ts'
import { findUnknownAddresses, findUnknownReferences, targetSql } from './rule-targets.ts'
import type { RuleBulk, RuleDryRun, RuleListQuery, RuleRun, RuleVersion, RuleView } from './schemas.ts'

/** [2] */
const mostRules = 5000
const mostBytes = 65_536
/** [10] */
const keptVersions = 200
const binDays = 30
const dryRunDays = 7
const runDays = 7
const shownRuns = 100

type Who = Pick<Actor, 'scope' | 'name'>
export type RulePage = { items: RuleView[]; nextCursor: string | null }

const columns = sql`r.id, r.kind, r.name, r.mode, r.version, case when r.failure is null then 'ok' else 'failing' end as state, r.failure, r.document as rule,
  to_char(r.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "createdAt",
  to_char(r.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "updatedAt", r.updated_by as "updatedBy"`

/** Rules as people write them: checked whole, kept in versions (alarms and rules §2, §10). */
export class Rules {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  /** One page by name. @throws {ProblemError} `CURSOR_INVALID` */
  list(scope: Scope, query: RuleListQuery): Promise<RulePage> {
    const { limit = 50, cursor, kind, mode, state, deviceId, q } = query
    const [, name, id] = cursor ? parseCursor(cursor, 3) : []
    if (cursor && (typeof name !== 'string' || !isUuid(id))) throw new ProblemError('CURSOR_INVALID')
    const parts = [sql`r.deleted_at is null`]
    if (cursor) parts.push(sql`(r.name, r.id) > (${name}, ${id}::uuid)`)
    if (kind) parts.push(sql`r.kind = ${kind}`)
    if (mode) parts.push(sql`r.mode = ${mode}`)
    if (state) parts.push(state === 'ok' ? sql`r.failure is null` : sql`r.failure is not null`)
    if (deviceId) parts.push(sql`exists (select from devices d where d.id = ${deviceId} and d.deleted_at is null and ${targetSql})`)
    if (q) parts.push(sql`r.name ilike ${`%${q.replace(/[\\%_]/g, '\\$&')}%`}`)
    return this.#read(scope, async (tx) => {
      const rows = await tx.execute<RuleView>(
        sql`select ${columns} from rules r where ${sql.join(parts, sql` and `)} order by r.name, r.id limit ${limit + 1}`,
      )
      const items = rows.slice(0, limit)
      const last = items.at(-1)
      return { items, nextCursor: rows.length > limit && last ? formatCursor(['rules', last.name, last.id]) : null }
    })
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  get(scope: Scope, id: string): Promise<RuleView> {
    return this.#read(scope, (tx) => readRule(tx, id))
  }

  /** @throws {ProblemError} `RULE_INVALID` with all that is wrong, `RULE_TOO_LARGE`, `RULE_NAME_TAKEN`, `LIMIT_ALARM_RULES` */
  async create(who: Who, document: unknown, note = ''): Promise<RuleView> {
    const { scope } = who
    const id = randomUUIDv7()
    const rule = await this.#write(scope, async (tx) => {
      const { kind, name, mode } = await check(tx, document, id)
      const [{ count } = { count: '0' }] = await tx.execute<{ count: string }>(
        sql`select count(*) as count from rules where deleted_at is null`,
      )
      if (Number(count) >= mostRules) throw new ProblemError('LIMIT_ALARM_RULES', { params: { limit: mostRules } })
      await tx
        .execute(
          sql`insert into rules (tenant_id, id, kind, name, mode, document, updated_by)
            values (${scope.tenantId}, ${id}, ${kind}, ${name}, ${mode}, ${JSON.stringify(document)}::text::jsonb, ${who.name})`,
        )
        .catch((error: unknown) => refuseTaken(error, name))
      await addVersion(tx, who, id, note)
      recordAudit(tx, { type: 'rule.create', subject: `rule:${id}`, targetName: name, changes: { from: null, to: document } })
      return readRule(tx, id)
    })
    this.#tell(scope, id)
    return rule
  }

  /**
   * Makes the document the present version of the rule, also of one in the bin.
   *
   * @param decide gets the present document and answers the next one
   * @param version what the caller has seen; undefined when any will do
   * @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT`, and as {@link create}
   */
  async update(
    who: Who,
    id: string,
    decide: (present: RuleView, tx: Tx) => unknown,
    { version, note = '', fromBin = false }: { version?: number | undefined; note?: string; fromBin?: boolean } = {},
  ): Promise<RuleView> {
    const { scope } = who
    const rule = await this.#write(scope, async (tx) => {
      await tx.execute(sql`select 1 from rules where id = ${id} for update`)
      const present = await readRule(tx, id, fromBin)
      if (version !== undefined && version !== present.version) throw new ProblemError('VERSION_CONFLICT')
      const document = await decide(present, tx)
      const { kind, name, mode } = await check(tx, document, id)
      if (kind !== present.kind) throw invalid([{ pointer: '/kind', code: 'kind_fixed', detail: 'the kind of a rule stays as it is' }])
      await tx
        .execute(
          sql`update rules set name = ${name}, mode = ${mode}, document = ${JSON.stringify(document)}::text::jsonb, version = version + 1,
            failure = null, deleted_at = null, updated_at = now(), updated_by = ${who.name} where id = ${id}`,
        )
        .catch((error: unknown) => refuseTaken(error, name))
      await addVersion(tx, who, id, note)
      recordAudit(tx, { type: 'rule.update', subject: `rule:${id}`, targetName: name, changes: { from: present.rule, to: document } })
      return readRule(tx, id)
    })
    this.#tell(scope, id)
    return rule
  }

  /** Makes an earlier version the present one; a rule in the bin comes out of it. @throws {ProblemError} `NOT_FOUND`, and as {@link update} */
  restore(who: Who, id: string, version: number): Promise<RuleView> {
    const read = async (_: RuleView, tx: Tx): Promise<unknown> => {
      const [row] = await tx.execute<{ document: unknown }>(
        sql`select document from rule_versions where rule_id = ${id} and version = ${version}`,
      )
      if (!row) throw new ProblemError('NOT_FOUND')
      return row.document
    }
    return this.update(who, id, read, { note: `= ${version}`, fromBin: true })
  }

  /** Moves the rule to the bin, where it stays for 30 days. @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` */
  async delete({ scope }: Who, id: string, version?: number): Promise<void> {
    await this.#write(scope, async (tx) => {
      await tx.execute(sql`select 1 from rules where id = ${id} for update`)
      const rule = await readRule(tx, id)
      if (version !== undefined && version !== rule.version) throw new ProblemError('VERSION_CONFLICT')
      await tx.execute(sql`update rules set deleted_at = now() where id = ${id}`)
      recordAudit(tx, { type: 'rule.delete', subject: `rule:${id}`, targetName: rule.name })
    })
    this.#tell(scope, id)
  }

  /** The same with many rules, each for itself. */
  async changeMany(who: Who, { ids, action }: RuleBulk): Promise<{ items: { id: string; ok: boolean; code: string | null }[] }> {
    const mode = { enable: 'on', disable: 'off', dryRun: 'dryRun', delete: undefined }[action]
    const items: { id: string; ok: boolean; code: string | null }[] = []
    for (const id of ids) {
      try {
        if (mode === undefined) await this.delete(who, id)
        else await this.update(who, id, ({ rule }) => ({ ...rule, mode }))
        items.push({ id, ok: true, code: null })
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        items.push({ id, ok: false, code: error.code })
      }
    }
    return { items }
  }

  /** The latest first. @throws {ProblemError} `NOT_FOUND`, `CURSOR_INVALID` */
  listVersions(scope: Scope, id: string, limit: number, cursor?: string): Promise<{ items: RuleVersion[]; nextCursor: string | null }> {
    const [, before] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && !Number.isSafeInteger(before)) throw new ProblemError('CURSOR_INVALID')
    return this.#read(scope, async (tx) => {
      await readRule(tx, id, true)
      const rows = await tx.execute<RuleVersion>(sql`
        select version, document as rule, author, note, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "createdAt"
        from rule_versions where rule_id = ${id} ${before === undefined ? sql`` : sql`and version < ${before}`} order by version desc limit ${limit + 1}`)
      const items = rows.slice(0, limit)
      return { items, nextCursor: rows.length > limit ? formatCursor(['versions', items.at(-1)!.version]) : null }
    })
  }

  /** What a rule on trial would have told, the latest first. @throws {ProblemError} `NOT_FOUND`, `CURSOR_INVALID` */
  listDryRuns(scope: Scope, id: string, limit: number, cursor?: string): Promise<{ items: RuleDryRun[]; nextCursor: string | null }> {
    const [, before] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && !isUuid(before)) throw new ProblemError('CURSOR_INVALID')
    return this.#read(scope, async (tx) => {
      await readRule(tx, id)
      const rows = await tx.execute<RuleDryRun>(sql`
        select t.id, t.device_id as "deviceId", d.name as "deviceName", to_char(t.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at, t.kind, t.data
        from rule_dry_runs t join devices d on d.tenant_id = t.tenant_id and d.id = t.device_id
        where t.rule_id = ${id} ${before === undefined ? sql`` : sql`and t.id < ${before}`} order by t.id desc limit ${limit + 1}`)
      const items = rows.slice(0, limit)
      return { items, nextCursor: rows.length > limit ? formatCursor(['trials', items.at(-1)!.id]) : null }
    })
  }

  /** What the last actions of a rule did, the latest first. @throws {ProblemError} `NOT_FOUND` */
  listRuns(scope: Scope, id: string): Promise<{ items: RuleRun[] }> {
    return this.#read(scope, async (tx) => {
      await readRule(tx, id)
      const rows = await tx.execute<RuleRun>(sql`
        select id, alarm_id as "alarmId", device_id as "deviceId", type, outcome, detail, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at
        from rule_runs where rule_id = ${id} order by id desc limit ${shownRuns}`)
      return { items: [...rows] }
    })
  }

  /** What the bin, the trials and the list of runs no longer keep; a job has ended for good long before. */
  async removeOld(scope: Scope): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      await tx.execute(sql`delete from rules where deleted_at < now() - ${binDays} * interval '1 day'`)
      await tx.execute(sql`delete from rule_runs where at < now() - ${runDays} * interval '1 day'`)
      await tx.execute(sql`delete from rule_dry_runs where at < now() - ${dryRunDays} * interval '1 day'`)
    })
  }

  /** A rule is for devices of all customers: who sees only some of them sees no rule. */
  #read<T>(scope: Scope, work: (tx: Tx) => Promise<T>): Promise<T> {
    if (scope.customerIds) throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'rule.read' } })
    return this.#context.db.withTenant(scope, work)
  }

  #write<T>(scope: Scope, work: (tx: Tx) => Promise<T>): Promise<T> {
    if (scope.customerIds) throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'rule.write' } })
    return this.#context.db.withTenant(scope, work)
  }

  #tell({ tenantId }: Scope, ruleId: string): void {
    this.#context.events.emit('rule.changed', { tenantId, ruleId })
  }
}

async function readRule(tx: Tx, id: string, fromBin = false): Promise<RuleView> {
  const [rule] = await tx.execute<RuleView>(
    sql`select ${columns} from rules r where r.id = ${id} ${fromBin ? sql`` : sql`and r.deleted_at is null`}`,
  )
  if (!rule) throw new ProblemError('NOT_FOUND')
  return rule
}

type Checked = { kind: string; name: string; mode: string }

/** @throws {ProblemError} `RULE_INVALID`, `RULE_TOO_LARGE` */
async function check(tx: Tx, document: unknown, id: string): Promise<Checked> {
  const sizeBytes = Buffer.byteLength(JSON.stringify(document))
  if (sizeBytes > mostBytes) throw new ProblemError('RULE_TOO_LARGE', { params: { limit: mostBytes } })
  const result = compileDocument(document)
  if (!('document' in result)) throw invalid(result)
  const { kind, calculated } = result
  const { name, mode = 'on', target, title, actions = [] } = result.document
  const problems = [...templateProblems(title), ...(await findUnknownReferences(tx, target)), ...(await findUnknownAddresses(tx, actions))]
  if (calculated && mode === 'on') problems.push(...chainProblems(calculated, await readFields(tx, id)))
  if (problems.length > 0) throw invalid(problems)
  return { kind, name, mode }
}

/** The calculated fields that run beside this one; one after the other is saved, so that no two close a circle together. */
async function readFields(tx: Tx, id: string): Promise<CalculatedRule[]> {
  await tx.execute(sql`select pg_advisory_xact_lock(hashtextextended('calculated fields ' || current_setting('iot_pms.tenant_id'), 0))`)
  const rows = await tx.execute<{ document: CalculatedRule }>(
    sql`select document from rules where kind = 'calculated' and mode = 'on' and deleted_at is null and id <> ${id}`,
  )
  return [...rows].map(({ document }) => document)
}

function templateProblems(title: { zh?: string; en?: string } | undefined): RuleProblem[] {
  return (['zh', 'en'] as const).flatMap((language) => {
    const template = title?.[language]
    if (template === undefined) return []
    try {
      checkTemplate(template)
      return []
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error
      const { line = 1, column = 1 } = error.params
      return [
        { pointer: `/title/${language}`, code: 'template_invalid', detail: `the template is not right at line ${line}, column ${column}` },
      ]
    }
  })
}

function invalid(problems: readonly RuleProblem[]): ProblemError {
  return new ProblemError('RULE_INVALID', { errors: [...problems] })
}

function refuseTaken(error: unknown, name: string): never {
  throw isUniqueViolation(error) ? new ProblemError('RULE_NAME_TAKEN', { params: { name }, cause: error }) : error
}

async function addVersion(tx: Tx, { scope, name }: Who, id: string, note: string): Promise<void> {
  await tx.execute(sql`
    insert into rule_versions (tenant_id, rule_id, version, document, author, note)
    select tenant_id, id, version, document, ${name}, ${note} from rules where tenant_id = ${scope.tenantId} and id = ${id}`)
  await tx.execute(sql`
    delete from rule_versions v using rules r where r.id = ${id} and v.rule_id = r.id and v.version <= r.version - ${keptVersions}`)
}

/** JSON Merge Patch (RFC 7396). */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name)
    else merged.set(name, mergePatch(merged.get(name), value))
  }
  return Object.fromEntries(merged)
}
