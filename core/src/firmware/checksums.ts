// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { createMurmur3x128, createMurmur3x32 } from './murmur3.ts'

export const checksumAlgorithms = ['SHA256', 'SHA384', 'SHA512', 'MD5', 'CRC32', 'MURMUR3_32', 'MURMUR3_128'] as const
export type ChecksumAlgorithm = (typeof checksumAlgorithms)[number]

/** A checksum under way. `digest` is called once. */
export type Checksum = { update(bytes: Buffer): void; digest(): string }

/** Lower-case hex; CRC32 and MURMUR3 with the least significant byte first [O-1]. */
export function createChecksum(algorithm: ChecksumAlgorithm): Checksum {
  switch (algorithm) {
    case 'SHA256':
    case 'SHA384':
    case 'SHA512':
    case 'MD5': {
      const hash = createHash(algorithm.toLowerCase())
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest('hex') }
    }
    case 'CRC32': {
      let sum = 0
      const digest = () => {
        const bytes = Buffer.alloc(4)
        bytes.writeUInt32LE(sum)
        return bytes.toString('hex')
      }
      return { update: (bytes) => void (sum = crc32(bytes, sum)), digest }
    }
    case 'MURMUR3_32':
    case 'MURMUR3_128': {
      const hash = algorithm === 'MURMUR3_32' ? createMurmur3x32() : createMurmur3x128()
      return { update: (bytes) => hash.update(bytes), digest: () => hash.digest().toString('hex') }
    }
  }
}
