// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { StartError, exitCodes } from '../errors.ts'

type Holder = { pid: number; startedAt: string }

/** A server that is stopping drains for up to 10 s; a new start waits for it. */
const waitMs = 20_000

/**
 * One server per data folder. A lock left by a killed server is taken over: its process is gone,
 * or its number belongs to another one by now.
 *
 * @returns releases the lock
 * @param patienceMs how long a server that may be stopping is waited for
 * @throws {StartError} `ANOTHER_INSTANCE` when the other server is still there after that
 */
export async function lockInstance(dataDir: string, patienceMs = waitMs): Promise<() => void> {
  const file = join(dataDir, 'server.pid')
  const me: Holder = { pid: process.pid, startedAt: startOf(process.pid) }
  for (let waited = 0; ; waited += 100) {
    const holder = readHolder(file)
    if (holder && holder.pid !== me.pid && holder.startedAt === startOf(holder.pid)) {
      if (waited < patienceMs) {
        await sleep(100)
        continue
      }
      throw new StartError(
        'ANOTHER_INSTANCE',
        exitCodes.otherInstance,
        `Another server (process ${holder.pid}) uses the data folder ${dataDir}.`,
        `Stop it first (kill ${holder.pid}), or give this one another IOT_PMS_DATA_DIR.`,
      )
    }
    rmSync(file, { force: true })
    try {
      writeFileSync(file, JSON.stringify(me), { flag: 'wx', mode: 0o600 })
    } catch (error) {
      // Two starts at the same moment: the other one was quicker.
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
      throw error
    }
    return () => {
      if (readHolder(file)?.pid === me.pid) rmSync(file, { force: true })
    }
  }
}

/** The process that has this data folder now. */
export function findInstance(dataDir: string): number | undefined {
  const holder = readHolder(join(dataDir, 'server.pid'))
  return holder && holder.startedAt === startOf(holder.pid) ? holder.pid : undefined
}

function readHolder(file: string): Holder | undefined {
  if (!existsSync(file)) return undefined
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Holder
  } catch {
    return undefined
  }
}

/** What tells two processes with one number apart: the start time of Linux, else only that it lives; '' when it is dead. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Fields after the command name, which may itself hold blanks and brackets; the state is the first, the start time the 20th.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? '' : (fields[19] ?? '')
  } catch {
    if (process.platform === 'linux') return ''
  }
  try {
    process.kill(pid, 0)
    return 'alive'
  } catch {
    return ''
  }
}
