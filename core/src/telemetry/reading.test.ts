// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { FirstStore } from './first-store.ts'
import { LatestValues } from './latest.ts'
import type { Point } from './points.ts'
import { createTally, readRows } from './series.ts'
import type { LatestPoint } from './store.ts'
import { TelemetryLog } from './telemetry-log.ts'
import { endOfTime, randomNumbers, readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

/** How long reading and writing go on side by side. */
const durationMs = 8000
const start = Date.parse('2026-01-01T00:00:00Z')
const hourMs = 3_600_000

let server: ReadingServer
let store: TelemetryLog
beforeAll(async () => {
  server = await startReadingServer()
  // Readers that began before a compaction need the segments a little longer.
  store = new TelemetryLog(server.context, { graceMs: 3000, compacts: false })
  await store.start()
})
afterAll(async () => {
  await store.stop()
  await server.close()
})

/** A device whose point `n` has the value `n`, for n below `written`; `base` points came first and are repeated later. */
type Growing = { device: Device; written: number }

const stepMs = 10_000
const point = (n: number): Point => ({ key: 'x', ts: start + n * stepMs, kind: 'integer', value: n })

describe('reading while points are written and merged all the time', () => {
  it('never misses, doubles or changes a point, and never counts less than before', async () => {
    const scope = server.context.rootTenant
    const growing: Growing[] = []
    for (let i = 0; i < 3; i++) growing.push({ device: await server.createDevice(), written: 0 })
    const until = performance.now() + durationMs
    const isOver = () => performance.now() > until
    const random = randomNumbers(5)
    const failures: unknown[] = []
    const first = new FirstStore(server.context)
    await first.start()
    const loop = async (work: () => Promise<void>) => {
      while (!isOver() && failures.length === 0) {
        await work().catch((error: unknown) => failures.push(error))
        // Nobody keeps the others from their turn.
        await sleep(1)
      }
    }
    let compactions = 0
    let checks = 0

    const write = async () => {
      const writes = growing.map((one) => {
        const size = Math.floor(random() * 60)
        // What is new, and what repeats the past with the same value: only where it lies changes.
        const fresh = Array.from({ length: size }, (_, i) => point(one.written + i))
        const repeated = Array.from({ length: Math.min(one.written, 5) }, () => point(Math.floor(random() * one.written)))
        return { one, size, write: { device: one.device, points: [...fresh, ...repeated] } }
      })
      await store.write(writes.map((item) => item.write))
      for (const { one, size } of writes) one.written += size
    }
    const compact = async () => {
      await store.compact()
      compactions++
    }
    const expectPoints = (values: unknown[], least: number) => {
      expect(values.length).toBeGreaterThanOrEqual(least)
      for (let i = 0; i < values.length; i++) if (values[i] !== i) expect(values).toEqual(values.map((_, n) => n))
      checks++
    }
    const read = (one: Growing, newestFirst: boolean) => async () => {
      const least = one.written
      const points = await readPoints({ store, scope, device: one.device }, 'x', { newestFirst })
      const values = points.map(({ value }) => value)
      expectPoints(newestFirst ? values.toReversed() : values, least)
    }
    const readPart = (one: Growing) => async () => {
      const total = one.written
      const from = Math.floor(random() * total)
      const to = Math.min(total, from + Math.floor(random() * 500))
      const range = { from: start + from * stepMs, to: start + to * stepMs }
      const points = await readPoints({ store, scope, device: one.device }, 'x', range)
      expect(points.map(({ value }) => value)).toEqual(Array.from({ length: to - from }, (_, i) => from + i))
      checks++
    }
    const aggregate = (one: Growing) => async () => {
      // Whole buckets that are complete: they cannot change any more.
      const total = one.written
      const perBucket = hourMs / stepMs
      const buckets = Math.floor(total / perBucket)
      if (buckets === 0) return
      const [from, to] = [start, start + buckets * hourMs]
      const edges = Array.from({ length: buckets + 1 }, (_, i) => start + i * hourMs)
      const rows = readRows(
        { store, scope, deviceId: one.device.id },
        { key: 'x', from, to, order: 'asc' },
        { form: 'buckets', aggs: ['COUNT', 'SUM', 'MIN', 'MAX', 'LAST', 'DELTA'], edges, counter: 'monotonic' },
        createTally(),
      )
      const found = (await Array.fromAsync(rows)).flat().map((row) => row.values.map((value) => Number(value?.value)))
      expect(found).toEqual(
        Array.from({ length: buckets }, (_, i) => {
          const [low, high] = [i * perBucket, (i + 1) * perBucket - 1]
          return [perBucket, ((low + high) * perBucket) / 2, low, high, high, i === 0 ? perBucket - 1 : perBucket]
        }),
      )
      checks++
    }
    const counted = new Map<Growing, number>()
    const count = (one: Growing) => async () => {
      const least = Math.max(one.written, counted.get(one) ?? 0)
      const found = await store.count(scope, one.device.id, ['x'], 0, endOfTime)
      expect(found).toBeGreaterThanOrEqual(least)
      counted.set(one, found)
      checks++
    }
    const latest = (ask: (ids: string[]) => Promise<Map<string, LatestPoint[]>>) => async () => {
      const least = growing.map(({ written }) => written)
      const found = await ask(growing.map(({ device }) => device.id))
      for (const [i, { device, written }] of growing.entries()) {
        const value = Number(found.get(device.id)![0]?.value ?? -1)
        expect(value).toBeGreaterThanOrEqual(least[i]! - 1)
        // What is being committed right now may be seen already.
        expect(value).toBeLessThan(written + 60)
      }
      checks++
    }
    /** Nothing in memory: read from chunks and segments each time. */
    const latestAnew = async () => {
      const fresh = new LatestValues(server.context, first)
      await latest((ids) => fresh.read(scope, ids, {}))()
    }

    await Promise.all([
      loop(write),
      loop(compact),
      loop(read(growing[0]!, false)),
      loop(read(growing[1]!, true)),
      loop(readPart(growing[2]!)),
      loop(aggregate(growing[0]!)),
      loop(count(growing[1]!)),
      loop(latest((ids) => store.latest(scope, ids))),
      loop(latestAnew),
    ])
    if (failures.length > 0) throw failures[0]
    expect(compactions).toBeGreaterThan(5)
    expect(checks).toBeGreaterThan(50)
    for (const one of growing) await read(one, false)()
  })
})
