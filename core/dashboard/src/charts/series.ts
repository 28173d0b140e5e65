// SPDX-License-Identifier: AGPL-3.0-only
import type { Cell } from '../format.ts'

export type NumberPoint = [ts: number, value: number]
export type ChartSeries = {
  id: string
  label: string
  unit?: string | null | undefined
  decimals?: number | null | undefined
  points: NumberPoint[]
  /** Smallest and largest value of each bucket, when the line is an aggregate. */
  band?: [ts: number, min: number, max: number][] | undefined
}

/** Rows a live chart keeps per series [D-87]. */
export const maxLivePoints = 3600

/** Where a line breaks: two points farther apart than three usual intervals [D-87]. */
export function gapMs(points: readonly (readonly [number, ...unknown[]])[], askedMs = 0): number {
  if (points.length < 3) return Number.POSITIVE_INFINITY
  const steps: number[] = []
  for (let at = 1; at < points.length; at++) steps.push(points[at]![0] - points[at - 1]![0])
  steps.sort((a, b) => a - b)
  return Math.max(3 * steps[Math.floor(steps.length / 2)]!, askedMs)
}

type Column = (number | null | undefined)[]

/**
 * Columns for uPlot: x and one column per series (and two per band), on the union of all times. `null` is
 * a gap in the line, `undefined` only means that another series has a point there.
 */
export function alignSeries(series: readonly ChartSeries[], askedMs = 0): { x: number[]; columns: Column[] } {
  const tracks = series.flatMap((one) => [
    one.points as [number, number][],
    ...(one.band
      ? [one.band.map(([ts, , max]) => [ts, max] as [number, number]), one.band.map(([ts, min]) => [ts, min] as [number, number])]
      : []),
  ])
  const broken = tracks.map((points) => {
    const limit = gapMs(points, askedMs)
    const out = new Map<number, number | null>()
    for (let at = 0; at < points.length; at++) {
      const [ts, value] = points[at]!
      const before = points[at - 1]
      if (before && ts - before[0] > limit) out.set(before[0] + 1, null)
      out.set(ts, value)
    }
    return out
  })
  const x = [...new Set(broken.flatMap((track) => [...track.keys()]))].sort((a, b) => a - b)
  return { x, columns: broken.map((track) => x.map((ts) => track.get(ts))) }
}

/** Adds newer points at the end; older ones are what a later fetch is for. */
export function appendPoints<V>(points: [number, V][], added: readonly (readonly [number, V])[]): [number, V][] {
  const last = points.at(-1)?.[0] ?? Number.NEGATIVE_INFINITY
  const newer = added.filter(([ts]) => ts > last).sort((a, b) => a[0] - b[0])
  if (newer.length === 0) return points
  return [...points, ...newer.map(([ts, value]) => [ts, value] as [number, V])].slice(-maxLivePoints)
}

export type Summary = { count: number; min: number; max: number; last: number; lastTs: number }

export function summarize(points: readonly NumberPoint[]): Summary | undefined {
  const last = points.at(-1)
  if (!last) return undefined
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  for (const [, value] of points) {
    if (value < min) min = value
    if (value > max) max = value
  }
  return { count: points.length, min, max, last: last[1], lastTs: last[0] }
}

/** The same data as rows, newest first: time, then a value per series. */
export function tabulate(series: readonly ChartSeries[]): { ts: number; values: (number | null)[] }[] {
  const rows = new Map<number, (number | null)[]>()
  for (const [index, one] of series.entries()) {
    for (const [ts, value] of one.points) {
      let row = rows.get(ts)
      if (!row) {
        row = series.map(() => null)
        rows.set(ts, row)
      }
      row[index] = value
    }
  }
  return [...rows].sort((a, b) => b[0] - a[0]).map(([ts, values]) => ({ ts, values }))
}

export function toCsvRows(
  series: readonly ChartSeries[],
  header: readonly [string, string],
  format: (ts: number) => [string, string],
): Cell[][] {
  return [
    [...header, ...series.map((one) => (one.unit ? `${one.label} (${one.unit})` : one.label))],
    ...tabulate(series)
      .reverse()
      .map(({ ts, values }) => [...format(ts), ...values]),
  ]
}

export type Segment = { from: number; to: number; value: unknown }

/** Runs of equal values from `from` to `to`; the last one lasts until `end`. */
export function segmentsOf(points: readonly (readonly [number, unknown])[], from: number, to: number, end: number): Segment[] {
  const segments: Segment[] = []
  for (const [ts, value] of points) {
    const last = segments.at(-1)
    if (last && last.value === value) continue
    if (last) last.to = ts
    segments.push({ from: ts, to: end, value })
  }
  return segments
    .map((one) => ({ ...one, from: Math.max(one.from, from), to: Math.min(one.to, to, Math.max(end, one.from)) }))
    .filter((one) => one.to > one.from)
}
