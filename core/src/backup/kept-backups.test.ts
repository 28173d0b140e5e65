// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import { migrate, migrationsDir, readMigrations } from '../db/migrate.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { openBackup } from './archive.ts'
import { DailyBackup } from './daily-backup.ts'
import { Databases, withDatabaseName } from './databases.ts'
import { ensureRestorePoint } from './restore-point.ts'

let context: TestContext
const folder = mkdtempSync(join(tmpdir(), 'iot-pms-kept-'))
beforeAll(async () => {
  context = await createTestContext()
})
afterAll(async () => {
  await context.close()
  rmSync(folder, { recursive: true })
})

async function readApplied(adminUrl: string): Promise<{ version: number }[]> {
  const owner = postgres(adminUrl, { max: 1, onnotice: () => {} })
  const rows = await owner<{ version: number }[]>`select version from schema_version`
  await owner.end()
  return [...rows]
}

describe('a restore point [RE-93]', { timeout: 60_000 }, () => {
  const files = [...readMigrations(migrationsDir), { version: 9999 }]

  it('is written before tables are changed, and only then', async () => {
    const { database, log } = context
    const applied = await readApplied(database.adminUrl)
    expect(await ensureRestorePoint({ dataDir: folder }, database.adminUrl, log, applied)).toBeUndefined()
    const file = await ensureRestorePoint({ dataDir: folder }, database.adminUrl, log, files)
    const backup = await openBackup(file!)
    expect(backup.manifest.kind).toBe('config')
    await backup.close()
  })

  it('is there five times at most, and stops the upgrade where it cannot be written', async () => {
    const points = join(folder, 'restore-points')
    for (let n = 0; n < 8; n++) writeFileSync(join(points, `before-2020010100000${n}.tar`), '')
    await ensureRestorePoint({ dataDir: folder }, context.database.adminUrl, context.log, files)
    expect(readdirSync(points)).toHaveLength(5)
    expect(readdirSync(points)).not.toContain('before-20200101000000.tar')
    const blocked = join(folder, 'blocked')
    writeFileSync(blocked, '')
    await expect(ensureRestorePoint({ dataDir: blocked }, context.database.adminUrl, context.log, files)).rejects.toMatchObject({
      code: 'RESTORE_POINT',
      exitCode: 73,
    })
  })

  it('is made of databases of early versions, too, and of none that is empty', async () => {
    const name = `t_${randomBytes(6).toString('hex')}`
    const [adminUrl, appUrl] = [context.database.adminUrl, context.database.url].map((url) => withDatabaseName(url, name)) as [
      string,
      string,
    ]
    const owner = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
    const early = join(folder, 'early')
    mkdirSync(early)
    for (const file of readMigrations(migrationsDir).slice(0, 6)) copyFileSync(join(migrationsDir, file.name), join(early, file.name))
    try {
      await owner.unsafe(`create database ${name}`)
      expect(await ensureRestorePoint({ dataDir: folder }, adminUrl, context.log)).toBeUndefined()
      await migrate(adminUrl, appUrl, context.log, early)
      const backup = await openBackup((await ensureRestorePoint({ dataDir: folder }, adminUrl, context.log))!)
      expect(backup.manifest.migrations).toHaveLength(6)
      await backup.close()
    } finally {
      await owner.unsafe(`drop database if exists ${name} with (force)`)
      await owner.end()
    }
  })
})

describe('the backup of every night [RE-96]', { timeout: 60_000 }, () => {
  const hourMs = 3_600_000
  const start = new Date(2026, 5, 1, 15).getTime()
  let now = start
  let isFull = false
  const clock = { ...systemClock, now: () => now }
  const disk = {
    assertDiskHasRoom() {
      if (isFull) throw new Error('no room')
    },
  }
  const create = () => new DailyBackup({ ...context, clock }, { adminUrl: context.database.adminUrl, disk })
  const list = (daily: DailyBackup) => readdirSync(daily.folder).toSorted()

  it('comes once a night, is made up for when the server was off, and leaves fourteen', async () => {
    const daily = create()
    mkdirSync(daily.folder, { recursive: true })
    await daily.run()
    now = start + 10 * hourMs
    await daily.run()
    expect(list(daily)).toEqual([])
    now = start + 11.5 * hourMs
    await daily.run()
    await daily.run()
    expect(list(daily)).toHaveLength(1)
    const backup = await openBackup(join(daily.folder, list(daily)[0]!))
    expect(backup.manifest.kind).toBe('config')
    await backup.close()
    now = start + 90 * hourMs
    await create().run()
    expect(list(daily)).toHaveLength(2)
    for (let n = 10; n < 30; n++) writeFileSync(join(daily.folder, `iot-pms-config-202605${n}020000.tar`), '')
    now = start + 120 * hourMs
    await daily.run()
    expect(list(daily)).toHaveLength(14)
    await daily.stop()
  })

  it('is listed with those that people make, and made at once when asked for', async () => {
    const daily = create()
    const made = await daily.make()
    expect(made).toMatchObject({
      name: expect.stringMatching(/^iot-pms-config-\d{14}\.tar$/),
      kind: 'config',
      sizeBytes: expect.any(Number),
    })
    const { items, nextAt } = await daily.list()
    expect(items.map(({ name }) => name)).toContain(made.name)
    expect(Date.parse(nextAt!)).toBeGreaterThan(now)
    isFull = true
    await expect(daily.make()).rejects.toThrow('no room')
    isFull = false
  })

  it('waits for room, and is tried again an hour later', async () => {
    const daily = create()
    const before = list(daily)
    isFull = true
    now += 24 * hourMs
    await daily.run()
    isFull = false
    now += 600_000
    await daily.run()
    expect(list(daily)).toEqual(before)
    now += hourMs
    await daily.run()
    expect(list(daily)).not.toEqual(before)
    await daily.stop()
  })

  it('removes what a restore has replaced more than seven days ago', async () => {
    const databases = await Databases.open(context.database.adminUrl)
    try {
      const name = new URL(context.database.adminUrl).pathname.slice(1)
      const owner = postgres(withDatabaseName(context.database.adminUrl, 'postgres'), { max: 1, onnotice: () => {} })
      await owner.unsafe(`create database ${name}_before_20200101000000`)
      await owner.unsafe(`create database ${name}_before_29990101000000`)
      await owner.end()
      const daily = create()
      now += 24 * hourMs
      await daily.run()
      expect(await databases.list('before')).toEqual([`${name}_before_29990101000000`])
      await databases.discardOld(now, 0)
    } finally {
      await databases.close()
    }
  })
})
