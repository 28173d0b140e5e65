// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { ChunkDamaged, decodeChunk } from './chunk-codec.ts'
import { restoreHour, restoreStatistics } from './chunk-summary.ts'
import type { ChunkSummary } from './chunk-summary.ts'
import type { FirstStore } from './first-store.ts'
import { overlay, sortNewest } from './overlay.ts'
import { RowCursor, decodeEnds } from './segment-rows.ts'
import type { Piece, ReadOptions, SeriesRange, StoredPoint, Summaries } from './store.ts'
import { askTwice, blockBytes, readTail } from './tail.ts'

/** Chunks brought with one question to the database: few at first, then as many as this many bytes hold. */
const firstChunks = 6
const mostChunks = 32
const pageBytes = 512 * 1024
/** Chunks whose statistics are brought with one question. */
const pageOfSummaries = 256
/** Longer than any chunk. */
const noPoints = Number.MAX_SAFE_INTEGER

type ChunkRow = {
  first_ts: string
  last_ts: string
  count: number
  kinds: number
  min: number | null
  max: number | null
  sum: number | null
  growth: number | null
  ends: Buffer | null
  hour_marks: number[] | null
  hour_values: number[] | null
  points: Buffer | null
}

type DeviceRow = { number: number; key_no: number | null; bytes: Buffer | null; is_more: boolean | null }
type ChunkQuestion = { low: number; high: number; newestFirst: boolean; max: number; over: number }

/** A series that was found, with its points that are not in chunks yet (ascending, each ts once) and its first chunks. */
type Series = { scope: Scope; deviceNo: number; keyNo: number; tail: StoredPoint[]; firstPage: ChunkRow[] | undefined }

/** Where the points of a window come from besides chunks: newer ones on top, those of the first store below. */
type Window = { from: number; to: number; top: StoredPoint[]; bottom: StoredPoint[] }

/** Unites chunks, segments and the first store's table to what was written last per ts. */
export class Reader {
  readonly #context: Context
  readonly #first: FirstStore

  constructor(context: Context, first: FirstStore) {
    this.#context = context
    this.#first = first
  }

  /**
   * Pieces of a series in time order or newest first. A summary stands for a chunk that lies in the range
   * as a whole and that `summaries` accepts.
   */
  async *read(scope: Scope, range: SeriesRange, options: ReadOptions, summaries?: Summaries): AsyncGenerator<Piece> {
    const series = await this.#open(scope, range, options.newestFirst ?? false, pointsOver(summaries))
    if (!series) return
    for await (const window of this.#windows(series, range, options.newestFirst ?? false)) {
      yield* this.#readWindow(series, window, range.key, options, summaries)
    }
  }

  /** What moves between two questions moves into chunks: they are asked last, so that nothing is missed. */
  async #open(scope: Scope, range: SeriesRange, newestFirst: boolean, over: number): Promise<Series | undefined> {
    const { from, to } = range
    const max = firstRows(over)
    // As it was before the question: what moved into chunks meanwhile may not be in the answer.
    const wasGone = this.#first.isGone
    const question = { low: from, high: to, newestFirst, max, over }
    const found = await askTwice(() =>
      this.#context.db.withTenant(scope, async (tx) => {
        const [[device], chunks] = await Promise.all([selectDevice(tx, range), selectFirstChunks(tx, range, question)])
        if (!device || device.key_no === null) return undefined
        const { number: deviceNo, key_no: keyNo } = device
        const tail: StoredPoint[] = []
        const keep = (bytes: Buffer) => {
          const cursor = new RowCursor(bytes)
          while (cursor.next()) if (cursor.keyNo === keyNo && cursor.ts >= from && cursor.ts < to) tail.push(cursor.point())
        }
        if (!device.is_more) {
          if (device.bytes) keep(device.bytes)
          return { deviceNo, keyNo, tail, chunks }
        }
        for await (const block of readTail(tx, deviceNo, from, to)) keep(block)
        return { deviceNo, keyNo, tail, chunks: wasGone ? await selectChunks(tx, deviceNo, keyNo, question) : [] }
      }),
    )
    if (!found) return undefined
    const { deviceNo, keyNo, tail, chunks } = found
    // With points of the first store beside them, chunks are asked for after those.
    const firstPage = wasGone ? chunks : undefined
    return { scope, deviceNo, keyNo, tail: sortNewest(tail), firstPage }
  }

  /** The whole range, or as many parts of it as the first store has blocks. */
  async *#windows({ scope, deviceNo, tail }: Series, { key, from, to }: SeriesRange, newestFirst: boolean): AsyncGenerator<Window> {
    let [low, high] = [from, to]
    if (!this.#first.isGone) {
      const transact = <T>(work: (tx: Tx) => Promise<T>) => this.#context.db.withTenant(scope, work)
      for await (const block of this.#first.read(transact, { deviceNo, key, from, to, newestFirst })) {
        const end = block.at(-1)!.ts
        const window = newestFirst ? { from: end, to: high } : { from: low, to: end + 1 }
        yield { ...window, top: within(tail, window.from, window.to), bottom: newestFirst ? block.toReversed() : block }
        if (newestFirst) high = window.from
        else low = window.to
      }
    }
    if (low < high) yield { from: low, to: high, top: within(tail, low, high), bottom: [] }
  }

  async *#readWindow(
    series: Series,
    { from, to, top, bottom }: Window,
    key: string,
    { newestFirst = false, onDamaged }: ReadOptions,
    summaries: Summaries | undefined,
  ): AsyncGenerator<Piece> {
    const over = pointsOver(summaries)
    let pageRows = firstRows(over)
    const inOrder = (points: StoredPoint[]) => ({ points: newestFirst ? points.toReversed() : points })
    /** Points outside chunks: from the newest or oldest end of what is left of the window up to a chunk. */
    const aside = (low: number, high: number) => overlay(within(top, low, high), within(bottom, low, high))
    let [low, high] = [from, to]
    while (low < high) {
      const rows = series.firstPage ?? (await this.#readChunks(series, { low, high, newestFirst, max: pageRows, over }))
      series.firstPage = undefined
      for (const row of rows) {
        const [first, last] = [Number(row.first_ts), Number(row.last_ts)]
        const begin = Math.max(first, low)
        const end = Math.min(last + 1, high)
        const gap = newestFirst ? aside(end, high) : aside(low, begin)
        if (gap.length > 0) yield inOrder(gap)
        const [above, below] = [within(top, begin, end), within(bottom, begin, end)]
        if (summaries && !row.points && first >= low && last < high && above.length === 0 && below.length === 0) {
          const summary = toSummary(row)
          if (summaries.accepts(summary)) {
            yield { summary }
            if (newestFirst) high = begin
            else low = end
            continue
          }
        }
        const parts = row.points ? [row] : await this.#readAgain(series, row)
        const decode = (part: ChunkRow) => this.#decode(series, key, part, { from: begin, to: end, onDamaged })
        const chunk = parts.length === 1 ? decode(parts[0]!) : parts.flatMap(decode)
        const points = overlay(above, overlay(chunk, below))
        if (points.length > 0) yield inOrder(points)
        if (newestFirst) high = begin
        else low = end
      }
      if (rows.length < pageRows) break
      if (over < noPoints) pageRows = fittingRows(rows)
    }
    const rest = aside(low, high)
    if (rest.length > 0) yield inOrder(rest)
  }

  async #readChunks({ scope, deviceNo, keyNo }: Series, question: ChunkQuestion): Promise<ChunkRow[]> {
    return this.#context.db.withTenant(scope, (tx) => selectChunks(tx, deviceNo, keyNo, question))
  }

  /** A chunk as it is now: since its summary was read it may have become part of another, or several. */
  async #readAgain(series: Series, { first_ts, last_ts }: ChunkRow): Promise<ChunkRow[]> {
    const parts: ChunkRow[] = []
    const high = Number(last_ts) + 1
    for (let low = Number(first_ts); ;) {
      const rows = await this.#readChunks(series, { low, high, newestFirst: false, max: mostChunks, over: 0 })
      parts.push(...rows)
      if (rows.length < mostChunks) return parts
      low = Number(rows.at(-1)!.last_ts) + 1
    }
  }

  #decode(
    series: Series,
    key: string,
    row: ChunkRow,
    { from, to, onDamaged }: { from: number; to: number; onDamaged: ReadOptions['onDamaged'] },
  ): StoredPoint[] {
    try {
      return decodeChunk(row.points!, from, to)
    } catch (error) {
      if (!(error instanceof ChunkDamaged)) throw error
      const range = { from: Number(row.first_ts), to: Number(row.last_ts) }
      this.#context.log.error({ err: error, deviceNo: series.deviceNo, key, ...range }, 'a chunk is damaged: its points cannot be read')
      onDamaged?.(range)
      return []
    }
  }
}

const chunkColumns = {
  first_ts: sql<string>`c.first_ts`,
  last_ts: sql<string>`c.last_ts`,
  count: sql<number>`c.count`,
  kinds: sql<number>`c.kinds`,
  min: sql<number | null>`c.min`,
  max: sql<number | null>`c.max`,
  sum: sql<number | null>`c.sum`,
  growth: sql<number | null>`c.growth`,
  ends: sql<Buffer | null>`c.ends`,
  hour_marks: sql<number[] | null>`c.hour_marks`,
  hour_values: sql<number[] | null>`c.hour_values`,
  points: sql<Buffer | null>`c.points`,
}

/** The device with what it has outside chunks. Prepared, as the next: planning would take longer than the rest. */
async function selectDevice(tx: Tx, { deviceId, key, from, to }: SeriesRange): Promise<DeviceRow[]> {
  const tail = sql`select string_agg(t.points, '' order by t.ordinality) as bytes, bool_or(t.points is null) as is_more
    from telemetry_tail(array[d.number], ${from}, ${to}, ${blockBytes}) with ordinality t`
  return tx
    .select({
      number: sql<number>`d.number`,
      key_no: sql<number | null>`telemetry_key_no(${key})`,
      bytes: sql<Buffer | null>`t.bytes`,
      is_more: sql<boolean | null>`t.is_more`,
    })
    .from(sql`devices d cross join lateral (${tail}) t`)
    .where(sql`d.id = ${deviceId} and d.deleted_at is null`)
    .prepare('telemetry_device')
    .execute()
}

async function selectFirstChunks(tx: Tx, { deviceId, key }: SeriesRange, question: ChunkQuestion): Promise<ChunkRow[]> {
  const { low, high, newestFirst, max, over } = question
  const chunks = sql`telemetry_chunks_of(d.number, telemetry_key_no(${key}), ${low}, ${high}, ${max}, ${newestFirst}, ${over})`
  return tx
    .select(chunkColumns)
    .from(sql`devices d cross join lateral ${chunks} c`)
    .where(sql`d.id = ${deviceId} and d.deleted_at is null`)
    .prepare('telemetry_first_chunks')
    .execute()
}

async function selectChunks(tx: Tx, deviceNo: number, keyNo: number, question: ChunkQuestion): Promise<ChunkRow[]> {
  const { low, high, newestFirst, max, over } = question
  return tx.execute<ChunkRow>(
    sql`select * from telemetry_chunks_of(${deviceNo}, ${keyNo}, ${low}, ${high}, ${max}, ${newestFirst}, ${over})`,
  )
}

/** Chunks at least so long come with their points. */
function pointsOver(summaries: Summaries | undefined): number {
  return summaries ? Math.min(noPoints, summaries.longestMs) : 0
}

function firstRows(over: number): number {
  return over < noPoints ? firstChunks : pageOfSummaries
}

function fittingRows(rows: readonly ChunkRow[]): number {
  const bytes = rows.reduce((sum, row) => sum + (row.points?.length ?? 0), 1)
  return Math.max(1, Math.min(mostChunks, Math.floor((pageBytes * rows.length) / bytes)))
}

/** The part of ascending points in `from ≤ ts < to`. */
function within(points: StoredPoint[], from: number, to: number): StoredPoint[] {
  if (points.length === 0 || (points[0]!.ts >= from && points.at(-1)!.ts < to)) return points
  return points.slice(indexOf(points, from), indexOf(points, to))
}

/** Index of the first point at or after an instant. */
function indexOf(points: readonly StoredPoint[], ts: number): number {
  let [low, high] = [0, points.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (points[middle]!.ts < ts) low = middle + 1
    else high = middle
  }
  return low
}

function toSummary(row: ChunkRow): ChunkSummary {
  const [firstTs, lastTs] = [Number(row.first_ts), Number(row.last_ts)]
  const { kinds, min, max, sum, growth, hour_marks: marks, hour_values: values } = row
  const hasStatistics = min !== null && max !== null && sum !== null && growth !== null
  return {
    firstTs,
    lastTs,
    count: row.count,
    kinds,
    statistics: hasStatistics ? restoreStatistics(kinds, { min, max, sum, growth }) : undefined,
    ends: row.ends ? decodeEnds(row.ends, firstTs, lastTs) : undefined,
    hours: Array.from({ length: (marks?.length ?? 0) / 2 }, (_, i) => ({
      startTs: marks![2 * i]! * 3_600_000,
      count: marks![2 * i + 1]!,
      statistics: values ? restoreHour(kinds, { min: values[3 * i]!, max: values[3 * i + 1]!, sum: values[3 * i + 2]! }) : undefined,
    })),
  }
}
