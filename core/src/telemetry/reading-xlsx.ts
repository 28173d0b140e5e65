// SPDX-License-Identifier: AGPL-3.0-only
import { crc32, inflateRawSync } from 'node:zlib'

/** Files of an archive by its central directory, each checked against its checksum: what a spreadsheet would see. */
export function unzip(archive: Buffer): Map<string, string> {
  const end = archive.lastIndexOf(Buffer.from('PK\u0005\u0006'))
  const files = new Map<string, string>()
  let at = archive.readUInt32LE(end + 16)
  for (let count = archive.readUInt16LE(end + 10); count > 0; count--) {
    if (archive.readUInt32LE(at) !== 0x02014b50) throw new Error('the central directory is broken')
    const [crc, packed, size] = [16, 20, 24].map((offset) => archive.readUInt32LE(at + offset))
    const nameLength = archive.readUInt16LE(at + 28)
    const name = archive.toString('utf8', at + 46, at + 46 + nameLength)
    const local = archive.readUInt32LE(at + 42)
    const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28)
    const content = inflateRawSync(archive.subarray(start, start + packed!))
    if (content.length !== size || crc32(content) !== crc) throw new Error(`${name} has another checksum`)
    files.set(name, content.toString('utf8'))
    at += 46 + nameLength
  }
  return files
}

type Cell = { at: string; type: string; style: string; value: string }

/** Rows of a sheet of our own making; texts are looked up and unescaped. */
export function readSheet(files: Map<string, string>, sheet = 1): Cell[][] {
  const shared = [...files.get('xl/sharedStrings.xml')!.matchAll(/<t[^>]*>(.*?)<\/t>/gs)].map(([, text]) => unescape(text!))
  return [...files.get(`xl/worksheets/sheet${sheet}.xml`)!.matchAll(/<row r="\d+">(.*?)<\/row>/gs)].map(([, row]) =>
    [...row!.matchAll(/<c r="([A-Z]+\d+)"(?: s="(\d)")?(?: t="(\w+)")?>(?:<v>|<is><t[^>]*>)(.*?)(?:<\/v>|<\/t><\/is>)<\/c>/gs)].map(
      ([, at, style = '0', type = 'n', value]) => ({
        at: at!,
        style,
        type: type === 's' ? 'inlineStr' : type,
        value: type === 's' ? shared[Number(value)]! : unescape(value!),
      }),
    ),
  )
}

function unescape(text: string): string {
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&')
    .replace(/_x([0-9A-F]{4})_/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}
