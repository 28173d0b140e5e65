// SPDX-License-Identifier: AGPL-3.0-only
import type { TypedValue } from './points.ts'

/** `PGCOPY\n\xff\r\n\0`, flags 0, no header extension (PostgreSQL documentation, COPY, binary format). */
const signature = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex')
const fieldCount = 8

export const kindNumbers = { double: 0, integer: 1, boolean: 2, string: 3, json: 4 } as const

/**
 * Writes telemetry rows in PostgreSQL's binary COPY format into one growing buffer that is used
 * again for the next batch: (tenant_no int4, device_no int4, key_no int4, ts int8, kind int2, num float8, big int8, txt text).
 */
export class CopyEncoder {
  #buffer = Buffer.allocUnsafe(256 * 1024)
  #length = 0

  start(): void {
    this.#length = signature.copy(this.#buffer)
  }

  add(tenantNo: number, deviceNo: number, keyNo: number, ts: number, value: TypedValue): void {
    const text = value.kind === 'string' || value.kind === 'json' ? value.value : undefined
    // 3 bytes of UTF-8 per UTF-16 unit at most; 64 covers all fixed fields.
    this.#ensure(96 + (text === undefined ? 0 : text.length * 3))
    const buffer = this.#buffer
    let at = buffer.writeInt16BE(fieldCount, this.#length)
    at = buffer.writeInt32BE(4, at)
    at = buffer.writeInt32BE(tenantNo, at)
    at = buffer.writeInt32BE(4, at)
    at = buffer.writeInt32BE(deviceNo, at)
    at = buffer.writeInt32BE(4, at)
    at = buffer.writeInt32BE(keyNo, at)
    at = buffer.writeInt32BE(8, at)
    at = writeInt64(buffer, ts, at)
    at = buffer.writeInt32BE(2, at)
    at = buffer.writeInt16BE(kindNumbers[value.kind], at)
    at = value.kind === 'double' ? buffer.writeDoubleBE(value.value, buffer.writeInt32BE(8, at)) : writeNull(buffer, at)
    at = writeBig(buffer, value, at)
    if (text === undefined) {
      at = writeNull(buffer, at)
    } else {
      const written = buffer.write(text, at + 4)
      at = buffer.writeInt32BE(written, at) + written
    }
    this.#length = at
  }

  /** @returns the finished COPY stream; valid until the next `start` */
  finish(): Buffer {
    this.#ensure(2)
    this.#length = this.#buffer.writeInt16BE(-1, this.#length)
    return this.#buffer.subarray(0, this.#length)
  }

  #ensure(more: number): void {
    if (this.#length + more <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + more))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }
}

function writeNull(buffer: Buffer, at: number): number {
  return buffer.writeInt32BE(-1, at)
}

function writeBig(buffer: Buffer, value: TypedValue, at: number): number {
  if (value.kind === 'boolean') return writeInt64(buffer, value.value ? 1 : 0, buffer.writeInt32BE(8, at))
  if (value.kind !== 'integer') return writeNull(buffer, at)
  const start = buffer.writeInt32BE(8, at)
  return typeof value.value === 'bigint' ? buffer.writeBigInt64BE(value.value, start) : writeInt64(buffer, value.value, start)
}

/** A safe integer as two halves: several times faster than by way of a bigint. */
function writeInt64(buffer: Buffer, value: number, at: number): number {
  const high = Math.floor(value / 0x1_0000_0000)
  return buffer.writeUInt32BE(value - high * 0x1_0000_0000, buffer.writeInt32BE(high, at))
}
