// SPDX-License-Identifier: AGPL-3.0-only
import { parentPort, workerData } from 'node:worker_threads'
import type pg from 'pg'
import { createPool } from '../db/pools.ts'
import type { MergeLog } from './chunk-merge.ts'
import { mergeSegments } from './merge-segments.ts'
import type { MergeTask } from './merge-segments.ts'

// The thread of `MergeThread`: merges what it is told to, one task after the other, until it is told to stop.

export type MergeOrder = MergeTask | 'stop'
export type MergeReport =
  | { log: 'debug' | 'error'; fields: object; message: string }
  | { done: true }
  | { failed: { message: string; stack: string | undefined; code: unknown; severity: unknown } }

const port = parentPort!
const report = (message: MergeReport) => port.postMessage(message)
const log: MergeLog = {
  debug: (fields, message) => report({ log: 'debug', fields, message }),
  error: (fields, message) => report({ log: 'error', fields, message }),
}
const pool = createPool(workerData as pg.PoolConfig, () => {})
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
