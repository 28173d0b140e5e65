// SPDX-License-Identifier: AGPL-3.0-only
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { writeBackupFile } from '../backup/backup-file.ts'
import { stampOf } from '../backup/databases.ts'
import { isBackupKind } from '../backup/manifest.ts'
import { packKey, readKeyText, readPassphrase } from '../backup/packed-key.ts'
import { writeBackup } from '../backup/write.ts'
import type { WrittenBackup } from '../backup/write.ts'
import type { Config } from '../config.ts'
import type { OpenDatabase } from '../db/open.ts'
import { StartError, exitCodes } from '../errors.ts'
import { withDatabase } from './admin.ts'

const usage = 'iot-pms backup [--out FILE|-] [--kind full|config] [--passphrase-file FILE] [--json]'
const options = {
  out: { type: 'string' },
  kind: { type: 'string', default: 'full' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean', default: false },
} as const

/** `iot-pms backup`: beside a running server or on a stopped one. */
export async function runBackup(config: Config, args: string[]): Promise<undefined> {
  const { out, kind, json, 'passphrase-file': passphraseFile } = parseOptions(args)
  if (!isBackupKind(kind)) throw usageError('--kind is full or config.')
  const passphrase = passphraseFile === undefined ? undefined : readPassphrase(passphraseFile)
  const work = async ({ adminUrl }: OpenDatabase) => {
    const text = passphrase === undefined ? undefined : readKeyText(config)
    if (passphrase !== undefined && text === undefined) throw usageError('There is no secret key here that could be packed.')
    const wanted = { kind, ...(text !== undefined && passphrase !== undefined ? { key: await packKey(text, passphrase) } : {}) }
    if (out === '-') {
      process.stderr.write(describe(await writeBackup(adminUrl, process.stdout, wanted), 'standard output', json))
      return
    }
    const file = resolve(out ?? join(config.dataDir, 'backups', `iot-pms-${kind}-${stampOf(new Date())}.tar`))
    const written = await writeBackupFile(file, adminUrl, wanted)
    process.stdout.write(describe(written, file, json))
  }
  // Standard output is the answer, and may be the backup itself.
  await withDatabase(config, work, 'silent')
}

function describe({ manifest, totals, bytes }: WrittenBackup, where: string, json: boolean): string {
  const rows = totals.reduce((sum, table) => sum + table.rows, 0)
  const raw = totals.reduce((sum, table) => sum + table.bytes, 0)
  const { kind, createdAt, version } = manifest
  if (json) {
    const hasKey = manifest.key !== undefined
    return `${JSON.stringify({ file: where, kind, createdAt, version, tables: totals.length, rows, rawBytes: raw, bytes, hasKey })}\n`
  }
  const size = `${(bytes / 2 ** 20).toFixed(1)} MiB`
  const key = manifest.key
    ? 'The secret key is in it, under the passphrase.'
    : 'The secret key is not in it: keep secret.key of the data folder, too.'
  return `${where}\n${kind}, ${totals.length} tables, ${rows.toLocaleString('en')} rows, ${size}\n${key}\n`
}

function parseOptions(args: string[]) {
  try {
    return parseArgs({ args, options, strict: true }).values
  } catch (error) {
    throw usageError((error as Error).message, error)
  }
}

function usageError(message: string, cause?: unknown): StartError {
  return new StartError('USAGE', exitCodes.usage, message, usage, cause)
}
