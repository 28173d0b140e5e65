// SPDX-License-Identifier: AGPL-3.0-only
import { isNumeric, isSame } from './values.ts'
import type { RuleValue } from './values.ts'

/** Newest value of a key by event time, and the one before it. */
export type Slot = { ts: number; value: RuleValue; previous: RuleValue | undefined; receivedAt: number }

/** A point as rules take it: `receivedAt` is the server's clock when it was accepted. */
export type RulePoint = { key: string; ts: number; value: RuleValue; receivedAt: number }

/** `applied` is to be evaluated, `late` is older than the newest of its key, `same` is a repetition. */
export type Applied = 'applied' | 'late' | 'same'

/** How far a device's clock may be ahead before the receipt time counts instead [4.2]. */
const maxAheadMs = 60_000
/** Samples that are held for one key at most [3.3]. */
export const maxSamples = 2000

/** The instant at which a point counts. */
export function instantOf(point: Pick<RulePoint, 'ts' | 'receivedAt'>): number {
  return point.ts > point.receivedAt + maxAheadMs ? point.receivedAt : point.ts
}

const noSamples: ReadonlyMap<string, Samples> = new Map()

/** What rules know of the telemetry of one device. */
export class DeviceValues {
  readonly slots = new Map<string, Slot>()
  /** Few devices have any. */
  samples: ReadonlyMap<string, Samples> = noSamples
  /** Receipt of the newest telemetry of any key; undefined before the first. */
  lastReceivedAt: number | undefined

  /** Holds the samples of a key for windows of at least `windowMs`. */
  hold(key: string, windowMs: number): void {
    const held = this.samples.get(key)
    if (held) held.windowMs = Math.max(held.windowMs, windowMs)
    else this.samples = new Map([...this.samples, [key, new Samples(windowMs)]])
  }

  /** Takes a value in that was there before, without judging it: a newer one stays. */
  seed(key: string, slot: Slot): void {
    const known = this.slots.get(key)
    if (!known || known.ts < slot.ts) this.slots.set(key, slot)
    else if (known.ts === slot.ts) known.previous ??= slot.previous
    this.lastReceivedAt = Math.max(this.lastReceivedAt ?? slot.receivedAt, slot.receivedAt)
  }

  apply(point: RulePoint): Applied {
    const { key, value, receivedAt } = point
    const ts = instantOf(point)
    this.lastReceivedAt = Math.max(this.lastReceivedAt ?? receivedAt, receivedAt)
    const slot = this.slots.get(key)
    if (!slot) {
      this.slots.set(key, { ts, value, previous: undefined, receivedAt })
      this.samples.get(key)?.push(ts, value)
      return 'applied'
    }
    slot.receivedAt = Math.max(slot.receivedAt, receivedAt)
    if (ts < slot.ts) return 'late'
    if (ts === slot.ts && isSame(value, slot.value)) return 'same'
    if (ts > slot.ts) slot.previous = slot.value
    slot.ts = ts
    slot.value = value
    this.samples.get(key)?.push(ts, value)
    return 'applied'
  }
}

/** Samples of one key in ascending order of time, as far back as the longest window looks. */
export class Samples {
  windowMs: number
  isTruncated = false
  #times: number[] = []
  /** NaN for what is no number. */
  #values: number[] = []
  #first = 0

  constructor(windowMs: number) {
    this.windowMs = windowMs
  }

  /** Puts what was measured before what is held already. */
  prepend(older: Iterable<{ ts: number; value: RuleValue }>): void {
    const times = this.#times.slice(this.#first)
    const values = this.#values.slice(this.#first)
    this.#times = []
    this.#values = []
    this.#first = 0
    const from = times[0] ?? Number.POSITIVE_INFINITY
    for (const { ts, value } of older) if (ts < from) this.push(ts, value)
    for (const [index, ts] of times.entries()) this.push(ts, values[index]!)
  }

  push(ts: number, value: RuleValue): void {
    const times = this.#times
    const number = isNumeric(value) ? Number(value) : Number.NaN
    if (times.length > this.#first && times.at(-1) === ts) {
      this.#values[times.length - 1] = number
      return
    }
    times.push(ts)
    this.#values.push(number)
    // One sample at or before the window's beginning stays: a rate begins there.
    while (this.#first + 1 < times.length && times[this.#first + 1]! <= ts - this.windowMs) this.#first++
    if (times.length - this.#first > maxSamples) {
      this.#first++
      this.isTruncated = true
    }
    if (this.#first > maxSamples) {
      this.#times = times.slice(this.#first)
      this.#values = this.#values.slice(this.#first)
      this.#first = 0
    }
  }

  /** Change between the newest sample and the one the window begins with [3.3 rate]; undefined when there is none. */
  change(windowMs: number): { delta: number; elapsedMs: number } | undefined {
    const last = this.#times.length - 1
    if (last <= this.#first) return undefined
    const newest = this.#times[last]!
    let from = this.#first
    while (from + 1 < last && this.#times[from + 1]! <= newest - windowMs) from++
    const elapsedMs = newest - this.#times[from]!
    if (elapsedMs < windowMs / 2) return undefined
    const delta = this.#values[last]! - this.#values[from]!
    return Number.isFinite(delta) ? { delta, elapsedMs } : undefined
  }

  /** Numbers with ts in (`end` − windowMs, `end`], and how many samples there are of any kind. */
  within(end: number, windowMs: number): { numbers: number[]; count: number } {
    const numbers: number[] = []
    let count = 0
    for (let i = this.#times.length - 1; i >= this.#first && this.#times[i]! > end - windowMs; i--) {
      if (this.#times[i]! > end) continue
      count++
      if (!Number.isNaN(this.#values[i]!)) numbers.push(this.#values[i]!)
    }
    return { numbers, count }
  }
}
