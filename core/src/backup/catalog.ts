// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import type { BackupKind, BackupMigration, BackupTable, Manifest } from './manifest.ts'

/** A table with who owns it. */
export type OwnedTable = BackupTable & { owner: string }

/** Written by every start and migration itself, or of a moment: never part of a backup. */
const ownTables = ['public.schema_version', 'public.module_migrations', 'public.leases']

/**
 * [RE-95] What a backup of the kind `config` leaves out: telemetry, live states, logs. What refers to such a row goes with
 * it. Evidence is no log: audit stays.
 */
const liveTables = [
  /^public\.telemetry/,
  /^public\.(device_log|device_rejects|ingest_minutes|idempotency_keys|ota_events|commands|machine_events|job_rates|job_poison)$/,
  /^public\.(notify_groups|notify_alerts|notify_messages|notify_deliveries|notify_inbox)$/,
  /^jobs\./,
]

const segmentTable = /^telemetry_segment_(\d+)$/

/** The number of a segment of the telemetry store; undefined for any other table. */
export function segmentNoOf({ schema, name }: { schema: string; name: string }): number | undefined {
  const number = schema === 'public' ? segmentTable.exec(name)?.[1] : undefined
  return number === undefined ? undefined : Number(number)
}

export function formatName({ schema, name }: { schema: string; name: string }): string {
  return `${schema}.${name}`
}

/** As it stands in statements. */
export function quoteName({ schema, name }: { schema: string; name: string }): string {
  return `${quote(schema)}.${quote(name)}`
}

export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`
}

/** Every table of ours with its columns, partitions as part of their parents. */
export async function listTables(client: pg.ClientBase): Promise<OwnedTable[]> {
  const { rows } = await client.query<OwnedTable>(`select n.nspname as schema, c.relname as name, pg_get_userbyid(c.relowner) as owner,
      array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        order by a.attnum) as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    order by 1, 2`)
  return rows.filter((table) => !ownTables.includes(formatName(table)))
}

/** Tables whose rows a backup of this kind holds, and the names of those it leaves out. */
export async function chooseTables(client: pg.ClientBase, kind: BackupKind): Promise<{ tables: OwnedTable[]; leftOut: string[] }> {
  const all = await listTables(client)
  // The points of a compacted segment are in chunks; its table may go at any moment.
  const kept = await readWhere(client, 'telemetry_segments', `select segment_no as no from telemetry_segments where state <> 'compacted'`)
  const segments = new Set(kept.map(({ no }) => no))
  const present = all.filter((table) => {
    const no = segmentNoOf(table)
    return no === undefined || segments.has(no)
  })
  if (kind === 'full') return { tables: present, leftOut: [] }
  const out = new Set(present.map(formatName).filter((name) => liveTables.some((pattern) => pattern.test(name))))
  const references = await listReferences(client)
  for (let size = -1; size !== out.size;) {
    size = out.size
    for (const { from, to } of references) if (out.has(to)) out.add(from)
  }
  return { tables: present.filter((table) => !out.has(formatName(table))), leftOut: [...out].sort() }
}

/** Which table refers to which, by foreign keys that cannot be empty without their row being so. */
async function listReferences(client: pg.ClientBase): Promise<{ from: string; to: string }[]> {
  const { rows } = await client.query<{
    from: string
    to: string
  }>(`select f.nspname || '.' || c.relname as from, t.nspname || '.' || r.relname as to
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace f on f.oid = c.relnamespace
      join pg_class r on r.oid = k.confrelid join pg_namespace t on t.oid = r.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and k.conrelid <> k.confrelid`)
  return rows
}

/** What the rows were written by; numbers of sequences are no part of a snapshot, and never behind it. */
export async function readOrigin(
  client: pg.ClientBase,
): Promise<Pick<Manifest, 'postgres' | 'installId' | 'secretKeyId' | 'migrations' | 'modules' | 'jobs' | 'sequences'>> {
  const { rows: installations } = await client.query<{ postgres: number; installId: string; secretKeyId: string | null; hasJobs: boolean }>(
    `select current_setting('server_version_num')::int / 10000 as postgres, install_id as "installId", secret_key_id as "secretKeyId",
      to_regclass('jobs.version') is not null as "hasJobs" from installation`,
  )
  const { hasJobs, ...installation } = installations[0]!
  const { rows: migrations } = await client.query<BackupMigration>('select version, name, checksum from schema_version order by version')
  const question = 'select module, version, name, checksum from module_migrations order by module, version'
  const ofModules = (await readWhere(client, 'module_migrations', question)) as (BackupMigration & { module: string })[]
  const { rows: sequences } = await client.query<{ schema: string; name: string; value: string }>(
    `select schemaname as schema, sequencename as name, last_value::text as value from pg_sequences where last_value is not null order by 1, 2`,
  )
  const jobs = hasJobs ? await client.query<{ version: number }>('select version from jobs.version') : undefined
  const modules: Manifest['modules'] = {}
  for (const { module, ...migration } of ofModules) (modules[module] ??= []).push(migration)
  return { ...installation, migrations, modules, sequences, jobs: jobs?.rows[0]?.version ?? null }
}

/** Rows of a table that databases of older versions do not have: a restore point is made of those. */
async function readWhere(client: pg.ClientBase, table: string, question: string): Promise<Record<string, unknown>[]> {
  const { rows } = await client.query<{ is: boolean }>('select to_regclass($1) is not null as is', [`public.${table}`])
  return rows[0]!.is ? (await client.query<Record<string, unknown>>(question)).rows : []
}
