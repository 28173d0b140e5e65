// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest'
import { findRunningDatabase } from './db/embedded.ts'
import { connectDevice } from './ingest/mqtt/testing.ts'
import { createTestDatabase } from './testing.ts'
import { rootDir, version } from './version.ts'
import { decodeRows } from './telemetry/segment-rows.ts'

/** Runs the real program as a process, on its own embedded PostgreSQL. */
let dataDir: string
const children: ChildProcess[] = []
beforeEach(() => {
  dataDir = mkdtempSync('/tmp/iot-pms-start-')
  chmodSync(dataDir, 0o711)
})
afterEach(async () => {
  for (const child of children.splice(0)) await stop(child, 'SIGTERM')
  const orphan = await postmasterPid()
  if (orphan) process.kill(orphan, 'SIGQUIT')
  rmSync(dataDir, { recursive: true, force: true })
})

type Run = { child: ChildProcess; output: () => string; errors: () => string; ended: Promise<number | null> }

function run(args: string[], environment: Record<string, string> = {}): Run {
  const child = spawn(process.execPath, [join(rootDir, 'core/src/main.ts'), ...args], {
    env: {
      PATH: process.env['PATH'] ?? '',
      IOT_PMS_DATA_DIR: dataDir,
      IOT_PMS_HTTP_PORT: '0',
      IOT_PMS_MQTT_PORT: '0',
      IOT_PMS_MQTTS_PORT: '0',
      IOT_PMS_BUILD_DASHBOARD: '0',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let output = ''
  let errors = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk))
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk))
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)))
  return { child, output: () => output, errors: () => errors, ended }
}

async function ready(server: Run): Promise<{ http: number; mqtt: number }> {
  for (let waited = 0; waited < 30_000; waited += 20) {
    const line = server
      .output()
      .split('\n')
      .find((one) => one.includes('"msg":"ready"'))
    if (line) return JSON.parse(line) as { http: number; mqtt: number }
    if (server.child.exitCode !== null) break
    await sleep(20)
  }
  throw new Error(`the server did not start: ${server.output()} ${server.errors()}`)
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  child.kill(signal)
  return ended
}

async function postmasterPid(): Promise<number | undefined> {
  const lock = join(dataDir, 'postgres/postmaster.pid')
  if (!existsSync(lock)) return undefined
  return Number(readFileSync(lock, 'utf8').split('\n', 1)[0])
}

/** Code and message of the last line a failed start printed. */
function failure(server: Run): { code: string; message: string; hint: string } {
  return JSON.parse(server.errors().trim().split('\n').at(-1)!)
}

const admin = { IOT_PMS_ADMIN_EMAIL: 'a@example.com', IOT_PMS_ADMIN_PASSWORD: 'correct-horse-9-battery' }

async function login(port: number): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${port}/api/v1/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: admin.IOT_PMS_ADMIN_EMAIL, password: admin.IOT_PMS_ADMIN_PASSWORD }),
  })
  return ((await answer.json()) as { accessToken: string }).accessToken
}

describe('iot-pms start', { timeout: 60_000 }, () => {
  it('prints a one-time set-up link, keeps it in a file of mode 0600, and stops within 10 s with 0', async () => {
    const server = run(['start'])
    const { http } = await ready(server)
    const link = /http\S+\/setup#t=([\w-]{43})/.exec(server.output())
    expect(link).not.toBeNull()
    const file = join(dataDir, 'setup-link.txt')
    expect(readFileSync(file, 'utf8')).toContain(link![1])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(statSync(join(dataDir, 'secret.key')).mode & 0o777).toBe(0o600)
    for (const path of ['/livez', '/readyz', '/startupz']) expect((await fetch(`http://127.0.0.1:${http}${path}`)).status, path).toBe(200)
    const refused = await fetch(`http://127.0.0.1:${http}/api/v1/devices`)
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([503, 'SETUP_REQUIRED'])
    const before = performance.now()
    expect(await stop(server.child, 'SIGTERM')).toBe(0)
    expect(performance.now() - before).toBeLessThan(10_000)
    expect(await postmasterPid()).toBeUndefined()
  })

  it('keeps everything over a kill -9 of the server alone, whose database is then an orphan, and over a clean restart', async () => {
    const first = run(['start'], admin)
    const { http } = await ready(first)
    const token = await login(http)
    const created = await fetch(`http://127.0.0.1:${http}/api/v1/devices`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: '{"name":"pump"}',
    })
    const device = (await created.json()) as { id: string; credentials: { token: string } }
    await stop(first.child, 'SIGKILL')
    expect(await postmasterPid()).toBeGreaterThan(0)
    const second = run(['start'], admin)
    const ports = await ready(second)
    const client = await connectDevice(ports.mqtt, device.credentials.token)
    await client.publishAsync('v1/devices/me/telemetry', '{"temperature":25.1}', { qos: 1 })
    await client.endAsync()
    expect(await stop(second.child, 'SIGTERM')).toBe(0)
    const third = run(['start'], admin)
    const again = await ready(third)
    const running = await findRunningDatabase(dataDir)
    const sql = postgres(running!.adminUrl, { max: 1 })
    const segments = await sql<{ no: number }[]>`select segment_no as no from telemetry_segments where state <> 'compacted'`
    const rows = await Promise.all(
      segments.map(({ no }) => sql<{ points: Buffer }[]>`select points from ${sql(`telemetry_segment_${no}`)}`),
    )
    const points = rows.flat().flatMap((row) => [...decodeRows(row.points)])
    expect(points).toMatchObject([{ kind: 'double', value: 25.1 }])
    await sql.end()
    expect((await fetch(`http://127.0.0.1:${again.http}/readyz`)).status).toBe(200)
  })

  it('waits for a first server that is shutting down, and refuses a second while the first lives', async () => {
    const first = run(['start'])
    await ready(first)
    const second = run(['start'])
    await sleep(1500)
    expect(second.output()).not.toContain('"msg":"ready"')
    first.child.kill('SIGTERM')
    await ready(second)
  })

  it('stops within 10 s with 0 and leaves no database behind when the database does not commit', async () => {
    const server = run(['start'], admin)
    const { http } = await ready(server)
    const token = await login(http)
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const created = await fetch(`http://127.0.0.1:${http}/api/v1/devices`, { method: 'POST', headers, body: '{"name":"stuck"}' })
    const device = (await created.json()) as { credentials: { token: string } }
    const running = await findRunningDatabase(dataDir)
    const sql = postgres(running!.adminUrl, { max: 2, onnotice: () => {} })
    const holder = await sql.reserve()
    await holder`begin`
    const [active] = await sql`select segment_no from telemetry_segments where state = 'active'`
    await holder`lock table ${sql(`telemetry_segment_${active!['segment_no']}`)}, devices in access exclusive mode`
    const sent = fetch(`http://127.0.0.1:${http}/api/v1/${device.credentials.token}/telemetry`, { method: 'POST', body: '{"x":1}' })
    await sleep(300)
    const before = performance.now()
    expect(await stop(server.child, 'SIGTERM'), server.errors()).toBe(0)
    expect(performance.now() - before).toBeLessThan(10_000)
    expect((await sent).status).toBe(503)
    expect(await postmasterPid()).toBeUndefined()
    await sql.end({ timeout: 1 })
  })

  it('lists every problem of the configuration and opens no port', async () => {
    const server = run(['start'], { IOT_PMS_HTTP_PORT: 'x', IOT_PMS_MAX_SESIONS: '5' })
    expect(await server.ended).toBe(78)
    expect(failure(server)).toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/IOT_PMS_HTTP_PORT=x[\s\S]*IOT_PMS_MAX_SESSIONS/),
    })
  })

  it('says what to do when a port is busy', async () => {
    const blocker = createServer().listen(0)
    const { port } = blocker.address() as AddressInfo
    const server = run(['start'], { IOT_PMS_MQTT_PORT: String(port) })
    expect(await server.ended).toBe(69)
    expect(failure(server)).toMatchObject({
      code: 'PORT_BUSY',
      message: expect.stringContaining(String(port)),
      hint: expect.stringContaining('IOT_PMS_MQTT_PORT'),
    })
    blocker.close()
  })

  it('refuses a data folder it may not use, and one that is a file', async () => {
    writeFileSync(join(dataDir, 'file'), '')
    const server = run(['start'], { IOT_PMS_DATA_DIR: join(dataDir, 'file/inside') })
    expect(await server.ended).toBe(73)
    expect(failure(server)).toMatchObject({ code: 'DATA_DIR', hint: expect.stringContaining('IOT_PMS_DATA_DIR') })
  })

  it('refuses a database of a newer version and changes nothing [S-21]', async () => {
    const database = await createTestDatabase()
    const sql = postgres(database.adminUrl, { max: 1 })
    await sql`insert into schema_version (version, name, checksum, min_server) values (9999, '9999_future.sql', 'x', '9.9.0')`
    const server = run(['start'], { DATABASE_URL: database.url, IOT_PMS_MIGRATE_URL: database.adminUrl })
    expect(await server.ended).toBe(78)
    expect(failure(server)).toMatchObject({
      code: 'SCHEMA_TOO_NEW',
      message: expect.stringContaining('9999_future.sql'),
      hint: expect.stringContaining('9.9.0'),
    })
    expect(await sql`select count(*)::int as n from users`).toMatchObject([{ n: 0 }])
    await sql`delete from schema_version where version = 9999`
    await sql`update schema_version set checksum = 'changed' where version = 1`
    const edited = run(['start'], { DATABASE_URL: database.url, IOT_PMS_MIGRATE_URL: database.adminUrl })
    expect(await edited.ended).toBe(78)
    expect(failure(edited).code).toBe('MIGRATION_CHANGED')
    await sql.end()
    await database.drop()
  })

  it('refuses a cluster of another PostgreSQL version in the data folder', async () => {
    const server = run(['start'])
    await ready(server)
    await stop(server.child, 'SIGTERM')
    writeFileSync(join(dataDir, 'postgres/PG_VERSION'), '19\n')
    const newer = run(['start'])
    expect(await newer.ended).toBe(78)
    expect(failure(newer)).toMatchObject({ code: 'DATABASE_VERSION', message: expect.stringContaining('PostgreSQL 19') })
    writeFileSync(join(dataDir, 'postgres/PG_VERSION'), '18\n')
  })

  it('refuses weak and readable secret keys, and a missing or foreign one once values are sealed [S-16, SC-2, SC-3]', async () => {
    for (const key of [Buffer.alloc(16, 7).toString('base64'), Buffer.alloc(32, 65).toString('base64')]) {
      const weak = run(['start'], { IOT_PMS_SECRET_KEY: key })
      expect(await weak.ended).toBe(78)
      expect(failure(weak).code).toBe('SECRET_KEY_WEAK')
    }
    const server = run(['start'])
    await ready(server)
    await stop(server.child, 'SIGTERM')
    const key = join(dataDir, 'secret.key')
    chmodSync(key, 0o644)
    const open = run(['start'])
    expect([await open.ended, failure(open).code]).toEqual([78, 'SECRET_FILE_MODE'])
    const text = readFileSync(key, 'utf8')
    rmSync(key)
    const missing = run(['start'])
    expect([await missing.ended, failure(missing).code]).toEqual([78, 'SECRET_KEY_MISSING'])
    const other = run(['start'], { IOT_PMS_SECRET_KEY: Buffer.from('another key of thirty-two bytes!!').toString('base64') })
    expect([await other.ended, failure(other).code]).toEqual([78, 'SECRET_KEY_MISMATCH'])
    writeFileSync(key, text, { mode: 0o600 })
  })

  it('refuses a database login that tenant isolation cannot hold [SC-12]', async () => {
    const database = await createTestDatabase()
    const server = run(['start'], { DATABASE_URL: database.adminUrl })
    expect(await server.ended).toBe(78)
    expect(failure(server)).toMatchObject({ code: 'DATABASE_ROLE_TOO_STRONG', message: expect.stringContaining('IOT_PMS_MIGRATE_URL') })
    await database.drop()
  })

  it('gives up on an external database that refuses the login, with a sentence', async () => {
    const server = run(['start'], { DATABASE_URL: inject('appUrl').replace(/:[^:@]+@/, ':wrong@') })
    expect(await server.ended).toBe(69)
    expect(failure(server)).toMatchObject({ code: 'DATABASE_UNREACHABLE', message: expect.stringContaining('password') })
  })

  it('marks every answer when test hooks are on [RE-21]', async () => {
    const server = run(['start'], { IOT_PMS_TEST_HOOKS: 'ack-early' })
    const { http } = await ready(server)
    expect((await fetch(`http://127.0.0.1:${http}/livez`)).headers.get('x-iot-pms-test-hooks')).toBe('ack-early')
    expect(server.output()).toContain('test hooks are on')
  })
})

describe('other commands', { timeout: 60_000 }, () => {
  it('make a new set-up link and a reset link beside a running server', async () => {
    const server = run(['start'])
    await ready(server)
    const link = run(['admin', 'setup-link'])
    expect(await link.ended).toBe(0)
    expect(link.output()).toMatch(/\/setup#t=[\w-]{43}\n$/)
    const unknown = run(['admin', 'reset-password', 'nobody@example.com'])
    expect([await unknown.ended, failure(unknown).code]).toEqual([64, 'USER_UNKNOWN'])
  })

  it('migrate a database and end, print the version, refuse an unknown command with 64', async () => {
    const migrated = run(['migrate'])
    expect(await migrated.ended).toBe(0)
    const printed = run(['version'])
    expect([await printed.ended, printed.output()]).toEqual([0, `${version}\n`])
    const unknown = run(['dance'])
    expect([await unknown.ended, failure(unknown).code]).toEqual([64, 'USAGE'])
  })
})
