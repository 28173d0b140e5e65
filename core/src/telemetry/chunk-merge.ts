// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import { copyOn } from '../db/copy-in.ts'
import { ChunkDamaged, decodeChunk, encodeChunk } from './chunk-codec.ts'
import { cutChunks, maxChunkMs, planRuns } from './chunk-plan.ts'
import type { ChunkHead, Run } from './chunk-plan.ts'
import { ChunkEncoder, copyChunks } from './chunk-rows.ts'
import type { SeriesId } from './chunk-rows.ts'
import { summarize } from './chunk-summary.ts'
import { overlay } from './overlay.ts'
import type { StoredPoint } from './store.ts'

/** Where it is told what was merged, and what was damaged. */
export type MergeLog = Record<'debug' | 'error', (fields: object, message: string) => void>

/** New points of one series: ascending, each ts once, at least one. */
export type SeriesPoints = SeriesId & { points: StoredPoint[] }

/** Whether the new points overwrite what chunks have at the same ts. Those of the first store are older. */
export type Precedence = 'points' | 'chunks'

type Head = ChunkHead & { sizeBytes: number }
type HeadRow = { i: number; first_ts: string; last_ts: string; count: number; size: number }
type ChunkKey = SeriesId & { firstTs: number }
/** Points of a series that lie close together, and what they are merged with. */
type Work = { series: SeriesPoints; run: Run<Head> }

/** Neighbours on either side that may be absorbed at once. */
const neighbours = 4
/**
 * Points further apart are looked at by themselves: a device whose clock was wrong for a moment must not bring
 * in everything between. No chunk, with what it absorbs on both sides, reaches so far.
 */
const clusterMs = 2 * maxChunkMs + 86_400_000
/** Bytes and number of chunks that are in memory at a time. */
const heldBytes = 4 * 1024 * 1024
const heldChunks = 2000
/** Chunk bytes written with one COPY. */
const flushBytes = 1024 * 1024
/** The event loop gets its turn after this much work: acknowledgements go on meanwhile. */
const turnMs = 5

/**
 * Writes points into chunks inside the caller's transaction: reads the chunks they belong to, writes them
 * anew with the points, removes the old ones. Readers see all of it or nothing.
 *
 * @param client a transaction as `pms_store` that nobody else changes chunks beside
 */
export class ChunkMerger {
  readonly #client: pg.PoolClient
  readonly #log: MergeLog
  readonly #encoder = new ChunkEncoder()
  #removed: ChunkKey[] = []
  #turnStart = performance.now()

  constructor(client: pg.PoolClient, log: MergeLog) {
    this.#client = client
    this.#log = log
  }

  async merge(all: readonly SeriesPoints[], precedence: Precedence = 'points'): Promise<void> {
    const clusters = all.flatMap(splitAtGaps)
    const heads = await this.#findHeads(clusters)
    let held: Work[] = []
    let bytes = 0
    let chunks = 0
    for (const [index, series] of clusters.entries()) {
      for (const run of planRuns(series.points, heads[index]!)) {
        held.push({ series, run })
        chunks += run.heads.length
        for (const head of run.heads) bytes += head.sizeBytes
        if (bytes < heldBytes && chunks < heldChunks) continue
        await this.#mergeRuns(held, precedence)
        held = []
        bytes = chunks = 0
      }
    }
    await this.#mergeRuns(held, precedence)
    await this.flush()
  }

  /** Puts chunks in place of others: `keep` are the points that stay of them, ascending. */
  async replace(series: SeriesId, heads: readonly ChunkHead[], keep: readonly StoredPoint[]): Promise<void> {
    for (const { firstTs } of heads) this.#removed.push({ ...series, firstTs })
    if (keep.length > 0) this.#add(series, keep, false)
    if (this.#encoder.sizeBytes > flushBytes || this.#removed.length > 1000) await this.flush()
  }

  /** Points of a chunk; one that is damaged is put aside with its range in the log, and has none. */
  async decode(series: SeriesId, head: ChunkHead & { bytes: Buffer }): Promise<StoredPoint[]> {
    try {
      return decodeChunk(head.bytes)
    } catch (error) {
      if (!(error instanceof ChunkDamaged)) throw error
      const { tenantNo, deviceNo, keyNo } = series
      this.#log.error({ err: error, tenantNo, deviceNo, keyNo, from: head.firstTs, to: head.lastTs }, 'a damaged chunk was put aside')
      await this.#client.query(
        `insert into telemetry_damaged_chunks select c.*, now(), $5 from telemetry_chunks c
         where tenant_no = $1 and device_no = $2 and key_no = $3 and first_ts = $4 on conflict do nothing`,
        [tenantNo, deviceNo, keyNo, head.firstTs, error.message],
      )
      return []
    }
  }

  /** Removes what was replaced, then writes what replaces it: both have the same keys. */
  async flush(): Promise<void> {
    const removed = this.#removed
    this.#removed = []
    this.#log.debug({ removed: removed.length, written: this.#encoder.rowCount }, 'telemetry: writing chunks')
    if (removed.length > 0) {
      await this.#client.query(
        `delete from telemetry_chunks c using unnest($1::int4[], $2::int4[], $3::int4[], $4::int8[]) as o (tenant_no, device_no, key_no, first_ts)
         where c.tenant_no = o.tenant_no and c.device_no = o.device_no and c.key_no = o.key_no and c.first_ts = o.first_ts`,
        [
          removed.map((one) => one.tenantNo),
          removed.map((one) => one.deviceNo),
          removed.map((one) => one.keyNo),
          removed.map((one) => one.firstTs),
        ],
      )
    }
    if (this.#encoder.rowCount > 0) await copyOn(this.#client, copyChunks, this.#encoder.finish())
  }

  async #mergeRuns(all: readonly Work[], precedence: Precedence): Promise<void> {
    const bytes = await this.#readBytes(all)
    let next = 0
    for (const { series, run } of all) {
      const { tenantNo, deviceNo, keyNo } = series
      const old: StoredPoint[] = []
      for (const head of run.heads) {
        for (const point of await this.decode(series, { ...head, bytes: bytes[next++]! })) old.push(point)
        this.#removed.push({ tenantNo, deviceNo, keyNo, firstTs: head.firstTs })
      }
      const isAppended = old.length === 0 || old.at(-1)!.ts < run.points[0]!.ts
      this.#add(series, precedence === 'points' ? overlay(run.points, old) : overlay(old, run.points), isAppended)
      await this.giveTurn()
      if (this.#encoder.sizeBytes > flushBytes) await this.flush()
    }
  }

  #add(series: SeriesId, points: readonly StoredPoint[], isAppended: boolean): void {
    for (const chunk of cutChunks(points, isAppended)) this.#encoder.add(series, summarize(chunk), encodeChunk(chunk))
  }

  /** Per series the chunks its points may belong to, and their neighbours. */
  async #findHeads(all: readonly SeriesPoints[]): Promise<Head[][]> {
    const heads: Head[][] = all.map(() => [])
    if (all.length === 0) return heads
    const { rows } = await this.#client.query<HeadRow>(
      `select s.i::int4, c.first_ts, c.last_ts, c.count, octet_length(c.points) as size
       from unnest($1::int4[], $2::int4[], $3::int4[], $4::int8[], $5::int8[]) with ordinality as s (tenant_no, device_no, key_no, low, high, i)
       cross join lateral (
         (select * from telemetry_chunks t where t.tenant_no = s.tenant_no and t.device_no = s.device_no and t.key_no = s.key_no
            and t.first_ts <= s.low order by t.first_ts desc limit $6)
         union all
         (select * from telemetry_chunks t where t.tenant_no = s.tenant_no and t.device_no = s.device_no and t.key_no = s.key_no
            and t.first_ts > s.low and t.first_ts <= s.high)
         union all
         (select * from telemetry_chunks t where t.tenant_no = s.tenant_no and t.device_no = s.device_no and t.key_no = s.key_no
            and t.first_ts > s.high order by t.first_ts limit $6)) c
       order by s.i, c.first_ts`,
      [
        all.map((one) => one.tenantNo),
        all.map((one) => one.deviceNo),
        all.map((one) => one.keyNo),
        all.map((one) => one.points[0]!.ts),
        all.map((one) => one.points.at(-1)!.ts),
        neighbours,
      ],
    )
    for (const { i, first_ts, last_ts, count, size } of rows) {
      heads[i - 1]!.push({ firstTs: Number(first_ts), lastTs: Number(last_ts), count, sizeBytes: size })
    }
    return heads
  }

  /** Of all chunks of these runs, in their order. */
  async #readBytes(all: readonly Work[]): Promise<Buffer[]> {
    const wanted = all.flatMap(({ series, run }) => run.heads.map(({ firstTs }) => ({ series, firstTs })))
    if (wanted.length === 0) return []
    const { rows } = await this.#client.query<{ points: Buffer }>(
      `select c.points from unnest($1::int4[], $2::int4[], $3::int4[], $4::int8[]) with ordinality as s (tenant_no, device_no, key_no, first_ts, i)
       join telemetry_chunks c on c.tenant_no = s.tenant_no and c.device_no = s.device_no and c.key_no = s.key_no and c.first_ts = s.first_ts
       order by s.i`,
      [
        wanted.map(({ series }) => series.tenantNo),
        wanted.map(({ series }) => series.deviceNo),
        wanted.map(({ series }) => series.keyNo),
        wanted.map(({ firstTs }) => firstTs),
      ],
    )
    if (rows.length !== wanted.length) throw new Error('a chunk vanished while it was merged')
    return rows.map((row) => row.points)
  }

  /** Lets acknowledgements go on after some milliseconds of work. */
  async giveTurn(): Promise<void> {
    if (performance.now() - this.#turnStart < turnMs) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#turnStart = performance.now()
  }
}

function splitAtGaps(series: SeriesPoints): SeriesPoints[] {
  const { points } = series
  const parts: SeriesPoints[] = []
  let start = 0
  for (let i = 1; i <= points.length; i++) {
    if (i < points.length && points[i]!.ts - points[i - 1]!.ts <= clusterMs) continue
    parts.push(start === 0 && i === points.length ? series : { ...series, points: points.slice(start, i) })
    start = i
  }
  return parts
}

/**
 * Changes of chunks, by compaction, deletion or retention, happen one after the other.
 * Waits at most as long as a statement may take.
 */
export async function lockChunks(client: pg.PoolClient): Promise<void> {
  await client.query('select pg_advisory_xact_lock($1)', [chunkLock])
}

/** Any number that no other program on the same database uses. */
const chunkLock = 7_316_204_913
