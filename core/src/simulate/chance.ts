// SPDX-License-Identifier: AGPL-3.0-only

/** Repeatable chance: the same seed gives the same run. */
export type Chance = {
  /** 0 ≤ x < 1 */
  next(): number
  between(low: number, high: number): number
  /** Around 0 with this standard deviation. */
  noise(deviation: number): number
  /** Whether something happened within `seconds` that happens every `meanS` on average. */
  happens(seconds: number, meanS: number): boolean
}

/** The generator mulberry32, well known and of 32 bits: enough for weather and doors, never for secrets. */
export function createChance(seed: number): Chance {
  let state = Math.imul(seed + 1, 0x9e37_79b1)
  const next = () => {
    state = (state + 0x6d2b_79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    between: (low, high) => low + (high - low) * next(),
    // The sum of three even ones is near enough to a bell.
    noise: (deviation) => (next() + next() + next() - 1.5) * 2 * deviation,
    happens: (seconds, meanS) => next() < 1 - Math.exp(-seconds / meanS),
  }
}

export function round(value: number, decimals: number): number {
  const rounded = Number(value.toFixed(decimals))
  return rounded === 0 ? 0 : rounded
}

const hourMs = 3_600_000
/** China's time, where the example data is at home. */
const zoneHours = 8

/** 0 ≤ hour < 24, with its fraction. */
export function hourOfDay(ts: number): number {
  return (ts / hourMs + zoneHours) % 24
}

/** −1 at 4 in the morning, 1 at 4 in the afternoon. */
export function warmthOfDay(ts: number): number {
  return Math.sin(((hourOfDay(ts) - 10) / 24) * 2 * Math.PI)
}
