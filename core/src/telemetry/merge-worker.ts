// SPDX-License-Identifier: AGPL-3.0-only
import { writeSync } from 'node:fs'
import { setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import type pg from 'pg'
import { createPool } from '../db/pools.ts'
import type { MergeLog } from './chunk-merge.ts'
import { mergeSegments } from './merge-segments.ts'
import type { MergeTask } from './merge-segments.ts'

// The thread of `MergeThread`: merges what it is told to, one task after the other, until it is told to stop.

export type MergeOrder = MergeTask | 'stop'
export type MergeSetup = { pool: pg.PoolConfig; isDebugging: boolean }
export type MergeReport =
  | { error: object; message: string }
  | { done: true }
  | { failed: { message: string; stack: string | undefined; code: unknown; severity: unknown } }

/** Who acknowledges goes first; still a quarter of a core that all want, which is what full load needs. */
const niceness = 5
// On Linux this is the thread alone; elsewhere it would be the whole server.
if (process.platform === 'linux') setPriority(niceness)

const port = parentPort!
const report = (message: MergeReport) => port.postMessage(message)
const { pool: options, isDebugging } = workerData as MergeSetup
const log: MergeLog = {
  // At once, not by way of the other thread: fault tests kill the server at such a line, and mean this moment.
  debug(fields, message) {
    if (isDebugging) writeSync(1, `${JSON.stringify({ level: 'debug', time: new Date().toISOString(), ...fields, msg: message })}\n`)
  },
  error: (fields, message) => report({ error: fields, message }),
}
const pool = createPool(options, () => {})
let isStopped = false

port.on('message', (order: MergeOrder) => {
  if (order === 'stop') {
    isStopped = true
    return
  }
  void mergeSegments(pool, order, log, () => !isStopped).then(
    () => report({ done: true }),
    (error: unknown) => {
      const { message, stack, code, severity } = error as Error & { code?: unknown; severity?: unknown }
      report({ failed: { message, stack, code, severity } })
    },
  )
})
