// SPDX-License-Identifier: AGPL-3.0-only
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'
import { zstdDecompress } from 'node:zlib'
import { StartError, exitCodes } from '../errors.ts'
import { formatName } from './catalog.ts'
import { Manifest, Totals, manifestName, parsePart, partName, sumsName, totalsName } from './manifest.ts'
import type { BackupTable } from './manifest.ts'
import { readEntry, readTar } from './tar.ts'
import type { TarEntry } from './tar.ts'

const decompress = promisify(zstdDecompress)

/** A backup that was read to its end and is whole. */
export type OpenBackup = {
  manifest: Manifest
  totals: Totals
  /** The rows of a table, each part a whole binary COPY. */
  readParts(table: BackupTable): AsyncGenerator<Buffer>
  close(): Promise<void>
}

/**
 * [RE-97] Reads a whole backup once and looks at every byte of it, before anything else is touched.
 *
 * @throws {StartError} `BACKUP_DAMAGED` when anything is missing, changed or too much
 */
export async function openBackup(path: string): Promise<OpenBackup> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw new StartError(
      'FILE_UNREADABLE',
      exitCodes.usage,
      `${path} cannot be read: ${(error as Error).message}.`,
      'Give the file of a backup.',
      error,
    )
  })
  try {
    return await check(file)
  } catch (error) {
    await file.close()
    throw new StartError(
      'BACKUP_DAMAGED',
      exitCodes.damaged,
      `${path} is not a whole backup: ${(error as Error).message}.`,
      'Nothing was changed. Take another copy of the file, or the backup before it.',
      error,
    )
  }
}

async function check(file: FileHandle): Promise<OpenBackup> {
  const entries = new Map<string, TarEntry>()
  for await (const entry of readTar(file)) {
    if (entries.has(entry.name)) throw new Error(`${entry.name} is in it twice`)
    entries.set(entry.name, entry)
  }
  const read = async (name: string): Promise<Buffer> => {
    const entry = entries.get(name)
    if (!entry) throw new Error(`${name} is missing`)
    return readEntry(file, entry)
  }
  const names = [...entries.keys()]
  const own = (await read(sumsName)).toString('utf8')
  const sums = names.filter((name) => name !== sumsName).map((name) => `${entries.get(name)!.sha256}  ${name}\n`)
  if (own !== sums.join('')) throw new Error('the sums of its files are not those that were written')
  const manifest = parsePart(Manifest, await read(manifestName))
  const totals = parsePart(Totals, await read(totalsName))
  const expected = [manifestName, ...listParts(manifest, totals), totalsName, sumsName]
  if (names.join('\n') !== expected.join('\n')) throw new Error('its files are not those of its tables')
  return {
    manifest,
    totals,
    async *readParts(table) {
      const parts = totals.find((one) => formatName(one) === formatName(table))?.parts ?? 0
      for (let part = 1; part <= parts; part++) yield await decompress(await read(partName(table, part)))
    },
    close: () => file.close(),
  }
}

function listParts(manifest: Manifest, totals: Totals): string[] {
  if (totals.map(formatName).join() !== manifest.tables.map(formatName).join()) throw new Error('its tables are not those it names')
  return totals.flatMap((table) => Array.from({ length: table.parts }, (_, index) => partName(table, index + 1)))
}
