// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'

const seconds = 60

/** Counts what happened during the last minute, second by second. */
export class MinuteRate {
  readonly #clock: Pick<Clock, 'monotonic'>
  readonly #counts = new Uint32Array(seconds)
  /** The second that is counted now, since the clock's beginning. */
  #second: number

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock
    this.#second = Math.floor(clock.monotonic() / 1000)
  }

  get perMinute(): number {
    this.#advance()
    return this.#counts.reduce((sum, count) => sum + count, 0)
  }

  add(): void {
    this.#advance()
    this.#counts[this.#second % seconds]!++
  }

  /** Empties the seconds in which nothing happened. */
  #advance(): void {
    const now = Math.floor(this.#clock.monotonic() / 1000)
    for (let second = Math.max(this.#second + 1, now - seconds + 1); second <= now; second++) this.#counts[second % seconds] = 0
    this.#second = now
  }
}
