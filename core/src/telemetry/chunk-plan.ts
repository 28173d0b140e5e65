// SPDX-License-Identifier: AGPL-3.0-only
import type { StoredPoint } from './store.ts'

/** Bounds of a chunk: what a short question has to decode, and how much longer than asked retention may keep a point. */
export const maxChunkPoints = 4096
export const maxChunkMs = 7 * 86_400_000
const maxChunkText = 262_144
/** A run takes its neighbour in when that is at most so many times as large: each point is written anew log(n) times. */
const absorbRatio = 2

/** A chunk as far as planning needs it. */
export type ChunkHead = { firstTs: number; lastTs: number; count: number }

/** Chunks that are replaced, and the points that join theirs; both ascending. */
export type Run<H extends ChunkHead> = { heads: H[]; points: StoredPoint[] }

/**
 * Decides which chunks of a series the new points are merged with: those whose time they fall into, and
 * small ones beside them. What lies between two runs stays untouched, so a late point costs one chunk.
 *
 * @param points ascending, each ts once
 * @param heads chunks of the series around the points, ascending, not overlapping
 */
export function planRuns<H extends ChunkHead>(points: readonly StoredPoint[], heads: readonly H[]): Run<H>[] {
  const runs: Run<H>[] = []
  /** Untouched chunks before each run, and behind the last. */
  const gaps: H[][] = [[]]
  let run: Run<H> | undefined
  for (const { head, inside } of lineUp(points, heads)) {
    if (inside.length === 0) {
      run = undefined
      gaps.at(-1)!.push(head!)
      continue
    }
    if (!run) {
      runs.push((run = { heads: [], points: [] }))
      gaps.push([])
    }
    if (head) run.heads.push(head)
    for (const point of inside) run.points.push(point)
  }
  for (const [i, one] of runs.entries()) absorb(one, gaps[i]!, gaps[i + 1]!)
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

/** Takes small chunks right before and right behind a run into it, the nearest first. */
function absorb<H extends ChunkHead>(run: Run<H>, before: H[], behind: H[]): void {
  let first = Math.min(run.heads[0]?.firstTs ?? Number.POSITIVE_INFINITY, run.points[0]!.ts)
  let last = Math.max(run.heads.at(-1)?.lastTs ?? 0, run.points.at(-1)!.ts)
  let count = run.points.length + run.heads.reduce((sum, head) => sum + head.count, 0)
  const fits = (head: H | undefined): head is H =>
    head !== undefined &&
    head.count <= absorbRatio * count &&
    head.count + count <= maxChunkPoints &&
    Math.max(last, head.lastTs) - Math.min(first, head.firstTs) <= maxChunkMs
  for (let head = before.at(-1); fits(head); head = before.at(-1)) {
    run.heads.unshift(before.pop()!)
    first = head.firstTs
    count += head.count
  }
  for (let head = behind[0]; fits(head); head = behind[0]) {
    run.heads.push(behind.shift()!)
    last = head.lastTs
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
