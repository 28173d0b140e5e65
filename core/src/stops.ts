// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from './log.ts'

/** How a part is stopped, and how long the rest waits for it. */
export type Stop = (() => Promise<void> | void) & { limitMs?: number }

const usualLimitMs = 500

/** The last part started is the first one stopped. One that hangs, on a database that does not answer, holds up no other. */
export async function runBackwards(stops: Stop[], log: Log): Promise<void> {
  for (const stop of stops.splice(0).reverse()) {
    const isDone = Promise.resolve()
      .then(stop)
      .catch((error: unknown) => log.error({ err: error }, 'a part did not stop cleanly'))
    await Promise.race([isDone, sleep(stop.limitMs ?? usualLimitMs, undefined, { ref: false })])
  }
}
