// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import { createTestVendor, startTestPlatform, testAdmin } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { openBackup } from '../../core/src/backup/archive.ts'
import { Databases } from '../../core/src/backup/databases.ts'
import { restoreBackup } from '../../core/src/backup/restore.ts'
import { writeBackup } from '../../core/src/backup/write.ts'
import { createLog } from '../../core/src/log.ts'
import { startPlatform } from '../../core/src/start.ts'
import type { Platform } from '../../core/src/start.ts'

const audit = join(import.meta.dirname, '../../enterprise/audit')
/** A checkout may be without the commercial folders. */
const isThere = existsSync(join(audit, 'package.json'))
const log = createLog('error')
const vendor = createTestVendor()
const parts = { licenseKeys: vendor.keys, moduleFolders: [audit] }

describe.skipIf(!isThere)('a backup with data of a module', { timeout: 180_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-module-backup-'))
  const file = join(folder, 'full.tar')
  let server: TestPlatform
  let again: Platform | undefined

  beforeAll(async () => {
    server = await startTestPlatform({ secretKey: randomBytes(32).toString('base64url') }, parts)
    await server.call('POST', '/api/v1/license', { body: { license: vendor.license({ features: ['audit'] }), acknowledge: true } })
    await server.modules.sync()
  })
  afterAll(async () => {
    await again?.stop()
    const databases = await Databases.open(server.context.config.database.migrateUrl!)
    await databases.discardOld(Date.now(), 0)
    await databases.close()
    await server.close()
    rmSync(folder, { recursive: true, force: true })
  })

  it('holds the chains of audit, which verify and go on afterwards, even without the secret key', async () => {
    const device = await server.createDevice({ name: 'recorded' })
    const { migrateUrl } = server.context.config.database
    const stream = createWriteStream(file)
    await writeBackup(migrateUrl!, stream, { kind: 'full' })
    stream.end()
    await finished(stream)
    await server.createDevice({ name: 'later' })
    await server.stop()

    const backup = await openBackup(file)
    expect(Object.keys(backup.manifest.modules)).toEqual(['audit'])
    const config = { ...server.context.config, secretKey: randomBytes(32).toString('base64url'), dataDir: join(folder, 'data') }
    const { notes } = await restoreBackup(backup, config, { yes: true, dropSecrets: true, skipModules: false }, log)
    await backup.close()
    expect(notes).toEqual([])

    again = await startPlatform(config, log, parts)
    const url = `http://127.0.0.1:${again.ports.http}/api/v1`
    const login = await fetch(`${url}/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(testAdmin),
    })
    const { accessToken } = (await login.json()) as { accessToken: string }
    const call = async (method: string, path: string, body?: unknown) => {
      const answer = await fetch(url + path, {
        method,
        headers: { authorization: `Bearer ${accessToken}`, ...(body ? { 'content-type': 'application/json' } : {}) },
        ...(body ? { body: JSON.stringify(body) } : {}),
      })
      return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
    }
    await vi.waitFor(async () => expect((await call('GET', '/audit/events')).status).toBe(200), { timeout: 60_000 })
    const { items } = (await call('GET', `/audit/events?subject=device:${device.id}`)).body as { items: { type: string }[] }
    expect(items.map(({ type }) => type)).toEqual(['device.create'])
    expect(((await call('GET', '/audit/events?q=later')).body as { items: unknown[] }).items).toEqual([])
    expect((await call('POST', '/devices', { name: 'after' })).status).toBe(201)
    expect(((await call('GET', '/audit/events?q=after')).body as { items: unknown[] }).items).toHaveLength(1)
    expect((await call('POST', '/audit/verify', { chain: 'own' })).body).toMatchObject({ ok: true, findings: [] })
  })
})
