// SPDX-License-Identifier: AGPL-3.0-only
import { cutRange } from '../../core/src/telemetry/buckets.ts'
import { downsample } from '../../core/src/telemetry/downsample.ts'
import { createTally, readKey, readRows } from '../../core/src/telemetry/series.ts'
import type { Reading } from '../../core/src/telemetry/series.ts'
import type { DeviceWrite, StoredPoint } from '../../core/src/telemetry/store.ts'
import type { Device } from '../../core/src/ingest/registry.ts'
import { openBareStore } from './bare-store.ts'
import type { BareStore } from './bare-store.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { median } from './machine.ts'

const stepMs = 10_000
const dayMs = 86_400_000
const days = 30
const pointsPerSeries = (days * dayMs) / stepMs
const start = Date.parse('2026-01-01T00:00:00Z')
const end = start + days * dayMs
const zone = 'Asia/Shanghai'
/** Devices whose newest value is asked for. */
const manyDevices = 1000

const sizes: Record<Mode, { series: number; runs: number }> = {
  smoke: { series: 10, runs: 10 },
  short: { series: 20, runs: 20 },
  normal: { series: 193, runs: 30 },
  full: { series: 193, runs: 50 },
}

type Filled = BareStore & { devices: Device[]; many: Device[] }
type Question = {
  name: string
  title: string
  bar: { least: number; goal: number }
  ours: (filled: Filled, device: Device, day: number) => Promise<number>
  table: (filled: Filled, device: Device, day: number) => Promise<number>
}

const rawDay = (from: number): Reading & { from: number } => ({ form: 'raw', limit: 100_000, from })

const questions: readonly Question[] = [
  {
    name: 'raw',
    title: '24 h of one key, raw',
    bar: { least: 3, goal: 3 },
    ours: (filled, device, day) => read(filled, device, day, day + dayMs, rawDay(day)),
    table: async ({ sql }, { no }, day) =>
      (
        await sql`select ts, num from bench_points where device_no = ${no} and key_no = 1 and ts >= ${day} and ts < ${day + dayMs} order by ts`
      ).length,
  },
  {
    name: 'buckets',
    title: '24 h of one key to 500 buckets',
    bar: { least: 3, goal: 8 },
    ours: (filled, device, day) =>
      read(filled, device, day, day + dayMs, {
        form: 'buckets',
        aggs: ['AVG', 'MIN', 'MAX'],
        edges: cutRange({ type: 'fixed', ms: dayMs / 500 }, day, day + dayMs, 1000),
        counter: 'monotonic',
      }),
    table: async ({ sql }, { no }, day) =>
      (
        await sql`select ts / ${dayMs / 500}::int8 as bucket, avg(num), min(num), max(num) from bench_points
          where device_no = ${no} and key_no = 1 and ts >= ${day} and ts < ${day + dayMs} group by 1 order by 1`
      ).length,
  },
  {
    name: 'days',
    title: '30 days of one key by day in a zone',
    bar: { least: 3, goal: 3 },
    ours: (filled, device) =>
      read(filled, device, start, end, {
        form: 'buckets',
        aggs: ['AVG', 'MIN', 'MAX', 'SUM'],
        edges: cutRange({ type: 'day', count: 1, weekStart: 'MON', timeZone: zone }, start, end, 1000),
        counter: 'monotonic',
      }),
    table: async ({ sql }, { no }) =>
      (
        await sql`select date_trunc('day', to_timestamp(ts / 1000.0) at time zone ${zone}) as day, avg(num), min(num), max(num), sum(num)
          from bench_points where device_no = ${no} and key_no = 1 and ts >= ${start} and ts < ${end} group by 1 order by 1`
      ).length,
  },
  {
    name: 'latest',
    title: 'newest value of 1,000 devices',
    bar: { least: 3, goal: 3 },
    async ours({ store, context, many }) {
      const latest = await store.latest(
        context.rootTenant,
        many.map(({ id }) => id),
        { keys: ['x'] },
      )
      return latest.values().reduce((sum, points) => sum + points.length, 0)
    },
    table: async ({ sql, many }) =>
      (
        await sql`select d.no, p.ts, p.num from unnest(${many.map(({ no }) => no)}::int4[]) d (no)
          cross join lateral (select ts, num from bench_points where device_no = d.no and key_no = 1 order by ts desc limit 1) p`
      ).length,
  },
  {
    name: 'sampled',
    title: '10 series × 7 days to 1,000 points each',
    bar: { least: 3, goal: 3 },
    async ours(filled, _, day) {
      const from = Math.min(day, end - 7 * dayMs)
      const reading: Reading = { form: 'sampled', mode: 'lttb', points: 1000 }
      const counts = await Promise.all(filled.devices.slice(0, 10).map((device) => read(filled, device, from, from + 7 * dayMs, reading)))
      return counts.reduce((sum, count) => sum + count, 0)
    },
    async table({ sql, devices }, _, day) {
      const from = Math.min(day, end - 7 * dayMs)
      const counts = await Promise.all(
        devices.slice(0, 10).map(async ({ no }) => {
          const rows = await sql<{ ts: string; num: number }[]>`
            select ts, num from bench_points where device_no = ${no} and key_no = 1 and ts >= ${from} and ts < ${from + 7 * dayMs} order by ts`
          const points = rows.map(({ ts, num }): StoredPoint => ({ ts: Number(ts), kind: 'double', value: num }))
          return (await Array.fromAsync(downsample(inOneBlock(points), 'lttb', points.length, 1000))).flat().length
        }),
      )
      return counts.reduce((sum, count) => sum + count, 0)
    },
  },
]

/** PF-8: questions to the store over the same questions to a table with the primary key (device, key, ts). */
export async function benchQuery({ mode, note }: BenchOptions): Promise<Figure[]> {
  const bare = await openBareStore()
  try {
    const filled = await fill(bare, sizes[mode].series)
    const stats = await bare.store.stats()
    const [table] = await bare.sql<{ bytes: string; points: string }[]>`
      select pg_total_relation_size('bench_points') as bytes, count(*) as points from bench_points`
    note(
      `PF-8 ${formatNumber(stats.points)} points; store ${stats.bytesPerPoint?.toFixed(2)} bytes per point, table ${(Number(table!.bytes) / Number(table!.points)).toFixed(0)}`,
    )
    const figures: Figure[] = []
    for (const question of questions) figures.push(await ask(question, filled, sizes[mode].runs, note))
    return figures
  } finally {
    await bare.close()
  }
}

/** Runs of each that are not counted: a server that has been up for a while has compiled what it reads with. */
const warmUps = 20

/** Both in turn on the same device and day, of which each run takes others. */
async function ask(question: Question, filled: Filled, runs: number, note: BenchOptions['note']): Promise<Figure> {
  const ours: number[] = []
  const table: number[] = []
  for (let run = -warmUps; run < runs; run++) {
    const device = filled.devices[((run + warmUps) * 7) % filled.devices.length]!
    const day = start + (((run + warmUps) * 11) % (days - 1)) * dayMs
    const times: number[] = []
    const counts: number[] = []
    for (const work of [question.ours, question.table]) {
      const before = performance.now()
      counts.push(await work(filled, device, day))
      times.push(performance.now() - before)
    }
    if (counts[0] !== counts[1]) throw new Error(`${question.title}: ${counts[0]} rows, the table has ${counts[1]}`)
    if (run < 0) continue
    ours.push(times[0]!)
    table.push(times[1]!)
  }
  const p95 = (all: readonly number[]) => all.toSorted((a, b) => a - b)[Math.floor(all.length * 0.95)]!
  note(
    `PF-8 ${question.title}: p50 ${median(ours).toFixed(2)} ms, p95 ${p95(ours).toFixed(2)} ms; table p50 ${median(table).toFixed(2)} ms, p95 ${p95(table).toFixed(2)} ms`,
  )
  return makeFigure({
    bench: `query:${question.name}`,
    id: 'PF-8',
    title: question.title,
    values: ours,
    unit: 'ms',
    ratio: median(table) / median(ours),
    ratioCopy: null,
    anchor: `the same question to a table with a primary key: ${median(table).toFixed(2)} ms`,
    disturbed: false,
    bar: question.bar,
  })
}

async function read({ store, context }: Filled, device: Device, from: number, to: number, reading: Reading): Promise<number> {
  let rows = 0
  const source = { store, scope: context.rootTenant, deviceId: device.id }
  const range = { key: 'x', from, to, order: 'asc' as const }
  const blocks =
    reading.form === 'buckets' ? readRows(source, range, reading, createTally()) : readKey(source, range, reading, createTally())
  for await (const block of blocks) rows += block.length
  return rows
}

async function* inOneBlock(points: StoredPoint[]): AsyncGenerator<StoredPoint[]> {
  yield points
}

/** One-decimal values every 10 s for 30 days per device, and a hundred values of each of many devices. */
async function fill(bare: BareStore, series: number): Promise<Filled> {
  const { store, sql } = bare
  const devices = await bare.createDevices(series)
  const many = await bare.createDevices(manyDevices)
  let batch: DeviceWrite[] = []
  let points = 0
  const add = async (device: Device, from: number, count: number, seed: number) => {
    const all = Array.from({ length: count }, (_, i) => ({
      key: 'x',
      ts: start + (from + i) * stepMs,
      kind: 'double' as const,
      value: Math.round(200 + 50 * Math.sin((from + i) / 300 + seed) + ((i * 7919) % 10)) / 10 + 0.05,
    }))
    batch.push({ device, points: all })
    points += count
    if (points < 20_000) return
    await store.write(batch)
    batch = []
    points = 0
  }
  for (let from = 0; from < pointsPerSeries; from += 360) for (const [seed, device] of devices.entries()) await add(device, from, 360, seed)
  for (const [seed, device] of many.entries()) await add(device, 0, 100, seed)
  await store.write(batch)
  await store.compact()
  await sql`create table bench_points (device_no int4, key_no int4, ts int8, num float8, primary key (device_no, key_no, ts))`
  await sql`insert into bench_points select d.number, 1, ${start}::int8 + i * ${stepMs}::int8,
      round(200 + 50 * sin(i / 300.0 + d.number) + (i * 7919) % 10) / 10 + 0.05
    from devices d, generate_series(0, ${pointsPerSeries - 1}) i where d.number = any(${devices.map(({ no }) => no)}::int4[])`
  await sql`insert into bench_points select d.number, 1, ${start}::int8 + i * ${stepMs}::int8, i
    from devices d, generate_series(0, 99) i where d.number = any(${many.map(({ no }) => no)}::int4[])`
  await sql`vacuum analyze bench_points`
  return { ...bare, devices, many }
}
