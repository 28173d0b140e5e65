// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Device } from '../ingest/registry.ts'
import { defaultSettings } from '../products/settings.ts'
import type { Point, TypedValue } from './points.ts'
import { RowDamaged, SegmentEncoder, decodeEnds, decodeRows, encodeEnds, encodeRow } from './segment-rows.ts'
import type { StoredPoint } from './store.ts'

const maxKeyNo = 2 ** 31 - 1
const maxInt64 = 2n ** 63n - 1n

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.constantFrom('', '\0', 'a\0b', '温度 😀', '\uFEFF', 'x'.repeat(5000)),
)
const value: fc.Arbitrary<TypedValue> = fc.oneof(
  fc.double().map((one): TypedValue => ({ kind: 'double', value: one })),
  fc.constantFrom(-0, 0, NaN, Infinity, -Infinity, 5e-324, Number.MAX_VALUE).map((one): TypedValue => ({ kind: 'double', value: one })),
  fc.bigInt({ min: -maxInt64 - 1n, max: maxInt64 }).map(toInteger),
  fc
    .constantFrom(
      0n,
      2n ** 31n - 1n,
      2n ** 31n,
      -(2n ** 31n),
      -(2n ** 31n) - 1n,
      2n ** 53n - 1n,
      2n ** 53n,
      1n - 2n ** 53n,
      maxInt64,
      -maxInt64 - 1n,
    )
    .map(toInteger),
  fc.boolean().map((one): TypedValue => ({ kind: 'boolean', value: one })),
  text.map((one): TypedValue => ({ kind: 'string', value: one })),
  fc.json().map((one): TypedValue => ({ kind: 'json', value: one })),
)
const ts = fc.oneof(fc.integer({ min: 1, max: 8.64e15 }), fc.constantFrom(1, 8.64e15, 1_767_225_600_000))
const keyNo = fc.oneof(fc.integer({ min: 1, max: maxKeyNo }), fc.constantFrom(1, 127, 128, 16_383, 16_384, maxKeyNo))
const point = fc.record({ ts, keyNo, value }).map(({ value: one, ...rest }): StoredPoint & { keyNo: number } => ({ ...rest, ...one }))
const message = fc.array(point, { minLength: 1, maxLength: 12 })

function toInteger(exact: bigint): TypedValue {
  return { kind: 'integer', value: Number.isSafeInteger(Number(exact)) ? Number(exact) : exact }
}

/** Keys are named by their numbers. */
function deviceOf(points: readonly { keyNo: number }[]): Device {
  return {
    tenantId: randomUUID(),
    tenantNo: 3,
    id: randomUUID(),
    no: maxKeyNo,
    name: 'd',
    isDisabled: false,
    isGateway: false,
    settings: defaultSettings,
    rules: defaultPayloadRules,
    inactivityTimeoutMs: 1,
    lastServerTs: 0,
    keyNos: new Map(points.map((one) => [String(one.keyNo), one.keyNo])),
  }
}

type Row = { tenantNo: number; deviceNo: number; seq: number; firstTs: number; lastTs: number; points: Buffer }

/** Rows of a COPY stream as PostgreSQL reads them. */
function parseCopy(stream: Buffer): Row[] {
  const rows: Row[] = []
  let at = 19
  while (stream.readInt16BE(at) !== -1) {
    const fields: Buffer[] = []
    const count = stream.readInt16BE(at)
    at += 2
    for (let i = 0; i < count; i++) {
      const length = stream.readInt32BE(at)
      fields.push(stream.subarray(at + 4, at + 4 + length))
      at += 4 + length
    }
    const [tenant, device, seq, first, last, points] = fields as [Buffer, Buffer, Buffer, Buffer, Buffer, Buffer]
    rows.push({
      tenantNo: tenant.readInt32BE(),
      deviceNo: device.readInt32BE(),
      seq: seq.readInt32BE(),
      firstTs: Number(first.readBigInt64BE()),
      lastTs: Number(last.readBigInt64BE()),
      points,
    })
  }
  expect(at + 2).toBe(stream.length)
  return rows
}

const decode = (bytes: Buffer) => [...decodeRows(bytes)]

/** Bytes that are no row give points or RowDamaged, and come to an end. */
function expectPointsOrDamage(bytes: Buffer): void {
  const read: StoredPoint[] = []
  try {
    for (const one of decodeRows(bytes)) read.push(one)
  } catch (error) {
    expect(error).toBeInstanceOf(RowDamaged)
  }
  expect(read.length).toBeLessThanOrEqual(bytes.length)
}

describe('segment rows', () => {
  it('return every point of every message as it was, with the range of its times', () => {
    const encoder = new SegmentEncoder()
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 5 }), (messages) => {
        const device = deviceOf(messages.flat())
        encoder.start()
        for (const [seq, points] of messages.entries()) {
          encoder.add(
            device,
            seq,
            points.map(({ keyNo: no, ...rest }): Point => ({ ...rest, key: String(no) })),
          )
        }
        expect(encoder.rowCount).toBe(messages.length)
        const rows = parseCopy(encoder.finish())
        for (const [seq, row] of rows.entries()) {
          const times = messages[seq]!.map((one) => one.ts)
          expect(row).toMatchObject({ tenantNo: 3, deviceNo: maxKeyNo, seq, firstTs: Math.min(...times), lastTs: Math.max(...times) })
          expect(decode(row.points)).toEqual(messages[seq])
        }
        expect(decode(Buffer.concat(rows.map((row) => row.points)))).toEqual(messages.flat())
      }),
      { numRuns: 500 },
    )
  })

  it('that are written anew without some points return the rest as it was', () => {
    fc.assert(
      fc.property(message, (points) => {
        expect(decode(encodeRow(points))).toEqual(points)
      }),
      { numRuns: 500 },
    )
  })

  it('replace a lone surrogate, which no UTF-8 has, and keep what follows', () => {
    const points = [
      { keyNo: 1, ts: 1, kind: 'string', value: 'a\uD800b' },
      { keyNo: 1, ts: 2, kind: 'boolean', value: true },
    ] as const
    expect(decode(encodeRow(points))).toEqual([{ ...points[0], value: 'a\uFFFDb' }, points[1]])
  })

  it('refuse a key without a number, whose point would be acknowledged and not stored', () => {
    const encoder = new SegmentEncoder()
    encoder.start()
    expect(() => encoder.add(deviceOf([]), 1, [{ key: 'x', ts: 1, kind: 'boolean', value: true }])).toThrow('was not registered')
  })

  it('cut at any byte give the points before it or RowDamaged', () => {
    fc.assert(
      fc.property(message, (points) => {
        const bytes = encodeRow(points)
        for (let length = 0; length < Math.min(bytes.length, 400); length++) {
          const read: StoredPoint[] = []
          try {
            for (const one of decodeRows(bytes.subarray(0, length))) read.push(one)
          } catch (error) {
            expect(error).toBeInstanceOf(RowDamaged)
          }
          expect(read).toEqual(points.slice(0, read.length))
          expect(read.length).toBeLessThan(points.length)
        }
      }),
      { numRuns: 60 },
    )
  })

  it('with changed bytes or of random bytes give points or RowDamaged, and come to an end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => expectPointsOrDamage(Buffer.from(bytes))),
      { numRuns: 3000 },
    )
    fc.assert(
      fc.property(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), (points, changes) => {
        const bytes = Buffer.from(encodeRow(points))
        for (const [at, byte] of changes) bytes[at % bytes.length] = byte
        expectPointsOrDamage(bytes)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('the ends of a chunk', () => {
  it('return first and last value as they were, or are left out when a text is long', () => {
    fc.assert(
      fc.property(value, value, (first, last) => {
        const bytes = encodeEnds({ first, last })
        const isLong = [first, last].some((one) => typeof one.value === 'string' && one.value.length > 64)
        expect(bytes === undefined).toBe(isLong)
        if (bytes) expect(decodeEnds(bytes, 5, 8.64e15)).toEqual({ first: { ts: 5, ...first }, last: { ts: 8.64e15, ...last } })
      }),
      { numRuns: 1000 },
    )
  })

  it('hold a text of the greatest length in any script', () => {
    const first: TypedValue = { kind: 'string', value: '值'.repeat(64) }
    const last: TypedValue = { kind: 'json', value: '\u0800'.repeat(64) }
    expect(decodeEnds(encodeEnds({ first, last })!, 1, 2)).toEqual({ first: { ts: 1, ...first }, last: { ts: 2, ...last } })
  })

  it('that are cut short are damaged', () => {
    fc.assert(
      fc.property(value, value, (first, last) => {
        const bytes = encodeEnds({ first, last })
        fc.pre(bytes !== undefined)
        for (let length = 0; length < bytes.length; length++) {
          expect(() => decodeEnds(bytes.subarray(0, length), 1, 2)).toThrow(RowDamaged)
        }
      }),
      { numRuns: 200 },
    )
  })
})
