// SPDX-License-Identifier: AGPL-3.0-only

/** Jobs due later than this are found by the workers' own look in good time. */
const longestMs = 120_000
/** So that thousands of waits are few timers. */
const stepMs = 100

/** Wakes a queue's workers when a job that this process made wait becomes due. */
export class Wakes {
  readonly #wake: (queue: string) => void
  readonly #timers = new Map<string, NodeJS.Timeout>()

  constructor(wake: (queue: string) => void) {
    this.#wake = wake
  }

  add(queue: string, ms: number): void {
    if (ms > longestMs) return
    // A little after, since the database's clock decides.
    const step = Math.ceil((Date.now() + ms) / stepMs) + 1
    const key = `${queue} ${step}`
    if (this.#timers.has(key)) return
    const timer = setTimeout(
      () => {
        this.#timers.delete(key)
        this.#wake(queue)
      },
      step * stepMs - Date.now(),
    )
    this.#timers.set(key, timer.unref())
  }

  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }
}
