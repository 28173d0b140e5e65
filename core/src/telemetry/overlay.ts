// SPDX-License-Identifier: AGPL-3.0-only
import type { StoredPoint } from './store.ts'

/** Both ascending, each ts once in either; where they meet, the upper one wins. */
export function overlay(upper: readonly StoredPoint[], lower: readonly StoredPoint[]): StoredPoint[] {
  if (upper.length === 0) return lower as StoredPoint[]
  if (lower.length === 0 || lower.at(-1)!.ts < upper[0]!.ts) return lower.length === 0 ? (upper as StoredPoint[]) : lower.concat(upper)
  const merged: StoredPoint[] = []
  let u = 0
  for (const point of lower) {
    while (u < upper.length && upper[u]!.ts < point.ts) merged.push(upper[u++]!)
    if (u < upper.length && upper[u]!.ts === point.ts) continue
    merged.push(point)
  }
  while (u < upper.length) merged.push(upper[u++]!)
  return merged
}

/** Points in the order they were written, ascending and each ts once: the last one written stays. */
export function sortNewest(points: StoredPoint[]): StoredPoint[] {
  let isAscending = true
  for (let i = 1; i < points.length; i++) if (points[i]!.ts <= points[i - 1]!.ts) isAscending = false
  if (isAscending) return points
  // Stable: of one ts the last one written comes last.
  const sorted = points.toSorted((a, b) => a.ts - b.ts)
  return sorted.filter((point, i) => point.ts !== sorted[i + 1]?.ts)
}
