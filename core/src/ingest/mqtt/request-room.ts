// SPDX-License-Identifier: AGPL-3.0-only

export type RequestLimits = { inFlight: number; requests: number; requestBytes: number }

/**
 * Room for the requests that wait for their outcome, per device and over all: those of sessions that have ended
 * meanwhile go on waiting for the database, so the bound of a session is none for them [M-29]. A device that
 * has its share waits for itself, not for others.
 */
export class RequestRoom {
  readonly #most: RequestLimits
  readonly #byDevice = new Map<string, number>()
  #open = 0
  #bytes = 0

  constructor(most: RequestLimits) {
    this.#most = most
  }

  isFullFor(deviceId: string): boolean {
    const { inFlight, requests, requestBytes } = this.#most
    return this.#open >= requests || this.#bytes >= requestBytes || (this.#byDevice.get(deviceId) ?? 0) >= inFlight
  }

  enter(deviceId: string, bytes: number): void {
    this.#open++
    this.#bytes += bytes
    this.#byDevice.set(deviceId, (this.#byDevice.get(deviceId) ?? 0) + 1)
  }

  leave(deviceId: string, bytes: number): void {
    this.#open--
    this.#bytes -= bytes
    const left = this.#byDevice.get(deviceId)! - 1
    if (left > 0) this.#byDevice.set(deviceId, left)
    else this.#byDevice.delete(deviceId)
  }
}
