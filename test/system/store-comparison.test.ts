// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { copyIn } from '../../core/src/db/copy-in.ts'
import { defaultPayloadRules } from '../../core/src/ingest/registry.ts'
import type { Aggregation } from '../../core/src/telemetry/aggregate.ts'
import type { Device } from '../../core/src/ingest/registry.ts'
import { defaultSettings } from '../../core/src/products/settings.ts'
import type { Point, TypedValue } from '../../core/src/telemetry/points.ts'
import { createTally, readRows } from '../../core/src/telemetry/series.ts'
import type { StoredPoint } from '../../core/src/telemetry/store.ts'
import { TelemetryLog } from '../../core/src/telemetry/telemetry-log.ts'
import { endOfTime, randomNumbers, readPoints } from '../../core/src/telemetry/testing-model.ts'
import { createTestContext } from '../../core/src/testing.ts'
import type { TestContext } from '../../core/src/testing.ts'

/** The store against a plain table with a primary key, which keeps what was written last per device, key and ts. */

const total = process.env['CI'] ? 10_000_000 : 1_000_000
const deviceCount = 200
/** Its kinds by its name; `mixed` has all of them. */
const keys = ['double', 'integer', 'boolean', 'string', 'mixed'] as const
const batchPoints = 20_000
/** Times of a device in one batch: each with all its keys. */
const batchTimes = batchPoints / deviceCount / keys.length
/** Batches written into the plain table at once. */
const plainBatches = 5
const start = Date.parse('2026-01-01T00:00:00Z')
const stepMs = 10_000
const hourMs = 3_600_000

let context: TestContext
let store: TelemetryLog
let plain: ReturnType<TestContext['db']['openPool']>
const devices: Device[] = []
const random = randomNumbers(2026)
const pick = (n: number) => Math.floor(random() * n)

beforeAll(async () => {
  context = await createTestContext()
  store = new TelemetryLog(context, { compacts: false, graceMs: 1000 })
  await store.start()
  plain = context.db.openPool({ role: 'pms_store', connections: 2, synchronousCommit: 'off' }, context.log)
  await plain.query(`
    create unlogged table plain (device int4, key int4, ts int8, value text, primary key (device, key, ts));
    create unlogged table fresh (seq int4, device int4, key int4, ts int8, value text)`)
  const { tenantId, tenantNo } = context.rootTenant
  const admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
  const rows = await admin<{ id: string; number: number }[]>`insert into devices (tenant_id, id, product_id, name)
    select ${tenantId}, gen_random_uuid(), p.id, gen_random_uuid()::text
    from products p, generate_series(1, ${deviceCount}::int) where is_default returning id, number`
  await admin.end()
  for (const { id, number } of rows) {
    const state = {
      isDisabled: false,
      isGateway: false,
      settings: defaultSettings,
      rules: defaultPayloadRules,
      inactivityTimeoutMs: 600_000,
      lastServerTs: 0,
    }
    devices.push({ tenantId, tenantNo, id, no: number, name: randomUUID(), ...state })
  }
})
afterAll(async () => {
  await plain.end()
  await store.stop()
  await context.close()
})

function makeValue(kind: (typeof keys)[number]): TypedValue {
  const n = pick(4_000_000) - 2_000_000
  switch (kind) {
    case 'double':
      return { kind, value: n / 4 }
    case 'integer':
      return { kind, value: n }
    case 'boolean':
      return { kind, value: n > 0 }
    case 'string':
      return { kind, value: `s${n & 63}` }
    case 'mixed':
      return n % 9 === 0 ? { kind: 'json', value: `[${n & 7}]` } : makeValue(keys[pick(4)]!)
  }
}

/** One text per value, different for different kinds. */
const textOf = ({ kind, value }: TypedValue) => `${kind[0]}${value}`

/** Points of a device: mostly what comes next, some out of order, 5 % late, 5 % repeated with other values. */
function makePoints(batch: number): Point[] {
  const points: Point[] = []
  for (let i = 0; i < batchTimes; i++) {
    const next = batch * batchTimes + (pick(10) === 0 ? pick(batchTimes) : i)
    for (const key of keys) {
      const chance = random()
      let ts = start + next * stepMs
      if (chance < 0.05) ts = start + pick(next + 1) * stepMs + 1 + pick(stepMs - 1)
      else if (chance < 0.1) ts = start + pick(next + 1) * stepMs
      points.push({ key, ts, ...makeValue(key) })
    }
  }
  return points
}

/** Rows that wait to be written into the plain table. */
class PlainRows {
  #lines: string[] = []
  #batches = 0
  #writing: Promise<void> = Promise.resolve()

  add(writes: readonly { device: Device; points: readonly Point[] }[]): void {
    for (const { device, points } of writes) {
      for (const point of points) {
        this.#lines.push(`${this.#lines.length}\t${device.no}\t${keys.indexOf(point.key as 'mixed')}\t${point.ts}\t${textOf(point)}\n`)
      }
    }
    this.#batches++
  }

  get isFull(): boolean {
    return this.#batches >= plainBatches
  }

  /** Waits for the write before, not for this one. */
  async write(): Promise<void> {
    const bytes = Buffer.from(this.#lines.join(''))
    this.#lines = []
    this.#batches = 0
    await this.#writing
    this.#writing = (async () => {
      await copyIn(plain, 'copy fresh from stdin', bytes)
      await plain.query(`insert into plain select distinct on (device, key, ts) device, key, ts, value from fresh
        order by device, key, ts, seq desc on conflict (device, key, ts) do update set value = excluded.value`)
      await plain.query('truncate fresh')
    })()
    // Whoever waits next hears of a failure.
    this.#writing.catch(() => {})
  }

  async finish(): Promise<void> {
    await this.write()
    await this.#writing
  }
}

async function deleteSomewhere(): Promise<void> {
  const device = devices[pick(deviceCount)]!
  const some = keys.filter(() => random() < 0.5)
  const { rows } = await plain.query<{ end: string }>('select coalesce(max(ts), 0) as end from plain where device = $1', [device.no])
  const span = Math.max(1, Number(rows[0]!.end) - start)
  const from = start + pick(span)
  const to = from + pick(span / 5)
  const gone = await plain.query('delete from plain where device = $1 and key = any($2) and ts >= $3 and ts < $4', [
    device.no,
    some.map((key) => keys.indexOf(key)),
    from,
    to,
  ])
  expect(await store.delete(context.rootTenant, device.id, some, from, to)).toBe(gone.rowCount)
}

async function compareSeries(device: Device, expected: ReadonlyMap<string, { count: number; hash: string }>): Promise<void> {
  for (const key of keys) {
    const hash = createHash('md5')
    let count = 0
    for await (const block of store.read(context.rootTenant, { deviceId: device.id, key, from: 0, to: endOfTime })) {
      hash.update(block.map((point) => `${point.ts}${textOf(point)}`).join(''))
      count += block.length
    }
    expect({ count, hash: hash.digest('hex') }, `device ${device.no}, ${key}`).toEqual(expected.get(key))
  }
}

const textsOf = (points: readonly StoredPoint[]) => points.map((point) => `${point.ts}${textOf(point)}`)

/** Every form of reading, on one random range of one series. */
async function compareRange(end: number): Promise<void> {
  const device = devices[pick(deviceCount)]!
  const key = keys[pick(keys.length)]!
  const from = start + pick(end - start)
  const to = from + 1 + pick(random() < 0.3 ? end - start : 3 * hourMs)
  const range = [device.no, keys.indexOf(key), from, to]
  const inRange = 'from plain where device = $1 and key = $2 and ts >= $3 and ts < $4'
  const { rows } = await plain.query<{ ts: string; value: string }>(`select ts, value ${inRange} order by ts`, range)
  const expected = rows.map(({ ts, value }) => ts + value)
  const reads = { store, scope: context.rootTenant, device }
  expect(textsOf(await readPoints(reads, key, { from, to }))).toEqual(expected)
  expect(textsOf(await readPoints(reads, key, { from, to, newestFirst: true, limit: 100 }))).toEqual(expected.toReversed().slice(0, 100))
  expect(await store.count(context.rootTenant, device.id, [key], from, to)).toBe(expected.length)
  const isNumber = key === 'double' || key === 'integer'
  const buckets = await plain.query<{ ts: string; count: string; sum: number; min: number; max: number; first: string; last: string }>(
    `select ts / $5 * $5 as ts, count(*), (array_agg(value order by ts))[1] as first, (array_agg(value order by ts desc))[1] as last
       ${isNumber ? ', sum(substr(value, 2)::float8), min(substr(value, 2)::float8), max(substr(value, 2)::float8)' : ''}
     ${inRange} group by 1 order by 1`,
    [...range, hourMs],
  )
  const first = Math.floor(from / hourMs) * hourMs
  const edges = Array.from({ length: Math.ceil((to - first) / hourMs) + 1 }, (_, i) => first + i * hourMs)
  const sets: Aggregation[][] = [['COUNT', 'FIRST', 'LAST'], isNumber ? ['COUNT', 'SUM', 'MIN', 'MAX'] : ['COUNT']]
  for (const aggs of sets) {
    const source = { store, scope: context.rootTenant, deviceId: device.id }
    const reading = { form: 'buckets', aggs, edges, counter: 'monotonic' } as const
    const found = (await Array.fromAsync(readRows(source, { key, from, to, order: 'asc' }, reading, createTally()))).flat()
    expect(
      found.map(({ ts, values }) => [ts, ...values.map((value, i) => (i > 0 && aggs[1] === 'FIRST' ? textOf(value!) : value?.value))]),
    ).toEqual(
      buckets.rows.map((row) => [
        Number(row.ts),
        Number(row.count),
        ...(aggs[1] === 'FIRST' ? [row.first, row.last] : aggs[1] === 'SUM' ? [row.sum, row.min, row.max] : []),
      ]),
    )
  }
}

describe('the telemetry store', () => {
  it(
    `holds what a plain table holds, after ${total.toLocaleString('en')} points (10,000,000 in CI): late, repeated, deleted and merged all the while`,
    { timeout: 600_000 },
    async () => {
      const rows = new PlainRows()
      const filling = { isOver: false }
      let compactions = 0
      const compacting = (async () => {
        while (!filling.isOver) {
          await store.compact()
          compactions++
          await sleep(500)
        }
      })()
      const batches = total / batchPoints
      for (let batch = 0; batch < batches; batch++) {
        const writes = devices.map((device) => ({ device, points: makePoints(batch) }))
        await store.write(writes)
        rows.add(writes)
        if (rows.isFull) await rows.write()
        if (batch % Math.ceil(batches / 25) === 3) {
          await rows.finish()
          await deleteSomewhere()
        }
      }
      await rows.finish()
      const end = start + batches * batchTimes * stepMs
      await plain.query('analyze plain')
      // Some in segments still, then all of it in chunks.
      for (let i = 0; i < 60; i++) await compareRange(end)
      filling.isOver = true
      await compacting
      expect(compactions).toBeGreaterThan(5)
      await store.compact()
      for (let i = 0; i < 60; i++) await compareRange(end)

      const newest = new Map<string, string>()
      let points = 0
      for (const device of devices) {
        const series = await plain.query<{ key: number; count: number; hash: string; newest: string }>(
          `select key, count(*)::int4, md5(string_agg(ts || value, '' order by ts)) as hash, (array_agg(ts || value order by ts desc))[1] as newest
           from plain where device = $1 group by 1`,
          [device.no],
        )
        await compareSeries(device, new Map(series.rows.map(({ key, count, hash }) => [keys[key]!, { count, hash }])))
        for (const row of series.rows) {
          newest.set(`${device.no} ${keys[row.key]}`, row.newest)
          points += row.count
        }
      }
      const latest = await store.latest(
        context.rootTenant,
        devices.map(({ id }) => id),
      )
      for (const { id, no } of devices) {
        expect(latest.get(id)!.map((point) => [`${no} ${point.key}`, `${point.ts}${textOf(point)}`])).toEqual(
          keys.toSorted().map((key) => [`${no} ${key}`, newest.get(`${no} ${key}`)]),
        )
      }
      const stats = await store.stats()
      expect(stats).toMatchObject({ points, damaged: 0, segments: { sealed: 0 } })
    },
  )
})
