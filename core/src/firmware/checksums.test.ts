// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { checksumAlgorithms, createChecksum } from './checksums.ts'
import type { ChecksumAlgorithm } from './checksums.ts'

function checksum(algorithm: ChecksumAlgorithm, bytes: Buffer, pieceBytes = bytes.length || 1): string {
  const sum = createChecksum(algorithm)
  for (let at = 0; at < bytes.length; at += pieceBytes) sum.update(bytes.subarray(at, at + pieceBytes))
  return sum.digest()
}

describe('checksums of content', () => {
  const fox = Buffer.from('The quick brown fox jumps over the lazy dog')

  it('are the known ones, CRC32 and MURMUR3 with the least significant byte first [O-1]', () => {
    // CRC-32 0x414FA339, MurmurHash3_x86_32 0x2E4FF723, MurmurHash3_x64_128 in the order of its bytes.
    expect(checksum('CRC32', fox)).toBe('39a34f41')
    expect(checksum('MURMUR3_32', fox)).toBe('23f74f2e')
    expect(checksum('MURMUR3_128', fox)).toBe('6c1b07bc7bbc4be347939ac4a93c437a')
    expect(checksum('MD5', fox)).toBe('9e107d9d372bb6826bd81d3542a419d6')
    for (const name of ['SHA256', 'SHA384', 'SHA512'] as const) {
      expect(checksum(name, fox)).toBe(createHash(name.toLowerCase()).update(fox).digest('hex'))
    }
  })

  it('are those of nothing for an empty file', () => {
    expect(checksum('CRC32', Buffer.alloc(0))).toBe('00000000')
    expect(checksum('MURMUR3_32', Buffer.alloc(0))).toBe('00000000')
    expect(checksum('MURMUR3_128', Buffer.alloc(0))).toBe('0'.repeat(32))
  })

  it('are the same in whatever pieces the bytes come', () => {
    for (const algorithm of checksumAlgorithms) {
      for (let length = 0; length < 50; length++) {
        const bytes = Buffer.from(Array.from({ length }, (_, index) => (index * 37 + length) & 0xff))
        const whole = checksum(algorithm, bytes)
        for (const pieceBytes of [1, 3, 16, 17]) expect(checksum(algorithm, bytes, pieceBytes), `${algorithm} ${length}`).toBe(whole)
      }
    }
  })

  it('agree with the reference of MURMUR3_128 in arithmetic of whole numbers', () => {
    for (let length = 0; length < 70; length++) {
      const bytes = Buffer.from(Array.from({ length }, (_, index) => (index * 151 + 13 * length) & 0xff))
      expect(checksum('MURMUR3_128', bytes), `${length} bytes`).toBe(referenceMurmur3x128(bytes))
    }
  })
})

/** MurmurHash3_x64_128 with seed 0, written down with 64-bit numbers. */
function referenceMurmur3x128(bytes: Buffer): string {
  const [c1, c2] = [0x87c37b91114253d5n, 0x4cf5ad432745937fn]
  const fit = (value: bigint) => BigInt.asUintN(64, value)
  const rotate = (value: bigint, by: bigint) => fit((value << by) | (value >> (64n - by)))
  const mix = (k: bigint, first: bigint, by: bigint, second: bigint) => fit(rotate(fit(k * first), by) * second)
  const finish = (hash: bigint) => {
    const once = fit((hash ^ (hash >> 33n)) * 0xff51afd7ed558ccdn)
    const twice = fit((once ^ (once >> 33n)) * 0xc4ceb9fe1a85ec53n)
    return twice ^ (twice >> 33n)
  }
  let [h1, h2] = [0n, 0n]
  const end = bytes.length - (bytes.length % 16)
  for (let at = 0; at < end; at += 16) {
    h1 = fit((rotate(h1 ^ mix(bytes.readBigUInt64LE(at), c1, 31n, c2), 27n) + h2) * 5n + 0x52dce729n)
    h2 = fit((rotate(h2 ^ mix(bytes.readBigUInt64LE(at + 8), c2, 33n, c1), 31n) + h1) * 5n + 0x38495ab5n)
  }
  const tail = Buffer.concat([bytes.subarray(end), Buffer.alloc(16)])
  h2 ^= mix(tail.readBigUInt64LE(8), c2, 33n, c1)
  h1 ^= mix(tail.readBigUInt64LE(0), c1, 31n, c2)
  h1 = fit((h1 ^ BigInt(bytes.length)) + (h2 ^ BigInt(bytes.length)))
  h2 = fit((h2 ^ BigInt(bytes.length)) + h1)
  const [f1, f2] = [finish(h1), finish(h2)]
  const digest = Buffer.alloc(16)
  digest.writeBigUInt64LE(fit(f1 + f2), 0)
  digest.writeBigUInt64LE(fit(f2 + fit(f1 + f2)), 8)
  return digest.toString('hex')
}
