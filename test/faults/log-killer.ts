// SPDX-License-Identifier: AGPL-3.0-only
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { listTree, monotonicMs } from './processes.ts'

/** What is waited for in a growing file, and who is killed then. */
export type KillOrder = {
  file: string
  /** Text of the line. */
  text: string
  /** Lines that have to come. */
  count: number
  /** From the last of them to the kill. */
  delayMs: number
  /** Gathered before the waiting starts [RE-15]; of a whole tree the first one, and the rest anew all the time. */
  pids: readonly number[]
  isTree: boolean
  /** Without the line the kill comes then, and the round does not count for its stage. */
  withinMs: number
}

export type KillReport = { killedAt: number; isMet: boolean }

const pollMs = 1
/** A backend that outlives the others may wait for ever for a lock of a dead one, and keeps the cluster from starting. */
const listMs = 100
const lineFeed = 0x0a

/** A process of its own, forked by `killer.ts`: takes one order, watches, kills, reports, ends. */
async function run(order: KillOrder): Promise<void> {
  const file = openSync(order.file, 'a+')
  let at = fstatSync(file).size
  let rest = Buffer.alloc(0)
  let found = 0
  const buffer = Buffer.allocUnsafe(1024 * 1024)
  const deadline = monotonicMs() + order.withinMs
  let { pids } = order
  let listedAt = monotonicMs()
  process.send?.('watching')
  while (found < order.count && monotonicMs() < deadline) {
    const length = readSync(file, buffer, 0, buffer.length, at)
    at += length
    const bytes = Buffer.concat([rest, buffer.subarray(0, length)])
    const end = bytes.lastIndexOf(lineFeed) + 1
    rest = Buffer.from(bytes.subarray(end))
    found += bytes.toString('utf8', 0, end).split(order.text).length - 1
    if (length > 0) continue
    if (order.isTree && monotonicMs() - listedAt > listMs) {
      pids = listTree(order.pids[0]!)
      listedAt = monotonicMs()
    }
    await sleep(pollMs)
  }
  if (found >= order.count) await sleep(order.delayMs)
  for (const pid of pids) kill(pid)
  const report: KillReport = { killedAt: monotonicMs(), isMet: found >= order.count }
  closeSync(file)
  process.send?.(report, () => process.disconnect?.())
}

/** A process may have ended by itself meanwhile. */
function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

process.once('message', (order) => void run(order as KillOrder))
