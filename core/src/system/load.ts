// SPDX-License-Identifier: AGPL-3.0-only
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** [RE §7] Above the first for a whole window new devices are turned away, until below the second. */
const overloadedMs = 500
const recoveredMs = 200
const windowMs = 5000
/** [RE-72] */
const stuckMs = 30_000

/** Watches whether the event loop keeps up. */
export class Load {
  readonly #delay = monitorEventLoopDelay({ resolution: 20 })
  #timer: NodeJS.Timeout | undefined
  #turnedAt = performance.now()
  #isOverloaded = false

  start(): void {
    this.#turnedAt = performance.now()
    this.#delay.enable()
    this.#timer = setInterval(() => {
      this.#turnedAt = performance.now()
      const p99Ms = this.#delay.percentile(99) / 1e6
      this.#isOverloaded = this.#isOverloaded ? p99Ms > recoveredMs : p99Ms > overloadedMs
      this.#delay.reset()
    }, windowMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#delay.disable()
  }

  get isOverloaded(): boolean {
    return this.#isOverloaded
  }

  get isAlive(): boolean {
    return performance.now() - this.#turnedAt < stuckMs
  }
}
