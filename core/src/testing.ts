// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { inject, onTestFinished } from 'vitest'
import { systemClock } from './clock.ts'
import { readConfig } from './config.ts'
import type { Config } from './config.ts'
import type { Context } from './context.ts'
import { Db } from './db/client.ts'
import { loadInstallation, loadRootTenant } from './db/installation.ts'
import { EventBus } from './events.ts'
import { createLog } from './log.ts'
import { Secrets } from './secrets.ts'
import { templateName } from './testing-database.ts'

/** A migrated database of its own on the run's real PostgreSQL. */
export type TestDatabase = { url: string; adminUrl: string; drop(): Promise<void> }

/** @returns a fresh database; `drop` removes it (a failed test leaves it behind). */
export async function createTestDatabase(): Promise<TestDatabase> {
  const name = `t_${randomBytes(6).toString('hex')}`
  const adminUrl = inject('adminUrl').replace(/[^/]+$/, name)
  const sql = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
  try {
    await sql`create database ${sql(name)} template ${sql(templateName)}`
  } finally {
    await sql.end()
  }
  return {
    url: inject('appUrl').replace(/[^/]+$/, name),
    adminUrl,
    async drop() {
      const admin = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
      await admin`drop database if exists ${admin(name)} with (force)`
      await admin.end()
    },
  }
}

export type TestContext = Context & { database: TestDatabase; close(): Promise<void> }

/** A context on a database of its own, without listeners. Close it in `afterAll`. */
export async function createTestContext(change: Partial<Config> = {}): Promise<TestContext> {
  const database = await createTestDatabase()
  const dataDir = mkdtempSync(join('/tmp', 'iot-pms-data-'))
  const config: Config = { ...readConfig({ IOT_PMS_DATA_DIR: dataDir, IOT_PMS_HTTP_PORT: '0', IOT_PMS_MQTT_PORT: '0', DATABASE_URL: database.url, IOT_PMS_MIGRATE_URL: database.adminUrl }), ...change }
  const log = createLog('error')
  const db = new Db(database.url)
  const installation = await loadInstallation(db)
  return {
    config,
    log,
    clock: systemClock,
    db,
    secrets: new Secrets(randomBytes(32)),
    events: new EventBus(log),
    installId: installation.installId,
    rootTenant: await loadRootTenant(db),
    database,
    async close() {
      await db.stop()
      await database.drop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

/** The same, closed when the calling test ends. */
export async function useTestContext(change: Partial<Config> = {}): Promise<TestContext> {
  const context = await createTestContext(change)
  onTestFinished(() => context.close())
  return context
}
