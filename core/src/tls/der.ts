// SPDX-License-Identifier: AGPL-3.0-only

/** Distinguished encoding rules (ITU-T X.690), as much as a certificate needs. */

/** One value: its tag, its length, its contents. */
function encode(tag: number, ...contents: Buffer[]): Buffer {
  const body = Buffer.concat(contents)
  const { length } = body
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), body])
  const digits = length < 0x100 ? [length] : [length >> 8, length & 0xff]
  if (length > 0xffff) throw new RangeError('a value of more than 65,535 bytes')
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), body])
}

export const sequence = (...items: Buffer[]): Buffer => encode(0x30, ...items)
export const set = (...items: Buffer[]): Buffer => encode(0x31, ...items)
export const octetString = (bytes: Buffer): Buffer => encode(0x04, bytes)
export const utf8String = (text: string): Buffer => encode(0x0c, Buffer.from(text))
export const boolean = (value: boolean): Buffer => encode(0x01, Buffer.from([value ? 0xff : 0]))
/** A value with a tag of its context: `[n]`; constructed when it wraps others. */
export const explicit = (n: number, ...items: Buffer[]): Buffer => encode(0xa0 | n, ...items)
export const implicit = (n: number, bytes: Buffer): Buffer => encode(0x80 | n, bytes)

/** A whole number ≥ 0 of big-endian bytes. */
export function integer(bytes: Buffer): Buffer {
  let at = 0
  while (at < bytes.length - 1 && bytes[at] === 0) at++
  const digits = bytes.subarray(at)
  // The first bit is the sign.
  return encode(0x02, ...(digits[0]! >= 0x80 ? [Buffer.from([0])] : []), digits)
}

/** Whole bytes, or flags of which the last `unusedBits` do not count. */
export const bitString = (bytes: Buffer, unusedBits = 0): Buffer => encode(0x03, Buffer.from([unusedBits]), bytes)

/** An object identifier in dotted form. */
export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const digits = [first * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) groups.unshift(0x80 | (left % 128))
    return groups
  })
  return encode(0x06, Buffer.from(digits))
}

/** An instant to the second: UTCTime before 2050, GeneralizedTime from then on (RFC 5280 §4.1.2.5). */
export function time(at: Date): Buffer {
  const text = `${at.toISOString().replace(/\D/g, '').slice(0, 14)}Z`
  return at.getUTCFullYear() < 2050 ? encode(0x17, Buffer.from(text.slice(2))) : encode(0x18, Buffer.from(text))
}
