// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { describe, expect, inject, it } from 'vitest'
import { createLog } from '../log.ts'
import { createTestDatabase } from '../testing.ts'
import { Db } from './client.ts'
import { loadRootTenant } from './installation.ts'
import { migrate } from './migrate.ts'

const log = createLog('silent')

describe('migrations', () => {
  it('run with a login that owns the database and may create roles, and run again as often as the server starts', async () => {
    const name = `owner_${randomBytes(4).toString('hex')}`
    const admin = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
    await admin.unsafe(`create role ${name} login createrole password 'p'`)
    // In a cluster of its own this login would have made these roles itself.
    await admin.unsafe(`grant pms_owner, pms_app, pms_ingest, pms_store, pms_jobs to ${name} with admin option`)
    await admin.unsafe(`create database ${name} owner ${name}`)
    const url = new URL(inject('adminUrl').replace(/[^/]+$/, name))
    url.username = name
    url.password = 'p'
    const app = new URL(url)
    app.username = `app_${name}`
    app.password = 'first'
    await migrate(url.href, app.href, log)
    app.password = 'second'
    await migrate(url.href, app.href, log)
    const db = new Db(app.href)
    expect((await loadRootTenant(db)).tenantNo).toBe(1)
    await db.stop()
    await admin.unsafe(`drop database ${name} with (force)`)
    await admin.unsafe(`drop role app_${name}`)
    await admin.unsafe(`drop role ${name}`)
    await admin.end()
  })

  it('are only looked for by a login that may not run them, which says what is missing', async () => {
    const database = await createTestDatabase()
    expect(await migrate(database.url, database.url, log)).toBe(false)
    const sql = postgres(database.adminUrl, { max: 1, onnotice: () => {} })
    await sql`delete from schema_version where version = (select max(version) from schema_version)`
    await expect(migrate(database.url, database.url, log)).rejects.toMatchObject({ code: 'SCHEMA_TOO_OLD', exitCode: 78 })
    await sql`drop table schema_version`
    await expect(migrate(database.url, database.url, log)).rejects.toMatchObject({ code: 'DATABASE_RIGHTS', exitCode: 78 })
    await sql.end()
    await database.drop()
  })

  it('wait for each other when two run at once, and leave nothing of a file that fails', async () => {
    const database = await createTestDatabase()
    const folder = mkdtempSync('/tmp/iot-pms-migrations-')
    writeFileSync(join(folder, '0001_first.sql'), 'create table first (id int primary key);')
    const sql = postgres(database.adminUrl, { max: 1, onnotice: () => {} })
    await sql`truncate schema_version`
    const appUrl = database.adminUrl
    await Promise.all([migrate(database.adminUrl, appUrl, log, folder), migrate(database.adminUrl, appUrl, log, folder)])
    writeFileSync(join(folder, '0002_second.sql'), 'create table second (id int primary key); select 1 / 0;')
    await expect(migrate(database.adminUrl, appUrl, log, folder)).rejects.toMatchObject({ code: '22012' })
    expect(await sql`select to_regclass('public.second') as found, (select array_agg(version) from schema_version) as done`).toMatchObject([
      { found: null, done: [1] },
    ])
    await sql.end()
    await database.drop()
    rmSync(folder, { recursive: true })
  })
})
