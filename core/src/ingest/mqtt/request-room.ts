// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Room for the requests that wait for their outcome, over all connections: those of connections that have ended
 * meanwhile go on waiting for the database, so no bound of a session holds them [M-29].
 */
export class RequestRoom {
  readonly #most: { requests: number; requestBytes: number }
  #open = 0
  #bytes = 0

  constructor(most: { requests: number; requestBytes: number }) {
    this.#most = most
  }

  get isFull(): boolean {
    return this.#open >= this.#most.requests || this.#bytes >= this.#most.requestBytes
  }

  enter(bytes: number): void {
    this.#open++
    this.#bytes += bytes
  }

  leave(bytes: number): void {
    this.#open--
    this.#bytes -= bytes
  }
}
