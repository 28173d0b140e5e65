// SPDX-License-Identifier: AGPL-3.0-only
import { Registry } from 'prom-client'
import { Audit } from '../audit.ts'
import { systemClock } from '../clock.ts'
import { readConfig } from '../config.ts'
import type { Context } from '../context.ts'
import { Db } from '../db/client.ts'
import { loadInstallation, loadRootTenant } from '../db/installation.ts'
import { EventBus } from '../events.ts'
import { Jobs } from '../jobs/jobs.ts'
import { communityLicense } from '../license/snapshot.ts'
import { createLog } from '../log.ts'
import { Outbound } from '../outbound.ts'
import { Secrets } from '../secrets.ts'
import { NotificationHub } from './hub.ts'
import { notifyDrain, notifyEscalate, notifyFallback, notifyFlush, notifyRelease, notifySend } from './queues.ts'

/** All processes of a test open the same sealed secrets. */
export const killSecrets = new Secrets(Buffer.from('0123456789abcdefghijklmnopqrstuv'))
const config = readConfig({ IOT_PMS_OUTBOUND_ALLOW: '127.0.0.1' })

export function createKillHub(context: Context): NotificationHub {
  return new NotificationHub(context, { outbound: new Outbound(config.outbound, () => []), metrics: new Registry() })
}

/** The queues without anybody who works on them. */
export async function declareQueues({ jobs }: Context): Promise<void> {
  await jobs.start()
  await jobs.declare(notifySend)
  await jobs.declare(notifyDrain)
  await jobs.declare(notifyFallback)
  await jobs.declare(notifyFlush)
  await jobs.declare(notifyRelease)
  await jobs.declare(notifyEscalate)
}

/**
 * A process of its own for tests that kill it: `node testing-kill.ts <database> work` sends what waits,
 * `… raise <count>` takes alerts and messages, never sends, and waits in the middle of one more.
 */
if (import.meta.main) {
  const log = createLog('error')
  const db = new Db(process.argv[2] ?? '')
  const rootTenant = await loadRootTenant(db)
  const base = {
    config,
    log,
    clock: systemClock,
    db,
    secrets: killSecrets,
    events: new EventBus(log),
    installId: (await loadInstallation(db)).installId,
    rootTenant,
    license: communityLicense,
    audit: new Audit({ db, rootTenant, clock: systemClock, log }),
  }
  const context: Context = { ...base, jobs: new Jobs(base) }
  const hub = createKillHub(context)
  if (process.argv[3] === 'work') {
    await context.jobs.start()
    await hub.start()
  } else {
    await declareQueues(context)
    const count = Number(process.argv[4])
    for (let i = 0; i <= count; i++) {
      await db.withTenant(rootTenant, async (tx) => {
        const labels = { severity: 'critical', alert: `alert-${i}` }
        await hub.raise(tx, rootTenant, { id: `alert-${i}`, status: 'firing', labels, data: { title: `alert-${i}` } })
        const to = [{ receiver: 'ops' }]
        await hub.messages.accept(tx, rootTenant, { to, text: `message-${i}`, dedupKey: `message-${i}`, createdBy: 'test' })
        if (i < count) return
        // Written and not committed: nobody may ever hear of this one.
        process.stdout.write('ready\n')
        await new Promise(() => setInterval(() => {}, 1000))
      })
    }
  }
}
