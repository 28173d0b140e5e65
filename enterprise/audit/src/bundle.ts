// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { readFileSync } from 'node:fs'
import { crc32, deflateRawSync } from 'node:zlib'
import type { Checkpoint, Entry } from './chain.ts'
import { tenantOf } from './event.ts'
import { toJsonLine } from './formats.ts'
import { canonical } from './canonical.ts'
import { zeroHash } from './chain.ts'
import type { Edge } from './tree.ts'

/** Public keys that checkpoints were signed with. */
export type PublicKey = { id: string; publicKey: string }

export type BundleParts = {
  stream: string
  /** Number of the first entry; what is before it is known by `prev` and the right edge of its tree. */
  fromSeq: number
  prev?: string | undefined
  left?: Edge | undefined
  entries: readonly Entry[]
  checkpoints: readonly Checkpoint[]
  keys: readonly PublicKey[]
  tombstones?: readonly object[] | undefined
  productVersion: string
  createdAt: Date
}

const readme = `审计日志导出 · Audit log export

校验（任何装有 Node 18 以上的电脑，无需网络）· To verify, on any computer with Node 18 or newer, without network:

  node verify.mjs . --key <指纹 fingerprint>

指纹必须来自这个文件之外，例如打印的指纹卡：随包的 keys.json 只能说明文件自洽，因此不给 --key 时退出码是 3。
The fingerprint must come from outside this bundle, such as the printed card: keys.json alone only shows that the
files fit each other, so without --key the exit code is 3.

退出码 exit: 0 完好 all right · 1 有问题 findings · 2 无法读取 unreadable · 3 完好但未核对密钥 all right, key not compared
`

/** A zip that verifies itself: entries, checkpoints, public keys and the verifier. */
export function writeBundle(parts: BundleParts): Buffer {
  const { stream, fromSeq, prev, left, entries, checkpoints, keys, tombstones } = parts
  const manifest = {
    format: 1,
    log: 'audit',
    tenant: tenantOf(stream),
    stream,
    fromSeq,
    toSeq: entries.at(-1)?.payload.seq ?? fromSeq - 1,
    prev: prev ?? zeroHash,
    left: (left ?? []).map(({ size, hash }) => ({ size, hash: hash.toString('hex') })),
    tombstones: tombstones ?? [],
    productVersion: parts.productVersion,
    createdAt: parts.createdAt.toISOString(),
  }
  return writeZip(
    {
      'manifest.json': `${JSON.stringify(manifest, null, 1)}\n`,
      'entries.jsonl': entries.map(toJsonLine).join(''),
      'checkpoints.jsonl': checkpoints.map((checkpoint) => `${canonical(checkpoint)}\n`).join(''),
      'keys.json': `${JSON.stringify(keys)}\n`,
      'verify.mjs': readFileSync(new URL('verify.mjs', import.meta.url)),
      'README.txt': readme,
    },
    parts.createdAt,
  )
}

/** APPNOTE 6.3.3: local header and data of each member, then the directory; names are ASCII. */
function writeZip(files: Record<string, string | Buffer>, at: Date): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const [name, content] of Object.entries(files)) {
    const bytes = Buffer.from(content)
    const data = deflateRawSync(bytes)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(8, 4)
    common.writeUInt32LE(dosTime(at), 6)
    common.writeUInt32LE(crc32(bytes), 10)
    common.writeUInt32LE(data.length, 14)
    common.writeUInt32LE(bytes.length, 18)
    common.writeUInt16LE(name.length, 22)
    const local = Buffer.concat([Buffer.from('PK\u0003\u0004', 'latin1'), common, Buffer.from(name), data])
    const rest = Buffer.alloc(14)
    rest.writeUInt32LE(offset, 10)
    directory.push(Buffer.from('PK\u0001\u0002\u0014\u0000', 'latin1'), common, rest, Buffer.from(name))
    locals.push(local)
    offset += local.length
  }
  const listing = Buffer.concat(directory)
  const end = Buffer.alloc(18)
  const count = Object.keys(files).length
  end.writeUInt16LE(count, 4)
  end.writeUInt16LE(count, 6)
  end.writeUInt32LE(listing.length, 8)
  end.writeUInt32LE(offset, 12)
  return Buffer.concat([...locals, listing, Buffer.from('PK\u0005\u0006', 'latin1'), end])
}

/** Two seconds are the finest that a zip tells. */
function dosTime(at: Date): number {
  const date = ((at.getUTCFullYear() - 1980) << 9) | ((at.getUTCMonth() + 1) << 5) | at.getUTCDate()
  const time = (at.getUTCHours() << 11) | (at.getUTCMinutes() << 5) | (at.getUTCSeconds() >> 1)
  return date * 65_536 + time
}
