// SPDX-License-Identifier: AGPL-3.0-only
import { Readable, pipeline } from 'node:stream'
import { constants, crc32, createDeflateRaw } from 'node:zlib'

/** A file of an archive; its text is made while it is packed. */
export type ZipEntry = { name: string; content: AsyncIterable<string> | Iterable<string> }

/** Sizes and offsets have 32 bits: Zip64 would be read by fewer programs. */
const maxBytes = 0xffff_ffff
const version = 20
/** Bit 3: sizes and checksum follow the content. Bit 11: names are UTF-8. */
const flags = 0x0808
const deflated = 8
/** 1980-01-01, so that the same content makes the same archive. */
const dosDate = 0x0021

/**
 * A ZIP archive (PKWARE APPNOTE 6.3.3 §4.3) of texts, packed as they come: nothing is held but what is
 * under way, and nothing is made faster than it is taken.
 * @throws {RangeError} above 4 GiB
 */
export async function* zip(entries: AsyncIterable<ZipEntry> | Iterable<ZipEntry>): AsyncGenerator<Buffer> {
  const central: Buffer[] = []
  let offset = 0
  for await (const { name, content } of entries) {
    const nameBytes = Buffer.from(name)
    const header = record(0x04034b50, [version, flags, deflated, 0, dosDate], [0, 0, 0], [nameBytes.length, 0])
    const start = offset
    yield Buffer.concat([header, nameBytes])
    const sums = { crc: 0, size: 0 }
    let packed = 0
    // Closing one end closes the other: whoever stops reading stops the queries behind the content.
    const deflate = pipeline(
      Readable.from(measured(content, sums)),
      createDeflateRaw({ level: constants.Z_BEST_SPEED, chunkSize: 65_536 }),
      () => {},
    )
    for await (const chunk of deflate as AsyncIterable<Buffer>) {
      packed += chunk.length
      yield chunk
    }
    offset = start + header.length + nameBytes.length + packed + 16
    if (offset > maxBytes || sums.size > maxBytes) throw new RangeError(`${name} makes an archive of more than 4 GiB`)
    const sizes = [sums.crc, packed, sums.size]
    yield record(0x08074b50, [], sizes)
    central.push(
      record(0x02014b50, [version, version, flags, deflated, 0, dosDate], sizes, [nameBytes.length, 0, 0, 0, 0, 0, 0], [start]),
      nameBytes,
    )
  }
  const directory = Buffer.concat(central)
  const count = central.length / 2
  yield Buffer.concat([directory, record(0x06054b50, [0, 0, count, count], [directory.length, offset], [0])])
}

async function* measured(content: ZipEntry['content'], sums: { crc: number; size: number }): AsyncGenerator<Buffer> {
  for await (const text of content) {
    const bytes = Buffer.from(text)
    sums.crc = crc32(bytes, sums.crc)
    sums.size += bytes.length
    yield bytes
  }
}

/** A record of the format: its signature, then numbers of 16 and of 32 bits by turns. */
function record(signature: number, shorts: number[], ints: number[] = [], moreShorts: number[] = [], moreInts: number[] = []): Buffer {
  const groups = [
    { bytes: 4, values: [signature] },
    { bytes: 2, values: shorts },
    { bytes: 4, values: ints },
    { bytes: 2, values: moreShorts },
    { bytes: 4, values: moreInts },
  ]
  const buffer = Buffer.alloc(groups.reduce((sum, { bytes, values }) => sum + bytes * values.length, 0))
  let at = 0
  for (const { bytes, values } of groups) for (const value of values) at = buffer.writeUIntLE(value, at, bytes)
  return buffer
}
