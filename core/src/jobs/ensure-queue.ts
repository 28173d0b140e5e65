// SPDX-License-Identifier: AGPL-3.0-only
import type { PgBoss } from 'pg-boss'
import type { TObject } from 'typebox'
import { retryLimitOf } from './define.ts'
import type { JobDef } from './define.ts'

const deadKeptDays = 30
const usualKeepMs = 86_400_000

/** Makes the queue and its dead letters as the definition says, or changes what differs. */
export async function ensureQueue<T extends TObject>(boss: PgBoss, def: JobDef<T>): Promise<void> {
  const deadName = `${def.name}.dead`
  const known = new Map((await boss.getQueues([def.name, deadName])).map((queue) => [queue.name, queue]))
  if (def.deadLetter && !known.has(deadName)) {
    await boss.createQueue(deadName, { retryLimit: 0, retentionSeconds: deadKeptDays * 86_400 })
  }
  const options = {
    retryLimit: retryLimitOf(def.retry),
    expireInSeconds: Math.ceil(def.expireMs / 1000),
    deleteAfterSeconds: Math.ceil((def.keepMs ?? usualKeepMs) / 1000),
    // The library's usual two weeks would take away what is planned for later.
    retentionSeconds: 120 * 86_400,
    notify: true,
  }
  const heartbeatSeconds = def.heartbeatMs === undefined ? undefined : Math.max(10, Math.ceil(def.heartbeatMs / 1000))
  const current = known.get(def.name)
  if (!current) {
    await boss.createQueue(def.name, {
      ...options,
      ...(heartbeatSeconds === undefined ? {} : { heartbeatSeconds }),
      policy: def.exclusive ? 'exclusive' : 'standard',
      ...(def.deadLetter ? { deadLetter: deadName } : {}),
    })
    return
  }
  const isSame =
    Object.entries(options).every(([name, value]) => current[name as keyof typeof options] === value) &&
    (current.heartbeatSeconds ?? undefined) === heartbeatSeconds &&
    (current.deadLetter ?? undefined) === (def.deadLetter ? deadName : undefined)
  if (isSame) return
  await boss.updateQueue(def.name, {
    ...options,
    heartbeatSeconds: heartbeatSeconds ?? null,
    deadLetter: def.deadLetter ? deadName : null,
  })
}
