// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { StartError, exitCodes } from '../errors.ts'
import { ensureJobsSchema } from './jobs-schema.ts'
import type { Log } from '../log.ts'

/** Any number that no other program on the same database uses. */
export const migrationLock = 7_316_204_911

export const migrationsDir = join(import.meta.dirname, '../../migrations')

type Migration = { version: number; name: string; text: string; checksum: string }
type Applied = { version: number; name: string; checksum: string; min_server: string | null }
type AdminSql = postgres.Sql

/**
 * Brings the database to the schema of this version: plain SQL files in order, each in one
 * transaction (or alone, when its first line is `-- no transaction`). Parallel runs are
 * harmless: one works, the others wait. A login without the right to create anything only looks whether
 * `iot-pms migrate` has been run: that of a server whose administrator keeps the other login apart.
 *
 * @param url login that may create roles and tables, or `appUrl`
 * @param appUrl login of the application; made or updated here with its password
 * @returns whether the login may change tables
 * @throws {StartError} `SCHEMA_TOO_NEW` when the database was written by a newer version, `MIGRATION_CHANGED`
 *   when an applied file has been edited, `SCHEMA_TOO_OLD` when there is something to do and the login may not,
 *   `DATABASE_RIGHTS` when it may not even look
 */
export async function migrate(url: string, appUrl: string, log: Log, folder = migrationsDir): Promise<boolean> {
  const sql = postgres(url, { max: 1, onnotice: () => {}, connection: { lock_timeout: 0, search_path: 'public' } })
  try {
    if (!(await mayCreate(sql))) {
      await checkUpToDate(sql, folder)
      return false
    }
    await sql`select pg_advisory_lock(${migrationLock})`
    await sql`create table if not exists schema_version (
      version int primary key, name text not null, checksum text not null,
      applied_at timestamptz not null default now(), min_server text)`
    const files = readMigrations(folder)
    const pending = comparePlan(files, await readApplied(sql))
    for (const migration of pending) {
      log.info({ migration: migration.name }, 'migrating')
      await apply(sql, migration)
    }
    // Other folders are those of tests, which have no roles yet.
    if (folder === migrationsDir) await ensureJobsSchema(sql)
    await letServersLook(sql)
    await retryRoles(() => ensureAppLogin(sql, appUrl))
    return true
  } catch (error) {
    if (error instanceof postgres.PostgresError && ['42501', '3F000', '42P01', '22023'].includes(error.code)) {
      throw new StartError(
        'DATABASE_RIGHTS',
        exitCodes.config,
        `The database login may not prepare the database: ${error.message}.`,
        'Set IOT_PMS_MIGRATE_URL to a login that may create roles and tables (the owner of the database with CREATEROLE).',
        error,
      )
    }
    throw error
  } finally {
    await sql.end({ timeout: 5 })
  }
}

/** Those whose login may not change tables look with the role of upkeep. */
async function letServersLook(sql: AdminSql): Promise<void> {
  const [role] = await sql`select 1 from pg_roles where rolname = 'pms_jobs'`
  if (role) await sql`grant select on schema_version to pms_jobs`
}

async function mayCreate(sql: AdminSql): Promise<boolean> {
  const [row] = await sql<{ may: boolean }[]>`select has_schema_privilege('public', 'create') as may`
  return row!.may
}

async function checkUpToDate(sql: AdminSql, folder: string): Promise<void> {
  const applied = await sql.begin(async (tx) => {
    await tx`set local role pms_jobs`
    return readApplied(tx)
  })
  const pending = comparePlan(readMigrations(folder), applied)
  if (pending.length === 0) return
  throw new StartError(
    'SCHEMA_TOO_OLD',
    exitCodes.config,
    `The database ends at ${applied.at(-1)?.name ?? 'nothing'}, this version needs ${pending.at(-1)!.name}, and this login may not change it.`,
    'Run iot-pms migrate first, with IOT_PMS_MIGRATE_URL set to a login that may.',
  )
}

async function readApplied(sql: AdminSql | postgres.TransactionSql): Promise<Applied[]> {
  return sql<Applied[]>`select version, name, checksum, min_server from schema_version order by version`
}

export function readMigrations(folder: string): Migration[] {
  return readdirSync(folder)
    .filter((name) => /^\d{4}_[a-z0-9_]+\.sql$/.test(name))
    .sort()
    .map((name) => {
      const text = readFileSync(join(folder, name), 'utf8')
      return { version: Number(name.slice(0, 4)), name, text, checksum: createHash('sha256').update(text).digest('hex') }
    })
}

function comparePlan(files: Migration[], applied: readonly Applied[]): Migration[] {
  const known = new Map(files.map((file) => [file.version, file]))
  for (const row of applied) {
    const file = known.get(row.version)
    if (!file) {
      throw new StartError(
        'SCHEMA_TOO_NEW',
        exitCodes.config,
        `The database holds ${row.name}, which this version does not know (it ends at ${files.at(-1)?.name ?? 'nothing'}).`,
        `It was written by a newer IoT PMS${row.min_server ? ` (at least ${row.min_server})` : ''}: start that one, or restore a backup made before the upgrade.`,
      )
    }
    if (file.checksum !== row.checksum) {
      throw new StartError(
        'MIGRATION_CHANGED',
        exitCodes.config,
        `${file.name} differs from the file that was applied to this database.`,
        'Restore the original file: an applied migration is never edited.',
      )
    }
  }
  const done = new Set(applied.map((row) => row.version))
  return files.filter((file) => !done.has(file.version))
}

async function apply(sql: AdminSql, migration: Migration): Promise<void> {
  const record = (tx: AdminSql | postgres.TransactionSql) =>
    tx`insert into schema_version (version, name, checksum) values (${migration.version}, ${migration.name}, ${migration.checksum})`
  if (migration.text.startsWith('-- no transaction')) {
    await sql.unsafe(migration.text)
    await record(sql)
    return
  }
  for (let attempt = 1; ; attempt++) {
    try {
      await sql.begin(async (tx) => {
        await tx`set local lock_timeout = '5s'`
        await tx.unsafe(migration.text)
        // The file may have taken on the owner's role; the record is written as ourselves.
        await tx`reset role`
        await record(tx)
      })
      return
    } catch (error) {
      const isLocked = error instanceof postgres.PostgresError && error.code === '55P03'
      if (!isLocked || attempt === 10) throw error
    }
  }
}

/** Makes the login of the application: member of the working roles, inheriting nothing, owner of nothing. */
async function ensureAppLogin(sql: AdminSql, appUrl: string): Promise<void> {
  const { username, password } = new URL(appUrl)
  const login = decodeURIComponent(username)
  const [me] = await sql<{ name: string }[]>`select current_user as name`
  if (login === me?.name) return
  const [exists] = await sql`select 1 from pg_roles where rolname = ${login}`
  // Statements about roles take no parameters, so the server itself does the quoting. Of an existing role
  // only the password is set: naming its attributes takes a superuser, and checkDatabase looks at them anyway.
  const [statement] = await sql<{ text: string }[]>`
    select format(case when ${exists !== undefined} then 'alter role %I password %L'
      else 'create role %I login noinherit password %L' end, ${login}::text, ${decodeURIComponent(password)}::text) as text`
  await sql.unsafe(statement!.text)
  for (const role of ['pms_app', 'pms_ingest', 'pms_store', 'pms_jobs']) {
    const [version] = await sql<{ number: number }[]>`select current_setting('server_version_num')::int as number`
    const options = version!.number >= 160_000 ? 'with inherit false, set true' : ''
    await sql.unsafe(`grant ${role} to "${login.replaceAll('"', '""')}" ${options}`)
  }
}

/** Roles belong to the whole cluster, the lock above to one database: two servers may change a role at once (XX000). */
async function retryRoles(work: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const isRace = error instanceof postgres.PostgresError && error.message.includes('concurrently updated')
      if (!isRace || attempt === 20) throw error
    }
  }
}
