// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import { isClean } from './checker.ts'
import { createRandom, monotonicMs } from './processes.ts'
import { printRound } from './report.ts'
import type { LoadSession } from './session.ts'
import { settleAndInspect, withDatabase } from './store-check.ts'
import { storeLoad } from './store.ts'

/** What a connection does when it is cut, in turn; `where` is ours, nothing of it comes from outside. */
const aims = [
  { name: 'reading segments', where: `state = 'active' and query like 'copy (%to stdout%'` },
  { name: 'in a transaction', where: `state in ('active', 'idle in transaction') and xact_start is not null` },
  { name: 'idle', where: `state = 'idle'` },
] as const

/** Longer than it takes until the next segment is merged. */
const aimMs = 5000
const mergedWithinMs = 30_000

/** Connections that seal, merge and drop are cut under load, mostly in the middle of their work. */
export async function cutKeepers(session: LoadSession, cuts: number, seed: number): Promise<string[]> {
  const { installation } = session
  const random = createRandom(seed)
  const { pid } = installation
  const running = await session.startLoad(seed, storeLoad)
  const hits = new Map<string, number>(aims.map(({ name }) => [name, 0]))
  const cutAt = await withDatabase(installation, async (sql) => {
    for (let cut = 0; cut < cuts; cut++) {
      await sleep(50 + random() * 200)
      // One that is not met in time gives its turn to the next: connections are always idle now and then.
      for (let turn = cut; ; turn++) {
        const { name, where } = aims[turn % aims.length]!
        if (!(await cutOne(sql, where))) continue
        hits.set(name, hits.get(name)! + 1)
        break
      }
    }
    return monotonicMs()
  })
  await running.ackedAfter(cutAt)
  const hasMerged = await withDatabase(installation, waitForMerge)
  const { ledger, verdict, problems } = await session.check(await running.stop())
  const open = ledger.messages.filter((message) => message.state === 'info').length
  const note = Array.from(hits, ([name, count]) => `${count} ${name}`).join(', ')
  printRound('cut', verdict, undefined, `connections cut: ${note}`)
  if (!installation.isRunning || installation.pid !== pid) problems.push('the server ended')
  if (!hasMerged) problems.push('nothing was merged any more')
  if (open > 0) problems.push(`${open} messages were left without an answer`)
  for (const [name, count] of hits) if (count === 0) problems.push(`no connection was cut while it was ${name}`)
  if (!isClean(verdict)) problems.push('not clean')
  problems.push(...(await settleAndInspect(session, (await session.checkAll()).verdict.stored)))
  return problems
}

/** @returns whether one was met in time */
async function cutOne(sql: postgres.Sql, where: string): Promise<boolean> {
  const deadline = monotonicMs() + aimMs
  while (monotonicMs() < deadline) {
    const [row] = await sql.unsafe<{ cut: boolean }[]>(`select pg_terminate_backend(pid) as cut from pg_stat_activity
      where application_name = 'iot-pms keeper' and datname = current_database() and ${where} order by random() limit 1`)
    if (row?.cut) return true
  }
  return false
}

async function waitForMerge(sql: postgres.Sql): Promise<boolean> {
  const [start] = await sql<{ at: Date }[]>`select clock_timestamp() as at`
  for (let waited = 0; waited < mergedWithinMs; waited += 100) {
    const [row] = await sql<{ found: boolean }[]>`select exists (select from telemetry_segments where compacted_at > ${start!.at}) as found`
    if (row!.found) return true
    await sleep(100)
  }
  return false
}
