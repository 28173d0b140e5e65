// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { systemClock } from '../clock.ts'
import type { Config } from '../config.ts'
import { Db } from '../db/client.ts'
import { loadRootTenant } from '../db/installation.ts'
import { openDatabase } from '../db/open.ts'
import type { OpenDatabase } from '../db/open.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { addSecurityEvent, systemOrigin } from '../users/security-events.ts'
import type { OpenBackup } from './archive.ts'
import { Databases, databaseNameOf, inUseError, stampOf, withDatabaseName } from './databases.ts'
import { checkVersions, listModuleMigrations, loadBackup } from './load.ts'
import type { LoadParts } from './load.ts'
import { planKey } from './restored-key.ts'
import type { KeyPlan } from './restored-key.ts'

export type RestoreWish = {
  /** Replaces a database that has something in it. */
  yes: boolean
  /** An empty database of somebody's own, which nothing is swapped with. */
  into?: string | undefined
  passphraseFile?: string | undefined
  dropSecrets: boolean
  skipModules: boolean
}

export type Restored = {
  /** The database that was replaced, under the name it has now; undefined where there was none. */
  kept: string | undefined
  /** What is not in the database though it is in the backup. */
  notes: string[]
}

/**
 * [RE-97] Puts a backup in the place of the database in use: checked first, loaded into a new database, and only then
 * are the names swapped. Until then nothing of what was there is touched.
 */
export async function restoreBackup(backup: OpenBackup, config: Config, wish: RestoreWish, log: Log): Promise<Restored> {
  const modules = listModuleMigrations()
  checkVersions(backup.manifest, modules, wish.skipModules)
  const key = await planKey(backup, config, wish)
  if (wish.into !== undefined) return restoreInto(backup, { adminUrl: wish.into, config, key, modules, log })
  const database = await openDatabase(config, log)
  const databases = await Databases.open(database.adminUrl)
  const stamp = stampOf(new Date())
  try {
    const isEmpty = await checkTarget(database, databases, wish)
    for (const broken of await databases.list('restore')) await databases.drop(broken)
    const fresh = await databases.create(stamp)
    try {
      const target = { adminUrl: withDatabaseName(database.adminUrl, fresh), appUrl: withDatabaseName(database.appUrl, fresh) }
      const notes = await loadBackup(backup, target, { log, modules })
      await finish(backup, target.appUrl, key)
      key.prepare()
      const kept = await databases.swap(fresh, stamp)
      key.commit(stamp)
      if (isEmpty) await databases.drop(kept)
      await databases.discardOld(Date.now())
      return { kept: isEmpty ? undefined : kept, notes }
    } catch (error) {
      await databases.drop(fresh)
      throw error
    }
  } finally {
    await databases.close()
    await database.stop()
  }
}

/** Without the right to make databases: one that is there and empty, which is emptied again when it goes wrong. */
async function restoreInto(
  backup: OpenBackup,
  { adminUrl, config, key, modules, log }: { adminUrl: string; config: Config; key: KeyPlan; modules: LoadParts['modules']; log: Log },
): Promise<Restored> {
  if (!config.database.url) {
    const hint = 'The settings are those of the server that is to use the database.'
    throw new StartError('USAGE', exitCodes.usage, '--into needs DATABASE_URL, whose login the database gets.', hint)
  }
  const appUrl = withDatabaseName(config.database.url, databaseNameOf(adminUrl))
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  try {
    const [row] = await sql<
      { tables: number }[]
    >`select count(*)::int as tables from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'`
    if (row!.tables > 0) throw notEmpty(databaseNameOf(adminUrl), `${row!.tables} tables`, 'Name an empty database.')
    try {
      const notes = await loadBackup(backup, { adminUrl, appUrl }, { log, modules })
      await finish(backup, appUrl, key)
      key.prepare()
      key.commit(stampOf(new Date()))
      return { kept: undefined, notes }
    } catch (error) {
      await empty(sql)
      throw error
    }
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function empty(sql: postgres.Sql): Promise<void> {
  const schemas = await sql<{ name: string }[]>`
    select nspname as name from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'`
  for (const { name } of schemas) await sql`drop schema ${sql(name)} cascade`
  await sql`create schema public`
}

/** @returns whether there is nothing in it that anybody could miss. @throws {StartError} `DATABASE_IN_USE`, `TARGET_NOT_EMPTY` */
async function checkTarget({ adminUrl }: OpenDatabase, databases: Databases, { yes }: RestoreWish): Promise<boolean> {
  const users = await databases.countUsers()
  if (users > 0) throw inUseError(users)
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  try {
    const [made] = await sql<
      { is: boolean }[]
    >`select to_regclass('public.users') is not null and to_regclass('public.devices') is not null as is`
    if (!made!.is) return true
    const [found] = await sql<{ users: number; devices: number }[]>`
      select (select count(*)::int from users) as users, (select count(*)::int from devices) as devices`
    const { users: people, devices } = found!
    if (people === 0 && devices === 0) return true
    if (yes) return false
    const hint = 'Add --yes: the backup takes the place of all that, which stays beside it for 7 days.'
    throw notEmpty(databaseNameOf(adminUrl), `${devices} devices and ${people} users`, hint)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

function notEmpty(name: string, what: string, hint: string): StartError {
  return new StartError('TARGET_NOT_EMPTY', exitCodes.usage, `The database ${name} holds ${what}.`, hint)
}

/** What the new database has to know of all this before it is used. */
async function finish({ manifest }: OpenBackup, appUrl: string, key: KeyPlan): Promise<void> {
  const db = new Db(appUrl, 1)
  try {
    if (key.dropsSecrets) await db.withRole('pms_jobs', (tx) => tx.execute('update installation set secret_key_id = null'))
    const { tenantId, ...rest } = await loadRootTenant(db)
    const { createdAt, kind, version } = manifest
    const detail = { backup: createdAt, kind, version, ...(key.dropsSecrets ? { secrets: 'dropped' } : {}) }
    const event = { actor: 'console', action: 'backup.restore', target: 'installation', outcome: 'ok' as const, detail }
    await db.withTenant({ tenantId, ...rest }, (tx) => addSecurityEvent(tx, tenantId, systemOrigin, systemClock.now(), event))
  } finally {
    await db.stop()
  }
}
