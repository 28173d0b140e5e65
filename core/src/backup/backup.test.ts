// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Config } from '../config.ts'
import { EvidenceKeys } from '../evidence/evidence-keys.ts'
import { createLog } from '../log.ts'
import { startPlatform } from '../start.ts'
import type { Platform } from '../start.ts'
import { startTestPlatform, testAdmin } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { openBackup } from './archive.ts'
import { Databases, databaseNameOf, withDatabaseName } from './databases.ts'
import type { BackupKind } from './manifest.ts'
import { packKey } from './packed-key.ts'
import { restoreBackup } from './restore.ts'
import type { RestoreWish } from './restore.ts'
import { writeBackup } from './write.ts'

const folder = mkdtempSync(join(tmpdir(), 'iot-pms-backups-'))
const secretKey = randomBytes(32).toString('base64url')
const log = createLog('error')
const plain: RestoreWish = { yes: true, dropSecrets: false, skipModules: false }

let server: TestPlatform
let device: { id: string; token: string }
/** Started again on what was restored. */
const started: Platform[] = []

beforeAll(async () => {
  server = await startTestPlatform({ secretKey }, { moduleFolders: [] })
  device = await server.createDevice({ name: 'pump' })
  for (let n = 1; n <= 50; n++) {
    const body = { ts: 1_763_690_000_000 + n, values: { n, text: `值 ${n}`, odd: n % 2 === 1, exact: 9_007_199_254_740_990 + n } }
    await server.call('POST', `/api/v1/${device.token}/telemetry`, { body, token: null })
  }
  const config = { url: 'https://example.com/hook', signingSecret: `whsec_${randomBytes(24).toString('base64')}` }
  await server.call('POST', '/api/v1/notifications/channels', { body: { name: 'hook', type: 'webhook', config } })
  await new EvidenceKeys(server.context).signer()
  await server.stop()
}, 120_000)
afterEach(async () => {
  for (const one of started.splice(0)) await one.stop()
})
afterAll(async () => {
  await withDatabases((databases) => databases.discardOld(Date.now(), 0))
  await server.close()
  rmSync(folder, { recursive: true, force: true })
})

const adminUrl = () => server.context.config.database.migrateUrl!

async function withDatabases<T>(work: (databases: Databases) => Promise<T>): Promise<T> {
  const databases = await Databases.open(adminUrl())
  try {
    return await work(databases)
  } finally {
    await databases.close()
  }
}

async function makeBackup(name: string, kind: BackupKind = 'full', passphrase?: string): Promise<string> {
  const file = join(folder, name)
  const stream = createWriteStream(file)
  const key = passphrase === undefined ? {} : { key: await packKey(secretKey, passphrase) }
  await writeBackup(adminUrl(), stream, { kind, ...key })
  stream.end()
  await finished(stream)
  return file
}

async function restore(file: string, config: Partial<Config> = {}, wish: Partial<RestoreWish> = {}) {
  const backup = await openBackup(file)
  try {
    return await restoreBackup(backup, { ...server.context.config, ...config }, { ...plain, ...wish }, log)
  } finally {
    await backup.close()
  }
}

/** The server once more, on what is in the database now. */
async function start(config: Partial<Config> = {}): Promise<{ platform: Platform; call: TestPlatform['call'] }> {
  const platform = await startPlatform({ ...server.context.config, ...config }, log, { moduleFolders: [] })
  started.push(platform)
  const url = `http://127.0.0.1:${platform.ports.http}`
  const send = async (method: string, path: string, body: unknown, token: string) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: <T>() => JSON.parse(text) as T }
  }
  const { accessToken } = (await send('POST', '/api/v1/auth/login', testAdmin, '')).json<{ accessToken: string }>()
  return { platform, call: (method, path, options = {}) => send(method, path, options.body, options.token === null ? '' : accessToken) }
}

const history = `keys=n,text,odd,exact&startTs=1763690000000&endTs=1763690001000&limit=1000&orderBy=ASC&useStrictDataTypes=true`
const readHistory = async (call: TestPlatform['call']) =>
  (await call('GET', `/api/plugins/telemetry/DEVICE/${device.id}/values/timeseries?${history}`)).json<Record<string, unknown[]>>()

describe('restoring a backup', { timeout: 180_000 }, () => {
  it('brings back every row, type and secret, and none of what came after it [RE-97]', async () => {
    const before = await start()
    const expected = await readHistory(before.call)
    expect(expected['n']).toHaveLength(50)
    const file = await makeBackup('full.tar')
    await before.call('POST', '/api/v1/devices', { body: { name: 'later' } })
    await before.call('DELETE', `/api/v1/devices/${device.id}`)
    await before.platform.stop()
    const { kept, notes } = await restore(file)
    expect([notes, kept]).toEqual([[], expect.stringMatching(/_before_\d{14}$/)])
    const { platform, call } = await start()
    expect(await readHistory(call)).toEqual(expected)
    const { items } = (await call('GET', '/api/v1/devices')).json<{ items: { name: string }[] }>()
    expect(items.map(({ name }) => name)).toEqual(['pump'])
    const credentials = await call('GET', `/api/v1/devices/${device.id}/credentials`)
    expect(credentials.json()).toMatchObject({ token: device.token })
    // Numbers that were given before are not given again.
    const next = await call('POST', '/api/v1/devices', { body: { name: 'next' } })
    expect(next.status, next.text).toBe(201)
    const told = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute<{ detail: unknown }>(sql`select detail from security_events where action = 'backup.restore'`),
    )
    expect(told.map(({ detail }) => detail)).toEqual([expect.objectContaining({ kind: 'full' })])
  })

  it('leaves telemetry and logs out of a backup of the configuration, and what refers to them', async () => {
    const backup = await openBackup(await makeBackup('config.tar', 'config'))
    await backup.close()
    const names = backup.manifest.tables.map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining(['devices', 'users', 'notify_channels', 'device_credentials', 'license_tokens']))
    expect(names.filter((name) => /telemetry|device_log|notify_(deliveries|attempts|inbox)|command_moves/.test(name))).toEqual([])
    expect(backup.manifest.leftOut).toEqual(expect.arrayContaining(['public.notify_attempts', 'public.command_moves', 'jobs.job']))
    await restore(join(folder, 'config.tar'))
    const { call } = await start()
    expect((await call('GET', `/api/v1/devices/${device.id}`)).status).toBe(200)
    const sent = await call('POST', `/api/v1/${device.token}/telemetry`, { body: { again: 1 }, token: null })
    expect(sent.status).toBe(200)
  })

  it('goes on without the secret key when told to: tokens and passwords of people work, stored secrets are entered anew', async () => {
    const file = join(folder, 'full.tar')
    const other = { secretKey: randomBytes(32).toString('base64url') }
    await expect(restore(file, other)).rejects.toMatchObject({ code: 'SECRET_KEY_MISMATCH', exitCode: 78 })
    await restore(file, other, { dropSecrets: true })
    const { platform, call } = await start(other)
    const sent = await call('POST', `/api/v1/${device.token}/telemetry`, { body: { again: 1 }, token: null })
    expect(sent.status).toBe(200)
    expect((await call('GET', `/api/v1/devices/${device.id}/credentials`)).json()).toMatchObject({ code: 'SEAL_BROKEN' })
    const rotated = await call('POST', `/api/v1/devices/${device.id}/credentials/rotate`, { body: {} })
    expect(rotated.status, rotated.text).toBe(200)
    const keys = new EvidenceKeys(platform.context)
    const { id } = await keys.signer()
    // What was signed before stays provable.
    expect((await keys.publicKeys()).map((one) => one.id)).toEqual([expect.not.stringMatching(id), id])
    await platform.stop()
    await restore(file)
  })

  it('takes the key that is packed into the backup, with its passphrase only', async () => {
    const file = await makeBackup('packed.tar', 'full', 'correct horse battery')
    const passphraseFile = join(folder, 'passphrase')
    const dataDir = mkdtempSync(join(tmpdir(), 'iot-pms-other-'))
    writeFileSync(passphraseFile, 'wrong horse battery\n', { mode: 0o600 })
    const elsewhere = { secretKey: undefined, dataDir }
    await expect(restore(file, elsewhere, { passphraseFile })).rejects.toMatchObject({ code: 'PASSPHRASE_WRONG' })
    writeFileSync(passphraseFile, 'short\n')
    await expect(restore(file, elsewhere, { passphraseFile })).rejects.toMatchObject({ code: 'PASSPHRASE' })
    writeFileSync(passphraseFile, 'correct horse battery\n')
    await restore(file, elsewhere, { passphraseFile })
    expect(readFileSync(join(dataDir, 'secret.key'), 'utf8').trim()).toBe(secretKey)
    rmSync(dataDir, { recursive: true })
  })

  it('leaves everything as it is where it fails, and no half database behind', async () => {
    const file = join(folder, 'full.tar')
    const open = postgres(withDatabaseName(adminUrl(), databaseNameOf(adminUrl())), { max: 1 })
    await open`select 1`
    await expect(restore(file)).rejects.toMatchObject({ code: 'DATABASE_IN_USE', exitCode: 75 })
    await open.end()
    await expect(restore(file, {}, { yes: false })).rejects.toMatchObject({ code: 'TARGET_NOT_EMPTY', exitCode: 64 })
    const backup = await openBackup(file)
    const newer = {
      ...backup.manifest,
      migrations: [...backup.manifest.migrations, { version: 9999, name: '9999_future.sql', checksum: '' }],
    }
    const tooNew = restoreBackup({ ...backup, manifest: newer }, server.context.config, plain, log)
    await expect(tooNew).rejects.toMatchObject({ code: 'SCHEMA_TOO_NEW', exitCode: 78 })
    const module = { ...backup.manifest, modules: { 'no-such': [{ version: 1, name: '0001_x.sql', checksum: '' }] } }
    const missing = restoreBackup({ ...backup, manifest: module }, server.context.config, plain, log)
    await expect(missing).rejects.toMatchObject({ code: 'MODULE_MISSING' })
    const wrong = { ...backup, totals: backup.totals.map((one) => (one.name === 'users' ? { ...one, rows: one.rows + 1 } : one)) }
    const before = await withDatabases((databases) => databases.list('before'))
    await expect(restoreBackup(wrong, server.context.config, plain, log)).rejects.toThrow(/public.users holds 1 rows of 2/)
    await backup.close()
    expect(await withDatabases((databases) => databases.list('restore'))).toEqual([])
    expect(await withDatabases((databases) => databases.list('before'))).toEqual(before)
    const { call } = await start()
    expect((await call('GET', `/api/v1/devices/${device.id}`)).status).toBe(200)
  })
})

describe('restoring by a login that is no superuser', { timeout: 180_000 }, () => {
  const name = `t_${randomBytes(6).toString('hex')}`
  const role = `${name}_owner`
  let owner: postgres.Sql
  let ownerUrl: string

  beforeAll(async () => {
    owner = postgres(withDatabaseName(adminUrl(), 'postgres'), { max: 1, onnotice: () => {} })
    await owner.unsafe(`create role ${role} login createdb createrole password 'x'`)
    for (const one of ['pms_owner', 'pms_app', 'pms_ingest', 'pms_store', 'pms_jobs', 'iot_pms']) {
      await owner.unsafe(`grant ${one} to ${role} with admin option`)
    }
    await owner.unsafe(`create database ${name} owner ${role}`)
    const url = new URL(withDatabaseName(adminUrl(), name))
    url.username = role
    url.password = 'x'
    ownerUrl = url.href
  })
  afterAll(async () => {
    await owner.unsafe(`drop database if exists ${name} with (force)`)
    await owner.unsafe(`drop owned by ${role}`)
    await owner.unsafe(`drop role ${role}`)
    await owner.end()
  })

  it('loads into an empty database of its own, empties it again after a failure, and can back it up in turn', async () => {
    const file = join(folder, 'full.tar')
    const backup = await openBackup(file)
    const wrong = { ...backup, totals: backup.totals.map((one) => (one.name === 'users' ? { ...one, rows: one.rows + 1 } : one)) }
    const wish = { ...plain, into: ownerUrl }
    await expect(restoreBackup(wrong, server.context.config, wish, log)).rejects.toThrow('public.users')
    await restoreBackup(backup, server.context.config, wish, log)
    await expect(restoreBackup(backup, server.context.config, wish, log)).rejects.toMatchObject({ code: 'TARGET_NOT_EMPTY' })
    const again = join(folder, 'again.tar')
    const stream = createWriteStream(again)
    await writeBackup(ownerUrl, stream, { kind: 'full' })
    stream.end()
    await finished(stream)
    const copy = await openBackup(again)
    await Promise.all([backup.close(), copy.close()])
    const rows = (totals: typeof backup.totals) =>
      totals.filter(({ name: table }) => table !== 'security_events').map(({ name: table, rows: count }) => [table, count])
    expect(rows(copy.totals)).toEqual(rows(backup.totals))
    const config = {
      database: {
        ...server.context.config.database,
        url: withDatabaseName(server.context.config.database.url!, name),
        migrateUrl: ownerUrl,
      },
    }
    const { call } = await start(config)
    expect((await readHistory(call))['n']).toHaveLength(50)
  })
})

describe('a damaged backup', { timeout: 120_000 }, () => {
  it('is told from a whole one, whatever byte is missing, changed or too much', async () => {
    const bytes = readFileSync(join(folder, 'full.tar'))
    const damaged = join(folder, 'damaged.tar')
    const places = Array.from({ length: 20 }, () => Math.floor(Math.random() * bytes.length))
    const copies = places.flatMap((at) => {
      const edited = Buffer.from(bytes)
      edited[at]! ^= 1 + Math.floor(Math.random() * 255)
      return [
        { what: `cut at ${at}`, copy: bytes.subarray(0, at) },
        { what: `edited at ${at}`, copy: edited },
      ]
    })
    copies.push({ what: 'longer', copy: Buffer.concat([bytes, Buffer.alloc(512)]) }, { what: 'empty', copy: Buffer.alloc(0) })
    for (const { what, copy } of copies) {
      writeFileSync(damaged, copy)
      await expect(openBackup(damaged), what).rejects.toMatchObject({ code: 'BACKUP_DAMAGED', exitCode: 65 })
    }
    await (await openBackup(join(folder, 'full.tar'))).close()
  })
})
