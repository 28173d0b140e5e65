// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import { isClean } from './checker.ts'
import type { Verdict } from './checker.ts'
import { median } from './kill.ts'
import { Killer } from './killer.ts'
import type { KillOrder } from './log-killer.ts'
import { createRandom, listTree } from './processes.ts'
import { printRound } from './report.ts'
import type { LoadSession } from './session.ts'
import { settleAndInspect, withDatabase } from './store-check.ts'
import type { Stage } from './store-stages.ts'
import { Victims } from './victims.ts'

/** A segment of 1,000 rows per second or so. */
export const storeLoad = { messagesPerS: 1200, isDisordered: true }
/** How long a line of the stage may take to come. */
const lineWithinMs = 20_000
const resumeWithinMs = 30_000
const leastDelayMs = 300

type StoreRound = { verdict: Verdict; ackMs: number; lastStep: string; problems: string[] }

/** One stage over all its rounds: sums, and the median time from the kill to an acknowledgement. */
export type StageResult = { stage: Stage; verdict: Verdict; ackMs: number; note: string; problems: string[] }

/**
 * kill -9 of the server or the whole tree at one stage of the store, round after round; then the tables are
 * inspected.
 *
 * @param isPatient whether the lease of the last killed server ends by itself before the tables are inspected
 */
export async function storeRounds(
  session: LoadSession,
  stage: Stage,
  options: { rounds: number; seed: number; isPatient: boolean },
): Promise<StageResult> {
  const victims = stage.id === 'delete' ? await Victims.create(session.installation) : undefined
  const rounds: StoreRound[] = []
  const problems: string[] = []
  for (let round = 1; round <= options.rounds; round++) {
    const result = await storeRound(session, stage, round, options.seed * 100_003 + round, victims)
    rounds.push(result)
    problems.push(...result.problems.map((problem) => `round ${round}: ${problem}`))
  }
  const steps = Map.groupBy(rounds, ({ lastStep }) => lastStep)
  const note = Array.from(steps, ([step, found]) => `${step} ${found.length}`).join(', ')
  const result = {
    stage,
    verdict: sum(rounds.map(({ verdict }) => verdict)),
    ackMs: median(rounds.map(({ ackMs }) => ackMs)),
    note,
    problems,
  }
  printStage(result)
  const all = await session.checkAll()
  printRound('all so far', all.verdict, undefined, 'everything that was ever sent, read once more')
  if (!isClean(all.verdict)) problems.push('not clean when everything is read once more', ...all.problems)
  if (!options.isPatient) await endLease(session)
  problems.push(...(await settleAndInspect(session, all.verdict.stored)))
  return result
}

/** `note`: the last step in the log, and how many rounds ended there. */
export function printStage({ stage, verdict, ackMs, note }: StageResult): void {
  printRound(`${stage.id} sum`, verdict, ackMs, `median; killed in: ${note}`)
}

async function storeRound(
  session: LoadSession,
  stage: Stage,
  round: number,
  seed: number,
  victims: Victims | undefined,
): Promise<StoreRound> {
  const { installation } = session
  const random = createRandom(seed)
  const isTree = round % 2 === 0
  await endLease(session)
  const killer = await Killer.start()
  const running = await session.startLoad(seed, storeLoad)
  const order = orderOf(stage, victims?.marks ?? installation.logFile, random)
  const pids = isTree ? listTree(installation.pid) : [installation.pid]
  await killer.watch({ ...order, pids, isTree })
  const help = stage.id === 'drop' ? ageSegments(session) : victims ? deleteVictims(victims) : Promise.resolve()
  const helped = help.then(
    () => [],
    (error: unknown) => [String(error)],
  )
  const { killedAt, isMet } = await killer.report()
  await installation.exited()
  const lastStep = findLastStep(installation.log)
  victims?.stop()
  const hindrances = await helped
  const { spawnedAt, readyAt } = await installation.start()
  await running.ackedAfter(readyAt)
  await sleep(300)
  const { ledger, verdict, problems } = await session.check(await running.stop())
  const ackMs = (ledger.okAt.find((at) => at > spawnedAt) ?? Number.POSITIVE_INFINITY) - killedAt
  const checked = await victims?.check(session.readers)
  const notes = [isTree ? 'tree' : 'server', `ready ${((readyAt - killedAt) / 1000).toFixed(2)} s`, `last step: ${lastStep}`]
  if (checked) notes.push(`of the other devices ${checked.whole} whole, ${checked.gone} gone`)
  printRound(`${stage.id} ${round}`, verdict, ackMs, notes.join(', '))
  problems.push(...hindrances, ...(checked?.problems ?? []))
  if (!isMet) problems.push('the stage was not reached before the kill')
  if (ackMs > resumeWithinMs) problems.push(`acknowledging ${Math.round(ackMs)} ms after the kill`)
  if (!isClean(verdict)) problems.push('not clean')
  return { verdict, ackMs, lastStep, problems }
}

function orderOf(stage: Stage, file: string, random: () => number): Omit<KillOrder, 'pids' | 'isTree'> {
  const { line, most, delayMs } = stage
  const watched = { file, withinMs: lineWithinMs }
  if (line === undefined) return { ...watched, text: '', count: 0, delayMs: leastDelayMs + random() * delayMs }
  return { ...watched, text: line, count: 1 + Math.floor(random() * most), delayMs: random() * delayMs }
}

function sum(verdicts: readonly Verdict[]): Verdict {
  const total: Verdict = { acked: 0, stored: 0, lost: 0, duplicates: 0, phantoms: 0, torn: 0, examples: [] }
  for (const verdict of verdicts) {
    for (const count of ['acked', 'stored', 'lost', 'duplicates', 'phantoms', 'torn'] as const) total[count] += verdict[count]
  }
  return total
}

/** What the store did when it was killed. */
function findLastStep(log: string): string {
  return /"telemetry: ([a-z ]+)"/.exec(log.slice(log.lastIndexOf('"telemetry: ')))?.[1] ?? 'none'
}

/** As if half a minute had passed since the kill: the compactor's right of the dead server ends. */
async function endLease({ installation }: LoadSession): Promise<void> {
  await withDatabase(
    installation,
    (sql) => sql`update leases set expires_at = now() where name = 'telemetry-compactor' and expires_at > now()`,
  )
}

/** As if a minute had passed since segments were merged, again and again until the server is gone: their tables may go. */
async function ageSegments({ installation }: LoadSession): Promise<void> {
  const age = async (sql: postgres.Sql) => {
    // Connected by now; the killer comes to know of this connection, too.
    await sql`select 1`
    while (installation.isRunning) {
      await sleep(250)
      await sql`update telemetry_segments set compacted_at = compacted_at - interval '1 minute'
        where state = 'compacted' and compacted_at > now() - interval '1 minute'`
    }
  }
  try {
    // The driver's own first query, for types we do not need, fails where nobody can catch it when the kill comes then.
    await withDatabase(installation, age, { fetch_types: false })
  } catch {
    // The kill of the whole tree ends this connection, too; whether the stage was reached the killer says.
  }
}

async function deleteVictims(victims: Victims): Promise<void> {
  victims.begin()
  await victims.send(0)
  await sleep(1500)
  await victims.send(1)
  await victims.deleteAll()
}
