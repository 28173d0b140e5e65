// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { classifyDbError } from '../db/errors.ts'
import type { Device } from '../ingest/registry.ts'
import { maxChunkPoints } from './chunk-plan.ts'
import type { Point } from './points.ts'
import type { DeviceWrite } from './store.ts'
import { TelemetryLog } from './telemetry-log.ts'
import { Model, randomNumbers, randomValue, readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
let admin: postgres.Sql
const others: TelemetryLog[] = []
beforeAll(async () => {
  server = await startReadingServer()
  admin = postgres(server.context.database.adminUrl, { max: 2, onnotice: () => {} })
})
afterEach(async () => {
  for (const store of others.splice(0)) await store.stop()
})
afterAll(async () => {
  await admin.end()
  await server.close()
})

const start = Date.parse('2026-01-01T00:00:00Z')
const number = (ts: number, value: number, key = 'x'): Point => ({ key, ts, kind: 'double', value })
const plain = (points: readonly Point[]) => points.map(({ key: _key, ...point }) => point)

const reads = (device: Device, store = server.store) => ({ store, scope: { tenantId: device.tenantId, tenantNo: device.tenantNo }, device })
const readAll = (device: Device, key = 'x', store?: TelemetryLog) => readPoints(reads(device, store), key)

/** Another server on the same database. */
async function startStore(options = {}): Promise<TelemetryLog> {
  const store = new TelemetryLog(server.context, { graceMs: 0, compacts: false, ...options })
  others.push(store)
  await store.start()
  // Stores that only merge when asked do not give it back.
  await admin`update leases set expires_at = now()`
  return store
}

/** The writer tries again what was refused for no fault of the batch. */
async function writeAsWriter(store: TelemetryLog, write: DeviceWrite): Promise<void> {
  for (;;) {
    try {
      await store.write([write])
      return
    } catch (error) {
      if (classifyDbError(error) !== 'unavailable') throw error
    }
  }
}

const chunksOf = (device: Device) =>
  admin<{ count: number; first: number; last: number }[]>`
    select count, first_ts::float8 as first, last_ts::float8 as last from telemetry_chunks
    where tenant_no = ${device.tenantNo} and device_no = ${device.no} order by first_ts`

const countSegments = async (state: string) =>
  (await admin<{ n: number }[]>`select count(*)::int4 as n from telemetry_segments where state = ${state}`)[0]!.n

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await condition()) return
    await sleep(10)
  }
  throw new Error('it did not happen within 10 s')
}

/** Connections of stores that wait for a lock. */
const countWaiting = async () =>
  (
    await admin<{ n: number }[]>`select count(*)::int4 as n from pg_stat_activity
      where datname = current_database() and application_name = 'iot-pms keeper' and wait_event_type = 'Lock'`
  )[0]!.n

/** Takes a lock that `work` runs into, and lets go when `meanwhile` has returned. */
async function whileLocked(lock: string, work: () => Promise<unknown>, meanwhile: () => Promise<void>): Promise<unknown> {
  const holder = await admin.reserve()
  await holder.unsafe(`begin; ${lock}`)
  const outcome = work().then(
    () => undefined,
    (error: unknown) => error,
  )
  try {
    await waitFor(async () => (await countWaiting()) > 0)
    await meanwhile()
  } finally {
    await holder.unsafe('rollback')
    holder.release()
  }
  return outcome
}

/** As `kill -9` of the server does it to the database: connections end in the middle of their work. */
const killKeepers = async () => {
  await admin`select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'iot-pms keeper' and state <> 'idle'`
}

describe('compaction', () => {
  it('brings points from segments into chunks and leaves no table behind', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 20_000 }, (_, i) => number(start + i * 1000, i / 10))
    await server.write(device, points)
    await server.store.compact()
    const chunks = await chunksOf(device)
    expect(chunks.slice(0, -1).every(({ count }) => count === maxChunkPoints)).toBe(true)
    expect(chunks).toHaveLength(Math.ceil(20_000 / maxChunkPoints))
    expect(await readAll(device)).toEqual(plain(points))
    const stats = await server.store.stats()
    expect(stats).toMatchObject({ segments: { sealed: 0 }, points: 20_000, damaged: 0 })
  })

  it('fills the last chunk with what follows, and keeps few of them', async () => {
    const device = await server.createDevice()
    for (let round = 0; round < 30; round++) {
      await server.write(
        device,
        Array.from({ length: 10 }, (_, i) => number(start + (round * 10 + i) * 60_000, round)),
      )
      await server.store.compact()
    }
    const chunks = await chunksOf(device)
    expect(chunks.reduce((sum, { count }) => sum + count, 0)).toBe(300)
    expect(chunks.length).toBeLessThanOrEqual(6)
    expect(await readAll(device)).toHaveLength(300)
  })

  it('of late, repeated and out-of-order points of several tenants, devices and keys leaves what was written last', async () => {
    const tenantId = '018f0000-0000-7000-8000-00000000000b'
    await admin`insert into tenants (id, number, slug, name) values (${tenantId}, 2, 'second', 'Second')`
    await admin`insert into products (tenant_id, id, name, is_default) values (${tenantId}, ${tenantId}, 'default', true)`
    const own = await Promise.all([server.createDevice(), server.createDevice()])
    const id = '018f0000-0000-7000-8000-00000000000c'
    const [row] = await admin<{ number: number }[]>`insert into devices (tenant_id, id, product_id, name)
      values (${tenantId}, ${id}, ${tenantId}, 'foreign') returning number`
    const foreign: Device = { ...own[0], tenantId, tenantNo: 2, id, no: row!.number }
    const devices = [...own, foreign].map((device) => ({ device, model: new Model() }))
    const random = randomNumbers(11)
    for (let round = 0; round < 12; round++) {
      const batch = Array.from({ length: 20 }, () => {
        const { device, model } = devices[Math.floor(random() * devices.length)]!
        const points = Array.from({ length: 1 + Math.floor(random() * 40) }, (): Point => {
          // Half of it goes on from round to round, half falls anywhere before.
          const place = random() < 0.5 ? round * 200 + random() * 200 : random() * 200 * (round + 1)
          return { key: `k${Math.floor(random() * 4)}`, ts: start + Math.floor(place) * 60_000, ...randomValue(random) }
        })
        model.write(points)
        return { device, points }
      })
      await server.store.write(batch)
      if (round % 3 === 1) await server.store.compact()
      for (const { device, model } of devices) {
        for (const key of model.keys) expect(await readAll(device, key), `round ${round}, ${key}`).toEqual(model.points(key))
      }
    }
    await server.store.compact()
    for (const { device, model } of devices) {
      for (const key of model.keys) {
        expect(await readAll(device, key)).toEqual(model.points(key))
        expect(await readPoints(reads(device), key, { newestFirst: true })).toEqual(model.points(key).toReversed())
      }
    }
  })

  it('takes 200 texts of 100 KB and 20,000 points of one message', async () => {
    const device = await server.createDevice()
    const texts = Array.from({ length: 200 }, (_, i): Point => ({
      key: 't',
      ts: start + i,
      kind: 'string',
      value: `${i}长`.repeat(25_000),
    }))
    const points = Array.from({ length: 20_000 }, (_, i) => number(start + ((i * 7919) % 20_000) * 1000, i))
    await server.write(device, [...texts, ...points])
    await server.store.compact()
    expect(await readAll(device, 't')).toEqual(plain(texts))
    expect(await readAll(device)).toEqual(plain(points).sort((a, b) => a.ts - b.ts))
  })

  it('takes the first and the last instants there are', async () => {
    const device = await server.createDevice()
    const points = [1, 2, 7.7e15, 7.8e15, 8.64e15 - 1, 8.64e15].map((ts, i) => number(ts, i))
    await server.write(device, points)
    await server.store.compact()
    expect(await chunksOf(device)).not.toHaveLength(0)
    expect(await readAll(device)).toEqual(plain(points))
    expect(await server.store.count(server.context.rootTenant, device.id, ['x'], 0, 8.64e15)).toBe(5)
  })

  it('that a statement fails in the middle of is rolled back and succeeds another time', async () => {
    const [device, other] = [await server.createDevice(), await server.createDevice()]
    const points = Array.from({ length: 3000 }, (_, i) => number(start + i, i))
    await server.store.write([
      { device: other, points },
      { device, points },
    ])
    await admin.unsafe(
      `alter table telemetry_chunks add constraint refused check (device_no <> ${Math.max(device.no, other.no)}) not valid`,
    )
    await expect(server.store.compact()).rejects.toMatchObject({ code: '23514' })
    expect(await chunksOf(other)).toHaveLength(0)
    expect(await readAll(device)).toEqual(plain(points))
    await admin`alter table telemetry_chunks drop constraint refused`
    await server.store.compact()
    expect(await chunksOf(device)).toHaveLength(1)
    for (const one of [device, other]) expect(await readAll(one)).toEqual(plain(points))
  })

  it('whose connections end in the middle leaves every point readable once, and the next one completes', async () => {
    // More than fits between database and server, so that rows are still on their way.
    const devices = await Promise.all(Array.from({ length: 10 }, () => server.createDevice()))
    const points = Array.from({ length: 100_000 }, (_, i) => number(start + i, i))
    for (const device of devices) await server.write(device, points.slice(0, 2000))
    await server.store.compact()
    for (const device of devices) await server.write(device, points.slice(1000))
    const failed = await whileLocked(
      'lock table telemetry_chunks in share mode',
      () => server.store.compact(),
      async () => {
        expect(await readAll(devices[0]!)).toHaveLength(points.length)
        // First the one that brings the rows, if it still does: nobody waits for its answer just then.
        await admin`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and wait_event = 'ClientWrite'`
        await sleep(200)
        await killKeepers()
      },
    )
    expect(failed).toBeInstanceOf(Error)
    expect(await countSegments('sealed')).toBe(1)
    for (const device of devices.slice(8)) {
      const read = await readAll(device)
      expect(read).toHaveLength(points.length)
      expect(read.every(({ value }, i) => value === i)).toBe(true)
    }
    await server.store.compact()
    expect(await countSegments('sealed')).toBe(0)
    expect(await readAll(devices[3]!)).toEqual(plain(points))
  })

  it('is stopped in the middle by the end of the server, and completed by the next one', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 3000 }, (_, i) => number(start + i, i))
    const store = await startStore()
    await store.write([{ device, points }])
    await whileLocked(
      'lock table telemetry_chunks in share mode',
      () => store.compact(),
      async () => {
        await store.stop()
        await killKeepers()
      },
    )
    expect(await readAll(device)).toEqual(plain(points))
    const next = await startStore()
    await next.compact()
    expect(await chunksOf(device)).toHaveLength(1)
    expect(await readAll(device)).toEqual(plain(points))
  })
})

describe('segments', () => {
  it('that a server left active, which was never stopped, are merged after the next start', async () => {
    const device = await server.createDevice()
    const dead = await startStore()
    await dead.write([{ device, points: [number(start, 1)] }])
    expect(await chunksOf(device)).toHaveLength(0)
    const next = await startStore()
    await next.compact()
    expect(await chunksOf(device)).toHaveLength(1)
    expect(await readAll(device)).toEqual([{ ts: start, kind: 'double', value: 1 }])
  })

  it('sealed by another server, which took this one for dead, lose no batch: writing goes on in another', async () => {
    const device = await server.createDevice()
    const [first, second] = [await startStore(), await startStore()]
    // Each start seals what the others write.
    const stores = [first, second, first]
    let i = 0
    for (let round = 0; round < 5; round++) {
      await Promise.all([
        startStore(),
        ...Array.from({ length: 12 }, (_, n) => writeAsWriter(stores[n % 3]!, { device, points: [number(start + i + n, i + n)] })),
      ])
      i += 12
    }
    await Promise.all([first.compact(), second.compact()])
    expect(await readAll(device)).toEqual(Array.from({ length: i }, (_, n) => ({ ts: start + n, kind: 'double', value: n })))
  })

  it('of two servers are merged by one at a time while both write, and both read all of it', async () => {
    const device = await server.createDevice()
    const [first, second] = [await startStore(), await startStore()]
    for (let round = 0; round < 8; round++) {
      await Promise.all([
        first.write([{ device, points: Array.from({ length: 50 }, (_, n) => number(start + round * 100 + n, round)) }]),
        second.write([{ device, points: Array.from({ length: 50 }, (_, n) => number(start + round * 100 + 50 + n, round)) }]),
      ])
      if (round % 2 === 0) await Promise.all([first.compact(), second.compact()])
    }
    for (const store of [first, second, server.store]) {
      const points = await readAll(device, 'x', store)
      expect(points.map(({ ts }) => ts - start)).toEqual(Array.from({ length: 800 }, (_, n) => n))
    }
    await Promise.all([first.compact(), second.compact()])
    const chunks = await chunksOf(device)
    expect(chunks.reduce((sum, { count }) => sum + count, 0)).toBe(800)
    expect(chunks.length).toBeLessThanOrEqual(8)
  })

  it('that a backup still reads are dropped later, and do not keep the others', async () => {
    const device = await server.createDevice()
    const store = await startStore()
    const compactOne = async (value: number) => {
      await store.write([{ device, points: [number(start, value)] }])
      await store.compact()
      const [row] = await admin<{ no: number }[]>`select max(segment_no) as no from telemetry_segments where state = 'compacted'`
      return `telemetry_segment_${row!.no}`
    }
    const isThere = async (table: string) => (await admin`select from pg_class where relname = ${table}`).length === 1
    const held = await compactOne(1)
    const next = await compactOne(2)
    expect([await isThere(held), await isThere(next)]).toEqual([true, true])
    const backup = await admin.reserve()
    await backup.unsafe(`begin; lock table ${held} in access share mode`)
    await startStore({ compacts: true })
    await waitFor(async () => !(await isThere(next)))
    expect(await isThere(held)).toBe(true)
    expect(await readAll(device)).toEqual([{ ts: start, kind: 'double', value: 2 }])
    await backup.unsafe('rollback')
    backup.release()
    await waitFor(async () => !(await isThere(held)))
  })

  it('that could not be sealed are sealed later, and before those that follow, so that the last write wins', async () => {
    const device = await server.createDevice()
    const store = await startStore()
    await store.write([{ device, points: [number(start, 1)] }])
    const [active] = await admin`select max(segment_no) as no from telemetry_segments where state = 'active'`
    const failed = await whileLocked(
      `lock table telemetry_segment_${active!['no']} in row exclusive mode`,
      () => store.compact(),
      killKeepers,
    )
    expect(failed).toBeInstanceOf(Error)
    await store.write([{ device, points: [number(start, 2)] }])
    await store.compact()
    expect(await readAll(device)).toEqual([{ ts: start, kind: 'double', value: 2 }])
    const [left] = await admin`select count(*)::int4 as n from telemetry_segments where segment_no = ${active!['no']} and state = 'active'`
    expect(left!['n']).toBe(0)
  })
})
