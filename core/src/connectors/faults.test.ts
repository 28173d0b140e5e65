// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest'
import { createTestDatabase, testAdmin } from '../testing.ts'
import type { TestDatabase } from '../testing.ts'
import { rootDir } from '../version.ts'
import type { Connector } from './schemas.ts'
import { TestBroker, hasBroker } from './testing.ts'

/** Messages have a time of their own each, so that one that comes twice is stored once and a lost one is missed. */
const firstTs = 1_767_225_600_000
const waitMs = 60_000
const metricsToken = 'of-the-fault-tests-of-connectors'

/** The real program as a process, so that it can really be killed, between a real broker and a real database. */
class Server {
  readonly #database: TestDatabase
  readonly #dataDir = mkdtempSync('/tmp/iot-pms-connector-')
  #child: ChildProcess | undefined
  #url = ''
  #token = ''

  constructor(database: TestDatabase) {
    this.#database = database
  }

  get databaseName(): string {
    return new URL(this.#database.url).pathname.slice(1)
  }

  async start(): Promise<void> {
    this.#child = spawn(process.execPath, [join(rootDir, 'core/src/main.ts'), 'start'], {
      env: {
        PATH: process.env['PATH'] ?? '',
        IOT_PMS_DATA_DIR: this.#dataDir,
        IOT_PMS_HTTP_PORT: '0',
        IOT_PMS_HTTP_HOST: '127.0.0.1',
        IOT_PMS_MQTT_PORT: '0',
        IOT_PMS_MQTTS_PORT: 'off',
        IOT_PMS_BUILD_DASHBOARD: '0',
        IOT_PMS_METRICS_TOKEN: metricsToken,
        IOT_PMS_OUTBOUND_ALLOW: '127.0.0.1',
        DATABASE_URL: this.#database.url,
        IOT_PMS_MIGRATE_URL: this.#database.adminUrl,
        IOT_PMS_ADMIN_EMAIL: testAdmin.email,
        IOT_PMS_ADMIN_PASSWORD: testAdmin.password,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#url = `http://127.0.0.1:${await this.#readPort(this.#child)}`
    this.#token = (await this.call<{ accessToken: string }>('POST', '/api/v1/auth/login', testAdmin)).accessToken
  }

  async #readPort(child: ChildProcess): Promise<number> {
    let output = ''
    child.stdout!.on('data', (chunk: Buffer) => (output += chunk))
    for (let waited = 0; waited < waitMs && child.exitCode === null; waited += 20) {
      const line = output.split('\n').find((one) => one.includes('"msg":"ready"'))
      if (line) return (JSON.parse(line) as { http: number }).http
      await sleep(20)
    }
    throw new Error(`the server did not start: ${output}`)
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child
    if (child?.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  async remove(): Promise<void> {
    await this.end('SIGKILL')
    await this.#database.drop()
    rmSync(this.#dataDir, { recursive: true, force: true })
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.#url + path, {
      method,
      headers: {
        ...(this.#token ? { authorization: `Bearer ${this.#token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return (path.includes('export') ? text : JSON.parse(text || 'null')) as T
  }

  /** How many of the messages are stored, each counted once. */
  async countStored(): Promise<number> {
    const { items } = await this.call<{ items: { id: string }[] }>('GET', '/api/v1/devices?q=meter')
    if (!items[0]) return 0
    const range = `from=${firstTs}&to=${firstTs + 1_000_000}`
    const lines = await this.call<string>('GET', `/api/v1/devices/${items[0].id}/telemetry/export?keys=n&${range}&format=ndjson`)
    return new Set(lines.split('\n').filter(Boolean)).size
  }

  /** Messages that are received and not acknowledged; needs no database. */
  async countInFlight(): Promise<number> {
    const response = await fetch(`${this.#url}/metrics`, { headers: { authorization: `Bearer ${metricsToken}` } })
    return Number(/^iot_pms_connector_in_flight (\d+)/m.exec(await response.text())?.[1])
  }

  async connect(broker: TestBroker): Promise<string> {
    const rules = [{ topic: 'f/+', name: '{topic.2}', members: null, values: [{ path: 'n' }], time: { path: 'ts', unit: 'ms' } }]
    const { id } = await this.call<Connector>('POST', '/api/v1/connectors', { name: 'broker', url: broker.url, topics: ['f/#'], rules })
    await this.reach(id, 'connected')
    return id
  }

  async reach(id: string, state: string): Promise<void> {
    const read = async () => (await this.call<Connector>('GET', `/api/v1/connectors/${id}`)).status.state
    for (let waited = 0; (await read()) !== state; waited += 50) {
      if (waited > waitMs) throw new Error(`the connector is not ${state} but ${await read()}`)
      await sleep(50)
    }
  }
}

describe.skipIf(!hasBroker)('a connector under faults', { timeout: 240_000 }, () => {
  let server: Server
  let broker: TestBroker
  let sent: number
  beforeEach(async () => {
    sent = 0
    broker = await new TestBroker().start()
    server = new Server(await createTestDatabase())
    await server.start()
  })
  afterEach(async () => {
    await server.remove()
    await broker.close()
  })

  /** Resolves when the broker has acknowledged all of them. */
  async function publish(count: number): Promise<void> {
    const client = await broker.connect()
    const numbers = Array.from({ length: count }, () => sent++)
    for (let at = 0; at < count; at += 100) {
      await Promise.all(
        numbers.slice(at, at + 100).map((n) => client.publishAsync('f/meter', `{"n":${n},"ts":${firstTs + n}}`, { qos: 1 })),
      )
    }
    await client.endAsync()
  }
  const expectAllStored = () => expect.poll(() => server.countStored(), { timeout: waitMs, interval: 500 }).toBe(sent)

  it('loses nothing when the server is killed again and again in mid-flow: 0 of what the broker acknowledged', async () => {
    const id = await server.connect(broker)
    for (let round = 0; round < 2; round++) {
      const publishing = publish(1000)
      // Killed as soon as something of this round has been stored, while the rest is on its way.
      const before = round * 1000
      await expect.poll(() => server.countStored(), { timeout: waitMs, interval: 20 }).toBeGreaterThan(before)
      await server.end('SIGKILL')
      await publishing
      await server.start()
      await server.reach(id, 'connected')
      await expectAllStored()
    }
    expect(sent).toBe(2000)
  })

  it('comes back when its broker was killed, and gets what that had saved meanwhile [F10]', async () => {
    const id = await server.connect(broker)
    await publish(500)
    await expectAllStored()
    await broker.kill()
    await server.reach(id, 'failing')
    await broker.resume()
    await server.reach(id, 'connected')
    await publish(500)
    await expectAllStored()
    // What waits at the broker for a connector that is away outlives the broker, if it was told to save it.
    await server.call('PATCH', `/api/v1/connectors/${id}`, { enabled: false })
    await publish(300)
    await broker.save()
    await broker.kill()
    await broker.resume()
    await server.call('PATCH', `/api/v1/connectors/${id}`, { enabled: true })
    await expectAllStored()
  })

  /** While `work` runs, the database takes nothing. */
  async function withoutDatabase(work: () => Promise<void>): Promise<void> {
    const admin = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
    const away = server.databaseName
    try {
      await admin`alter database ${admin(away)} with allow_connections false`
      await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${away}`
      await work()
    } finally {
      await admin`alter database ${admin(away)} with allow_connections true`
      await admin.end()
    }
  }

  it('acknowledges nothing while the database is away, and stores all of it afterwards', async () => {
    const id = await server.connect(broker)
    await publish(100)
    await expectAllStored()
    await withoutDatabase(async () => {
      await publish(1000)
      // The broker has them all; as many as it may send wait here without an acknowledgement.
      await expect.poll(() => server.countInFlight(), { timeout: waitMs }).toBeGreaterThan(10)
    })
    await expectAllStored()
    await server.reach(id, 'connected')
  })

  it('loses nothing that waits for its commit when the server is killed', async () => {
    const id = await server.connect(broker)
    await publish(100)
    await expectAllStored()
    await withoutDatabase(async () => {
      await publish(200)
      await expect.poll(() => server.countInFlight(), { timeout: waitMs }).toBeGreaterThan(10)
      await server.end('SIGKILL')
    })
    await server.start()
    await server.reach(id, 'connected')
    await expectAllStored()
  })

  it('commits and acknowledges what it has taken before it stops', async () => {
    const id = await server.connect(broker)
    const publishing = publish(1000)
    await expect.poll(() => server.countStored(), { timeout: waitMs, interval: 20 }).toBeGreaterThan(0)
    await server.end('SIGTERM')
    await publishing
    await server.start()
    await server.reach(id, 'connected')
    await expectAllStored()
  })
})
