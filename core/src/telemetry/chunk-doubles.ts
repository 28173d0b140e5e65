// SPDX-License-Identifier: AGPL-3.0-only
import { ChunkDamaged, exactLimit, readIntegers, readWords, writeIntegers, writeWords } from './chunk-columns.ts'
import type { ByteReader, ByteWriter } from './chunk-columns.ts'

/** Powers of ten up to 10¹⁵ are exact, so a quotient by one of them is the double nearest to the decimal number. */
const powers = Array.from({ length: 16 }, (_, exponent) => 10 ** exponent)
/** The form byte of a column of bits; below it the byte is the number of decimals. */
const bitsForm = powers.length
/** What a value that is no decimal number costs beside the column: its bits and its position. */
const exceptionBytes = 10
/** log₂₅₆ of 10. */
const bytesPerDecimal = 0.42

/** Writes doubles as decimal numbers where sensors sent such, else by their bits. Every bit returns, also of −0 and NaN. */
export function writeDoubles(out: ByteWriter, values: Float64Array): void {
  const decimals = chooseDecimals(values)
  if (decimals === bitsForm) {
    out.byte(bitsForm)
    return writeWords(out, values)
  }
  const power = powers[decimals]!
  const scaled = new Float64Array(values.length)
  const exceptions: number[] = []
  for (let i = 0, before = 0; i < values.length; i++) {
    if (isDecimal(values[i]!, power)) before = Math.round(values[i]! * power)
    else exceptions.push(i)
    scaled[i] = before
  }
  out.byte(decimals)
  out.varint(exceptions.length)
  if (exceptions.length > 0) {
    writeIntegers(out, Float64Array.from(exceptions))
    writeWords(
      out,
      Float64Array.from(exceptions, (position) => values[position]!),
    )
  }
  writeIntegers(out, scaled)
}

export function readDoubles(from: ByteReader, n: number): Float64Array {
  const form = from.byte()
  if (form === bitsForm) return doublesOf(readWords(from, n))
  const power = powers[form]
  const count = from.varint()
  if (power === undefined || count > n) throw new ChunkDamaged('a column of doubles has an unknown form')
  const positions = count > 0 ? readIntegers(from, count) : new Float64Array()
  const exceptions = count > 0 ? doublesOf(readWords(from, count)) : new Float64Array()
  const values = readIntegers(from, n)
  for (let i = 0; i < n; i++) values[i] = values[i]! / power
  for (const [i, position] of positions.entries()) {
    if (position < 0 || position >= n) throw new ChunkDamaged('a double of the chunk has no place')
    values[position] = exceptions[i]!
  }
  return values
}

function doublesOf(words: BigInt64Array): Float64Array {
  return new Float64Array(words.buffer, words.byteOffset, words.length)
}

/** Whether the reader's quotient is this value to the last bit; −0 is not, as integers know no −0. */
function isDecimal(value: number, power: number): boolean {
  const scaled = Math.round(value * power)
  return scaled < exactLimit && scaled > -exactLimit && scaled / power === value && (scaled !== 0 || 1 / value > 0)
}

/** The number of decimals with which the column becomes smallest, or `bitsForm`. */
function chooseDecimals(values: Float64Array): number {
  const stride = Math.ceil(values.length / 64)
  const sample = values.filter((_, i) => i % stride === 0)
  // Searching all decimals of every value is the slow part: full doubles are told by a sample.
  if (cheapest(countDecimals(sample), sample.length) === bitsForm) return bitsForm
  return cheapest(countDecimals(values), values.length)
}

/** How many values need how many decimals; the last count is of those that no number of decimals suits. */
function countDecimals(values: Float64Array): number[] {
  const counts = Array.from({ length: bitsForm + 1 }, () => 0)
  let usual = 0
  for (const value of values) {
    // Most values have as many decimals as the one before: only the others are searched.
    let decimals = usual > 0 && isDecimal(value, powers[usual - 1]!) ? 0 : usual
    if (!isDecimal(value, powers[decimals]!)) {
      decimals = 0
      while (decimals < bitsForm && !isDecimal(value, powers[decimals]!)) decimals++
    }
    counts[decimals]!++
    if (decimals < bitsForm) usual = decimals
  }
  return counts
}

function cheapest(counts: readonly number[], n: number): number {
  // Bits cost at most 8 bytes; the highest of them hardly change and are nearly free.
  let best = bitsForm
  let lowest = n * 7
  let exceptions = n
  for (let decimals = 0; decimals < bitsForm; decimals++) {
    exceptions -= counts[decimals]!
    const size = exceptions * exceptionBytes + (n - exceptions) * (1 + decimals * bytesPerDecimal)
    if (size < lowest) {
      best = decimals
      lowest = size
    }
  }
  return best
}
