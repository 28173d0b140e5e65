// SPDX-License-Identifier: AGPL-3.0-only

/** Items reach the page at most ten times a second, in one go [D-40]. */
const batchMs = 100

/** What has come for a page and waits for its turn. */
export class Inbox<T> {
  readonly #deliver: (items: T[]) => void
  #waiting: T[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  #fetches = 0

  constructor(deliver: (items: T[]) => void) {
    this.#deliver = deliver
  }

  push(items: readonly T[]): void {
    this.#waiting.push(...items)
    this.#timer ??= setTimeout(() => this.#flush(), batchMs)
  }

  /** Holds everything back until `fetch` has ended: its answer may be older than what came meanwhile, and would cover it. */
  async holdFor(fetch: Promise<unknown> | void): Promise<void> {
    this.#fetches++
    // What went wrong is shown by the page that fetched.
    await Promise.resolve(fetch).catch(() => undefined)
    this.#fetches--
    this.#flush()
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#waiting = []
  }

  #flush(): void {
    if (this.#fetches > 0) return void (this.#timer = undefined)
    const items = this.#waiting
    this.clear()
    if (items.length > 0) this.#deliver(items)
  }
}
