// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createPublicKey, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createTestDatabase, createTestVendor, testAdmin } from '@iot-pms/core/testing'
import type { TestDatabase } from '@iot-pms/core/testing'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { AuditedServer } from './audited-server.ts'

const root = join(import.meta.dirname, '../..')
const audit = join(root, 'enterprise/audit')
/** A checkout may be without the commercial folders. */
const isThere = existsSync(join(audit, 'package.json'))

const writers = 50
const kills = 4
/** The name of a device that is there. */
const taken = 'kill-taken'
/** Changes that are answered before the next kill may come. */
const changesPerRound = 60

const vendor = createTestVendor()
const told: AuditedServer = {
  kid: vendor.kid(),
  publicKey: createPublicKey(vendor.privateKey()).export({ type: 'spki', format: 'pem' }),
  module: audit,
}

/** One server after another on the same database and the same data folder. */
class Servers {
  readonly #dataDir = mkdtempSync(join(tmpdir(), 'iot-pms-audit-kill-'))
  readonly #secretKey = randomBytes(32).toString('base64url')
  readonly #database: TestDatabase
  #child: ChildProcess | undefined
  #url = ''
  #token = ''

  constructor(database: TestDatabase) {
    this.#database = database
  }

  async start(): Promise<void> {
    const script = join(import.meta.dirname, 'audited-server.ts')
    const child = spawn(process.execPath, [script, JSON.stringify(told)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL: this.#database.url,
        IOT_PMS_MIGRATE_URL: this.#database.adminUrl,
        IOT_PMS_DATA_DIR: this.#dataDir,
        IOT_PMS_SECRET_KEY: this.#secretKey,
        IOT_PMS_HTTP_PORT: '0',
        IOT_PMS_HTTP_HOST: '127.0.0.1',
        IOT_PMS_MQTT_PORT: 'off',
        IOT_PMS_MQTTS_PORT: 'off',
        IOT_PMS_BUILD_DASHBOARD: '0',
        IOT_PMS_ADMIN_EMAIL: testAdmin.email,
        IOT_PMS_ADMIN_PASSWORD: testAdmin.password,
      },
    })
    this.#child = child
    for await (const line of createInterface({ input: child.stdout })) {
      const port = /^port (\d+)$/.exec(line)?.[1]
      if (!port) continue
      this.#url = `http://127.0.0.1:${port}`
      const { accessToken } = (await this.call('POST', '/auth/login', testAdmin)).body as { accessToken: string }
      this.#token = accessToken
      return
    }
    throw new Error(`the server ended before it was ready: ${child.exitCode}`)
  }

  async call(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`${this.#url}/api/v1${path}`, {
      method,
      headers: {
        ...(this.#token ? { authorization: `Bearer ${this.#token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) }
  }

  /** Modules are started beside the server. */
  async waitForAudit(): Promise<void> {
    const ask = async () => {
      if ((await this.call('GET', '/audit/chains')).status !== 200) throw new Error('audit does not run')
    }
    await vi.waitFor(ask, { timeout: 60_000, interval: 50 })
  }

  async kill(): Promise<void> {
    const child = this.#child
    if (child?.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
    this.#token = ''
  }

  async close(): Promise<void> {
    await this.kill()
    rmSync(this.#dataDir, { recursive: true, force: true })
  }
}

describe.skipIf(!isThere)('the audit log of a server that is killed', () => {
  let database: TestDatabase
  let servers: Servers
  let owner: postgres.Sql
  beforeAll(async () => {
    database = await createTestDatabase()
    owner = postgres(database.adminUrl, { max: 1, onnotice: () => {} })
    servers = new Servers(database)
    await servers.start()
    await servers.call('POST', '/license', { license: vendor.license({ features: ['audit'] }), acknowledge: true })
    await servers.waitForAudit()
    await servers.call('POST', '/devices', { name: taken })
  }, 120_000)
  afterAll(async () => {
    await servers?.close()
    await owner?.end()
    await database?.drop()
  })

  /** Names of devices whose creation was answered with 201, and of those that were refused. */
  const acknowledged = new Set<string>()
  let refused = 0

  /** Writes until the server is gone; every fifth change is one that the database takes back. */
  async function write(writer: number, prefix: string, isOver: () => boolean): Promise<void> {
    for (let n = 0; !isOver(); n++) {
      const name = (writer + n) % 5 === 4 ? taken : `${prefix}-${writer}-${n}`
      const answer = await servers.call('POST', '/devices', { name }).catch(() => undefined)
      if (answer?.status === 201) acknowledged.add(name)
      else if (answer?.status === 409) refused++
    }
  }

  async function round(number: number, isKilled: boolean): Promise<void> {
    const before = acknowledged.size
    let isOver = false
    const running = Promise.all(Array.from({ length: writers }, (_, writer) => write(writer, `kill-${number}`, () => isOver)))
    await expect.poll(() => acknowledged.size - before, { timeout: 120_000, interval: 5 }).toBeGreaterThan(changesPerRound)
    // In the middle of it: fifty transactions are under way.
    if (isKilled) await servers.kill()
    isOver = true
    await running
  }

  it(
    'has one record of every committed change, none of any other, and no hole, under 50 writers and kill -9 [§11.3] [AU-1]',
    { timeout: 600_000 },
    async () => {
      for (let number = 1; number <= kills; number++) {
        await round(number, true)
        await servers.start()
        await servers.waitForAudit()
      }
      await round(kills + 1, false)

      const committed = await owner<{ id: string; name: string }[]>`select id, name from devices where name like 'kill-%'`
      const recorded = await owner<
        { subject: string }[]
      >`select subject from audit.events where type = 'device.create' and outcome = 'success'`
      const names = new Set(committed.map(({ name }) => name))
      expect([...acknowledged].filter((name) => !names.has(name))).toEqual([])
      expect(refused).toBeGreaterThan(0)
      expect(recorded.map(({ subject }) => subject).sort()).toEqual(committed.map(({ id }) => `device:${id}`).sort())

      const chains = await owner<{ stream: string; from: number; to: number; count: number }[]>`
        select stream, min(seq)::float8 as from, max(seq)::float8 as to, count(*)::float8 as count from audit.events group by stream`
      for (const { stream, from, to, count } of chains) expect([stream, from, to], stream).toEqual([stream, 1, count])
      for (const chain of ['own', 'platform']) {
        const verdict = (await servers.call('POST', '/audit/verify', { chain })).body
        expect(verdict, chain).toMatchObject({ ok: true, findings: [] })
      }
      console.log(
        `${kills} kills: ${acknowledged.size} acknowledged, ${committed.length} committed, ${recorded.length} recorded, ${refused} taken back`,
      )
    },
  )
})
