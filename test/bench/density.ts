// SPDX-License-Identifier: AGPL-3.0-only
import type { DeviceWrite } from '../../core/src/telemetry/store.ts'
import type { Point, TypedValue } from '../../core/src/telemetry/points.ts'
import { openBareStore } from './bare-store.ts'
import type { BareStore } from './bare-store.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'

type DataSet = {
  name: string
  title: string
  devices: number
  keys: string[]
  stepMs: number
  jitterMs: number
  /** Points of each series. */
  points: number
  value: (state: number[], series: number, random: () => number) => TypedValue
  bar: { most?: number; goal: number }
}

const dayMs = 86_400_000
const states = ['running', 'idle', 'alarm', 'maintenance']

function dataSets(mode: Mode): DataSet[] {
  const isSmall = mode === 'smoke'
  const days = isSmall ? 0.5 : 2
  return [
    {
      name: 'a',
      title: '(a) random-walk doubles, 1/s',
      devices: isSmall ? 4 : 10,
      keys: ['x'],
      stepMs: 1000,
      jitterMs: 0,
      points: (days * dayMs) / 1000,
      value: (state, series, random) => ({ kind: 'double', value: (state[series] = (state[series] ?? 20) + random() - 0.5) }),
      bar: { most: 11, goal: 8.5 },
    },
    {
      name: 'b',
      title: '(b) one-decimal sensor values, 1/10 s with 50 ms jitter',
      devices: isSmall ? 20 : 50,
      keys: ['temperature'],
      stepMs: 10_000,
      jitterMs: 50,
      points: (days * 2 * dayMs) / 10_000,
      value(state, series, random) {
        const tenths = (state[series] = (state[series] ?? 215) + Math.floor(random() * 3) - 1)
        // As it arrives: 21 is an integer, 21.5 is not.
        return tenths % 10 === 0 ? { kind: 'integer', value: tenths / 10 } : { kind: 'double', value: tenths / 10 }
      },
      bar: { most: 4, goal: 2.2 },
    },
    {
      name: 'c',
      title: '(c) integer counters, 1/min',
      devices: isSmall ? 20 : 100,
      keys: ['pulses'],
      stepMs: 60_000,
      jitterMs: 0,
      points: isSmall ? 1440 : 7 * 1440,
      value: (state, series, random) => ({ kind: 'integer', value: (state[series] = (state[series] ?? 1000) + Math.floor(random() * 20)) }),
      bar: { goal: 2 },
    },
    {
      name: 'd',
      title: '(d) booleans and strings, 1/10 s',
      devices: isSmall ? 10 : 30,
      keys: ['on', 'state'],
      stepMs: 10_000,
      jitterMs: 0,
      points: (days * dayMs) / 10_000,
      value: (_, series, random) =>
        series % 2 === 0 ? { kind: 'boolean', value: random() < 0.5 } : { kind: 'string', value: states[Math.floor(random() * 4)]! },
      bar: { goal: 1 },
    },
    {
      name: 'e',
      title: `(e) ${mode === 'full' ? '100,000' : isSmall ? '2,000' : '20,000'} devices × 3 keys, 1/10 min`,
      devices: mode === 'full' ? 100_000 : isSmall ? 2000 : 20_000,
      keys: ['temperature', 'humidity', 'battery'],
      stepMs: 600_000,
      jitterMs: 0,
      points: 144,
      value: (state, series, random) => ({
        kind: 'double',
        value: (state[series] = (state[series] ?? 215) + Math.floor(random() * 3) - 1) / 10 + 0.05,
      }),
      bar: { most: 25, goal: 8 },
    },
  ]
}

/** PF-7: bytes on the disk per point, with indexes and statistics, once everything is in chunks. */
export async function benchDensity({ mode, note }: BenchOptions): Promise<Figure[]> {
  const bare = await openBareStore()
  try {
    const figures: Figure[] = []
    for (const set of dataSets(mode)) {
      const { points, bytes, seconds } = await fill(bare, set)
      const perPoint = bytes / points
      note(`PF-7 ${set.title}: ${formatNumber(points)} points, ${formatNumber(bytes)} bytes, written and merged in ${seconds.toFixed(0)} s`)
      figures.push(
        makeFigure({
          bench: `density:${set.name}`,
          id: 'PF-7',
          title: `bytes per point: ${set.title}`,
          values: [perPoint],
          unit: 'B',
          ratio: null,
          ratioCopy: null,
          anchor: null,
          disturbed: false,
          bar: set.bar,
        }),
      )
    }
    return figures
  } finally {
    await bare.close()
  }
}

/** Writes a data set in the order of time, as devices would, into an empty store. */
async function fill(bare: BareStore, set: DataSet): Promise<{ points: number; bytes: number; seconds: number }> {
  const { store, sql } = bare
  await sql`truncate telemetry_chunks`
  const devices = await bare.createDevices(set.devices)
  const random = createRandom(42)
  const state: number[] = []
  const start = Date.parse('2026-01-01T00:00:00Z')
  const startedAt = performance.now()
  let batch: DeviceWrite[] = []
  let points = 0
  for (let i = 0; i < set.points; i++) {
    for (const [index, device] of devices.entries()) {
      const ts = start + i * set.stepMs + Math.round((random() * 2 - 1) * set.jitterMs)
      const message = set.keys.map((key, k): Point => ({ key, ts, ...set.value(state, index * set.keys.length + k, random) }))
      points += message.length
      batch.push({ device, points: message })
      if (batch.length < 4000) continue
      await store.write(batch)
      batch = []
    }
  }
  await store.write(batch)
  await store.compact()
  const [row] = await sql<{ points: string; bytes: string }[]>`
    select sum(count) as points, pg_total_relation_size('telemetry_chunks') as bytes from telemetry_chunks`
  if (Number(row!.points) !== points) throw new Error(`${points} points were written, ${row!.points} are in chunks`)
  return { points, bytes: Number(row!.bytes), seconds: (performance.now() - startedAt) / 1000 }
}

/** Mulberry32: the same data in each run. */
function createRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
