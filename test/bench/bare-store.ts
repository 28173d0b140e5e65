// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes, randomUUID } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { Audit } from '../../core/src/audit.ts'
import { systemClock } from '../../core/src/clock.ts'
import { readConfig } from '../../core/src/config.ts'
import type { Context } from '../../core/src/context.ts'
import { Db } from '../../core/src/db/client.ts'
import { loadInstallation, loadRootTenant } from '../../core/src/db/installation.ts'
import { migrate } from '../../core/src/db/migrate.ts'
import { ensureDataDir, openDatabase } from '../../core/src/db/open.ts'
import { Jobs } from '../../core/src/jobs/jobs.ts'
import { EventBus } from '../../core/src/events.ts'
import { communityLicense } from '../../core/src/license/snapshot.ts'
import { defaultPayloadRules } from '../../core/src/ingest/registry.ts'
import type { Device } from '../../core/src/ingest/registry.ts'
import { defaultSettings } from '../../core/src/products/settings.ts'
import { createLog } from '../../core/src/log.ts'
import { Secrets } from '../../core/src/secrets.ts'
import { TelemetryLog } from '../../core/src/telemetry/telemetry-log.ts'
import type { TelemetryLogOptions } from '../../core/src/telemetry/telemetry-log.ts'

/** The telemetry store on an embedded database of its own, without a server around it. */
export type BareStore = {
  context: Context
  store: TelemetryLog
  adminUrl: string
  sql: postgres.Sql
  createDevices(count: number): Promise<Device[]>
  close(): Promise<void>
}

export async function openBareStore(options: TelemetryLogOptions = {}): Promise<BareStore> {
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-bench-store-'))
  chmodSync(folder, 0o711)
  const config = readConfig({ IOT_PMS_DATA_DIR: join(folder, 'data') })
  const log = createLog('warn')
  ensureDataDir(config.dataDir)
  const database = await openDatabase(config, log)
  await migrate(database.adminUrl, database.appUrl, log)
  const db = new Db(database.appUrl)
  const rootTenant = await loadRootTenant(db)
  const base = {
    config,
    log,
    clock: systemClock,
    db,
    secrets: new Secrets(randomBytes(32)),
    events: new EventBus(log),
    installId: (await loadInstallation(db)).installId,
    rootTenant,
    audit: new Audit({ db, rootTenant, clock: systemClock, log }),
    license: communityLicense,
  }
  const context: Context = { ...base, jobs: new Jobs(base) }
  const store = new TelemetryLog(context, options)
  await store.start()
  const sql = postgres(database.adminUrl, { max: 2, onnotice: () => {} })
  return {
    context,
    store,
    adminUrl: database.adminUrl,
    sql,
    createDevices: (count) => createDevices(sql, context, count),
    async close() {
      await store.stop()
      await sql.end()
      await db.stop()
      await database.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function createDevices(sql: postgres.Sql, { rootTenant }: Context, count: number): Promise<Device[]> {
  const { tenantId, tenantNo } = rootTenant
  const names = Array.from({ length: count }, () => randomUUID())
  const rows = await sql<{ id: string; number: number; name: string }[]>`
    insert into devices (tenant_id, id, product_id, name)
    select ${tenantId}, n.name::uuid, p.id, n.name from unnest(${names}::text[]) n (name), products p where p.is_default
    returning id, number, name`
  return rows.map(({ id, number, name }) => ({
    tenantId,
    tenantNo,
    id,
    no: number,
    name,
    isDisabled: false,
    isGateway: false,
    settings: defaultSettings,
    rules: defaultPayloadRules,
    inactivityTimeoutMs: 600_000,
    lastServerTs: 0,
  }))
}
