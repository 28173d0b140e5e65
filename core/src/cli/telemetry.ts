// SPDX-License-Identifier: AGPL-3.0-only
import { parseArgs } from 'node:util'
import type { Config } from '../config.ts'
import { Db } from '../db/client.ts'
import { sqlStateOf } from '../db/errors.ts'
import { StartError, exitCodes } from '../errors.ts'
import { createLog } from '../log.ts'
import { readStats } from '../telemetry/stats.ts'
import type { StoreStats } from '../telemetry/store.ts'
import { withDatabase } from './admin.ts'

/** SQLSTATE undefined_table. */
const undefinedTable = '42P01'

/** `iot-pms telemetry stats [--json]` */
export async function runTelemetryStats(config: Config, args: string[]): Promise<undefined> {
  const { json } = parseOptions(args)
  await withDatabase(config, async (database) => {
    const db = new Db(database.appUrl, 1)
    const keeper = db.openPool({ role: 'pms_store', connections: 1 }, createLog('warn'))
    try {
      const stats = await readStats(keeper).catch(explainOldSchema)
      process.stdout.write(json ? `${JSON.stringify(stats)}\n` : formatStats(stats))
    } finally {
      await keeper.end()
      await db.stop()
    }
  })
}

function parseOptions(args: string[]): { json: boolean } {
  try {
    return parseArgs({ args, options: { json: { type: 'boolean', default: false } }, strict: true }).values
  } catch (error) {
    throw new StartError('USAGE', exitCodes.usage, (error as Error).message, 'iot-pms telemetry stats [--json]', error)
  }
}

function explainOldSchema(error: unknown): never {
  if (sqlStateOf(error) !== undefinedTable) throw error
  throw new StartError(
    'SCHEMA_OLD',
    exitCodes.config,
    'This database has no telemetry tables of this version.',
    'Bring it up to date first: iot-pms migrate',
    error,
  )
}

/** What an administrator asks about the store, a line each. */
export function formatStats(stats: StoreStats): string {
  const { segments, bytes } = stats
  const waiting = segments.oldestSealedAt ? `, the oldest since ${segments.oldestSealedAt}` : ''
  const lines: [string, string][] = [
    ['Points in chunks', `${formatCount(stats.points)} in ${formatCount(stats.chunks)} chunks`],
    ['Bytes per point', stats.bytesPerPoint === null ? '–' : `${stats.bytesPerPoint.toFixed(2)}, indexes included`],
    ['Segments', `${segments.active} active, ${segments.sealed} sealed with ${formatCount(segments.waitingRows)} rows to merge${waiting}`],
    [
      'On disk',
      `chunks ${formatBytes(bytes.chunks)}, their indexes ${formatBytes(bytes.indexes)}, segments ${formatBytes(bytes.segments)}`,
    ],
    ['Damaged chunks', stats.damaged === 0 ? 'none' : `${formatCount(stats.damaged)} put aside in telemetry_damaged_chunks`],
    ['Table of 0.1', stats.firstStoreBytes === 0 ? 'gone' : `${formatBytes(stats.firstStoreBytes)} not yet moved`],
  ]
  return lines.map(([name, text]) => `${name.padEnd(18)}${text}\n`).join('')
}

function formatCount(count: number): string {
  return count.toLocaleString('en')
}

function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]!}`
}
