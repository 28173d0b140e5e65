// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { createDatabaseLike } from '../db/create-database.ts'
import { sqlStateOf } from '../db/errors.ts'
import { StartError, exitCodes } from '../errors.ts'

/** SQLSTATEs invalid_catalog_name, insufficient_privilege, object_in_use, invalid_authorization. */
const [noDatabase, noRights, inUse, noAccess] = ['3D000', '42501', '55006', '28000']
const dayMs = 86_400_000
/** [RE-97] */
const keptDays = 7

/** The same server and login, another database. */
export function withDatabaseName(url: string, name: string): string {
  const changed = new URL(url)
  changed.pathname = `/${encodeURIComponent(name)}`
  return changed.href
}

export function databaseNameOf(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1))
}

/** 20261121T224500 without the letter, in UTC: part of the names of databases and files. */
export function stampOf(at: Date): string {
  return at.toISOString().replaceAll(/[-:T]|\..*/g, '')
}

/** Databases beside the one in use, of which a restore makes a new one and keeps the one before. */
export class Databases {
  readonly #name: string
  readonly #sql: postgres.Sql

  private constructor(name: string, sql: postgres.Sql) {
    this.#name = name
    this.#sql = sql
  }

  /** @param adminUrl of the database in use; the connection is to another one of its server */
  static async open(adminUrl: string): Promise<Databases> {
    const names = ['postgres', 'template1'].filter((name) => name !== databaseNameOf(adminUrl))
    for (const name of names) {
      const sql = postgres(withDatabaseName(adminUrl, name), { max: 1, onnotice: () => {}, connection: { lock_timeout: 0 } })
      try {
        await sql`select 1`
        return new Databases(databaseNameOf(adminUrl), sql)
      } catch (error) {
        await sql.end({ timeout: 1 })
        if (name === names.at(-1) || ![noDatabase, noRights, noAccess].includes(sqlStateOf(error) ?? '')) throw error
      }
    }
    throw new Error('unreachable')
  }

  close(): Promise<void> {
    return this.#sql.end({ timeout: 5 })
  }

  /** Names of databases that a restore keeps, and of those a broken one has left. */
  async list(kind: 'before' | 'restore'): Promise<string[]> {
    const prefix = `${this.#name}_${kind}_`
    const rows = await this.#sql<
      { name: string }[]
    >`select datname as name from pg_database where starts_with(datname, ${prefix}) order by 1`
    return rows.map(({ name }) => name).filter((name) => /^\d{14}$/.test(name.slice(prefix.length)))
  }

  /**
   * An empty database with the collation of the one in use.
   *
   * @throws {StartError} `DATABASE_RIGHTS`
   */
  async create(stamp: string): Promise<string> {
    const name = `${this.#name}_restore_${stamp}`
    try {
      await createDatabaseLike(this.#sql, name, this.#name)
    } catch (error) {
      if (sqlStateOf(error) !== noRights) throw error
      throw new StartError(
        'DATABASE_RIGHTS',
        exitCodes.config,
        'The login of the database may not make another database, into which a backup is loaded first.',
        'Give it CREATEDB, or make an empty database and name it with --into URL.',
        error,
      )
    }
    return name
  }

  async drop(name: string): Promise<void> {
    await this.#sql`drop database if exists ${this.#sql(name)} with (force)`
  }

  /** Programs that are connected to the database in use. */
  async countUsers(): Promise<number> {
    const [row] = await this.#sql<{ count: number }[]>`
      select count(*)::int as count from pg_stat_activity where datname = ${this.#name} and backend_type = 'client backend'`
    return row!.count
  }

  /**
   * Puts the new database in the place of the one in use. Both names change in one transaction: whatever happens, one of
   * the two is there whole.
   *
   * @returns the name under which the one before stays
   * @throws {StartError} `DATABASE_IN_USE`
   */
  async swap(fresh: string, stamp: string): Promise<string> {
    const kept = `${this.#name}_before_${stamp}`
    try {
      await this.#sql.begin(async (tx) => {
        await tx`alter database ${tx(this.#name)} rename to ${tx(kept)}`
        await tx`alter database ${tx(fresh)} rename to ${tx(this.#name)}`
      })
    } catch (error) {
      if (sqlStateOf(error) === inUse) throw inUseError(await this.countUsers())
      throw error
    }
    return kept
  }

  /** @param olderThanDays 0 for all of them */
  async discardOld(now: number, olderThanDays = keptDays): Promise<string[]> {
    const limit = stampOf(new Date(now - olderThanDays * dayMs))
    const old = (await this.list('before')).filter((name) => olderThanDays === 0 || name.slice(-14) < limit)
    for (const name of old) await this.drop(name)
    return old
  }
}

export function inUseError(users: number): StartError {
  return new StartError(
    'DATABASE_IN_USE',
    exitCodes.otherInstance,
    `${users} connections to the database are open: a server or another program still uses it.`,
    'Stop every server of this database, and try again. Nothing was changed.',
  )
}
