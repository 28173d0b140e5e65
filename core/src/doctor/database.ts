// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import type { Config } from '../config.ts'
import type { OpenDatabase } from '../db/open.ts'
import { migrationsDir, readMigrations } from '../db/migrate.ts'
import { findOpenTables } from '../db/tenancy.ts'
import { loadSecretKey } from '../secrets.ts'
import { defaultDiskLimits, levelOf, volumeSpace } from '../system/disk-guard.ts'
import { attempt, fail, ok, warn } from './finding.ts'
import type { Finding } from './finding.ts'

/** [HA-2] */
const [clockWarnS, clockFailS] = [2, 60]
/** [RE §11] */
const commits = 50
const slowCommitMs = 20
/** [RE-83] */
const manySegments = 20
const gib = 2 ** 30

type Sql = postgres.Sql

/** Whether there is a database to look at before the first start. */
export function hasDatabase(config: Config): boolean {
  return config.database.url !== undefined || existsSync(join(config.dataDir, 'postgres/PG_VERSION'))
}

/** What only the database can tell. */
export async function examineDatabase(config: Config, { adminUrl, appUrl }: OpenDatabase): Promise<Finding[]> {
  const admin = postgres(adminUrl, { max: 1, onnotice: () => {}, connection: { statement_timeout: 30_000 } })
  const app = postgres(appUrl, { max: 1, onnotice: () => {}, connect_timeout: 10 })
  const connect = 'Check DATABASE_URL and IOT_PMS_MIGRATE_URL.'
  try {
    return [
      ...(await attempt('database', connect, () => checkSettings(admin))),
      ...(await attempt('clock', connect, () => checkClock(admin))),
      ...(await attempt('commit', connect, () => checkCommit(admin))),
      ...(await attempt('schema', 'Bring it up to date: iot-pms migrate', () => checkSchema(admin))),
      ...(await attempt('login', connect, () => checkLogin(app, config))),
      ...(await attempt('tenants', connect, () => checkTenancy(admin))),
      ...(await attempt('telemetry', 'Bring it up to date: iot-pms migrate', () => checkSegments(admin))),
      ...(await attempt('sealed values', 'Put the key of this installation back.', () => checkSealed(admin, config))),
      ...(await attempt('license', 'iot-pms license show', () => checkLicense(admin))),
      ...(await attempt('disk', 'Make room.', () => checkDisk(admin, config))),
    ]
  } finally {
    await Promise.all([admin.end({ timeout: 1 }), app.end({ timeout: 1 })])
  }
}

async function checkSettings(sql: Sql): Promise<Finding[]> {
  const [row] = await sql<{ version: number; text: string; encoding: string; fsync: string; pages: string; checksums: string }[]>`
    select current_setting('server_version_num')::int / 10000 as version, current_setting('server_version') as text,
      current_setting('server_encoding') as encoding, current_setting('fsync') as fsync, current_setting('full_page_writes') as pages,
      current_setting('data_checksums') as checksums`
  const { version, text, encoding, fsync, pages, checksums } = row!
  const isSafe = fsync === 'on' && pages === 'on'
  return [
    version >= 15 && version <= 18
      ? ok('database', `PostgreSQL ${text}`)
      : fail('database', `PostgreSQL ${text}`, 'PostgreSQL 15 to 18 are supported.'),
    encoding === 'UTF8' ? ok('encoding', encoding) : fail('encoding', encoding, 'Make the database anew with encoding UTF8.'),
    isSafe
      ? ok('durability', 'fsync and full_page_writes are on')
      : fail(
          'durability',
          `fsync is ${fsync}, full_page_writes is ${pages}`,
          'Switch both on in postgresql.conf: a crash could lose what was acknowledged.',
        ),
    checksums === 'on'
      ? ok('checksums', 'on')
      : warn(
          'checksums',
          'data checksums are off: a disk that changes bits is not noticed',
          'Stop PostgreSQL and run pg_checksums --enable.',
        ),
  ]
}

async function checkClock(sql: Sql): Promise<Finding[]> {
  await sql`select 1`
  const before = Date.now()
  const [row] = await sql<{ at: number }[]>`select extract(epoch from clock_timestamp())::float8 * 1000 as at`
  const offset = Math.abs(row!.at - (before + Date.now()) / 2) / 1000
  const found = `${offset.toFixed(1)} s between this machine and the database`
  const fix = 'Let both machines follow the same time server.'
  if (offset > clockFailS) return [fail('clock', found, fix)]
  return [offset > clockWarnS ? warn('clock', found, fix) : ok('clock', found)]
}

/** A message in the log of the database is durable with its commit, and changes no table. */
async function checkCommit(sql: Sql): Promise<Finding[]> {
  await sql`set synchronous_commit = on`
  const times: number[] = []
  for (let n = 0; n < commits; n++) {
    const before = performance.now()
    await sql`select pg_logical_emit_message(true, 'iot-pms', 'doctor')`
    times.push(performance.now() - before)
  }
  const median = times.toSorted((a, b) => a - b)[commits / 2]!
  const found = `a durable commit takes ${median.toFixed(1)} ms`
  return [
    median > slowCommitMs
      ? warn('commit', found, 'Every acknowledgement waits for it: put the database on a faster disk.')
      : ok('commit', found),
  ]
}

async function checkSchema(sql: Sql): Promise<Finding[]> {
  const [made] = await sql<{ is: boolean }[]>`select to_regclass('public.schema_version') is not null as is`
  if (!made!.is) return [warn('schema', 'the database is empty', 'The first start makes its tables.')]
  const applied = await sql<
    { version: number; name: string; checksum: string }[]
  >`select version, name, checksum from schema_version order by version`
  const files = new Map(readMigrations(migrationsDir).map((file) => [file.version, file]))
  const newer = applied.filter(({ version }) => !files.has(version))
  const changed = applied.filter(({ version, checksum }) => files.has(version) && files.get(version)!.checksum !== checksum)
  const pending = files.size - (applied.length - newer.length)
  const broken = await sql<{ name: string }[]>`select indexrelid::regclass::text as name from pg_index where not indisvalid`
  const indexes =
    broken.length === 0
      ? ok('indexes', 'all are valid')
      : warn('indexes', `not valid: ${broken.map(({ name }) => name).join(', ')}`, 'Drop them and run: iot-pms migrate')
  if (newer.length > 0) return [fail('schema', `${newer.at(-1)!.name} is of a newer version`, 'Start the version that wrote it.'), indexes]
  if (changed.length > 0) {
    return [fail('schema', `${changed[0]!.name} differs from the file that was applied`, 'Restore the original file.'), indexes]
  }
  if (pending > 0) return [warn('schema', `${pending} changes wait`, 'The next start makes them, or: iot-pms migrate'), indexes]
  return [ok('schema', applied.at(-1)?.name ?? 'empty'), indexes]
}

async function checkLogin(sql: Sql, config: Config): Promise<Finding[]> {
  const [row] = await sql<{ login: string; strong: boolean; commit: string }[]>`
    select rolname as login, current_setting('synchronous_commit') as commit, rolsuper or rolbypassrls or coalesce((
      select pg_has_role(current_user, o.oid, 'member') from pg_roles o where o.rolname = 'pms_owner'), false) as strong
    from pg_roles where rolname = current_user`
  const { login, strong, commit } = row!
  const fix =
    'Set IOT_PMS_MIGRATE_URL to this login and DATABASE_URL to one named iot_pms with a password of your choice: the start makes it.'
  const found = `${login} is superuser, has BYPASSRLS or owns the tables: the database does not keep tenants apart`
  return [
    strong ? (config.database.allowStrongRole ? warn : fail)('login', found, fix) : ok('login', login),
    // The writer switches it on for itself [RE-3].
    ok('synchronous commit', `on for all that is acknowledged${commit === 'on' ? '' : `, though the default is ${commit}`}`),
  ]
}

async function checkTenancy(sql: Sql): Promise<Finding[]> {
  const open = await findOpenTables((text) => sql.unsafe<{ name: string }[]>(text))
  if (open.length === 0) return [ok('tenants', 'every table keeps them apart')]
  return [
    fail(
      'tenants',
      `not kept apart in ${open.join(', ')}`,
      'Somebody changed its row level security: restore it from a backup, or report this.',
    ),
  ]
}

async function checkSegments(sql: Sql): Promise<Finding[]> {
  const [row] = await sql<{ waiting: number; minutes: number | null; damaged: number }[]>`
    select count(*)::int as waiting, floor(extract(epoch from clock_timestamp() - min(sealed_at)) / 60)::int as minutes,
      (select count(*)::int from telemetry_damaged_chunks) as damaged from telemetry_segments where state = 'sealed'`
  const { waiting, minutes, damaged } = row!
  const found = `${waiting} segments wait to be merged${minutes === null ? '' : `, the oldest for ${minutes} min`}`
  const fix = 'Merging does not keep up: look for errors in the log, and at the load of the machine.'
  const segments = waiting > manySegments ? warn('telemetry', found, fix) : ok('telemetry', found)
  if (damaged === 0) return [segments]
  return [
    segments,
    warn(
      'chunks',
      `${damaged} damaged ones are put aside in telemetry_damaged_chunks`,
      'Check the disk; restore what they held from a backup.',
    ),
  ]
}

async function checkSealed(sql: Sql, config: Config): Promise<Finding[]> {
  const [row] = await sql<{ id: string | null }[]>`select secret_key_id as id from installation`
  const id = row?.id ?? null
  const own = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir)
  if (id === null || own?.has(id)) return [ok('sealed values', id === null ? 'none' : `open with ${id}`)]
  return [
    fail(
      'sealed values',
      `were sealed with ${id}, ${own ? `and the key here is ${own.keyId}` : 'and there is no key here'}`,
      'Put the key of this installation back.',
    ),
  ]
}

async function checkLicense(sql: Sql): Promise<Finding[]> {
  const [row] = await sql<{ state: string }[]>`select noted_state as state from license_state`
  const state = row?.state ?? 'COMMUNITY'
  const isGood = ['COMMUNITY', 'TRIAL', 'ACTIVE'].includes(state)
  return [
    isGood ? ok('license', state) : warn('license', state, 'iot-pms license show says why. Devices and their data are not touched by it.'),
  ]
}

async function checkDisk(sql: Sql, config: Config): Promise<Finding[]> {
  const { url, quotaBytes } = config.database
  const [row] = await sql<{ bytes: number }[]>`select pg_database_size(current_database())::float8 as bytes`
  if (url && quotaBytes === 0) {
    return [
      warn(
        'disk',
        'the room of an external database is not known here',
        'Set IOT_PMS_STORAGE_QUOTA_GB, so that the server warns before it is full.',
      ),
    ]
  }
  const space = url ? { freeBytes: Math.max(0, quotaBytes - row!.bytes), totalBytes: quotaBytes } : await volumeSpace(config.dataDir)
  const level = levelOf(space, 'ok', defaultDiskLimits)
  const found = `${(space.freeBytes / gib).toFixed(1)} of ${(space.totalBytes / gib).toFixed(1)} GiB are free, the database takes ${(row!.bytes / gib).toFixed(2)}`
  const fix = 'Make room, add a disk, or let retention rules remove old telemetry.'
  if (level === 'ok') return [ok('disk', found)]
  return [level === 'warn' ? warn('disk', found, fix) : fail('disk', found, fix)]
}
