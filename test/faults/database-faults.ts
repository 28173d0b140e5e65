// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import { isClean } from './checker.ts'
import { createRandom, listTree, monotonicMs, signalLater } from './processes.ts'
import { printRound } from './report.ts'
import type { LoadSession } from './session.ts'

/** Ways to end the database under a living server [F4]. */
const forms = ['postmaster', 'all', 'immediate'] as const

/** From the kill until the next acknowledgement of a message sent after it. */
const resumeWithinMs = 30_000
const restartWithinMs = 5000
/** Acknowledgements of commits from before the kill may still be on their way for so long. */
const lateAckMs = 250

/** The embedded database is killed; the server lives, starts it again, and acknowledges nothing meanwhile [I10]. */
export async function killDatabaseRounds(session: LoadSession, rounds: number, seed: number): Promise<string[]> {
  const problems: string[] = []
  const { installation } = session
  for (let round = 1; round <= rounds; round++) {
    const form = forms[(round - 1) % forms.length]!
    const random = createRandom(seed + round)
    const load = await session.startLoad(seed + round)
    const { pid } = installation
    const postmaster = installation.postmaster!
    const pids = form === 'all' ? listTree(postmaster) : [postmaster]
    const killedAt = await signalLater(pids, form === 'immediate' ? 'QUIT' : 'KILL', 300 + random() * 1500)
    const restartedAt = await waitForPostmaster(installation, postmaster)
    await load.ackedAfter(restartedAt, resumeWithinMs)
    await sleep(500)
    const { ledger, verdict, problems: found } = await session.check(await load.stop())
    const resumedAt = ledger.okAt.find((at) => at > restartedAt)!
    const impossible = ledger.okAt.filter((at) => at > killedAt + lateAckMs && at < restartedAt).length
    printRound(
      `F4 ${round} ${form}`,
      verdict,
      resumedAt - killedAt,
      `database up again after ${((restartedAt - killedAt) / 1000).toFixed(2)} s`,
    )
    problems.push(...found)
    if (!installation.isRunning || installation.pid !== pid) problems.push('the server did not survive its database')
    if (restartedAt - killedAt > restartWithinMs) {
      problems.push(`the database was started again after ${Math.round(restartedAt - killedAt)} ms`)
    }
    if (impossible > 0) problems.push(`${impossible} acknowledgements while no database could commit`)
    if (!isClean(verdict)) problems.push(`round ${round} is not clean`)
  }
  return problems
}

async function waitForPostmaster(installation: LoadSession['installation'], old: number): Promise<number> {
  const deadline = monotonicMs() + resumeWithinMs
  while (monotonicMs() < deadline) {
    const now = installation.postmaster
    if (now !== undefined && now !== old) return monotonicMs()
    await sleep(5)
  }
  throw new Error('the server did not start its database again')
}

/** Random connections of the server are cut; nobody outside notices [F5]. */
export async function terminateBackends(session: LoadSession, count: number, seed: number): Promise<string[]> {
  const { installation } = session
  const random = createRandom(seed)
  const { adminUrl } = (await findRunningDatabase(installation.dataDir))!
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  let writers = 0
  const load = await session.startLoad(seed)
  try {
    for (let cut = 0; cut < count; cut++) {
      await sleep(100 + random() * 200)
      const [row] = await sql<{ name: string }[]>`
        select application_name as name, pg_terminate_backend(pid) from pg_stat_activity where usename = 'iot_pms' order by random() limit 1`
      if (row?.name === 'iot-pms writer') writers++
    }
  } finally {
    await sql.end({ timeout: 5 })
  }
  const cutAt = monotonicMs()
  await load.ackedAfter(cutAt)
  const { ledger, verdict, problems } = await session.check(await load.stop())
  const resumedAt = ledger.okAt.find((at) => at > cutAt)!
  const open = ledger.messages.filter((message) => message.state === 'info').length
  printRound('F5', verdict, resumedAt - cutAt, `${count} connections cut, ${writers} of them the writer's`)
  if (open > 0) problems.push(`${open} messages were left without an answer`)
  if (ledger.httpFailures > 0) problems.push(`${ledger.httpFailures} HTTP answers of class 5`)
  if (writers === 0) problems.push('no connection of the writer was among them')
  if (!isClean(verdict)) problems.push('not clean')
  return problems
}
