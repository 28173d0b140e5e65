// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import type { StoreStats } from './store.ts'

type Row = {
  active: number
  sealed: number
  waiting_rows: string | null
  oldest: Date | null
  segment_bytes: string | null
  chunks: string
  points: string | null
  chunk_bytes: string
  index_bytes: string
  damaged: string
  first_bytes: string | null
}

/** Looks through all chunks' heads: seconds with many millions of them. */
export async function readStats(keeper: pg.Pool): Promise<StoreStats> {
  const { rows } = await keeper.query<Row>(
    `select s.*, c.*, pg_table_size('telemetry_chunks') as chunk_bytes, pg_indexes_size('telemetry_chunks') as index_bytes,
       (select count(*) from telemetry_damaged_chunks) as damaged,
       (select sum(pg_total_relation_size(inhrelid)) from pg_inherits where inhparent = to_regclass('public.telemetry')) as first_bytes
     from (select count(*) filter (where state = 'active')::int4 as active, count(*) filter (where state = 'sealed')::int4 as sealed,
         sum(row_count) filter (where state = 'sealed') as waiting_rows, min(sealed_at) filter (where state = 'sealed') as oldest,
         sum(pg_total_relation_size(to_regclass('public.telemetry_segment_' || segment_no))) as segment_bytes from telemetry_segments) s,
       (select count(*) as chunks, sum(count) as points from telemetry_chunks) c`,
  )
  const row = rows[0]!
  const points = Number(row.points ?? 0)
  const bytes = { segments: Number(row.segment_bytes ?? 0), chunks: Number(row.chunk_bytes), indexes: Number(row.index_bytes) }
  return {
    segments: {
      active: row.active,
      sealed: row.sealed,
      waitingRows: Number(row.waiting_rows ?? 0),
      oldestSealedAt: row.oldest?.toISOString() ?? null,
    },
    chunks: Number(row.chunks),
    points,
    bytes,
    bytesPerPoint: points > 0 ? (bytes.chunks + bytes.indexes) / points : null,
    damaged: Number(row.damaged),
    firstStoreBytes: Number(row.first_bytes ?? 0),
  }
}
