// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'

/** [SC-21] Rows are asked for again after this long, which is how changes of another replica arrive. */
const maxAgeMs = 1000
/** Bounds memory; the row used longest ago goes first. */
const maxEntries = 20_000

type Entry<V> = { at: number; value: Promise<V | undefined> }

/**
 * Rows of the database kept in memory for at most a second, loaded on demand and once for
 * all who ask at the same time. Absent rows are remembered too.
 */
export class FreshTable<V> {
  readonly #clock: Clock
  readonly #load: (key: string) => Promise<V | undefined>
  readonly #entries = new Map<string, Entry<V>>()

  constructor(clock: Clock, load: (key: string) => Promise<V | undefined>) {
    this.#clock = clock
    this.#load = load
  }

  /** @throws what the load throws; a failure is not remembered */
  get(key: string): Promise<V | undefined> {
    const known = this.#entries.get(key)
    if (known && this.#clock.monotonic() - known.at < maxAgeMs) return known.value
    // The age counts from the asking, not from the answer: a slow query must not stretch it.
    const entry = { at: this.#clock.monotonic(), value: this.#load(key) }
    entry.value.catch(() => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
    })
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    if (this.#entries.size > maxEntries) this.#entries.delete(this.#entries.keys().next().value!)
    return entry.value
  }

  /** After a change was committed: the next reader asks the database. */
  forget(key: string): void {
    this.#entries.delete(key)
  }

  clear(): void {
    this.#entries.clear()
  }
}
