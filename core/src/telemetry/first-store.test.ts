// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterEach, describe, expect, inject, it } from 'vitest'
import type { Context } from '../context.ts'
import { Db } from '../db/client.ts'
import { loadInstallation, loadRootTenant } from '../db/installation.ts'
import { migrate, migrationsDir } from '../db/migrate.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Device } from '../ingest/registry.ts'
import { defaultSettings } from '../products/settings.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { kindNumbers } from './points.ts'
import type { Point } from './points.ts'
import { createTally, readRows } from './series.ts'
import { TelemetryLog } from './telemetry-log.ts'
import { Model, endOfTime, randomNumbers, randomValue, readPoints } from './testing-model.ts'

/** Last migration of version 0.1. */
const lastOfFirst = 6
const keys = ['a', 'b', 'c']
const now = Date.now()
const dayMs = 86_400_000

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close()
})

type Upgraded = { context: TestContext; admin: postgres.Sql; devices: Device[]; models: Model[] }

/** A database of version 0.1 with points of all kinds and ages, brought to this version. */
async function upgrade(pointsPerDevice = 600): Promise<Upgraded> {
  const context = await createTestContext()
  closers.push(() => context.close())
  const name = `t_${randomBytes(6).toString('hex')}`
  const sql = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
  await sql`create database ${sql(name)}`
  closers.push(async () => {
    await sql`drop database if exists ${sql(name)} with (force)`
    await sql.end()
  })
  const adminUrl = inject('adminUrl').replace(/[^/]+$/, name)
  const appUrl = inject('appUrl').replace(/[^/]+$/, name)
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-migrations-'))
  for (const file of readdirSync(migrationsDir)) {
    if (Number(file.slice(0, 4)) <= lastOfFirst) cpSync(join(migrationsDir, file), join(folder, file))
  }
  await migrate(adminUrl, appUrl, context.log, folder)
  rmSync(folder, { recursive: true })
  const admin = postgres(adminUrl, { max: 2, onnotice: () => {} })
  closers.push(() => admin.end())
  const db = new Db(appUrl)
  closers.push(() => db.stop())
  const own: TestContext = {
    ...context,
    db,
    installId: (await loadInstallation(db)).installId,
    rootTenant: await loadRootTenant(db),
    database: { ...context.database, url: appUrl, adminUrl },
  }
  const devices = [await createDevice(own, admin), await createDevice(own, admin)]
  const models = devices.map(() => new Model())
  const random = randomNumbers(29)
  await admin`select telemetry_ensure_month(${new Date(now).toISOString().slice(0, 10)}::date)`
  await admin`select telemetry_ensure_month(${new Date(now - 31 * dayMs).toISOString().slice(0, 10)}::date)`
  for (const [i, device] of devices.entries()) {
    const points = Array.from({ length: pointsPerDevice }, (_, n): Point => {
      // Months, what came before the installation, and what no month has: years behind and ahead.
      const age = [
        random() * 20 * dayMs,
        31 * dayMs + random() * dayMs,
        2000 * dayMs + random() * 9 * dayMs,
        -900 * dayMs - random() * dayMs,
      ][n % 4]!
      return { key: keys[n % 3]!, ts: Math.floor(now - age), ...randomValue(random) }
    })
    models[i]!.write(points)
    await insertOld(admin, device, models[i]!)
  }
  const parts = await admin<{ part: string }[]>`select distinct tableoid::regclass::text as part from telemetry order by 1`
  expect(parts.length).toBeGreaterThanOrEqual(4)
  expect(parts.map(({ part }) => part)).toEqual(expect.arrayContaining(['telemetry_late', 'telemetry_old']))
  await migrate(adminUrl, appUrl, context.log)
  return { context: own, admin, devices, models }
}

async function createDevice(context: TestContext, admin: postgres.Sql): Promise<Device> {
  const { tenantId, tenantNo } = context.rootTenant
  const [row] = await admin<{ id: string; number: number }[]>`insert into devices (tenant_id, id, product_id, name)
    select ${tenantId}, gen_random_uuid(), id, gen_random_uuid()::text from products where is_default returning id, number`
  const { id, number } = row!
  return {
    tenantId,
    tenantNo,
    id,
    no: number,
    name: id,
    isDisabled: false,
    isGateway: false,
    settings: defaultSettings,
    rules: defaultPayloadRules,
    inactivityTimeoutMs: 600_000,
    lastServerTs: 0,
  }
}

/** As version 0.1 wrote them. */
async function insertOld(admin: postgres.Sql, device: Device, model: Model): Promise<void> {
  const numbers = await admin<{ key: string; key_no: number }[]>`select key, key_no
    from telemetry_register_keys(${keys.map(() => device.tenantNo)}, ${keys.map(() => device.no)}, ${keys})`
  const rows = keys.flatMap((key) =>
    model.points(key).map((point) => ({
      tenant_no: device.tenantNo,
      device_no: device.no,
      key_no: numbers.find((one) => one.key === key)!.key_no,
      ts: point.ts,
      kind: kindNumbers[point.kind],
      num: point.kind === 'double' ? point.value : null,
      big: point.kind === 'integer' ? String(point.value) : point.kind === 'boolean' ? String(Number(point.value)) : null,
      txt: point.kind === 'string' || point.kind === 'json' ? point.value : null,
    })),
  )
  for (let i = 0; i < rows.length; i += 2000) await admin`insert into telemetry ${admin(rows.slice(i, i + 2000))}`
}

async function startStore(context: Context, compacts: boolean): Promise<TelemetryLog> {
  const store = new TelemetryLog(context, { compacts, graceMs: 2000 })
  await store.start()
  closers.push(() => store.stop())
  return store
}

/** Every form of reading says what the model says. */
async function expectAsModels(store: TelemetryLog, { context, devices, models }: Upgraded): Promise<void> {
  const scope = context.rootTenant
  const latest = await store.latest(
    scope,
    devices.map(({ id }) => id),
  )
  for (const [i, device] of devices.entries()) {
    const reads = { store, scope, device }
    for (const key of keys) {
      const all = models[i]!.points(key)
      expect(await readPoints(reads, key)).toEqual(all)
      expect(await readPoints(reads, key, { newestFirst: true, limit: 50 })).toEqual(all.toReversed().slice(0, 50))
      const [from, to] = [now - 15 * dayMs, now - 2 * dayMs]
      expect(await readPoints(reads, key, { from, to })).toEqual(models[i]!.points(key, from, to))
      expect(await store.count(scope, device.id, [key], 0, endOfTime)).toBe(all.length)
      expect(latest.get(device.id)!.find((point) => point.key === key)).toEqual(all.length > 0 ? { ...all.at(-1), key } : undefined)
      const edges = [1, now - 40 * dayMs, now, endOfTime]
      const range = { key, from: 1, to: endOfTime, order: 'asc' as const }
      const rows = readRows(
        { store, scope, deviceId: device.id },
        range,
        { form: 'buckets', aggs: ['COUNT', 'LAST'], edges, counter: 'signed' },
        createTally(),
      )
      const expected = edges.slice(0, -1).map((low, n) => all.filter(({ ts }) => ts >= low && ts < edges[n + 1]!))
      expect((await Array.fromAsync(rows)).flat().map(({ values }) => values.map((value) => value?.value))).toEqual(
        expected.filter((some) => some.length > 0).map((some) => [some.length, some.at(-1)!.value]),
      )
    }
  }
}

const isGone = async (admin: postgres.Sql) => (await admin<{ gone: boolean }[]>`select to_regclass('telemetry') is null as gone`)[0]!.gone

async function expectNothingLeft(admin: postgres.Sql): Promise<void> {
  expect(await isGone(admin)).toBe(true)
  const functions = await admin`select proname from pg_proc
    where proname in ('telemetry_points', 'telemetry_latest', 'telemetry_delete', 'telemetry_count', 'telemetry_ensure_month')`
  expect([...functions]).toEqual([])
  const parts =
    await admin`select relname from pg_class where relname in ('telemetry_other', 'telemetry_late', 'telemetry_old') or relname like 'telemetry\_20%'`
  expect([...parts]).toEqual([])
}

async function waitUntilGone(admin: postgres.Sql, meanwhile: () => Promise<void>): Promise<number> {
  const until = performance.now() + 40_000
  let rounds = 0
  while (!(await isGone(admin))) {
    if (performance.now() > until) throw new Error('the first store was not emptied')
    await meanwhile()
    rounds++
  }
  return rounds
}

describe('the points of the first store', () => {
  it('are read, written over and deleted before, while and after they move into chunks; then its table goes', async () => {
    const upgraded = await upgrade()
    const { context, admin, devices, models } = upgraded
    const resting = await startStore(context, false)
    await expectAsModels(resting, upgraded)
    expect((await resting.stats()).firstStoreBytes).toBeGreaterThan(0)

    // At the ts of old points, into segments and into chunks: the newer write wins in either order of moving.
    const rewrite = async (store: TelemetryLog, i: number, step: number, offset: number) => {
      const points = keys.flatMap((key) =>
        models[i]!.points(key)
          .filter((_, n) => n % step === offset)
          .map(({ ts }): Point => ({ key, ts, kind: 'string', value: `new ${offset}` })),
      )
      await store.write([{ device: devices[i]!, points }])
      models[i]!.write(points)
    }
    await rewrite(resting, 0, 10, 1)
    await resting.compact()
    await rewrite(resting, 0, 10, 2)
    await expectAsModels(resting, upgraded)
    const remove = async (store: TelemetryLog, i: number, from: number, to: number, some: string[] | undefined) => {
      const removed = await store.delete(context.rootTenant, devices[i]!.id, some, from, to)
      expect(removed).toBe(models[i]!.delete(some ?? keys, from, to))
    }
    await remove(resting, 0, now - 12 * dayMs, now - 10 * dayMs, undefined)
    await remove(resting, 0, now - 2005 * dayMs, now - 2003 * dayMs, ['a'])
    await expectAsModels(resting, upgraded)
    await resting.stop()

    const moving = await startStore(context, true)
    let round = 0
    await waitUntilGone(admin, async () => {
      await expectAsModels(moving, upgraded)
      if (round === 1) await rewrite(moving, 1, 10, 3)
      if (round === 2) await remove(moving, 1, now - 9 * dayMs, now - 7 * dayMs, ['a', 'c'])
      round++
    })
    await expectAsModels(moving, upgraded)
    await rewrite(moving, 1, 10, 4)
    await remove(moving, 0, now - 6 * dayMs, now - 5 * dayMs, ['b'])
    await expectAsModels(moving, upgraded)
    await expectNothingLeft(admin)
    expect((await moving.stats()).firstStoreBytes).toBe(0)
    await moving.stop()
    await expectAsModels(await startStore(context, false), upgraded)
  })

  it('that another server moves to the end stay readable, removable and whole for this one', async () => {
    const upgraded = await upgrade(120)
    const { context, admin, devices, models } = upgraded
    const watching = await startStore(context, false)
    const removing = await startStore(context, false)
    const taking = await startStore({ ...context, config: { ...context.config, testHooks: new Set(['eager-compaction']) } }, true)
    await waitUntilGone(admin, () => expectAsModels(watching, upgraded))
    await expectNothingLeft(admin)
    await taking.stop()
    const removed = await removing.delete(context.rootTenant, devices[0]!.id, ['a'], 0, now)
    expect(removed).toBe(models[0]!.delete(['a'], 0, now))
    // Servers do not tell each other of deletions: what it keeps of newest values is asked for anew.
    await watching.delete(context.rootTenant, devices[0]!.id, ['a'], 0, 1)
    await expectAsModels(watching, upgraded)
    // It would go on with moving, were there anything left.
    await admin`update leases set expires_at = now()`
    const another = await startStore(context, true)
    await expectAsModels(another, upgraded)
  })

  it('have no table in a new installation', async () => {
    const context = await createTestContext()
    closers.push(() => context.close())
    const admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
    closers.push(() => admin.end())
    await expectNothingLeft(admin)
  })
})
