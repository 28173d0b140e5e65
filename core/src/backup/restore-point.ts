// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import postgres from 'postgres'
import { migrationsDir, readMigrations } from '../db/migrate.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { keepNewest, writeBackupFile } from './backup-file.ts'
import { stampOf } from './databases.ts'

/** [RE-93] */
const kept = 5
const prefix = 'before-'

/**
 * [RE-93] Before tables are changed for a newer version: a backup of the configuration, to which one can go back.
 *
 * @param files migrations of this version
 * @returns the file; undefined when nothing is going to change, or nothing is there yet
 * @throws {StartError} `RESTORE_POINT`
 */
export async function ensureRestorePoint(
  { dataDir }: { dataDir: string },
  adminUrl: string,
  log: Log,
  files: readonly { version: number }[] = readMigrations(migrationsDir),
): Promise<string | undefined> {
  if (!(await isChanging(adminUrl, files))) return undefined
  const folder = join(dataDir, 'restore-points')
  const file = join(folder, `${prefix}${stampOf(new Date())}.tar`)
  log.info({ file }, 'writing a restore point before the database is changed')
  try {
    await writeBackupFile(file, adminUrl, { kind: 'config' })
  } catch (error) {
    throw new StartError(
      'RESTORE_POINT',
      exitCodes.notWritable,
      `The restore point before the upgrade could not be written: ${(error as Error).message}`,
      'Mend that, or make a backup yourself and go on with --no-restore-point.',
      error,
    )
  }
  keepNewest(folder, prefix, kept)
  return file
}

/** Whether tables of an older version are there. What this version does not know is refused by the migration itself. */
async function isChanging(adminUrl: string, files: readonly { version: number }[]): Promise<boolean> {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  try {
    // A login that may not change anything needs no way back; asking it for the table would be an error.
    const [made] = await sql<{ is: boolean }[]>`
      select case when has_schema_privilege('public', 'create') then to_regclass('public.installation') is not null else false end as is`
    if (!made!.is) return false
    const applied = new Set((await sql<{ version: number }[]>`select version from schema_version`).map(({ version }) => version))
    const known = new Set(files.map(({ version }) => version))
    return files.some(({ version }) => !applied.has(version)) && [...applied].every((version) => known.has(version))
  } finally {
    await sql.end({ timeout: 5 })
  }
}
