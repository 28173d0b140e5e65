// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { Writable } from 'node:stream'
import { promisify } from 'node:util'
import { constants, zstdCompress } from 'node:zlib'
import pg from 'pg'
import { copyOut } from '../db/copy-out.ts'
import { sqlStateOf } from '../db/errors.ts'
import { version } from '../version.ts'
import { chooseTables, readOrigin } from './catalog.ts'
import type { OwnedTable } from './catalog.ts'
import { manifestName, partName, sumsName, totalsName } from './manifest.ts'
import type { BackupKind, Manifest, PackedKey, Totals } from './manifest.ts'
import { keepTables, selectTable, takeLocalRole } from './table-sql.ts'
import { formatTarHeader, tarEnd, tarPadding } from './tar.ts'

const compress = promisify(zstdCompress)
/** The fastest: telemetry, most of it all, is compressed already. */
const compression = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }

/** Bytes of rows in one file of the archive; about what is held in memory, twice. */
const partBytes = 4 * 1024 * 1024
/** A table that goes between the snapshot and the lock on it is one of a moment: then all begins again. */
const maxTries = 5
/** SQLSTATE undefined_table. */
const undefinedTable = '42P01'

/** Binary COPY: signature, flags, no extension; and the end of its rows. */
export const copyHeader = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1')
export const copyTrailer = Buffer.from([0xff, 0xff])

export type WrittenBackup = { manifest: Manifest; totals: Totals; bytes: number }

/**
 * [RE-95] Writes all tables as they were at one moment, as a tar that can go to a pipe: the server goes on meanwhile, and
 * no more than a few parts are in memory.
 *
 * @param adminUrl a login that owns the tables
 */
export async function writeBackup(adminUrl: string, out: Writable, wanted: { kind: BackupKind; key?: PackedKey }): Promise<WrittenBackup> {
  const pool = new pg.Pool({
    connectionString: adminUrl,
    max: 1,
    application_name: 'iot-pms backup',
    options:
      '-c timezone=UTC -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=30s -c default_transaction_read_only=on',
  })
  const client = await pool.connect()
  try {
    const { origin, tables, leftOut, isSuperuser } = await openSnapshot(client, wanted.kind)
    const createdAt = new Date()
    const archive = new Archive(out, createdAt)
    const manifest: Manifest = {
      format: 1,
      product: 'iot-pms',
      version,
      createdAt: createdAt.toISOString(),
      kind: wanted.kind,
      ...origin,
      tables: tables.map(({ schema, name, columns }) => ({ schema, name, columns })),
      leftOut,
      ...(wanted.key ? { key: wanted.key } : {}),
    }
    await archive.add(manifestName, Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`))
    const totals: Totals = []
    for (const table of tables) totals.push(await writeTable(client, archive, table, isSuperuser))
    await client.query('commit')
    await archive.add(totalsName, Buffer.from(`${JSON.stringify(totals, null, 1)}\n`))
    return { manifest, totals, bytes: await archive.finish() }
  } finally {
    client.release(true)
    await pool.end()
  }
}

/** One snapshot, and a lock on each table that keeps it from going away; nobody who writes has to wait for it. */
async function openSnapshot(client: pg.PoolClient, kind: BackupKind) {
  for (let attempt = 1; ; attempt++) {
    await client.query('begin transaction isolation level repeatable read')
    try {
      const { tables, leftOut } = await chooseTables(client, kind)
      await client.query(keepTables(tables))
      const origin = await readOrigin(client)
      const { rows } = await client.query<{ isSuperuser: boolean }>(
        `select rolsuper as "isSuperuser" from pg_roles where rolname = current_user`,
      )
      return { origin, tables, leftOut, isSuperuser: rows[0]!.isSuperuser }
    } catch (error) {
      await client.query('rollback')
      if (sqlStateOf(error) !== undefinedTable || attempt === maxTries) throw error
    }
  }
}

async function writeTable(client: pg.PoolClient, archive: Archive, table: OwnedTable, isSuperuser: boolean): Promise<Totals[number]> {
  const { schema, name } = table
  // Row level security lets the owner of all tables see every tenant's rows, and no member of it by itself.
  if (!isSuperuser) await client.query(takeLocalRole(table.owner))
  const total = { schema, name, rows: 0, bytes: 0, parts: 0 }
  let held: Buffer[] = []
  let heldBytes = 0
  // One part is compressed and written while the rows of the next are read.
  let writing = Promise.resolve()
  const flush = async () => {
    if (held.length === 0) return
    const part = Buffer.concat([copyHeader, ...held, copyTrailer])
    total.rows += held.length
    total.bytes += heldBytes
    held = []
    heldBytes = 0
    const file = partName(table, ++total.parts)
    await writing
    writing = compress(part, compression).then((bytes) => archive.add(file, bytes))
    // Heard of at the next part; until then it is nobody's.
    writing.catch(() => {})
  }
  for await (const rows of copyOut(client, selectTable(table))) {
    for (const row of rows) {
      held.push(row)
      heldBytes += row.length
      if (heldBytes >= partBytes) await flush()
    }
  }
  await flush()
  await writing
  return total
}

/** The tar as it is written, with the sums of what is in it. */
class Archive {
  readonly #out: Writable
  readonly #at: Date
  readonly #sums: string[] = []
  #bytes = 0
  #error: Error | undefined

  constructor(out: Writable, at: Date) {
    this.#out = out
    this.#at = at
    out.on('error', (error) => (this.#error = error))
  }

  async add(name: string, bytes: Buffer): Promise<void> {
    this.#sums.push(`${createHash('sha256').update(bytes).digest('hex')}  ${name}\n`)
    await this.#write(formatTarHeader(name, bytes.length, this.#at))
    await this.#write(bytes)
    await this.#write(tarPadding(bytes.length))
  }

  /** @returns the size of the archive */
  async finish(): Promise<number> {
    await this.add(sumsName, Buffer.from(this.#sums.join('')))
    await this.#write(tarEnd)
    return this.#bytes
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.#error) throw this.#error
    this.#bytes += bytes.length
    if (bytes.length > 0 && !this.#out.write(bytes)) await once(this.#out, 'drain')
  }
}
