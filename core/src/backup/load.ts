// SPDX-License-Identifier: AGPL-3.0-only
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { copyOn } from '../db/copy-in.ts'
import { jobsSchema } from '../db/jobs-schema.ts'
import { migrate, migrationsDir, readMigrations } from '../db/migrate.ts'
import { migrateModule, schemaOf } from '../db/module-migrations.ts'
import { findOpenTables } from '../db/tenancy.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { discoverModules } from '../modules/discovery.ts'
import { closeSegment, createSegment, indexSegment } from '../telemetry/segment-sql.ts'
import type { OpenBackup } from './archive.ts'
import { formatName, listTables, quoteName, segmentNoOf } from './catalog.ts'
import type { OwnedTable } from './catalog.ts'
import type { BackupMigration, BackupTable, Manifest } from './manifest.ts'
import {
  addConstraint,
  analyzeTable,
  copyIntoTable,
  countRows,
  describeTable,
  dropConstraint,
  emptyTable,
  forceIsolation,
  takeRole,
} from './table-sql.ts'

/** How a backup is put into a database; the folders of the modules of this build by name. */
export type LoadParts = { log: Log; modules: ReadonlyMap<string, string | undefined> }

type Target = { adminUrl: string; appUrl: string }

/** Modules of this build that have tables, required ones first. */
export function listModuleMigrations(): LoadParts['modules'] {
  return new Map(discoverModules().modules.map(({ name, migrations }) => [name, migrations]))
}

/**
 * [RE-97] Whether this build can read the backup at all: it knows every migration the rows were written by.
 *
 * @throws {StartError} `SCHEMA_TOO_NEW`, `MIGRATION_CHANGED`, `MODULE_MISSING`
 */
export function checkVersions(manifest: Manifest, modules: LoadParts['modules'], skipsMissing: boolean): void {
  compare(manifest, manifest.migrations, migrationsDir)
  for (const [module, migrations] of Object.entries(manifest.modules)) {
    const folder = modules.get(module)
    if (folder === undefined && skipsMissing) continue
    if (folder === undefined) {
      throw new StartError(
        'MODULE_MISSING',
        exitCodes.config,
        `The backup holds data of the module ${module}, which this build does not have.`,
        'Restore it with a build that has the module, or leave its data out with --skip-modules.',
      )
    }
    compare(manifest, migrations, folder)
  }
}

function compare({ version }: Manifest, migrations: readonly BackupMigration[], folder: string): void {
  const known = new Map(readMigrations(folder).map((file) => [file.version, file]))
  for (const { version: number, name, checksum } of migrations) {
    const file = known.get(number)
    if (!file) {
      throw new StartError(
        'SCHEMA_TOO_NEW',
        exitCodes.config,
        `The backup was made by IoT PMS ${version} and holds ${name}, which this version does not know.`,
        'Restore it with that version or a newer one. Nothing was changed.',
      )
    }
    if (file.checksum !== checksum) {
      throw new StartError(
        'MIGRATION_CHANGED',
        exitCodes.config,
        `${name} differs from the file that made the tables of the backup.`,
        'Restore the original file: an applied migration is never edited. Nothing was changed.',
      )
    }
  }
}

/**
 * Fills an empty database: tables as they were, rows, then all that has changed in the tables since. Afterwards every
 * count is that of the backup and every tenant is behind its wall.
 *
 * @returns what had to be left out, a sentence each
 */
export async function loadBackup(backup: OpenBackup, target: Target, { log, modules }: LoadParts): Promise<string[]> {
  const { manifest } = backup
  await migrateTo(manifest.migrations, migrationsDir, async (folder) => {
    await migrate(target.adminUrl, target.appUrl, log, folder)
  })
  // In the order of this build, in which what a module requires comes before it.
  for (const [module, folder] of modules) {
    const migrations = manifest.modules[module]
    if (migrations && folder) await migrateTo(migrations, folder, (some) => migrateModule(target.adminUrl, module, some, log))
  }
  const schemas = new Set(['public', ...[...modules.keys()].map(schemaOf)])
  const isSkipped = ({ schema }: BackupTable) => !schemas.has(schema) && schema !== jobsSchema
  const notes = [...new Set(manifest.tables.filter(isSkipped).map(({ schema }) => `the tables of the module ${schema}`))]
  await withClient(target.adminUrl, async (loader) => {
    await loader.createSegments(manifest.tables)
    await loader.load(
      backup,
      manifest.tables.filter(({ schema }) => schemas.has(schema)),
    )
    await loader.setSequences(manifest)
  })
  await migrate(target.adminUrl, target.appUrl, log)
  await withClient(target.adminUrl, async (loader) => {
    const jobs = manifest.tables.filter(({ schema }) => schema === jobsSchema)
    if (jobs.length > 0 && (await loader.readJobsVersion()) === manifest.jobs) await loader.load(backup, jobs)
    else if (jobs.length > 0) notes.push('jobs that were waiting, which another version of the queues wrote')
    await loader.check()
  })
  return notes
}

/** Brings tables to what they were, by the files of that time alone. */
async function migrateTo(migrations: readonly BackupMigration[], from: string, run: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-migrations-'))
  try {
    for (const { name } of migrations) copyFileSync(join(from, name), join(folder, name))
    await run(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function withClient(adminUrl: string, work: (loader: Loader) => Promise<void>): Promise<void> {
  const pool = new pg.Pool({
    connectionString: adminUrl,
    max: 1,
    application_name: 'iot-pms restore',
    // The database is of no use before it is whole, and the last commit is durable with all before it.
    options: '-c timezone=UTC -c statement_timeout=0 -c synchronous_commit=off -c client_min_messages=warning',
  })
  const client = await pool.connect()
  try {
    await work(new Loader(client))
  } finally {
    client.release(true)
    await pool.end()
  }
}

type Reference = { table: string; owner: string; name: string; definition: string }

class Loader {
  readonly #client: pg.PoolClient

  constructor(client: pg.PoolClient) {
    this.#client = client
  }

  /** Tables of segments are made while the server runs, not by migrations. */
  async createSegments(tables: readonly BackupTable[]): Promise<void> {
    const numbers = tables.map(segmentNoOf).filter((no) => no !== undefined)
    await this.#as('pms_store', async () => {
      for (const no of numbers) await this.#client.query(createSegment(no))
    })
  }

  /** Rows come in the order of names, so references between tables are taken away and made, and checked, at the end. */
  async load(backup: OpenBackup, wanted: readonly BackupTable[]): Promise<void> {
    const known = new Map((await listTables(this.#client)).map((table) => [formatName(table), table]))
    const schemas = [...new Set(wanted.map(({ schema }) => schema))]
    const references = await this.#dropReferences(schemas)
    for (const table of wanted) {
      const found = known.get(formatName(table))
      if (!found) throw new Error(`the backup holds ${formatName(table)}, which its migrations do not make`)
      await this.#as(found.owner, () => this.#loadTable(backup, { ...table, owner: found.owner }))
    }
    await this.#finishSegments(wanted)
    for (const { table, owner, name, definition } of references) {
      await this.#as(owner, () => this.#client.query(addConstraint(table, name, definition)))
    }
  }

  /** Numbers that were given are not given again. */
  async setSequences({ sequences }: Manifest): Promise<void> {
    for (const { schema, name, value } of sequences) {
      const sequence = quoteName({ schema, name })
      const { rows } = await this.#client.query<{ owner: string }>(
        'select pg_get_userbyid(relowner) as owner from pg_class where oid = to_regclass($1)',
        [sequence],
      )
      if (rows[0]) await this.#as(rows[0].owner, () => this.#client.query('select setval(to_regclass($1), $2)', [sequence, value]))
    }
  }

  async readJobsVersion(): Promise<number | null> {
    const { rows } = await this.#client.query<{ version: number }>('select version from jobs.version')
    return rows[0]?.version ?? null
  }

  /** @throws when a table with rows of tenants is not behind its wall again */
  async check(): Promise<void> {
    const open = await findOpenTables(async (text) => (await this.#client.query<{ name: string }>(text)).rows)
    if (open.length > 0) throw new Error(`tables without complete isolation of tenants: ${open.join(', ')}`)
  }

  async #loadTable(backup: OpenBackup, table: OwnedTable): Promise<void> {
    const { rows: own } = await this.#client.query<{ forced: boolean; filled: boolean }>(describeTable(table), [quoteName(table)])
    const { forced, filled } = own[0]!
    // COPY is refused under row level security, which binds the owner, too.
    if (forced) await this.#client.query(forceIsolation(table, false))
    // Rows that the migrations themselves have put in.
    if (filled) await this.#client.query(emptyTable(table))
    const copy = copyIntoTable(table)
    for await (const part of backup.readParts(table)) await copyOn(this.#client, copy, part)
    const { rows } = await this.#client.query<{ count: string }>(countRows(table))
    if (forced) await this.#client.query(forceIsolation(table, true))
    const expected = backup.totals.find((one) => formatName(one) === formatName(table))?.rows
    if (Number(rows[0]!.count) !== expected) throw new Error(`${formatName(table)} holds ${rows[0]!.count} rows of ${expected}`)
    await this.#client.query(analyzeTable(table))
  }

  /** As they were left: sealed ones take nothing more; those that were being written are sealed by the next start. */
  async #finishSegments(tables: readonly BackupTable[]): Promise<void> {
    const numbers = tables.map(segmentNoOf).filter((no) => no !== undefined)
    if (numbers.length === 0) return
    await this.#as('pms_store', async () => {
      const { rows } = await this.#client.query<{ no: number }>(
        `select segment_no as no from telemetry_segments where state = 'sealed' and segment_no = any($1)`,
        [numbers],
      )
      for (const { no } of rows) {
        await this.#client.query('begin')
        await this.#client.query(closeSegment(no))
        await this.#client.query(indexSegment(no))
        await this.#client.query('commit')
      }
    })
  }

  async #dropReferences(schemas: readonly string[]): Promise<Reference[]> {
    const { rows } = await this.#client.query<Reference>(
      `select k.conrelid::regclass::text as table, pg_get_userbyid(c.relowner) as owner, k.conname as name, pg_get_constraintdef(k.oid) as definition
       from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
       where k.contype = 'f' and k.conparentid = 0 and n.nspname = any($1) order by 1, 3`,
      [schemas],
    )
    for (const { table, owner, name } of rows) {
      await this.#as(owner, () => this.#client.query(dropConstraint(table, name)))
    }
    return rows
  }

  async #as<T>(owner: string, work: () => Promise<T>): Promise<T> {
    await this.#client.query(takeRole(owner))
    try {
      return await work()
    } finally {
      await this.#client.query('reset role')
    }
  }
}
