// SPDX-License-Identifier: AGPL-3.0-only

export type RequestLimits = { requests: number; requestBytes: number }

/**
 * Room for the requests that wait for their outcome, over all connections: those of connections that have ended
 * meanwhile go on waiting for the database, so no bound of a session holds them [M-29]. Who finds no room comes
 * in turn, one request of each connection after the other, so that nobody who sends much keeps others out.
 */
export class RequestRoom {
  readonly #most: RequestLimits
  readonly #waiting: (() => void)[] = []
  /** The next one who enters was called. */
  #isTurn = false
  #isCalling = false
  #open = 0
  #bytes = 0

  constructor(most: RequestLimits) {
    this.#most = most
  }

  /** True when a request must wait: there is no room, or others wait for it. */
  get isFull(): boolean {
    return !this.#isTurn && (!this.#hasRoom || this.#waiting.length > 0)
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** @param isNext called when it is the caller's turn, who then enters, or has gone */
  wait(isNext: () => void): void {
    this.#waiting.push(isNext)
  }

  enter(bytes: number): void {
    this.#isTurn = false
    this.#open++
    this.#bytes += bytes
  }

  leave(bytes: number): void {
    this.#open--
    this.#bytes -= bytes
    // Whoever is called may be through at once, and comes back to here.
    if (this.#isCalling) return
    this.#isCalling = true
    while (this.#hasRoom && this.#waiting.length > 0) {
      this.#isTurn = true
      this.#waiting.shift()!()
      this.#isTurn = false
    }
    this.#isCalling = false
  }

  get #hasRoom(): boolean {
    return this.#open < this.#most.requests && this.#bytes < this.#most.requestBytes
  }
}
