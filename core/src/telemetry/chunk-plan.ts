// SPDX-License-Identifier: AGPL-3.0-only
import type { StoredPoint } from './store.ts'

/** Bounds of a chunk: what a short question has to decode, and how much longer than asked retention may keep a point. */
export const maxChunkPoints = 4096
const maxChunkMs = 7 * 86_400_000
const maxChunkText = 262_144
/** A run takes its neighbour in when that is at most so many times as large: each point is written anew log(n) times. */
const absorbRatio = 2

/** A chunk as far as planning needs it. */
export type ChunkHead = { firstTs: number; lastTs: number; count: number }

/** Chunks that are replaced, and the points that join theirs; both ascending. `before`: what was left alone in front of them. */
export type Run<H extends ChunkHead> = { heads: H[]; points: StoredPoint[]; before: H[] }

/**
 * Decides which chunks of a series the new points are merged with: those whose time they fall into, and
 * small ones before them. What lies between two runs stays untouched, so a late point costs one chunk.
 *
 * @param points ascending, each ts once
 * @param heads chunks of the series around the points, ascending, not overlapping
 */
export function planRuns<H extends ChunkHead>(points: readonly StoredPoint[], heads: readonly H[]): Run<H>[] {
  const runs: Run<H>[] = []
  let run: Run<H> | undefined
  /** Untouched chunks right before the next run. */
  let before: H[] = []
  for (const { head, inside } of lineUp(points, heads)) {
    if (inside.length === 0) {
      if (run) before = []
      run = undefined
      before.push(head!)
      continue
    }
    if (!run) runs.push((run = { heads: [], points: [], before }))
    if (head) run.heads.push(head)
    for (const point of inside) run.points.push(point)
  }
  for (const one of runs) absorb(one)
  return runs
}

/** The new points in time order: those inside a chunk beside it, those between chunks by themselves. */
function lineUp<H extends ChunkHead>(points: readonly StoredPoint[], heads: readonly H[]): { head?: H; inside: StoredPoint[] }[] {
  const items: { head?: H; inside: StoredPoint[] }[] = []
  let next = 0
  const takeUntil = (end: number) => {
    const start = next
    while (next < points.length && points[next]!.ts < end) next++
    return points.slice(start, next)
  }
  for (const head of heads) {
    const between = takeUntil(head.firstTs)
    if (between.length > 0) items.push({ inside: between })
    items.push({ head, inside: takeUntil(head.lastTs + 1) })
  }
  if (next < points.length) items.push({ inside: takeUntil(Number.POSITIVE_INFINITY) })
  return items
}

/** Takes small chunks right before a run into it, the nearest first. */
function absorb<H extends ChunkHead>(run: Run<H>): void {
  const end = Math.max(run.heads.at(-1)?.lastTs ?? 0, run.points.at(-1)!.ts)
  let count = run.points.length + run.heads.reduce((sum, head) => sum + head.count, 0)
  for (let head = run.before.pop(); head; head = run.before.pop()) {
    const fits = head.count <= absorbRatio * count && head.count + count <= maxChunkPoints && end - head.firstTs <= maxChunkMs
    if (!fits) return
    run.heads.unshift(head)
    count += head.count
  }
}

/**
 * Cuts points into chunks within the bounds. What is appended fills chunk after chunk; what was inserted
 * into the past is cut evenly, so that the next late point finds room.
 */
export function cutChunks(points: readonly StoredPoint[], isAppended: boolean): StoredPoint[][] {
  const pieces = Math.ceil(points.length / maxChunkPoints)
  const most = isAppended ? maxChunkPoints : Math.ceil(points.length / pieces)
  const chunks: StoredPoint[][] = []
  let start = 0
  let text = 0
  for (let i = 0; i < points.length; i++) {
    const point = points[i]!
    const length = point.kind === 'string' || point.kind === 'json' ? point.value.length : 0
    const isFull = i - start >= most || point.ts - points[start]!.ts > maxChunkMs || text + length > maxChunkText
    if (isFull && i > start) {
      chunks.push(points.slice(start, i))
      start = i
      text = 0
    }
    text += length
  }
  chunks.push(points.slice(start))
  return chunks
}
