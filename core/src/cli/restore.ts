// SPDX-License-Identifier: AGPL-3.0-only
import { parseArgs } from 'node:util'
import { openBackup } from '../backup/archive.ts'
import type { OpenBackup } from '../backup/archive.ts'
import { Databases } from '../backup/databases.ts'
import { restoreBackup } from '../backup/restore.ts'
import type { Config } from '../config.ts'
import { ensureDataDir, openDatabase } from '../db/open.ts'
import { StartError, exitCodes } from '../errors.ts'
import { createLog } from '../log.ts'
import { lockInstance } from '../system/instance-lock.ts'

const usage =
  'iot-pms restore FILE [--check] [--yes] [--into URL] [--passphrase-file FILE] [--drop-secrets] [--skip-modules] | restore --discard-old'
const options = {
  check: { type: 'boolean', default: false },
  yes: { type: 'boolean', default: false },
  into: { type: 'string' },
  'passphrase-file': { type: 'string' },
  'drop-secrets': { type: 'boolean', default: false },
  'skip-modules': { type: 'boolean', default: false },
  'discard-old': { type: 'boolean', default: false },
} as const

/** Whoever restores has stopped the server, and waits for nothing else. */
const patienceMs = 1000

/** `iot-pms restore`: on a stopped server; what was there is kept beside it for 7 days. */
export async function runRestore(config: Config, args: string[]): Promise<undefined> {
  const { values, file } = parseCall(args)
  if (values['discard-old']) {
    await discardOld(config)
    return
  }
  if (file === undefined) throw usageError('Which file?')
  const backup = await openBackup(file)
  try {
    if (values.check) write(`${file} is whole: ${describe(backup)}.\n`)
    else await restore(backup, config, values)
  } finally {
    await backup.close()
  }
}

async function restore(backup: OpenBackup, config: Config, values: ReturnType<typeof parseCall>['values']): Promise<void> {
  ensureDataDir(config.dataDir)
  const unlock = await lockInstance(config.dataDir, patienceMs)
  try {
    const wish = {
      yes: values.yes,
      into: values.into,
      passphraseFile: values['passphrase-file'],
      dropSecrets: values['drop-secrets'],
      skipModules: values['skip-modules'],
    }
    const { kept, notes } = await restoreBackup(backup, config, wish, createLog('warn'))
    write(`Restored: ${describe(backup)}.\n`)
    for (const note of notes) write(`Left out: ${note}.\n`)
    if (kept) write(`The database before is kept for 7 days as ${kept}; iot-pms restore --discard-old removes it now.\n`)
    if (values['drop-secrets']) write('Stored passwords and keys of channels, connectors and modules have to be entered again.\n')
    write('On another machine the license may have to be bound again: iot-pms license show\n')
  } finally {
    unlock()
  }
}

async function discardOld(config: Config): Promise<void> {
  ensureDataDir(config.dataDir)
  const unlock = await lockInstance(config.dataDir, patienceMs)
  try {
    const database = await openDatabase(config, createLog('warn'))
    const databases = await Databases.open(database.adminUrl)
    try {
      const gone = await databases.discardOld(Date.now(), 0)
      write(gone.length === 0 ? 'There is no database of before.\n' : `Removed ${gone.join(', ')}.\n`)
    } finally {
      await databases.close()
      await database.stop()
    }
  } finally {
    unlock()
  }
}

function describe({ manifest, totals }: OpenBackup): string {
  const rows = totals.reduce((sum, table) => sum + table.rows, 0)
  return `${manifest.kind} of ${manifest.createdAt} by IoT PMS ${manifest.version}, ${totals.length} tables, ${rows.toLocaleString('en')} rows`
}

function parseCall(args: string[]) {
  try {
    const { values, positionals } = parseArgs({ args, options, strict: true, allowPositionals: true })
    return { values, file: positionals[0] }
  } catch (error) {
    throw usageError((error as Error).message, error)
  }
}

function usageError(message: string, cause?: unknown): StartError {
  return new StartError('USAGE', exitCodes.usage, message, usage, cause)
}

function write(text: string): void {
  process.stdout.write(text)
}
