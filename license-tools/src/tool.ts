// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { userInfo } from 'node:os'
import type { Arguments, OptionTable } from './arguments.ts'
import { usageError } from './arguments.ts'
import type { Text } from './errors.ts'
import { Ledger } from './ledger.ts'
import type { Result, Terminal } from './terminal.ts'

/** What every command gets. */
export type Tool = {
  args: Arguments
  terminal: Terminal
  env: NodeJS.ProcessEnv
  actor: string
  folder: string
  /** The time of this call; [T-7] another one only in a test ledger. */
  now: Date
  /** Set once a test ledger is open: everything then says TEST. */
  isTest: boolean
  /** True once the user has pressed Ctrl-C. */
  isInterrupted(): boolean
}

export type Command = {
  /** As after `license-tools `. */
  usage: string
  about: Text
  options?: OptionTable
  /** How many positional arguments there are; none when left out. */
  positionals?: { least: number; most: number }
  isHidden?: boolean
  run(tool: Tool): Promise<Result> | Result
}

/** @param args of the call @param env for IOT_PMS_LEDGER and passphrases */
export function createTool(args: Arguments, terminal: Terminal, env: NodeJS.ProcessEnv, isInterrupted: () => boolean): Tool {
  return {
    args,
    terminal,
    env,
    actor: args.text('actor') ?? findUser(),
    folder: args.text('ledger') ?? env.IOT_PMS_LEDGER ?? 'ledger',
    now: args.date('now') ?? new Date(),
    isTest: false,
    isInterrupted,
  }
}

/** Opens the ledger of this call for reading. */
export function openLedger(tool: Tool): Ledger {
  const ledger = Ledger.open(tool.folder)
  if (tool.args.text('now') !== undefined && !ledger.config.test) {
    throw usageError('--now 只能用于以 init --test 建立的台账', '--now works only in a ledger made with init --test')
  }
  tool.isTest = ledger.config.test
  return ledger
}

/** Runs a change under the ledger's lock. */
export async function withLock<T>(tool: Tool, ledger: Ledger, change: () => Promise<T> | T): Promise<T> {
  const takenFrom = await ledger.lock()
  try {
    if (takenFrom !== undefined) {
      tool.terminal.note('LOCK_TAKEN_OVER', {
        zh: `进程 ${takenFrom} 已不在，接管了它的锁。`,
        en: `Process ${takenFrom} is gone; its lock was taken over.`,
      })
    }
    return await change()
  } finally {
    ledger.close()
  }
}

/** Appends in the name of the user of this call. */
export function record(tool: Tool, ledger: Ledger, act: Parameters<Ledger['append']>[0], body: Record<string, unknown>) {
  return ledger.append(act, body, tool.actor, tool.now)
}

export function formatDay(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 10)
}

export function formatInstant(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
}

/** Columns under their titles, for people. */
export function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => widthOf(row[column] ?? '')))) ?? []
  return rows.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat(column === row.length - 1 ? 0 : widths[column]! - widthOf(cell)))
      .join('  ')
      .trimEnd(),
  )
}

/** Chinese characters take two columns. */
function widthOf(text: string): number {
  return [...text].reduce(
    (sum, char) => sum + (/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]/.test(char) ? 2 : 1),
    0,
  )
}

function findUser(): string {
  try {
    return userInfo().username
  } catch {
    // A numeric user of a container has no name.
    return `uid-${process.getuid?.() ?? 'unknown'}`
  }
}
