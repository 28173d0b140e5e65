// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { Readable } from 'node:stream'
import { problem } from '@iot-pms/core'
import type { ModuleContext, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { writeBundle } from './bundle.ts'
import type { Entry } from './chain.ts'
import { csvColumns, toCef, toCsvRow, toJsonLine, toOcsf } from './formats.ts'
import { findChain, listCheckpoints, readEntries } from './log.ts'
import { listConditions } from './search.ts'
import type { EventFilter } from './search.ts'
import { edgeBefore } from './proofs.ts'

/** A file of more is refused; a bundle is made in memory, so it holds less. */
const maxEvents = 1_000_000
const maxBundleEvents = 100_000
/** Entries read at once. */
const pageSize = 1000

export type ExportFormat = 'jsonl' | 'cef' | 'ocsf' | 'csv' | 'bundle'
export type ExportFile = { name: string; type: string; content: Readable | Buffer }
type Range = { first: number; last: number; count: number }

const types: Record<ExportFormat, [type: string, extension: string]> = {
  jsonl: ['application/x-ndjson', 'jsonl'],
  cef: ['text/plain; charset=utf-8', 'cef'],
  ocsf: ['application/x-ndjson', 'ocsf.jsonl'],
  csv: ['text/csv; charset=utf-8', 'csv'],
  bundle: ['application/zip', 'zip'],
}

/**
 * Events of a chain as a file, oldest first.
 *
 * @throws {ProblemError} `AUDIT_EXPORT_TOO_LARGE` with the count
 */
export async function createExport(
  context: ModuleContext,
  scope: Scope,
  question: { stream: string; format: ExportFormat; filter: EventFilter },
): Promise<ExportFile> {
  const { stream, format, filter } = question
  const range = await context.db.withTenant(scope, (tx) => measure(tx, stream, filter))
  const limit = format === 'bundle' ? maxBundleEvents : maxEvents
  if (range.count > limit) {
    throw problem('AUDIT_EXPORT_TOO_LARGE', { params: { count: range.count, limit }, members: { count: range.count, limit } })
  }
  const [type, extension] = types[format]
  const name = `audit-${new Date(context.clock.now()).toISOString().slice(0, 19).replaceAll(':', '-')}.${extension}`
  if (format === 'bundle') return { name, type, content: await bundle(context, scope, stream, range) }
  return { name, type, content: Readable.from(writeLines(context, scope, question, range), { objectMode: false }) }
}

async function measure(tx: Tx, stream: string, filter: EventFilter): Promise<Range> {
  const where = sql.join([sql`stream = ${stream}`, ...listConditions(filter)], sql` and `)
  const [row] = await tx.execute<{ first: number | null; last: number | null; count: number }>(
    sql`select min(seq)::float8 as first, max(seq)::float8 as last, count(*)::float8 as count from audit.events where ${where}`,
  )
  return { first: row!.first ?? 1, last: row!.last ?? 0, count: row!.count }
}

async function* writeLines(
  context: ModuleContext,
  scope: Scope,
  { stream, format, filter }: { stream: string; format: ExportFormat; filter: EventFilter },
  { first, last }: Range,
): AsyncGenerator<string> {
  const write: (entry: Entry) => string = {
    jsonl: toJsonLine,
    cef: (entry: Entry) => `${toCef(entry, context.version)}\n`,
    ocsf: (entry: Entry) => `${JSON.stringify(toOcsf(entry, context.version))}\n`,
    csv: toCsvRow,
    bundle: toJsonLine,
  }[format]
  if (format === 'csv') yield `\ufeff${csvColumns.join(',')}\r\n`
  for (let at = first; at <= last; at += pageSize) {
    const to = Math.min(at + pageSize - 1, last)
    const entries = await context.db.withTenant(scope, async (tx) => {
      const wanted = await findSeqs(tx, stream, filter, at, to)
      return (await readEntries(tx, stream, at, to)).filter(({ payload }) => wanted.has(payload.seq))
    })
    if (entries.length > 0) yield entries.map(write).join('')
  }
}

async function findSeqs(tx: Tx, stream: string, filter: EventFilter, from: number, to: number): Promise<Set<number>> {
  const where = sql.join([sql`stream = ${stream}`, sql`seq between ${from} and ${to}`, ...listConditions(filter)], sql` and `)
  const rows = await tx.execute<{ seq: number }>(sql`select seq::float8 as seq from audit.events where ${where}`)
  return new Set(rows.map(({ seq }) => seq))
}

/** Consecutive entries with all that is needed to verify them elsewhere. */
async function bundle(context: ModuleContext, scope: Scope, stream: string, { first, last }: Range): Promise<Buffer> {
  const keys = (await context.evidence.publicKeys()).map(({ id, publicKey }) => ({ id, publicKey: publicKey.toString('base64') }))
  return context.db.withTenant(scope, async (tx) => {
    const chain = await findChain(tx, stream)
    const entries = await readEntries(tx, stream, first, last)
    const left = chain ? await edgeBefore(tx, stream, chain, first) : []
    const checkpoints = (await listCheckpoints(tx, stream)).filter(({ body }) => body.size <= last)
    const tombstones = await tx.execute(
      sql`select segment::float8 as segment, first_seq::float8 as "firstSeq", last_seq::float8 as "lastSeq", encode(root, 'hex') as root,
        encode(last_hash, 'hex') as "lastHash", policy, deleted_at as "deletedAt" from audit.tombstones where stream = ${stream} order by segment`,
    )
    return writeBundle({
      stream,
      fromSeq: first,
      prev: entries[0]?.prev,
      left,
      entries,
      checkpoints,
      keys,
      tombstones: [...tombstones],
      productVersion: context.version,
      createdAt: new Date(context.clock.now()),
    })
  })
}
