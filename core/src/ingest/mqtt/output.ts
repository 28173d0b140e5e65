// SPDX-License-Identifier: AGPL-3.0-only
import type { Duplex } from 'node:stream'

const firstSize = 64

/**
 * Collects what a connection sends and writes it at once: the acknowledgements of one commit leave
 * with one write per socket. While the socket takes nothing, bytes are kept as bytes, not as one
 * entry per packet.
 */
export class Output {
  readonly #socket: Duplex
  #bytes: Buffer | undefined
  #length = 0

  constructor(socket: Duplex) {
    this.#socket = socket
  }

  /** Bytes that have not left this process. */
  get unsent(): number {
    return this.#length + this.#socket.writableLength
  }

  get isEmpty(): boolean {
    return this.#length === 0
  }

  add(packet: Buffer): void {
    const at = this.#reserve(packet.length)
    packet.copy(this.#bytes!, at)
  }

  /** A packet of a first byte and a packet id: PUBACK, PUBREC, PUBCOMP without words. */
  addShort(firstByte: number, packetId: number): void {
    const at = this.#reserve(4)
    const bytes = this.#bytes!
    bytes[at] = firstByte
    bytes[at + 1] = 2
    bytes[at + 2] = packetId >> 8
    bytes[at + 3] = packetId & 0xff
  }

  /** Hands everything to the socket, unless that still has enough of its own. */
  flush(): void {
    if (this.#length === 0 || this.#socket.writableNeedDrain) return
    const bytes = this.#bytes!.subarray(0, this.#length)
    this.#bytes = undefined
    this.#length = 0
    this.#socket.write(bytes)
  }

  /** Hands over what is left and then ends our side of the connection. */
  end(): void {
    const bytes = this.#length > 0 ? this.#bytes!.subarray(0, this.#length) : undefined
    this.#bytes = undefined
    this.#length = 0
    if (bytes !== undefined) this.#socket.write(bytes)
    this.#socket.end()
  }

  #reserve(size: number): number {
    const at = this.#length
    const needed = at + size
    if (this.#bytes === undefined) this.#bytes = Buffer.allocUnsafe(Math.max(firstSize, size))
    else if (this.#bytes.length < needed) {
      const larger = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, needed))
      this.#bytes.copy(larger, 0, 0, at)
      this.#bytes = larger
    }
    this.#length = needed
    return at
  }
}
