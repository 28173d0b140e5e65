// SPDX-License-Identifier: AGPL-3.0-only
import { createWriteStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { finished } from 'node:stream/promises'
import { StartError, exitCodes } from '../errors.ts'
import type { BackupKind, PackedKey } from './manifest.ts'
import { writeBackup } from './write.ts'
import type { WrittenBackup } from './write.ts'

/** What an administrator mends, and no bug: no room, no rights, no such folder. */
const fileErrors = ['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'EISDIR', 'ENOTDIR', 'EEXIST']

/**
 * Writes a backup to a file with mode 0600, which has its name only when it is whole and on the disk.
 *
 * @throws {StartError} `BACKUP_FILE` when the file cannot be written
 */
export async function writeBackupFile(
  file: string,
  adminUrl: string,
  wanted: { kind: BackupKind; key?: PackedKey },
): Promise<WrittenBackup> {
  const draft = `${file}.partial`
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    const stream = createWriteStream(draft, { mode: 0o600, flush: true })
    try {
      const written = await writeBackup(adminUrl, stream, wanted)
      stream.end()
      await finished(stream)
      renameSync(draft, file)
      await syncFolder(dirname(file))
      return written
    } catch (error) {
      stream.destroy()
      rmSync(draft, { force: true })
      throw error
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (!fileErrors.includes(code ?? '')) throw error
    throw new StartError(
      'BACKUP_FILE',
      exitCodes.notWritable,
      `${file} cannot be written: ${message}.`,
      'Make room or name another place.',
      error,
    )
  }
}

/** Files of a folder that begin with this, the oldest first; their names hold their time. */
export function listBackupFiles(folder: string, prefix: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix) && /\d{14}\.tar$/.test(name))
    .sort()
}

/** Removes all but the newest. */
export function keepNewest(folder: string, prefix: string, count: number): void {
  for (const name of listBackupFiles(folder, prefix).slice(0, -count)) rmSync(join(folder, name), { force: true })
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
