// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { Lease } from '../db/lease.ts'
import type { Jobs } from './jobs.ts'

/**
 * Runs `run` in one process of the cluster at a time, again and again, until `signal` aborts [jobs 7.2]: the row is
 * on the database's clock and renewed at a third of its life. When it is lost, the run's own signal aborts at once,
 * and before that time is over nobody else begins. `epoch` grows with every holder; who writes passes it on.
 */
export async function holdLease(
  jobs: Pick<Jobs, 'boss'>,
  name: string,
  { ttlMs, signal }: { ttlMs: number; signal: AbortSignal },
  run: (epoch: number, lost: AbortSignal) => Promise<void>,
): Promise<void> {
  const lease = new Lease(name, ttlMs / 1000)
  const database = jobs.boss.getDb()
  const query = { query: (text: string, values: unknown[]) => database.executeSql(text, values) }
  const acquire = () => lease.acquire(query as unknown as Parameters<Lease['acquire']>[0]).catch(() => false)
  while (!signal.aborted) {
    if (await acquire()) await holdOnce(lease, acquire, ttlMs, signal, run)
    await lease.release(query as unknown as Parameters<Lease['release']>[0]).catch(() => undefined)
    await sleep(ttlMs / 3, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

async function holdOnce(
  lease: Lease,
  acquire: () => Promise<boolean>,
  ttlMs: number,
  signal: AbortSignal,
  run: (epoch: number, lost: AbortSignal) => Promise<void>,
): Promise<void> {
  const lost = new AbortController()
  let heldUntil = performance.now() + ttlMs
  let renewing = false
  const timer = setInterval(() => {
    // Nobody says that it is lost when the database does not answer: the own clock has to.
    if (performance.now() >= heldUntil) return lost.abort(new Error('the lease was not renewed in time'))
    if (renewing) return
    renewing = true
    const askedAt = performance.now()
    void acquire().then((isOurs) => {
      renewing = false
      if (isOurs) heldUntil = askedAt + ttlMs
    })
  }, ttlMs / 3)
  timer.unref()
  try {
    await run(lease.epoch, AbortSignal.any([signal, lost.signal]))
  } finally {
    clearInterval(timer)
  }
}
