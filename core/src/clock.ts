// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Time as the ingest path sees it, passed in so that a test can own it.
 * `now` is wall-clock ms since 1970, `monotonic` never goes back.
 */
export type Clock = {
  now(): number
  monotonic(): number
  /** Calls back once after `ms`; the returned function cancels. Never keeps the process alive. */
  after(ms: number, callback: () => void): () => void
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}
