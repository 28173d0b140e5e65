// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomBytes } from 'node:crypto'
import { accessSync, closeSync, constants, existsSync, linkSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { ToolError, systemCode } from './errors.ts'

/**
 * fsync is closed under the permission model, so every file is opened with O_SYNC: the write returns when
 * the bytes, and on journalling file systems the renames before them, are on the disk.
 */
const { O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_SYNC } = constants
const syncFlag = O_SYNC ?? 0

/** No input of this tool is larger; a bulk file of 100,000 rows is about 20 MiB. */
const maxInputBytes = 64 * 1024 * 1024

/** [T-5] Writes a file that is not there yet, whole or not at all. @throws FILE_EXISTS */
export function writeNewFile(path: string, content: string, mode = 0o644): void {
  const temporary = writeTemporary(path, content, mode)
  try {
    // A link, unlike a rename, fails when the name was taken meanwhile.
    linkSync(temporary, path)
  } catch (error) {
    if (systemCode(error) === 'EEXIST' || existsSync(path)) throw existsError(path)
    // FAT on a USB stick has no links.
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** Replaces one of the ledger's own files in one step. */
export function replaceFile(path: string, content: string, mode = 0o600): void {
  const temporary = writeTemporary(path, content, mode)
  try {
    renameSync(temporary, path)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** Refuses before the work is done what `writeNewFile` would refuse after it. @throws FILE_EXISTS, OUTPUT_FOLDER */
export function assertIsNew(path: string): void {
  if (existsSync(path)) throw existsError(path)
  try {
    accessSync(dirname(path), constants.W_OK)
  } catch (error) {
    throw new ToolError('OUTPUT_FOLDER', {
      zh: `不能在 ${dirname(path)} 中写文件（${systemCode(error)}）。`,
      en: `No file can be written in ${dirname(path)} (${systemCode(error)}).`,
    })
  }
}

/** Appends and returns when it is on the disk. */
export function appendDurably(path: string, content: string): void {
  const file = openSync(path, O_WRONLY | O_APPEND | O_CREAT | syncFlag, 0o600)
  try {
    writeWhole(file, content)
  } finally {
    closeSync(file)
  }
}

/** Reads a file, or standard input for `-`. @throws FILE_UNREADABLE, FILE_TOO_LARGE */
export function readInput(path: string): string {
  let file = 0
  try {
    file = path === '-' ? 0 : openSync(path, 'r')
    return readWhole(file).toString('utf8')
  } catch (error) {
    if (error instanceof ToolError) throw error
    throw new ToolError('FILE_UNREADABLE', {
      zh: `无法读取 ${path}（${systemCode(error)}）。`,
      en: `${path} cannot be read (${systemCode(error)}).`,
    })
  } finally {
    if (file !== 0) closeSync(file)
  }
}

function readWhole(file: number): Buffer {
  const chunks: Buffer[] = []
  let size = 0
  for (;;) {
    const chunk = Buffer.alloc(64 * 1024)
    const count = readSync(file, chunk)
    if (count === 0) return Buffer.concat(chunks)
    size += count
    if (size > maxInputBytes) {
      throw new ToolError('FILE_TOO_LARGE', { zh: '输入文件过大。', en: 'The input file is too large.' })
    }
    chunks.push(chunk.subarray(0, count))
  }
}

function writeTemporary(path: string, content: string, mode: number): string {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
  const file = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | syncFlag, mode)
  try {
    writeWhole(file, content)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
  return temporary
}

/** A full disk may take a part of a write. */
function writeWhole(file: number, content: string): void {
  const bytes = Buffer.from(content)
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at)
}

function existsError(path: string): ToolError {
  return new ToolError('FILE_EXISTS', {
    zh: `${path} 已存在，不会被覆盖。`,
    en: `${path} is already there; files are never overwritten.`,
  })
}
