// SPDX-License-Identifier: AGPL-3.0-only
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkDamaged, decodeChunk, encodeChunk } from './chunk-codec.ts'
import type { TypedValue } from './points.ts'
import type { StoredPoint } from './store.ts'

const start = 1_760_000_000_000
const lastTime = 8.64e15

/** Numbers that look random and are the same in every run. */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function series(n: number, intervalMs: number, valueAt: (i: number) => TypedValue, jitterMs: () => number = () => 0): StoredPoint[] {
  return Array.from({ length: n }, (_, i) => ({ ts: start + i * intervalMs + Math.round(jitterMs()), ...valueAt(i) }))
}

function sensor(n: number, intervalMs: number, jitterMs = 0): StoredPoint[] {
  const random = randomNumbers(1)
  let value = 20
  return series(
    n,
    intervalMs,
    () => ({ kind: 'double', value: Math.round((value += random() - 0.5) * 10) / 10 }),
    () => (random() - 0.5) * 2 * jitterMs,
  )
}

function counter(n: number): StoredPoint[] {
  const random = randomNumbers(2)
  let value = 100_000
  return series(n, 60_000, () => ({ kind: 'integer', value: (value += Math.floor(random() * 20)) }))
}

function randomWalk(n: number): StoredPoint[] {
  const random = randomNumbers(3)
  let value = 20
  return series(n, 1000, () => ({ kind: 'double', value: (value += random() - 0.5) }))
}

const values: Record<string, fc.Arbitrary<TypedValue>> = {
  'any double': fc.double().map((value) => ({ kind: 'double', value })),
  'special doubles': fc
    .constantFrom(-0, 0, NaN, Infinity, -Infinity, Number.MIN_VALUE, -Number.MIN_VALUE, Number.MAX_VALUE, 2 ** 53, 0.1 + 0.2, 1e-15, 1e22)
    .map((value) => ({ kind: 'double', value })),
  decimals: fc
    .tuple(fc.integer({ min: -1e6, max: 1e6 }), fc.integer({ min: 0, max: 9 }))
    .map(([scaled, decimals]) => ({ kind: 'double', value: scaled / 10 ** decimals })),
  'mostly decimals': fc
    .tuple(fc.integer({ min: -999, max: 999 }), fc.double(), fc.nat(9))
    .map(([scaled, other, choice]) => ({ kind: 'double', value: choice === 0 ? other : scaled / 10 })),
  'single precision': fc.float().map((value) => ({ kind: 'double', value })),
  'safe integers': fc.maxSafeInteger().map((value) => ({ kind: 'integer', value: value === 0 ? 0 : value })),
  'small integers': fc.integer({ min: -300, max: 300 }).map((value) => ({ kind: 'integer', value: value === 0 ? 0 : value })),
  'integers about the limit of the narrow columns': fc
    .tuple(fc.constantFrom(2 ** 49, -(2 ** 49), 2 ** 53 - 4, 4 - 2 ** 53), fc.integer({ min: -3, max: 3 }))
    .map(([limit, distance]) => ({ kind: 'integer', value: limit + distance })),
  '64-bit integers': fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((exact) => {
    const value = Number(exact)
    return { kind: 'integer', value: Number.isSafeInteger(value) ? value : exact }
  }),
  booleans: fc.boolean().map((value) => ({ kind: 'boolean', value })),
  'strings of any script': fc.string({ unit: 'grapheme' }).map((value) => ({ kind: 'string', value })),
  'strings of any code points': fc.string({ unit: 'binary' }).map((value) => ({ kind: 'string', value })),
  'repeated strings': fc.constantFrom('on', 'off', '', '\uFEFFmark', '故障').map((value) => ({ kind: 'string', value })),
  JSON: fc.json().map((value) => ({ kind: 'json', value })),
}

const regularTimes = fc.tuple(fc.integer({ min: -1e12, max: 2e12 }), fc.integer({ min: 1, max: 1e8 })).map(
  ([first, step]) =>
    (n: number) =>
      Array.from({ length: n }, (_, i) => first + i * step),
)
const jitteringTimes = fc
  .tuple(fc.integer({ min: 1, max: 2e12 }), fc.integer({ min: 100, max: 1e6 }), fc.integer())
  .map(([first, step, seed]) => (n: number) => {
    const random = randomNumbers(seed)
    return Array.from({ length: n }, (_, i) => first + i * step + Math.floor(random() * 100))
  })
const anyTimes = fc
  .uniqueArray(fc.integer({ min: -lastTime, max: lastTime }), { minLength: 40, maxLength: 40 })
  .map((times) => (n: number) => times.toSorted((a, b) => a - b).slice(0, n))

function pointsOf(value: fc.Arbitrary<TypedValue>): fc.Arbitrary<StoredPoint[]> {
  return fc
    .tuple(fc.array(value, { minLength: 1, maxLength: 40, size: 'max' }), fc.oneof(regularTimes, jitteringTimes, anyTimes))
    .map(([items, timesOf]) => {
      const times = timesOf(items.length)
      return items.map((item, i) => ({ ts: times[i]!, ...item }))
    })
}

/** `toEqual` tells −0 from 0 and NaN from nothing, as Object.is does. */
function expectToReturn(points: StoredPoint[]): void {
  expect(decodeChunk(encodeChunk(points))).toEqual(points)
}

/** The chunk with another checksum that fits: what only the structure can tell. */
function withChecksum(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}

const anyPoints = pointsOf(fc.oneof(...Object.values(values)))

const chunks = {
  'sensor values, compressed': sensor(144, 600_000, 50),
  'one double': sensor(1, 1),
  'full doubles': randomWalk(20),
  counters: counter(50),
  'mixed kinds': fc.sample(anyPoints, { numRuns: 20, seed: 7 }).toSorted((a, b) => b.length - a.length)[0]!,
}

describe('the chunk codec', () => {
  it.each(Object.entries(values))('returns every point as it was: %s', (_, value) => {
    fc.assert(fc.property(pointsOf(value), expectToReturn), { numRuns: 300 })
  })

  it('returns every point as it was: kinds mixed within one chunk', () => {
    fc.assert(fc.property(anyPoints, expectToReturn), { numRuns: 1000 })
  })

  it('returns the part that was asked for', () => {
    fc.assert(
      fc.property(anyPoints, fc.nat(), fc.nat(), (points, a, b) => {
        const [from, to] = [points[a % points.length]!.ts, points[b % points.length]!.ts]
        const part = decodeChunk(encodeChunk(points), from, to)
        expect(part).toEqual(decodeChunk(encodeChunk(points)).filter(({ ts }) => ts >= from && ts < to))
      }),
      { numRuns: 500 },
    )
  })

  it('returns long series as they were', () => {
    for (const points of [sensor(8640, 10_000, 50), counter(10_000), randomWalk(8640)]) expectToReturn(points)
  })

  it('returns a million points and 1 MiB texts', () => {
    expectToReturn(series(1_000_000, 1, (i) => ({ kind: 'integer', value: i % 3 })))
    expectToReturn(series(3, 1, (i) => ({ kind: 'string', value: String(i).repeat(2 ** 20) })))
  })

  it('writes a small bigint as the number it is', () => {
    expect(decodeChunk(encodeChunk([{ ts: 1, kind: 'integer', value: 5n }]))).toEqual([{ ts: 1, kind: 'integer', value: 5 }])
  })

  it('replaces a lone surrogate, which no UTF-8 has, and keeps the rest', () => {
    expect(decodeChunk(encodeChunk([{ ts: 1, kind: 'string', value: 'a\uD800b' }]))).toEqual([{ ts: 1, kind: 'string', value: 'a\uFFFDb' }])
  })

  it('refuses points that are no chunk', () => {
    const point: StoredPoint = { ts: 1, kind: 'boolean', value: true }
    expect(() => encodeChunk([])).toThrow(RangeError)
    expect(() => encodeChunk([point, point])).toThrow(RangeError)
    expect(() => encodeChunk([{ ...point, ts: 2 }, point])).toThrow(RangeError)
    expect(() => encodeChunk([{ ...point, ts: 1.5 }])).toThrow(RangeError)
    expect(() => encodeChunk([{ ...point, ts: NaN }])).toThrow(RangeError)
    expect(() => encodeChunk([{ ts: 1, kind: 'integer', value: 2n ** 63n }])).toThrow(RangeError)
    expect(() => encodeChunk([{ ts: 1, kind: 'integer', value: 0.5 }])).toThrow(RangeError)
    expect(() => encodeChunk([{ ts: 1, kind: 'integer', value: 2 ** 53 }])).toThrow(RangeError)
  })
})

describe('the size of a chunk', () => {
  it.each([
    ['one decimal every 10 s with 50 ms of jitter', sensor(8640, 10_000, 50), 1.9],
    ['one decimal every 10 min, a day', sensor(144, 600_000), 1.3],
    ['counters every minute', counter(1440), 1.3],
    ['full doubles every second', randomWalk(8640), 8.2],
  ])('is small: %s', (_, points, bytesPerPoint) => {
    expect(encodeChunk(points).length / points.length).toBeLessThan(bytesPerPoint)
  })

  it('hardly grows with the length of a regular series', () => {
    expect(encodeChunk(series(10_000, 60_000, (i) => ({ kind: 'integer', value: 7 * i }))).length).toBeLessThan(32)
  })

  it('is not spoilt by a few values that are no decimal numbers', () => {
    const points = sensor(8640, 10_000).map((point, i) =>
      i % 200 === 0 ? { ...point, kind: 'double' as const, value: Math.PI * i } : point,
    )
    expect(encodeChunk(points).length / points.length).toBeLessThan(1.2)
    expectToReturn(points)
  })
})

describe('a damaged chunk', () => {
  it.each(Object.entries(chunks))('is found by every single flipped bit: %s', (_, points) => {
    const bytes = encodeChunk(points)
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const damaged = Buffer.from(bytes)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      expect(() => decodeChunk(damaged)).toThrow(ChunkDamaged)
    }
  })

  it.each(Object.entries(chunks))('is found at every length it is cut to: %s', (_, points) => {
    const bytes = encodeChunk(points)
    for (let length = 0; length < bytes.length; length++) expect(() => decodeChunk(bytes.subarray(0, length))).toThrow(ChunkDamaged)
    expect(() => decodeChunk(Buffer.concat([bytes, Buffer.of(0)]))).toThrow(ChunkDamaged)
  })

  it('is any other bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(() => decodeChunk(Buffer.from(bytes))).toThrow(ChunkDamaged)
      }),
      { numRuns: 2000 },
    )
  })

  it('of a version to come is refused', () => {
    const bytes = encodeChunk(sensor(3, 1000))
    bytes[0] = 2
    expect(() => decodeChunk(withChecksum(bytes))).toThrow('version 2 of the chunk format is unknown')
  })

  it('with a fitting checksum gives points in order or ChunkDamaged, nothing else', () => {
    const bodies = Object.values(chunks).map(encodeChunk)
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(fc.constantFrom(...bodies), changes, (body, changed) => {
        const bytes = Buffer.from(body)
        for (const [at, value] of changed) bytes[1 + (at % (bytes.length - 5))] = value
        expectPointsOrDamage(withChecksum(bytes))
      }),
      { numRuns: 5000 },
    )
  })

  it('of random bytes with a fitting checksum gives points in order or ChunkDamaged, nothing else', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.uint8Array({ minLength: 8, maxLength: 60 }), (n, body) => {
        expectPointsOrDamage(withChecksum(Buffer.concat([Buffer.of(1, 0, n, body.length), body, Buffer.alloc(4)])))
      }),
      { numRuns: 5000 },
    )
  })

  it('that claims a huge size takes no memory', () => {
    const claims = Buffer.from('0100ffff3cffffff1f0000000000000000', 'hex')
    expect(() => decodeChunk(withChecksum(claims))).toThrow(ChunkDamaged)
    const zstd = Buffer.from(claims)
    zstd[1] = 1
    expect(() => decodeChunk(withChecksum(zstd))).toThrow(ChunkDamaged)
  })
})

function expectPointsOrDamage(bytes: Buffer): void {
  let points: StoredPoint[]
  try {
    points = decodeChunk(bytes)
  } catch (err) {
    expect(err).toBeInstanceOf(ChunkDamaged)
    return
  }
  // What was read is a possible chunk.
  expectToReturn(points)
}
