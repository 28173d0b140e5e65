// SPDX-License-Identifier: AGPL-3.0-only

const slots = 2048
const longestCached = 64

/**
 * Turns the bytes of a member name into text, keeping the names seen lately: devices send the same
 * few names for ever, and a kept string costs no decoding, no allocation, and brings its hash along
 * to every Map further down. Fixed size; a name that falls into a taken slot replaces the other.
 */
class NameCache {
  readonly #entries: ({ bytes: Uint8Array; text: string } | undefined)[] = Array.from({ length: slots })

  /** Text of `bytes[start…end)`, which must be valid UTF-8; `hash` is any hash of these bytes. */
  get(bytes: Buffer, start: number, end: number, hash: number): string {
    const length = end - start
    if (length > longestCached) return bytes.toString('utf8', start, end)
    const slot = (hash ^ (hash >>> 15)) & (slots - 1)
    const entry = this.#entries[slot]
    if (entry?.bytes.length === length) {
      let same = 0
      while (same < length && entry.bytes[same] === bytes[start + same]) same++
      if (same === length) return entry.text
    }
    const text = bytes.toString('utf8', start, end)
    this.#entries[slot] = { bytes: Uint8Array.prototype.slice.call(bytes, start, end), text }
    return text
  }
}

/** Names of device payloads. */
export const names = new NameCache()
