// SPDX-License-Identifier: AGPL-3.0-only
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import { EmbeddedPostgres } from './db/embedded.ts'
import { migrate } from './db/migrate.ts'
import { createLog } from './log.ts'

declare module 'vitest' {
  interface ProvidedContext {
    adminUrl: string
    appUrl: string
  }
}

/** Name of the migrated database that each test's own database is copied from. */
export const templateName = 'iot_pms_template'

/** Starts one real PostgreSQL for the whole run; every test file takes databases of its own from it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // A folder any system user can reach: as root, PostgreSQL runs as another one.
  const dataDir = mkdtempSync(join('/tmp', 'iot-pms-test-'))
  const log = createLog('error')
  const server = new EmbeddedPostgres({ dataDir, user: undefined, log, settings: { max_connections: '200' } })
  await allowPassing(dataDir)
  await server.start()
  const template = server.adminUrl.replace(/[^/]+$/, templateName)
  const sql = postgres(server.adminUrl, { max: 1, onnotice: () => {} })
  await sql`create database ${sql(templateName)}`
  await sql.end()
  await migrate(template, server.appUrl, log)
  project.provide('adminUrl', server.adminUrl)
  project.provide('appUrl', server.appUrl)
  return async () => {
    await server.stop()
    if (!process.env['CI'] && project.vitest.state.getCountOfFailedTests() > 0) {
      console.log(`databases of the failed tests are kept in ${dataDir}`)
      return
    }
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function allowPassing(dataDir: string): Promise<void> {
  const { chmod } = await import('node:fs/promises')
  await chmod(dataDir, 0o711)
}
