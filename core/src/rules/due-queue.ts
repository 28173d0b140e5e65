// SPDX-License-Identifier: AGPL-3.0-only

type Entry<T> = { item: T; at: number; place: number }

/** Items by the instant they wait for: setting, moving and taking one costs O(log n). */
export class DueQueue<T> {
  /** A binary heap, the earliest first. */
  readonly #heap: Entry<T>[] = []
  readonly #entries = new Map<T, Entry<T>>()

  get size(): number {
    return this.#heap.length
  }

  /** The instant of the earliest item; infinity when nothing waits. */
  get nextAt(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY
  }

  /** Lets the item wait for `at`, in place of what it waited for; infinity takes it out. */
  set(item: T, at: number): void {
    const entry = this.#entries.get(item)
    if (at === Number.POSITIVE_INFINITY) return entry && this.#remove(entry)
    if (entry) {
      entry.at = at
      return this.#settle(entry)
    }
    const added = { item, at, place: this.#heap.length }
    this.#heap.push(added)
    this.#entries.set(item, added)
    this.#settle(added)
  }

  /** Takes the earliest item out when its instant is not after `now`. */
  take(now: number): T | undefined {
    const first = this.#heap[0]
    if (!first || first.at > now) return undefined
    this.#remove(first)
    return first.item
  }

  #remove(entry: Entry<T>): void {
    this.#entries.delete(entry.item)
    const last = this.#heap.pop()!
    if (last === entry) return
    this.#put(last, entry.place)
    this.#settle(last)
  }

  #settle(entry: Entry<T>): void {
    let { place } = entry
    while (place > 0 && this.#heap[(place - 1) >> 1]!.at > entry.at) {
      this.#put(this.#heap[(place - 1) >> 1]!, place)
      place = (place - 1) >> 1
    }
    for (;;) {
      let child = 2 * place + 1
      if (child >= this.#heap.length) break
      if (child + 1 < this.#heap.length && this.#heap[child + 1]!.at < this.#heap[child]!.at) child++
      if (this.#heap[child]!.at >= entry.at) break
      this.#put(this.#heap[child]!, place)
      place = child
    }
    this.#put(entry, place)
  }

  #put(entry: Entry<T>, place: number): void {
    this.#heap[place] = entry
    entry.place = place
  }
}
