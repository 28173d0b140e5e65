// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { inject } from 'vitest'
import { Audit } from './audit.ts'
import { systemClock } from './clock.ts'
import { readConfig } from './config.ts'
import type { Config } from './config.ts'
import type { Context } from './context.ts'
import { Db } from './db/client.ts'
import { loadInstallation, loadRootTenant } from './db/installation.ts'
import { EventBus } from './events.ts'
import { Jobs } from './jobs/jobs.ts'
import { communityLicense } from './license/snapshot.ts'
import { createLog } from './log.ts'
import { Secrets } from './secrets.ts'
import { startPlatform } from './start.ts'
import type { Platform, PlatformParts } from './start.ts'
import { decodeRows } from './telemetry/segment-rows.ts'
import { tableOf } from './telemetry/segment-sql.ts'
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
  const config: Config = {
    ...readConfig({
      IOT_PMS_DATA_DIR: dataDir,
      IOT_PMS_HTTP_PORT: '0',
      IOT_PMS_MQTT_PORT: '0',
      IOT_PMS_MQTTS_PORT: 'off',
      DATABASE_URL: database.url,
      IOT_PMS_MIGRATE_URL: database.adminUrl,
    }),
    ...change,
  }
  const log = createLog('error')
  const db = new Db(database.url)
  const installation = await loadInstallation(db)
  const rootTenant = await loadRootTenant(db)
  const context = {
    config,
    log,
    clock: systemClock,
    db,
    secrets: new Secrets(randomBytes(32)),
    events: new EventBus(log),
    installId: installation.installId,
    rootTenant,
    license: communityLicense,
    audit: new Audit({ db, rootTenant, clock: systemClock, log }),
  }
  const jobs = new Jobs(context)
  return {
    ...context,
    jobs,
    database,
    async close() {
      await jobs.stop(1000)
      await db.stop()
      await database.drop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

/** Points in segments and chunks; one that is in both, written again since, counts twice. */
export async function countStoredPoints({ db }: Context): Promise<number> {
  return db.withRole('pms_store', async (tx) => {
    const [chunks] = await tx.execute<{ points: string }>('select coalesce(sum(count), 0) as points from telemetry_chunks')
    const segments = await tx.execute<{ no: number }>(`select segment_no as no from telemetry_segments where state <> 'compacted'`)
    let points = Number(chunks!.points)
    for (const { no } of segments) {
      const rows = await tx.execute<{ points: Buffer }>(`select points from ${tableOf(no)}`)
      for (const row of rows) points += decodeRows(row.points).toArray().length
    }
    return points
  })
}

export type TestAnswer = { status: number; headers: Headers; text: string; json: <T = Record<string, unknown>>() => T }
type CallOptions = { body?: unknown; token?: string | null; headers?: Record<string, string> }

/** A whole server on free ports, with an administrator who is signed in. Close it in `afterAll`. */
export type TestPlatform = Platform & {
  url: string
  token: string
  /** Calls the REST API over HTTP; as the administrator unless `token` says otherwise (null: nobody). */
  call(method: string, path: string, options?: CallOptions): Promise<TestAnswer>
  /** Creates a device by the API; the name is made up when none is given. */
  createDevice(wanted?: Record<string, unknown>): Promise<{ id: string; name: string; token: string }>
  /** Creates a user with this role and signs in. */
  login(role: 'viewer' | 'operator' | 'admin'): Promise<string>
  close(): Promise<void>
}

export const testAdmin = { email: 'admin@example.com', password: 'correct-horse-9-battery' }

export async function startTestPlatform(change: Partial<Config> = {}, parts: PlatformParts = {}): Promise<TestPlatform> {
  const database = await createTestDatabase()
  const dataDir = mkdtempSync(join('/tmp', 'iot-pms-data-'))
  const environment = {
    IOT_PMS_DATA_DIR: dataDir,
    IOT_PMS_HTTP_PORT: '0',
    IOT_PMS_HTTP_HOST: '127.0.0.1',
    IOT_PMS_MQTT_PORT: '0',
    IOT_PMS_MQTTS_PORT: 'off',
    IOT_PMS_BUILD_DASHBOARD: '0',
    DATABASE_URL: database.url,
    IOT_PMS_MIGRATE_URL: database.adminUrl,
  }
  const config: Config = { ...readConfig(environment), admin: testAdmin, ...change }
  const platform = await startPlatform(config, createLog('error'), parts)
  const url = `http://127.0.0.1:${platform.ports.http}`
  const call = async (method: string, path: string, options: CallOptions = {}): Promise<TestAnswer> => {
    const bearer = options.token === undefined ? token : options.token
    const isText = typeof options.body === 'string' || Buffer.isBuffer(options.body)
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(bearer ? { authorization: `Bearer ${bearer}` } : {}),
        ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...options.headers,
      },
      ...(options.body === undefined ? {} : { body: isText ? (options.body as string) : JSON.stringify(options.body) }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) }
  }
  const login = async (email: string, password: string) =>
    (await call('POST', '/api/v1/auth/login', { body: { email, password }, token: null })).json<{ accessToken: string }>().accessToken
  let token = ''
  token = await login(testAdmin.email, testAdmin.password)
  return {
    ...platform,
    url,
    token,
    call,
    async createDevice(wanted = {}) {
      const answer = await call('POST', '/api/v1/devices', { body: { name: `device-${randomBytes(5).toString('hex')}`, ...wanted } })
      if (answer.status !== 201) throw new Error(`no device: ${answer.text}`)
      const device = answer.json<{ id: string; name: string; credentials: { token: string } }>()
      return { id: device.id, name: device.name, token: device.credentials.token }
    },
    async login(role) {
      const email = `${role}-${randomBytes(4).toString('hex')}@example.com`
      const answer = await call('POST', '/api/v1/users', { body: { name: role, email, role, password: testAdmin.password } })
      if (answer.status !== 201) throw new Error(`no user: ${answer.text}`)
      return login(email, testAdmin.password)
    },
    async close() {
      await platform.stop()
      await database.drop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}
