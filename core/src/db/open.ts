// SPDX-License-Identifier: AGPL-3.0-only
import { accessSync, constants } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import type { Config } from '../config.ts'
import { configError } from '../config.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { EmbeddedPostgres } from './embedded.ts'
import { makeFolder } from './place.ts'

/** The database in use: its two logins, and how to let go of it. */
export type OpenDatabase = { adminUrl: string; appUrl: string; stop(): Promise<void> }

/**
 * Makes the data folder when it is missing.
 * @throws {StartError} `DATA_DIR` with what to do when it cannot be used
 */
export function ensureDataDir(dataDir: string): void {
  try {
    // As root the database runs as another user, who must be able to pass through.
    makeFolder(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700)
    accessSync(dataDir, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    const user = process.getuid ? ` (user ${process.getuid()})` : ''
    throw new StartError(
      'DATA_DIR',
      exitCodes.notWritable,
      `The data folder ${dataDir} cannot be used by this user${user}: ${(error as Error).message}.`,
      `Give it to the user that runs the server (chown -R <user> ${dataDir}) or set IOT_PMS_DATA_DIR to a folder of yours.`,
      error,
    )
  }
}

/** Starts the embedded PostgreSQL, or waits for the external one. */
export async function openDatabase(config: Config, log: Log): Promise<OpenDatabase> {
  const { url, migrateUrl } = config.database
  if (url) {
    await waitForDatabase(migrateUrl ?? url, config.database.waitS, log)
    return { adminUrl: migrateUrl ?? url, appUrl: url, stop: async () => {} }
  }
  const embedded = new EmbeddedPostgres({ dataDir: config.dataDir, user: config.database.user, log })
  await embedded.start()
  return { adminUrl: embedded.adminUrl, appUrl: embedded.appUrl, stop: () => embedded.stop() }
}

async function waitForDatabase(url: string, waitS: number, log: Log): Promise<void> {
  const deadline = performance.now() + waitS * 1000
  for (let attempt = 0; ; attempt++) {
    const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => {} })
    try {
      await sql`select 1`
      return
    } catch (error) {
      const isRefusal = ['28P01', '28000', '3D000'].includes((error as { code?: string }).code ?? '')
      if (isRefusal || performance.now() > deadline) {
        throw new StartError(
          'DATABASE_UNREACHABLE',
          exitCodes.unavailable,
          `The database of DATABASE_URL does not answer: ${(error as Error).message}.`,
          'Check host, port, database, login and password, and that PostgreSQL accepts connections from here.',
          error,
        )
      }
      if (attempt === 0) log.warn({ err: error }, 'waiting for the database')
      await sleep(500)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
}

/**
 * Refuses a database that could lose what we acknowledge, or a login that tenant isolation cannot hold.
 *
 * @throws {StartError} `DATABASE_UNSAFE`, `DATABASE_ROLE_TOO_STRONG`, `DATABASE_VERSION`
 */
export async function checkDatabase(appUrl: string, config: Config, log: Log): Promise<void> {
  const sql = postgres(appUrl, { max: 1, onnotice: () => {} })
  try {
    const [row] = await sql<{ version: number; fsync: string; pages: string; super: boolean; bypass: boolean; owner: boolean }[]>`
      select current_setting('server_version_num')::int as version, current_setting('fsync') as fsync, current_setting('full_page_writes') as pages,
        rolsuper as super, rolbypassrls as bypass, coalesce((select pg_has_role(current_user, o.oid, 'member') from pg_roles o where o.rolname = 'pms_owner'), false) as owner from pg_roles where rolname = current_user`
    const { version, fsync, pages } = row!
    if (version < 150_000) {
      throw configError([`PostgreSQL ${Math.floor(version / 10_000)} is too old: 15 to 18 are supported.`], 'DATABASE_VERSION')
    }
    if (fsync === 'off' || pages === 'off') {
      const text = 'fsync or full_page_writes is off: acknowledged data could be lost in a crash. Switch both on in postgresql.conf.'
      if (!config.database.allowUnsafe) throw configError([text], 'DATABASE_UNSAFE')
      repeatHourly(() => log.warn(text))
    }
    if (row!.super || row!.bypass || row!.owner) {
      const text =
        'The login of DATABASE_URL is superuser, has BYPASSRLS or owns the tables, so tenants would not be isolated by the database.'
      const fix =
        'Set IOT_PMS_MIGRATE_URL to that login and DATABASE_URL to one named iot_pms with a password of your choice: the start makes it.'
      if (!config.database.allowStrongRole) throw configError([`${text} ${fix}`], 'DATABASE_ROLE_TOO_STRONG')
      repeatHourly(() => log.warn(text))
    }
  } finally {
    await sql.end({ timeout: 5 })
  }
}

function repeatHourly(warn: () => void): void {
  warn()
  setInterval(warn, 3_600_000).unref()
}
