// SPDX-License-Identifier: AGPL-3.0-only
import type { Scope } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { Point, TypedValue } from './points.ts'
import type { ReadOptions, StoredPoint, TelemetryStore } from './store.ts'

/** Reaches every point there can be. */
export const endOfTime = 8.64e15 + 1

/** Numbers that look random and are the same in every run. */
export function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A value of any kind; numbers whose sums are exact in any order. */
export function randomValue(random: () => number): TypedValue {
  const choice = random()
  const n = Math.floor(random() * 4e6) - 2e6
  if (choice < 0.45) return { kind: 'double', value: n / 4 }
  if (choice < 0.7) return { kind: 'integer', value: n }
  if (choice < 0.75) return { kind: 'integer', value: 9_007_199_254_740_993n + BigInt(n + 2_000_000) }
  if (choice < 0.83) return { kind: 'boolean', value: n > 0 }
  if (choice < 0.93) return { kind: 'string', value: `值 ${n % 7}` }
  return { kind: 'json', value: `{"n":${n % 5}}` }
}

/** What must be stored: the value written last per key and ts, of one device. */
export class Model {
  readonly #series = new Map<string, Map<number, StoredPoint>>()

  write(points: readonly Point[]): void {
    for (const { key, ...point } of points) this.#of(key).set(point.ts, point)
  }

  /** @returns how many points it had there */
  delete(keys: readonly string[], from: number, to: number): number {
    let count = 0
    for (const key of keys) {
      const series = this.#of(key)
      for (const ts of series.keys()) if (ts >= from && ts < to && series.delete(ts)) count++
    }
    return count
  }

  /** Ascending. */
  points(key: string, from = 0, to = endOfTime): StoredPoint[] {
    return [...this.#of(key).values()].filter(({ ts }) => ts >= from && ts < to).sort((a, b) => a.ts - b.ts)
  }

  get keys(): string[] {
    return [...this.#series].filter(([, series]) => series.size > 0).map(([key]) => key)
  }

  #of(key: string): Map<number, StoredPoint> {
    const series = this.#series.get(key) ?? new Map<number, StoredPoint>()
    this.#series.set(key, series)
    return series
  }
}

type Reads = { store: TelemetryStore; scope: Scope; device: Device }

/** All points of a series, or those in a range. */
export async function readPoints(
  { store, scope, device }: Reads,
  key: string,
  { from = 0, to = endOfTime, ...options }: ReadOptions & { from?: number; to?: number } = {},
): Promise<StoredPoint[]> {
  return (await Array.fromAsync(store.read(scope, { deviceId: device.id, key, from, to }, options))).flat()
}
