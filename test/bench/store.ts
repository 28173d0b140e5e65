// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from '../../core/src/ingest/registry.ts'
import { Writer } from '../../core/src/ingest/writer.ts'
import type { Point } from '../../core/src/telemetry/points.ts'
import { openBareStore } from './bare-store.ts'
import type { BareStore } from './bare-store.ts'
import { measureCopy } from './copy.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { median } from './machine.ts'

const deviceCount = 1000
const keys = ['temperature', 'humidity', 'pressure', 'battery', 'flow']

const times: Record<Mode, { rounds: number; measureMs: number; copyMs: number }> = {
  smoke: { rounds: 1, measureMs: 8000, copyMs: 2000 },
  short: { rounds: 3, measureMs: 20_000, copyMs: 2000 },
  normal: { rounds: 3, measureMs: 60_000, copyMs: 3000 },
  full: { rounds: 1, measureMs: 600_000, copyMs: 5000 },
}

/** Points handed over before the event loop gets its turn. */
const burst = 500
/** Segments that may wait when merging keeps up. */
const mostWaiting = 20

/**
 * PF-3: points per second through writer and store alone, merged into chunks all the while, over binary
 * COPY into a plain heap through postgres.js in the same run. Segments must not pile up.
 */
export async function benchStore({ mode, note }: BenchOptions): Promise<Figure[]> {
  const bare = await openBareStore()
  try {
    const devices = await bare.createDevices(deviceCount)
    const rates: number[] = []
    const copies: number[] = []
    let mostSealed = 0
    for (let round = 0; round < times[mode].rounds; round++) {
      const { pointsPerS } = await measureCopy(bare.adminUrl, times[mode].copyMs)
      const run = await fill(bare, devices, times[mode].measureMs)
      const stats = await bare.store.stats()
      rates.push(run.pointsPerS)
      copies.push(pointsPerS)
      mostSealed = Math.max(mostSealed, run.mostSealed)
      note(
        `PF-3 ${formatNumber(run.pointsPerS)} points/s over ${(times[mode].measureMs / 1000).toFixed(0)} s, raw COPY ${formatNumber(pointsPerS)}; waiting segments at most ${run.mostSealed}, at the end ${run.sealed}; ${formatNumber(stats.points)} points in ${formatNumber(stats.chunks)} chunks, ${stats.bytesPerPoint?.toFixed(2)} bytes per point`,
      )
    }
    if (mostSealed > mostWaiting) throw new Error(`merging does not keep up: ${mostSealed} segments waited`)
    const ratio = median(rates.map((rate, round) => rate / copies[round]!))
    return [
      makeFigure({
        bench: 'store',
        id: 'PF-3',
        title: 'points through writer and store, merged into chunks',
        values: rates,
        unit: 'points/s',
        ratio,
        ratioCopy: ratio,
        anchor: `binary COPY into a plain heap: ${formatNumber(median(copies))} points/s`,
        disturbed: false,
        bar: { least: 0.35, goal: 0.6 },
      }),
    ]
  } finally {
    await bare.close()
  }
}

/** Each device sends its five values once a second of its own time, as fast as they are taken. */
async function fill(
  { context, store }: BareStore,
  devices: readonly Device[],
  ms: number,
): Promise<{ pointsPerS: number; mostSealed: number; sealed: number }> {
  const { config, clock, log } = context
  const faults = { ackEarly: false, noBisect: false }
  const writer = new Writer({
    store,
    clock,
    log,
    lanes: config.writer.connections,
    windowMs: config.writer.commitWindowMs,
    random: Math.random,
    faults,
  })
  let settled = 0
  const settle = () => {
    settled += keys.length
  }
  const startedAt = performance.now()
  const base = Date.now()
  let sent = 0
  let mostSealed = 0
  let sealed = 0
  const watch = setInterval(() => {
    void store.stats().then(({ segments }) => {
      sealed = segments.sealed
      mostSealed = Math.max(mostSealed, sealed)
    })
  }, 1000)
  while (performance.now() - startedAt < ms) {
    for (let i = 0; i < burst && !writer.isFull; i++) {
      const device = devices[sent % devices.length]!
      writer.enqueue({ device, points: makePoints(base + Math.floor(sent / devices.length) * 1000, sent), sizeBytes: 100, settle })
      sent++
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  const seconds = (performance.now() - startedAt) / 1000
  const inTime = settled
  clearInterval(watch)
  await writer.stop(10_000)
  if (settled !== sent * keys.length) throw new Error(`${sent * keys.length} points were handed over, ${settled} settled`)
  return { pointsPerS: inTime / seconds, mostSealed, sealed }
}

function makePoints(ts: number, seed: number): Point[] {
  return keys.map((key, i) => ({ key, ts, kind: 'double', value: (200 + ((seed * 7 + i * 13) % 41)) / 10 }))
}
