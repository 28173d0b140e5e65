// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import type { Log } from '../log.ts'
import { migrationLock, readMigrations } from './migrate.ts'
import { findForeignTarget } from './sql-targets.ts'

type Applied = { version: number; name: string; checksum: string }

/** [MO-50] The schema of a module: its name with `-` as `_`. */
export function schemaOf(module: string): string {
  return module.replaceAll('-', '_')
}

/**
 * Brings the tables of a module up to date: plain SQL files in order, each in one transaction as the owner of all tables,
 * with the module's schema first in the search path. The lock is that of core's own migrations, so that servers started
 * together do not meet. Running it again does nothing.
 *
 * @throws when a file has a target outside the schema, an applied file was edited, or the database holds a newer one
 */
export async function migrateModule(adminUrl: string, module: string, folder: string, log: Log): Promise<void> {
  const schema = schemaOf(module)
  const files = readMigrations(folder)
  for (const file of files) {
    const foreign = findForeignTarget(file.text, schema)
    if (foreign) throw new Error(`${file.name}: ${foreign}`)
  }
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {}, connection: { lock_timeout: 0 } })
  try {
    await sql`select pg_advisory_lock(${migrationLock})`
    const applied = await sql<Applied[]>`select version, name, checksum from module_migrations where module = ${module} order by version`
    for (const row of applied) {
      const file = files.find(({ version }) => version === row.version)
      if (!file) throw new Error(`the database holds ${row.name} of a newer ${module}`)
      if (file.checksum !== row.checksum) throw new Error(`${file.name} differs from the file that was applied`)
    }
    const pending = files.filter(({ version }) => !applied.some((row) => row.version === version))
    if (pending.length > 0) await prepareSchema(sql, schema)
    for (const file of pending) {
      log.info({ module, migration: file.name }, 'migrating')
      await sql.begin(async (tx) => {
        await tx`set local lock_timeout = '5s'`
        await tx`set local role pms_owner`
        await tx`select set_config('search_path', ${`${schema}, public`}, true)`
        await tx.unsafe(file.text)
        await tx`insert into public.module_migrations (module, version, name, checksum)
          values (${module}, ${file.version}, ${file.name}, ${file.checksum})`
      })
    }
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function prepareSchema(sql: postgres.Sql, schema: string): Promise<void> {
  await sql`create schema if not exists ${sql(schema)} authorization pms_owner`
  await sql`grant usage on schema ${sql(schema)} to pms_app`
}
