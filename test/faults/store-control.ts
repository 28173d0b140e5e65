// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import type { Verdict } from './checker.ts'
import { printRound } from './report.ts'
import type { LoadSession } from './session.ts'
import { inspect, waitUntilMerged, withDatabase } from './store-check.ts'

/** Long enough for a segment or two to be merged. */
const loadMs = 2500
/** No repeats: a point that is taken away here stands nowhere else. */
const load = { messagesPerS: 1200 }

type Damage = {
  title: string
  /** @returns how many rows it changed */
  make: (sql: postgres.Sql) => Promise<number>
  repair?: (sql: postgres.Sql) => Promise<void>
  isSeen: (verdict: Verdict) => boolean
}

const damages: readonly Damage[] = [
  {
    // The first one: later runs go on in the chunks of this one, and do not read what is before them.
    title: 'a chunk is there twice',
    make: doubleChunk,
    repair: async (sql) => {
      await sql`delete from telemetry_chunks c using telemetry_chunks o
        where (c.tenant_no, c.device_no, c.key_no, c.first_ts + 1) = (o.tenant_no, o.device_no, o.key_no, o.first_ts) and c.last_ts = o.last_ts`
    },
    isSeen: (verdict) => verdict.duplicates > 0,
  },
  {
    title: 'a chunk is taken away',
    make: async (sql) => {
      const rows = await sql`delete from telemetry_chunks c using (select * from telemetry_chunks order by last_ts desc limit 1) o
        where (c.tenant_no, c.device_no, c.key_no, c.first_ts) = (o.tenant_no, o.device_no, o.key_no, o.first_ts)`
      return rows.count
    },
    isSeen: (verdict) => verdict.lost > 0,
  },
  {
    title: 'a row of the active segment is taken away',
    make: async (sql) => {
      const [active] = await sql<{ no: number }[]>`select segment_no as no from telemetry_segments where state = 'active'`
      const table = sql(`telemetry_segment_${active!.no}`)
      const rows = await sql`delete from ${table} where ctid = (select ctid from ${table} order by seq desc limit 1)`
      return rows.count
    },
    isSeen: (verdict) => verdict.lost > 0,
  },
]

/** The checks of the store must see what the test itself breaks. @returns `CONTROL VOID` for each they do not see */
export async function storeControl(session: LoadSession, seed: number): Promise<string[]> {
  const { installation } = session
  const problems: string[] = []
  for (const [index, { title, make, repair, isSeen }] of damages.entries()) {
    const running = await session.startLoad(seed + index, load)
    await sleep(loadMs)
    const ledger = await running.stop()
    await waitUntilMerged(installation)
    const changed = await withDatabase(installation, make)
    const { verdict } = await session.check(ledger)
    if (repair) await withDatabase(installation, repair)
    printRound(`control ${index + 1}`, verdict, undefined, title)
    if (changed !== 1) problems.push(`CONTROL VOID: ${title}: ${changed} rows changed`)
    else if (!isSeen(verdict)) problems.push(`CONTROL VOID: ${title}, and the check stayed green`)
  }
  const found = await withDatabase(installation, async (sql) => {
    await doubleChunk(sql)
    await sql`create table telemetry_segment_999999 (points bytea)`
    await sql`insert into telemetry_segments (segment_no, owner, state) overriding system value values (999998, gen_random_uuid(), 'compacted')`
    return inspect(sql, session.deviceIds, 0)
  })
  const wanted = [
    'telemetry_segment_999999 has a table',
    'telemetry_segment_999998 has no table',
    'overlap',
    'holds something else',
    'chunks hold',
  ]
  for (const text of wanted) {
    if (!found.some((problem) => problem.includes(text))) problems.push(`CONTROL VOID: the inspection does not say "${text}"`)
  }
  console.log(`    the inspection says: ${found.slice(0, 4).join('; ')} …`)
  return problems
}

async function doubleChunk(sql: postgres.Sql): Promise<number> {
  const rows = await sql`insert into telemetry_chunks
    select tenant_no, device_no, key_no, count, first_ts - 1, last_ts, min, max, sum, growth, kinds, ends, hour_marks, hour_values, points
    from telemetry_chunks order by last_ts desc limit 1`
  return rows.count
}
