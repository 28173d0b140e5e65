// SPDX-License-Identifier: AGPL-3.0-only

/** Why a byte stream can't be split any further. */
export type FrameProblem = 'too_large' | 'bad_length'

/** Above this an unfinished frame is not worth the copy that would free the memory it is part of. */
const copyBelow = 0.5

/**
 * Cuts a byte stream into MQTT control packets. The declared length is judged before anything is
 * kept for it, and memory grows with the bytes that came, not with those that were announced.
 */
export class FrameSplitter {
  /** Where the body of the frame returned last begins. */
  bodyAt = 0
  /** Largest remaining length that is accepted. */
  limit: number
  #data: Buffer | undefined
  #start = 0
  #end = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Bytes that wait, of a frame that is not complete or not asked for yet. */
  get waiting(): number {
    return this.#end - this.#start
  }

  /** First byte of the next frame, -1 when there is none. */
  peek(): number {
    return this.#data !== undefined && this.#start < this.#end ? this.#data[this.#start]! : -1
  }

  push(chunk: Buffer): void {
    const waiting = this.waiting
    if (this.#data === undefined || waiting === 0) {
      this.#data = chunk
      this.#start = 0
      this.#end = chunk.length
      return
    }
    if (this.#data.length - this.#end < chunk.length) this.#move(Math.max(2 * waiting, waiting + chunk.length))
    chunk.copy(this.#data, this.#end)
    this.#end += chunk.length
  }

  /** The next complete frame; `undefined` when more bytes are needed. */
  next(): Buffer | FrameProblem | undefined {
    const data = this.#data
    const waiting = this.waiting
    if (data === undefined || waiting < 2) return this.#keep()
    // A varint of at most four bytes (MQTT 1.5.5); shorter numbers in longer forms are no problem.
    let length = 0
    for (let index = 0; ; index++) {
      if (index === 4) return 'bad_length'
      if (index + 1 >= waiting) return this.#keep()
      const byte = data[this.#start + 1 + index]!
      length += (byte & 0x7f) * 2 ** (7 * index)
      if (length > this.limit) return 'too_large'
      if (byte < 0x80) {
        this.bodyAt = 2 + index
        break
      }
    }
    const size = this.bodyAt + length
    if (waiting < size) return this.#keep()
    // Most chunks are one packet: then no view on it is made. What was handed out is never written to again.
    const frame = this.#start === 0 && size === data.length ? data : data.subarray(this.#start, this.#start + size)
    this.#start += size
    return frame
  }

  /** Frees what isn't needed: all of it, or the memory around a small unfinished frame, a pool of many chunks maybe. */
  #keep(): undefined {
    if (this.waiting === 0) this.#data = undefined
    else if (this.#data !== undefined && this.waiting < this.#data.buffer.byteLength * copyBelow) this.#move(2 * this.waiting)
    return undefined
  }

  #move(size: number): void {
    const data = Buffer.allocUnsafeSlow(size)
    this.#data?.copy(data, 0, this.#start, this.#end)
    this.#end -= this.#start
    this.#start = 0
    this.#data = data
  }
}
