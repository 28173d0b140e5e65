// SPDX-License-Identifier: AGPL-3.0-only
import type { Verdict } from './checker.ts'

/** How one fault, or one form of it, ended. Not run is never counted as passed [RE-30]. */
export type Result = { id: string; title: string; status: 'PASS' | 'FAIL' | 'NOT RUN'; reason: string; kept?: string | undefined }

const columns = ['acked', 'stored', 'lost', 'duplicates', 'phantoms', 'recovery s'] as const
const width = 12

export function printTitle(id: string, title: string, hasRounds = true): void {
  console.log(`\n${id}  ${title}`)
  if (hasRounds) console.log(`${'round'.padEnd(16)}${columns.map((name) => name.padStart(width)).join('')}  notes`)
}

export function printRound(round: string, verdict: Verdict, recoveryMs: number | undefined, note = ''): void {
  // A message of which only a part is readable is no better than one that should not be there.
  const counts = [verdict.acked, verdict.stored, verdict.lost, verdict.duplicates, verdict.phantoms + verdict.torn]
  const cells = [...counts.map(String), recoveryMs === undefined ? '-' : (recoveryMs / 1000).toFixed(2)]
  console.log(`${round.padEnd(16)}${cells.map((cell) => cell.padStart(width)).join('')}  ${note}`)
  for (const example of verdict.examples) console.log(`    ${example}`)
}

export function printResults(results: readonly Result[]): void {
  console.log('')
  for (const { id, title, status, reason, kept } of results) {
    console.log(`${status.padEnd(8)} ${id.padEnd(12)} ${title}${reason === '' ? '' : `: ${reason}`}`)
    if (kept) console.log(`         kept: ${kept}`)
  }
  const count = (status: Result['status']) => results.filter((result) => result.status === status).length
  console.log(`${count('PASS')} passed, ${count('FAIL')} failed, ${count('NOT RUN')} skipped`)
}
