// SPDX-License-Identifier: AGPL-3.0-only
import { isClean } from './checker.ts'
import type { Verdict } from './checker.ts'
import { createRandom, listTree, signalLater } from './processes.ts'
import { printRound } from './report.ts'
import { messagesPerS } from './session.ts'
import type { LoadSession } from './session.ts'

/** What is killed: the server alone, so that its database is left an orphan, or every process of the tree. */
export type KillForm = 'server' | 'tree'

export type KilledRound = { verdict: Verdict; problems: string[]; messagesPerS: number; readyMs: number; ackMs: number }

/** The kill comes at a random time between these. */
const leastDelayMs = 300
const mostDelayMs = 4000
/** Promises after a kill, kept by the median round: one may meet a machine that is busy with something else. */
const readyWithinMs = 5000
const ackWithinMs = 8000
/** Every round resumes within this [I8]. */
const resumeWithinMs = 30_000

/**
 * One kill -9 under load: the load goes on, another process kills at a random time, the server is
 * started again as a supervisor would, and when acknowledgements flow again everything is compared.
 */
export async function killOnce(session: LoadSession, form: KillForm, label: string, seed: number): Promise<KilledRound> {
  const { installation } = session
  const random = createRandom(seed)
  const load = await session.startLoad(seed)
  const pids = form === 'tree' ? listTree(installation.pid) : [installation.pid]
  const killedAt = await signalLater(pids, 'KILL', leastDelayMs + random() * (mostDelayMs - leastDelayMs))
  await installation.exited()
  const orphan = installation.postmaster
  const { spawnedAt, readyAt } = await installation.start()
  await load.ackedAfter(readyAt)
  // Repeats of what the kill cut off come first; then ordinary load.
  await new Promise((resolve) => setTimeout(resolve, 500))
  const { ledger, verdict, problems } = await session.check(await load.stop())
  const ackedAt = ledger.okAt.find((at) => at > spawnedAt) ?? Number.POSITIVE_INFINITY
  const readyMs = readyAt - killedAt
  const ackMs = ackedAt - killedAt
  if (ackMs > resumeWithinMs) problems.push(`acknowledging ${Math.round(ackMs)} ms after the kill, later than ${resumeWithinMs}`)
  const before = ledger.okAt.filter((at) => at <= killedAt)
  const rate = (1000 * before.length) / Math.max(1, killedAt - (before[0] ?? killedAt))
  const note = `ready ${(readyMs / 1000).toFixed(2)} s, ${Math.round(rate)} msg/s${form === 'server' && orphan ? ', orphan' : ''}`
  printRound(label, verdict, ackMs, note)
  return { verdict, problems, messagesPerS: rate, readyMs, ackMs }
}

/** @returns what was wrong; empty when every round was clean */
export async function killRounds(session: LoadSession, form: KillForm, name: string, rounds: number, seed: number): Promise<string[]> {
  const problems: string[] = []
  const times: KilledRound[] = []
  for (let round = 1; round <= rounds; round++) {
    const result = await killOnce(session, form, `${name} ${round}`, seed * 100_003 + round)
    times.push(result)
    problems.push(...result.problems)
    if (!isClean(result.verdict)) problems.push(`round ${round} is not clean`)
  }
  const all = await session.checkAll()
  const readyMs = median(times.map((one) => one.readyMs))
  const ackMs = median(times.map((one) => one.ackMs))
  printRound(
    `${name} all`,
    all.verdict,
    ackMs,
    `all rounds read once more; medians: ready ${(readyMs / 1000).toFixed(2)} s, first acknowledgement ${(ackMs / 1000).toFixed(2)} s`,
  )
  if (readyMs > readyWithinMs) problems.push(`ready after ${Math.round(readyMs)} ms in the median, later than ${readyWithinMs}`)
  if (ackMs > ackWithinMs) problems.push(`acknowledging after ${Math.round(ackMs)} ms in the median, later than ${ackWithinMs}`)
  if (!isClean(all.verdict)) problems.push('not clean when everything is read once more', ...all.problems)
  return problems
}

/**
 * The negative control: a server that answers before the commit must be caught losing points, at a
 * load at which an honest one loses none [RE-22].
 */
export async function mustLose(
  session: LoadSession,
  name: string,
  rounds: number,
  seed: number,
): Promise<{ isLost: boolean; rounds: number; messagesPerS: number }> {
  let slowest = messagesPerS
  for (let round = 1; round <= rounds; round++) {
    const result = await killOnce(session, 'tree', `${name} ${round}`, seed * 100_003 + round)
    slowest = Math.min(slowest, result.messagesPerS)
    if (result.verdict.lost > 0) return { isLost: true, rounds: round, messagesPerS: slowest }
  }
  return { isLost: false, rounds, messagesPerS: slowest }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? Number.POSITIVE_INFINITY
}
