// SPDX-License-Identifier: AGPL-3.0-only

/**
 * The building block of a chunk: columns of integers, described in docs/reference/chunk-format.md.
 * Every column (times, numbers, lengths, ids) is predicted by a line, by its last value or by its
 * last difference; what is left is split into byte planes, which zstd compresses far better than
 * varints: equal bytes stand beside each other.
 */

/** The bytes are not a chunk, or not any more the chunk that was written. */
export class ChunkDamaged extends Error {
  override name = 'ChunkDamaged'
}

/** Below it differences of differences, times two for their sign, are still exact in a double. */
export const exactLimit = 2 ** 49

const wideFlag = 0x80
/** Where the lower half of a 64-bit number lies in memory. */
const low = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 0 : 1
const high = 1 - low

/** Bytes that grow at their end. */
export class ByteWriter {
  #bytes: Buffer
  #length = 0

  constructor(sizeBytes: number) {
    this.#bytes = Buffer.allocUnsafe(Math.max(64, sizeBytes))
  }

  /** What was written; valid until the next write. */
  written(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  /** Room for `size` bytes, to be filled by the caller before the next write. */
  room(size: number): Buffer {
    if (this.#length + size > this.#bytes.length) {
      const larger = Buffer.allocUnsafe((this.#length + size) * 2)
      this.#bytes.copy(larger, 0, 0, this.#length)
      this.#bytes = larger
    }
    this.#length += size
    return this.#bytes.subarray(this.#length - size, this.#length)
  }

  byte(value: number): void {
    this.room(1)[0] = value
  }

  /** Seven bits per byte, lowest first, the top bit says that more follow (LEB128); `value` < 2⁵³. */
  varint(value: number): void {
    let rest = value
    for (; rest > 127; rest = Math.floor(rest / 128)) this.byte((rest % 128) | 128)
    this.byte(rest)
  }

  signed(value: number): void {
    this.varint(value < 0 ? -2 * value - 1 : 2 * value)
  }
}

/** Reads what `ByteWriter` wrote and refuses to read beyond the end. */
export class ByteReader {
  readonly #bytes: Buffer
  #offset = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#offset
  }

  take(size: number): Buffer {
    if (size > this.left) throw new ChunkDamaged('the chunk ends within a column')
    this.#offset += size
    return this.#bytes.subarray(this.#offset - size, this.#offset)
  }

  byte(): number {
    return this.take(1)[0]!
  }

  varint(): number {
    let value = 0
    for (let factor = 1; factor <= 2 ** 49; factor *= 128) {
      const byte = this.byte()
      value += (byte & 127) * factor
      if (byte < 128) {
        if (value <= Number.MAX_SAFE_INTEGER) return value
        break
      }
    }
    throw new ChunkDamaged('a number in the chunk is too long')
  }

  signed(): number {
    const value = this.varint()
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2
  }
}

/**
 * Writes safe integers. The array is used up: it holds other numbers afterwards.
 * `onLine` also tries a straight line through first and last value: clocks that jitter around it.
 */
export function writeIntegers(out: ByteWriter, values: Float64Array, onLine = false): void {
  for (const value of values) {
    if (value >= exactLimit || value <= -exactLimit) return writeWords(out, BigInt64Array.from(values, BigInt))
  }
  const n = values.length
  const first = values[0] ?? 0
  const unit = commonUnit(values, first)
  for (let i = 0; i < n; i++) values[i] = (values[i]! - first) / unit
  const prediction = predict(values, onLine)
  const { order, step, start } = prediction
  // In place, from the end: each residual needs its untouched predecessors.
  if (order === 0) {
    for (let i = 0; i < n; i++) values[i]! -= start + step * i
  } else {
    const last = order === 1 ? 0 : 1
    for (let i = n - 1; i > last; i--) {
      const difference = values[i]! - values[i - 1]!
      values[i] = difference - (order === 1 ? step : values[i - 1]! - values[i - 2]!)
    }
    values.fill(0, 0, order)
  }
  let largest = 0
  for (let i = 0; i < n; i++) {
    const value = values[i]!
    const folded = value < 0 ? -2 * value - 1 : 2 * value
    values[i] = folded
    if (folded > largest) largest = folded
  }
  let width = 0
  for (let rest = largest; rest >= 1; rest /= 256) width++
  out.byte(order * 16 + width)
  out.signed(first + unit * start)
  out.varint(unit)
  out.signed(step)
  const planes = out.room(n * width)
  for (let plane = 0, at = 0; plane < width; plane++) {
    // Shifts see 32 bits: the upper planes are brought down first.
    const divisor = plane < 4 ? 1 : 2 ** 32
    const shift = (plane % 4) * 8
    for (let i = 0; i < n; i++) planes[at++] = (values[i]! / divisor) >>> shift
  }
}

/** Reads a column of safe integers. */
export function readIntegers(from: ByteReader, n: number): Float64Array {
  const column = readColumn(from, n)
  const values = column instanceof Float64Array ? column : Float64Array.from(column, Number)
  for (let i = 0; i < n; i++) {
    if (!Number.isSafeInteger(values[i]!)) throw new ChunkDamaged('a number of the chunk is beyond 53 bits')
  }
  return values
}

/** Reads a column of integers: as `BigInt64Array` when 64 bits were needed for one of them. */
export function readColumn(from: ByteReader, n: number): Float64Array | BigInt64Array {
  const form = from.byte()
  if (form & wideFlag) return readWide(from, n, form)
  const order = form >> 4
  const width = form & 15
  if (order > 2 || width > 7) throw new ChunkDamaged('a column of the chunk has an unknown form')
  const base = from.signed()
  const unit = from.varint()
  let step = from.signed()
  const planes = from.take(n * width)
  const residuals = width > 4 ? readWideResiduals(planes, n, width) : readResiduals(planes, n, width)
  const values = new Float64Array(n)
  let sum = 0
  if (order === 0) {
    for (let i = 0; i < n; i++) values[i] = base + unit * (step * i + residuals[i]!)
  } else if (order === 1) {
    for (let i = 0; i < n; i++) values[i] = base + unit * (sum += step + residuals[i]!)
  } else {
    for (let i = 0; i < n; i++) values[i] = base + unit * (sum += step += residuals[i]!)
  }
  return values
}

/** Residuals of up to 32 bits, as nearly all are: integer arithmetic is several times faster. */
function readResiduals(planes: Buffer, n: number, width: number): Int32Array {
  const residuals = new Int32Array(n)
  for (let plane = 0, at = 0; plane < width; plane++) {
    for (let i = 0; i < n; i++) residuals[i]! |= planes[at++]! << (8 * plane)
  }
  for (let i = 0; i < n; i++) residuals[i] = (residuals[i]! >>> 1) ^ -(residuals[i]! & 1)
  return residuals
}

function readWideResiduals(planes: Buffer, n: number, width: number): Float64Array {
  const residuals = new Float64Array(n)
  for (let plane = 0, factor = 1, at = 0; plane < width; plane++, factor *= 256) {
    for (let i = 0; i < n; i++) residuals[i]! += planes[at++]! * factor
  }
  for (let i = 0; i < n; i++) {
    const folded = residuals[i]!
    const half = Math.floor(folded / 2)
    residuals[i] = folded === 2 * half ? half : -half - 1
  }
  return residuals
}

/** Writes 64-bit integers, or the bits of doubles: the same column, modulo 2⁶⁴. */
export function writeWords(out: ByteWriter, column: BigInt64Array | Float64Array): void {
  const n = column.length
  const words = new Int32Array(column.buffer, column.byteOffset, 2 * n)
  let valueBits = 0
  let differenceBits = 0
  for (let i = 1; i < n; i++) {
    const upper = words[2 * i + high]!
    const difference = upper - words[2 * i - 2 + high]!
    valueBits += 32 - Math.clz32(upper < 0 ? ~upper : upper)
    differenceBits += 32 - Math.clz32(difference < 0 ? ~difference : difference)
  }
  const order = differenceBits <= valueBits ? 1 : 0
  const folded = new Uint32Array(2 * n)
  let lowers = 0
  let uppers = 0
  let beforeLower = 0
  let beforeUpper = 0
  for (let i = 0; i < n; i++) {
    const lower = words[2 * i + low]! >>> 0
    const upper = words[2 * i + high]!
    const restLower = (lower - beforeLower) | 0
    const restUpper = (upper - beforeUpper - (lower < beforeLower ? 1 : 0)) | 0
    if (order === 1) {
      beforeLower = lower
      beforeUpper = upper
    }
    const sign = restUpper >> 31
    lowers |= folded[2 * i] = (restLower << 1) ^ sign
    uppers |= folded[2 * i + 1] = ((restUpper << 1) | (restLower >>> 31)) ^ sign
  }
  const width = Math.ceil((uppers === 0 ? 32 - Math.clz32(lowers) : 64 - Math.clz32(uppers)) / 8)
  out.byte(wideFlag + order * 16 + width)
  const planes = out.room(n * width)
  for (let plane = 0, at = 0; plane < width; plane++) {
    const shift = (plane % 4) * 8
    for (let i = plane >> 2; i < 2 * n; i += 2) planes[at++] = folded[i]! >>> shift
  }
}

/** Reads a column that must be of 64 bits. */
export function readWords(from: ByteReader, n: number): BigInt64Array {
  return readWide(from, n, from.byte())
}

function readWide(from: ByteReader, n: number, form: number): BigInt64Array {
  const order = (form >> 4) & 7
  const width = form & 15
  if (!(form & wideFlag) || order > 1 || width > 8) throw new ChunkDamaged('a column of the chunk has an unknown form')
  const planes = from.take(n * width)
  const column = new BigInt64Array(n)
  const words = new Int32Array(column.buffer)
  for (let plane = 0, at = 0; plane < width; plane++) {
    const shift = (plane % 4) * 8
    for (let i = plane < 4 ? low : high; i < 2 * n; i += 2) words[i]! |= planes[at++]! << shift
  }
  let beforeLower = 0
  let beforeUpper = 0
  for (let i = 0; i < 2 * n; i += 2) {
    const lower = words[i + low]!
    const upper = words[i + high]!
    const sign = -(lower & 1)
    const sum = (((lower >>> 1) | (upper << 31)) ^ sign) >>> 0
    const total = sum + beforeLower
    const resultUpper = ((upper >>> 1) ^ sign) + beforeUpper + (total >= 2 ** 32 ? 1 : 0)
    words[i + low] = total
    words[i + high] = resultUpper
    if (order === 1) {
      beforeLower = total >>> 0
      beforeUpper = resultUpper | 0
    }
  }
  return column
}

/** The largest integer that divides all differences to the first value, so that whole seconds or halves cost no bits. */
function commonUnit(values: Float64Array, first: number): number {
  let unit = 0
  for (let i = 1; i < values.length && unit !== 1; i++) {
    let rest = Math.abs(values[i]! - first)
    if (rest === 0) continue
    // A division is faster than a remainder; both are exact here.
    if (unit > 0 && Math.round(rest / unit) * unit === rest) continue
    while (unit > 0) [rest, unit] = [unit, rest % unit]
    unit = rest
  }
  return unit || 1
}

type Prediction = { order: 0 | 1 | 2; step: number; start: number }

/** Chooses the prediction that leaves the fewest bits. `values` start at 0. */
function predict(values: Float64Array, onLine: boolean): Prediction {
  const n = values.length
  const slope = onLine && n > 1 ? Math.round(values[n - 1]! / (n - 1)) : 0
  const middle = sampledMedian(n, 0, (i) => values[i]! - slope * i)
  const usual = n > 1 ? sampledMedian(n, 1, (i) => values[i]! - values[i - 1]!) : 0
  const bits = [0, 0, 0] as [number, number, number]
  let before = values[1] ?? 0
  for (let i = 1; i < n; i++) {
    const difference = values[i]! - values[i - 1]!
    bits[0] += bitLength(values[i]! - slope * i - middle)
    bits[1] += bitLength(difference - usual)
    bits[2] += bitLength(difference - before)
    before = difference
  }
  if (bits[0] <= bits[1] && bits[0] <= bits[2]) return { order: 0, step: slope, start: middle }
  if (bits[1] <= bits[2]) return { order: 1, step: usual, start: -usual }
  return { order: 2, step: values[1]!, start: -values[1]! }
}

function bitLength(value: number): number {
  const size = Math.abs(value)
  return size < 2 ** 32 ? 32 - Math.clz32(size) : 64 - Math.clz32(size / 2 ** 32)
}

/** The median of at most 31 values, evenly spread. */
function sampledMedian(n: number, from: number, valueAt: (i: number) => number): number {
  const stride = Math.max(1, Math.floor((n - from) / 31))
  const sample: number[] = []
  for (let i = from; i < n && sample.length < 31; i += stride) sample.push(valueAt(i))
  sample.sort((a, b) => a - b)
  return sample[sample.length >> 1]!
}
