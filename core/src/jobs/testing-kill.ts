// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { systemClock } from '../clock.ts'
import { readConfig } from '../config.ts'
import { Db } from '../db/client.ts'
import { loadInstallation, loadRootTenant } from '../db/installation.ts'
import { EventBus } from '../events.ts'
import { createLog } from '../log.ts'
import { Secrets } from '../secrets.ts'
import { defineJob } from './define.ts'
import { Jobs } from './jobs.ts'

/** Work whose traces can be counted: one row per name. */
export const killWork = defineJob({
  name: 'test-kill',
  title: { zh: '测试', en: 'Test' },
  data: Type.Object({ tenantId: Type.String(), name: Type.String() }),
  batch: 20,
  perNode: 1,
  retry: { strategy: 'times', limit: 20 },
  expireMs: 60_000,
  heartbeatMs: 10_000,
  deadLetter: true,
})

/** A process of its own for tests that kill it: `node testing-kill.ts <database>`. */
if (import.meta.main) {
  const log = createLog('error')
  const db = new Db(process.argv[2] ?? '')
  const base = {
    config: readConfig({}),
    log,
    clock: systemClock,
    db,
    secrets: new Secrets(Buffer.from('0123456789abcdefghijklmnopqrstuv')),
    events: new EventBus(log),
    installId: (await loadInstallation(db)).installId,
    rootTenant: await loadRootTenant(db),
  }
  const jobs = new Jobs(base)
  await jobs.start()
  await jobs.handle(killWork, async ({ data, scope }) => {
    await sleep(Math.random() * 100)
    await db.withTenant(scope, (tx) =>
      tx.execute(
        sql`insert into state_documents (tenant_id, scope, key, value) values (${scope.tenantId}, 'kill', ${data.name}, '{}') on conflict do nothing`,
      ),
    )
  })
}
