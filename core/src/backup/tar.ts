// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'

/** POSIX.1-1988 ustar: blocks of 512 bytes, two empty ones at the end. */
const blockBytes = 512
const nameBytes = 100
const readBytes = 256 * 1024

/** A file in the archive: where its bytes lie, and their SHA-256. */
export type TarEntry = { name: string; offset: number; size: number; sha256: string }

export const tarEnd = Buffer.alloc(2 * blockBytes)

/** The header of a regular file with mode 0600. @throws when the name is too long for this form */
export function formatTarHeader(name: string, size: number, mtime: Date): Buffer {
  if (Buffer.byteLength(name) > nameBytes) throw new Error(`${name} is too long for a name in an archive`)
  const header = Buffer.alloc(blockBytes)
  header.write(name, 0)
  header.write('0000600\0', 100)
  header.write('0000000\0', 108)
  header.write('0000000\0', 116)
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124)
  header.write(
    `${Math.floor(mtime.getTime() / 1000)
      .toString(8)
      .padStart(11, '0')}\0`,
    136,
  )
  header.write('        ', 148)
  header.write('0', 156)
  header.write('ustar\0', 257)
  header.write('00', 263)
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

/** What fills the last block of a file. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes)
}

/** Sum of the header's bytes with the place of the sum itself counted as blanks. */
function checksumOf(header: Buffer): number {
  let sum = 8 * 0x20
  for (let at = 0; at < blockBytes; at++) if (at < 148 || at >= 156) sum += header[at]!
  return sum
}

/**
 * All files of an archive in their order, each read to its end. Every byte counts: what a header, a filling or the end
 * does not look like as we write it is told as damage.
 *
 * @throws {TarError} at the first byte that is wrong or missing
 */
export async function* readTar(file: FileHandle): AsyncGenerator<TarEntry> {
  const { size: fileSize } = await file.stat()
  for (let at = 0; ;) {
    const header = await readExactly(file, at, blockBytes)
    if (header.every((byte) => byte === 0)) {
      const end = await readExactly(file, at, tarEnd.length)
      if (!end.equals(tarEnd) || at + tarEnd.length !== fileSize) throw new TarError(`the end of the archive is wrong at byte ${at}`)
      return
    }
    const { name, size } = parseHeader(header, at)
    const offset = at + blockBytes
    const sha256 = await hashRange(file, offset, size)
    const padding = tarPadding(size)
    if (!(await readExactly(file, offset + size, padding.length)).equals(padding)) throw new TarError(`${name} is not filled up with zeros`)
    yield { name, offset, size, sha256 }
    at = offset + size + padding.length
  }
}

/** The bytes of an entry. @throws {TarError} when they are not those that were read before */
export async function readEntry(file: FileHandle, { name, offset, size, sha256 }: TarEntry): Promise<Buffer> {
  const bytes = await readExactly(file, offset, size)
  if (createHash('sha256').update(bytes).digest('hex') !== sha256) throw new TarError(`${name} has changed while it was read`)
  return bytes
}

export class TarError extends Error {}

function parseHeader(header: Buffer, at: number): { name: string; size: number } {
  const name = header.subarray(0, nameBytes).toString('utf8').replace(/\0+$/, '')
  const size = Number.parseInt(header.subarray(124, 135).toString('latin1'), 8)
  const mtime = Number.parseInt(header.subarray(136, 147).toString('latin1'), 8)
  const isOurs = name !== '' && Number.isSafeInteger(size) && Number.isSafeInteger(mtime)
  if (!isOurs || !formatTarHeader(name, size, new Date(mtime * 1000)).equals(header)) {
    throw new TarError(`the header at byte ${at} is wrong`)
  }
  return { name, size }
}

async function hashRange(file: FileHandle, offset: number, size: number): Promise<string> {
  const hash = createHash('sha256')
  for (let done = 0; done < size; done += readBytes) hash.update(await readExactly(file, offset + done, Math.min(readBytes, size - done)))
  return hash.digest('hex')
}

async function readExactly(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) throw new TarError(`the file ends at byte ${offset + done}, in the middle`)
    done += bytesRead
  }
  return bytes
}
