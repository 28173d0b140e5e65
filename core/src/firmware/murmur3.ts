// SPDX-License-Identifier: AGPL-3.0-only

/**
 * MurmurHash3 by Austin Appleby (public domain reference, smhasher), seed 0, fed piece by piece.
 * Both digests come with the least significant byte first, as ThingsBoard's clients compare them [O-1].
 */
export type Murmur3 = { update(bytes: Buffer): void; digest(): Buffer }

/** The variant of 32 bits, MurmurHash3_x86_32. */
export function createMurmur3x32(): Murmur3 {
  let hash = 0
  let length = 0
  const mix = (block: number) => rotate32(Math.imul(block, 0xcc9e2d51), 15)
  const pieces = new Blocks(4, (bytes, at) => {
    hash ^= Math.imul(mix(bytes.readInt32LE(at)), 0x1b873593)
    hash = (Math.imul(rotate32(hash, 13), 5) + 0xe6546b64) | 0
  })
  return {
    update(bytes) {
      length += bytes.length
      pieces.push(bytes)
    },
    digest() {
      const tail = pieces.rest()
      if (tail.length > 0) hash ^= Math.imul(mix(Buffer.concat([tail, Buffer.alloc(4)]).readInt32LE(0)), 0x1b873593)
      hash ^= length
      hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
      hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
      const digest = Buffer.alloc(4)
      digest.writeInt32LE(hash ^ (hash >>> 16))
      return digest
    },
  }
}

/** The variant of 128 bits for 64-bit machines, MurmurHash3_x64_128. */
export function createMurmur3x128(): Murmur3 {
  const h1 = new Uint64()
  const h2 = new Uint64()
  const k = new Uint64()
  let length = 0
  const mix1 = (bytes: Buffer, at: number) => h1.xor(k.load(bytes, at).multiply(c1).rotate(31).multiply(c2))
  const mix2 = (bytes: Buffer, at: number) => h2.xor(k.load(bytes, at).multiply(c2).rotate(33).multiply(c1))
  const pieces = new Blocks(16, (bytes, at) => {
    mix1(bytes, at).rotate(27).add(h2).multiply(five).add(addend1)
    mix2(bytes, at + 8)
      .rotate(31)
      .add(h1)
      .multiply(five)
      .add(addend2)
  })
  return {
    update(bytes) {
      length += bytes.length
      pieces.push(bytes)
    },
    digest() {
      const tail = pieces.rest()
      const padded = Buffer.concat([tail, Buffer.alloc(16)])
      if (tail.length > 8) mix2(padded, 8)
      if (tail.length > 0) mix1(padded, 0)
      const bits = new Uint64(Math.floor(length / 2 ** 32), length)
      h1.xor(bits)
      h2.xor(bits)
      h1.add(h2)
      h2.add(h1)
      finish(h1)
      finish(h2)
      h1.add(h2)
      h2.add(h1)
      return Buffer.concat([h1.toBytes(), h2.toBytes()])
    },
  }
}

/** Cuts a stream into blocks of a fixed size. */
class Blocks {
  readonly #size: number
  readonly #mix: (bytes: Buffer, at: number) => void
  #rest: Buffer = Buffer.alloc(0)

  constructor(size: number, mix: (bytes: Buffer, at: number) => void) {
    this.#size = size
    this.#mix = mix
  }

  push(piece: Buffer): void {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, piece]) : piece
    const end = bytes.length - (bytes.length % this.#size)
    for (let at = 0; at < end; at += this.#size) this.#mix(bytes, at)
    this.#rest = Buffer.from(bytes.subarray(end))
  }

  rest(): Buffer {
    return this.#rest
  }
}

function rotate32(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by))
}

/** An unsigned number of 64 bits as two halves, changed in place: a `bigint` would make millions of objects per file. */
class Uint64 {
  #high: number
  #low: number

  constructor(high = 0, low = 0) {
    this.#high = high >>> 0
    this.#low = low >>> 0
  }

  load(bytes: Buffer, at: number): this {
    this.#low = bytes.readUInt32LE(at)
    this.#high = bytes.readUInt32LE(at + 4)
    return this
  }

  xor(other: Uint64): this {
    this.#high = (this.#high ^ other.#high) >>> 0
    this.#low = (this.#low ^ other.#low) >>> 0
    return this
  }

  add(other: Uint64): this {
    const low = this.#low + other.#low
    this.#high = (this.#high + other.#high + (low > 0xffffffff ? 1 : 0)) >>> 0
    this.#low = low >>> 0
    return this
  }

  multiply(other: Uint64): this {
    // Products of 16-bit pieces stay exact; only the halves that reach the lower 64 bits are needed.
    const a0 = this.#low & 0xffff
    const a1 = this.#low >>> 16
    const b0 = other.#low & 0xffff
    const b1 = other.#low >>> 16
    const low = a0 * b0
    const middle = a1 * b0 + (low >>> 16)
    const cross = a0 * b1 + (middle % 0x10000)
    const carry = a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)
    this.#high = (Math.imul(this.#high, other.#low) + Math.imul(this.#low, other.#high) + (carry % 2 ** 32)) >>> 0
    this.#low = ((cross << 16) | (low & 0xffff)) >>> 0
    return this
  }

  /** @param by 1 to 63 */
  rotate(by: number): this {
    if (by >= 32) [this.#high, this.#low] = [this.#low, this.#high]
    const bits = by % 32
    if (bits === 0) return this
    const high = ((this.#high << bits) | (this.#low >>> (32 - bits))) >>> 0
    this.#low = ((this.#low << bits) | (this.#high >>> (32 - bits))) >>> 0
    this.#high = high
    return this
  }

  /** @param by 33 to 63 */
  xorShifted(by: number): this {
    this.#low = (this.#low ^ (this.#high >>> (by - 32))) >>> 0
    return this
  }

  toBytes(): Buffer {
    const bytes = Buffer.alloc(8)
    bytes.writeUInt32LE(this.#low, 0)
    bytes.writeUInt32LE(this.#high, 4)
    return bytes
  }
}

const c1 = new Uint64(0x87c37b91, 0x114253d5)
const c2 = new Uint64(0x4cf5ad43, 0x2745937f)
const five = new Uint64(0, 5)
const addend1 = new Uint64(0, 0x52dce729)
const addend2 = new Uint64(0, 0x38495ab5)
const final1 = new Uint64(0xff51afd7, 0xed558ccd)
const final2 = new Uint64(0xc4ceb9fe, 0x1a85ec53)

function finish(hash: Uint64): void {
  hash.xorShifted(33).multiply(final1).xorShifted(33).multiply(final2).xorShifted(33)
}
