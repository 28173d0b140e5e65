// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { encodeChunk } from './chunk-codec.ts'
import { FirstStore } from './first-store.ts'
import { LatestValues } from './latest.ts'
import type { Point } from './points.ts'
import { createSegment, tableOf } from './segment-sql.ts'
import type { LatestOptions, StoredPoint } from './store.ts'
import { endOfTime, readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
let first: FirstStore
let admin: postgres.Sql
beforeAll(async () => {
  server = await startReadingServer()
  first = new FirstStore(server.context)
  await first.start()
  admin = postgres(server.context.database.adminUrl, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await admin.end()
  await server.close()
})

const start = Date.parse('2026-01-01T00:00:00Z')
const number = (ts: number, value: number, key = 'n'): Point => ({ key, ts: start + ts, kind: 'integer', value })
/** ASCII, so as many bytes as characters. */
const text = (ts: number, length: number, key = 't'): Point => ({
  key,
  ts: start + ts,
  kind: 'string',
  value: `${ts} `.padEnd(length, 'x'),
})
const plain = (named: Point): StoredPoint => {
  const { key: _, ...point } = named
  return point
}
const pointsOf = (device: Device, key: string, options = {}) =>
  readPoints({ store: server.store, scope: server.context.rootTenant, device }, key, options)
const latestOf = async (values: LatestValues, devices: readonly Device[], options: LatestOptions = {}) =>
  values.read(
    server.context.rootTenant,
    devices.map(({ id }) => id),
    options,
  )
const megabyte = 1024 * 1024

/** Some 16 MB of texts outside chunks, in rows of 1 MB; a number in each, and two that are written again later. */
async function writeLargeTail(device: Device): Promise<void> {
  for (let i = 0; i < 16; i++) {
    const texts = Array.from({ length: 16 }, (_, k) => text(i * 16 + k, 64 * 1024))
    await server.write(device, [...texts, number(i, i)])
  }
  await server.write(device, [number(0, 100), number(15, 115)])
}

const numbers = Array.from({ length: 16 }, (_, i) => plain(number(i, i === 0 ? 100 : i === 15 ? 115 : i)))

describe('a device with much outside chunks', () => {
  it('is read in blocks, and of each key as it was written last', async () => {
    const device = await server.createDevice()
    await writeLargeTail(device)
    expect(await pointsOf(device, 'n')).toEqual(numbers)
    expect(await pointsOf(device, 'n', { newestFirst: true })).toEqual(numbers.toReversed())
    const texts = await pointsOf(device, 't')
    expect(texts).toEqual(Array.from({ length: 256 }, (_, i) => plain(text(i, 64 * 1024))))
    // In chunks with newer values on top of them.
    await server.store.compact()
    await writeLargeTail(device)
    await server.write(device, [number(3, 3)])
    expect(await pointsOf(device, 'n')).toEqual(numbers)
  })

  it('comes from the database in blocks of bounded size', async () => {
    const device = await server.createDevice()
    await writeLargeTail(device)
    const ask = async (most: number | null) =>
      admin.begin(async (tx) => {
        await tx`select set_config('iot_pms.tenant_no', ${String(device.tenantNo)}, true)`
        return tx<{ points: Buffer | null }[]>`select points from telemetry_tail(array[${device.no}::int4], 0, ${endOfTime}, ${most})`
      })
    const blocks = (await ask(null)).map(({ points }) => points!.length)
    expect(blocks.length).toBeGreaterThanOrEqual(4)
    expect(Math.max(...blocks)).toBeLessThan(5.5 * megabyte)
    const bounded = await ask(4 * megabyte)
    expect(bounded.at(-1)!.points).toBeNull()
    expect(bounded.reduce((sum, { points }) => sum + (points?.length ?? 0), 0)).toBeLessThan(5.5 * megabyte)
  })

  it('is compacted while its blocks are read, and no point is missed or older than before', async () => {
    const device = await server.createDevice()
    await writeLargeTail(device)
    const reading = Promise.all(Array.from({ length: 6 }, () => pointsOf(device, 'n')))
    await server.store.compact()
    for (const points of await reading) expect(points).toEqual(numbers)
  })

  it('has its newest values like any other', async () => {
    const [large, small] = [await server.createDevice(), await server.createDevice()]
    await writeLargeTail(large)
    await server.write(small, [number(1, 1)])
    for (const options of [{}, { keys: ['n', 't'] }]) {
      const found = await latestOf(new LatestValues(server.context, first), [small, large], options)
      expect(found.get(large.id)).toEqual([
        { ...plain(number(15, 115)), key: 'n' },
        { ...plain(text(255, 64 * 1024)), key: 't' },
      ])
      expect(found.get(small.id)).toEqual([{ ...plain(number(1, 1)), key: 'n' }])
    }
  })
})

describe('a segment whose table goes while a question waits for it', () => {
  it('is not missed: the question is asked once more', async () => {
    const device = await server.createDevice()
    await server.write(device, [number(1, 1)])
    const no = 1_000_000
    await admin.unsafe(createSegment(no))
    await admin`insert into telemetry_segments (segment_no, state, owner) overriding system value values (${no}, 'sealed', gen_random_uuid())`
    const expected = [plain(number(1, 1))]
    const asked = await admin.begin(async (tx) => {
      await tx.unsafe(`drop table ${tableOf(no)}`)
      await tx`delete from telemetry_segments where segment_no = ${no}`
      const questions = Promise.all([pointsOf(device, 'n'), latestOf(new LatestValues(server.context, first), [device])])
      questions.catch(() => {})
      for (let waiting = 0; waiting < 2;) {
        await sleep(20)
        const [row] = await tx<{ n: number }[]>`select count(*)::int4 as n from pg_locks where not granted`
        waiting = row!.n
      }
      return { questions }
    })
    const [points, latest] = await asked.questions
    expect(points).toEqual(expected)
    expect(latest.get(device.id)).toEqual([{ ...expected[0], key: 'n' }])
  })
})

describe('newest values that are long texts', () => {
  it('are right and not kept, whether they lie in segments, in chunks or were followed', async () => {
    const device = await server.createDevice()
    const values = new LatestValues(server.context, first)
    const keys = ['a', 'b', 'c']
    const expected = (ts: number) => [
      ...keys.map((key) => ({ ...plain(text(ts, 64 * 1024, key)), key })),
      { ...plain(number(1, 7)), key: 'n' },
    ]
    await server.write(device, [...keys.map((key) => text(1, 64 * 1024, key)), number(1, 7)])
    expect((await latestOf(values, [device])).get(device.id)).toEqual(expected(1))
    await server.store.compact()
    expect((await latestOf(values, [device])).get(device.id)).toEqual(expected(1))
    expect((await latestOf(new LatestValues(server.context, first), [device])).get(device.id)).toEqual(expected(1))
    const newer = keys.map((key) => text(2, 64 * 1024, key))
    await server.write(device, newer)
    values.follow(device, newer)
    expect((await latestOf(values, [device])).get(device.id)).toEqual(expected(2))
    expect(values.bytes).toBe(400)
    values.forget(device.no)
    expect(values.bytes).toBe(0)
  })
})

describe('the memory of newest values', () => {
  it('is bounded by bytes also by what is followed, and no device is wrong afterwards', async () => {
    const devices = await Promise.all(Array.from({ length: 20 }, () => server.createDevice()))
    const values = new LatestValues(server.context, first, 10_000)
    const write = async (ts: number, length: number) => {
      await server.store.write(devices.map((device) => ({ device, points: [text(ts, length)] })))
      for (const device of devices) values.follow(device, [text(ts, length)])
    }
    await write(1, 10)
    await latestOf(values, devices)
    expect(values.bytes).toBe(20 * 120)
    await write(2, 1000)
    expect(values.bytes).toBeGreaterThan(0)
    expect(values.bytes).toBeLessThanOrEqual(10_000)
    const found = await latestOf(values, devices)
    for (const { id } of devices) expect(found.get(id)).toEqual([{ ...plain(text(2, 1000)), key: 't' }])
    expect(values.bytes).toBeLessThanOrEqual(10_000)
  })

  it('takes nothing of devices whose keys are asked for by name or number, and others come in pages of keys', async () => {
    const devices = await Promise.all(Array.from({ length: 150 }, () => server.createDevice()))
    const keys = Array.from({ length: 200 }, (_, i) => `key${i}`)
    for (let i = 0; i < devices.length; i += 25) {
      await server.store.write(devices.slice(i, i + 25).map((device) => ({ device, points: keys.map((key, k) => number(1, k, key)) })))
    }
    const values = new LatestValues(server.context, first)
    const named = await latestOf(values, devices, { keys: ['key7', 'never'] })
    for (const { id } of devices) expect(named.get(id)).toEqual([{ ...plain(number(1, 7)), key: 'key7' }])
    const few = await latestOf(values, devices, { maxKeys: 3 })
    for (const { id } of devices) expect(few.get(id)).toHaveLength(3)
    expect(values.bytes).toBe(0)
    // 30,000 keys: several pages of keys, which end within a device.
    const all = await latestOf(values, devices)
    for (const { id } of devices) expect(new Set(all.get(id)!.map(({ key }) => key)).size).toBe(200)
    expect(values.bytes).toBe(150 * 200 * 100)
  })
})

describe('a chunk whose statistics were read', () => {
  it('is read again as a whole when it has become more parts than one question brings', async () => {
    const device = await server.createDevice()
    const at = (i: number): Point => number(i * 60_000, i)
    const early = Array.from({ length: 2 }, (_, i) => at(i - 100_000))
    const late = Array.from({ length: 100 }, (_, i) => at(i))
    await server.write(device, [...early, ...late])
    await server.store.compact()
    const range = { deviceId: device.id, key: 'n', from: 0, to: endOfTime }
    const pieces = server.store.summarize(server.context.rootTenant, range, { accepts: () => false, longestMs: endOfTime })
    const points: StoredPoint[] = []
    for await (const piece of pieces) {
      if (!('points' in piece)) throw new Error('no statistics were wanted')
      const isFirst = points.length === 0
      points.push(...piece.points)
      if (isFirst) await divide(device, late.map(plain))
    }
    expect(points.map(({ value }) => value)).toEqual([-100_000, -99_999, ...Array.from({ length: 100 }, (_, i) => i)])
  })
})

/** Each point becomes a chunk of its own, as many merges might have left them. */
async function divide(device: Device, points: readonly StoredPoint[]): Promise<void> {
  await admin.begin(async (tx) => {
    const keyNo = device.keyNos!.get('n')!
    const [whole] =
      await tx`delete from telemetry_chunks where device_no = ${device.no} and key_no = ${keyNo} and first_ts >= ${start} returning count`
    expect(whole!['count']).toBe(points.length)
    for (const point of points) {
      await tx`insert into telemetry_chunks (tenant_no, device_no, key_no, count, first_ts, last_ts, kinds, hour_marks, points)
        values (${device.tenantNo}, ${device.no}, ${keyNo}, 1, ${point.ts}, ${point.ts}, 2, '{}', ${encodeChunk([point])})`
    }
  })
}
