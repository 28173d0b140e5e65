// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import { decodeChunk } from '../../core/src/telemetry/chunk-codec.ts'
import type { Installation } from './installation.ts'
import { monotonicMs } from './processes.ts'
import type { LoadSession } from './session.ts'

/** The compactor of a server that was killed keeps its right for up to 30 s; then its successor has everything merged soon. */
const mergedWithinMs = 60_000
const pollMs = 100

/** Looks into the database of a server, past it, as its superuser. */
export async function withDatabase<T>(
  installation: Installation,
  work: (sql: postgres.Sql) => Promise<T>,
  options: { fetch_types?: boolean } = {},
): Promise<T> {
  const { adminUrl } = (await findRunningDatabase(installation.dataDir))!
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {}, ...options })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

/**
 * What must be true of the store's tables when the load is over. Waits until the segments that were sealed are
 * merged; then the server stops and starts in order, so that the last segment is merged, too.
 */
export async function settleAndInspect(session: LoadSession, readable: number): Promise<string[]> {
  const { installation } = session
  const startedAt = monotonicMs()
  if (!(await waitUntilMerged(installation))) return [`sealed segments were not merged ${mergedWithinMs} ms after the load`]
  const takeoverMs = monotonicMs() - startedAt
  await installation.stop()
  await installation.start()
  if (!(await waitUntilMerged(installation))) return ['what the server left when it stopped was not merged after its start']
  const problems = await withDatabase(installation, (sql) => inspect(sql, session.deviceIds, readable))
  console.log(
    `    ${problems.length === 0 ? 'sound' : 'NOT SOUND'}: everything merged ${(takeoverMs / 1000).toFixed(1)} s after the load; ` +
      `tables, chunks and ${readable} points inspected`,
  )
  return problems
}

export async function waitUntilMerged(installation: Installation): Promise<boolean> {
  return withDatabase(installation, async (sql) => {
    for (let waited = 0; waited < mergedWithinMs; waited += pollMs) {
      const [row] = await sql<{ count: number }[]>`select count(*)::int4 as count from telemetry_segments where state = 'sealed'`
      if (row!.count === 0) return true
      await sleep(pollMs)
    }
    return false
  })
}

/** Faults of the tables themselves, each as a sentence; all points of the devices are in chunks. */
export async function inspect(sql: postgres.Sql, deviceIds: readonly string[], readable: number): Promise<string[]> {
  const problems: string[] = []
  const orphans = await sql<{ name: string; has_table: boolean }[]>`
    select coalesce(c.relname, 'telemetry_segment_' || s.segment_no) as name, c.oid is not null as has_table
    from (select oid, relname from pg_class where relkind = 'r' and relname ~ '^telemetry_segment_[0-9]+$') c
    full join telemetry_segments s on c.relname = 'telemetry_segment_' || s.segment_no
    where c.oid is null or s.segment_no is null`
  for (const { name, has_table } of orphans) problems.push(`${name} has ${has_table ? 'a table, but is not listed' : 'no table'}`)

  const states = await sql<{ state: string; count: number }[]>`select state, count(*)::int4 as count from telemetry_segments group by 1`
  const active = states.find(({ state }) => state === 'active')?.count ?? 0
  if (active !== 1) problems.push(`${active} segments are active though one server runs`)

  const [overlaps] = await sql<{ count: number }[]>`
    select count(*)::int4 as count from (
      select first_ts, lag(last_ts) over (partition by tenant_no, device_no, key_no order by first_ts) as before from telemetry_chunks) c
    where c.first_ts <= c.before`
  if (overlaps!.count > 0) problems.push(`${overlaps!.count} chunks overlap the chunk before them`)

  const [damaged] = await sql<{ count: number }[]>`select count(*)::int4 as count from telemetry_damaged_chunks`
  if (damaged!.count > 0) problems.push(`${damaged!.count} chunks were put aside as damaged`)

  problems.push(...(await inspectChunks(sql, deviceIds, readable)))
  return problems
}

/** Each chunk is what its row says of it, and together they hold each readable point once. */
async function inspectChunks(sql: postgres.Sql, deviceIds: readonly string[], readable: number): Promise<string[]> {
  const problems: string[] = []
  let total = 0
  const chunks = sql<{ count: number; first_ts: string; last_ts: string; points: Buffer }[]>`
    select c.count, c.first_ts, c.last_ts, c.points from telemetry_chunks c
    join tenants t on t.number = c.tenant_no join devices d on d.tenant_id = t.id and d.number = c.device_no
    where d.id = any(${[...deviceIds]})`.cursor(200)
  for await (const rows of chunks) {
    for (const { count, first_ts, last_ts, points: bytes } of rows) {
      const points = decodeChunk(bytes)
      total += count
      const isTrue = points.length === count && points[0]!.ts === Number(first_ts) && points.at(-1)!.ts === Number(last_ts)
      if (!isTrue) problems.push(`the chunk from ${first_ts} to ${last_ts} of ${count} points holds something else`)
    }
  }
  if (total !== readable) problems.push(`chunks hold ${total} points, ${readable} are readable`)
  return problems
}
