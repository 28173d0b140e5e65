// SPDX-License-Identifier: AGPL-3.0-only
import { measureCopy } from './copy.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { describeLoad, disturbedShare, runPhases } from './load.ts'
import type { LoadFigures } from './load.ts'
import { median, rssMbOf } from './machine.ts'
import { StoredCounter } from './stored.ts'
import { startTarget } from './target.ts'

/** A water meter: three values a second, all of them small. */
const payload = '{"pulseCounter":#,"leakage":false,"batteryLevel":87}'
const connections = 5000
const perSecond = 5000
const burstFactor = 3
/** Unanswered messages per connection before it is passed over: two seconds of the burst. */
const inFlight = 6
const copyMs = 2000
const warmUpMs = 5000
const sampleMs = 1000

/** Half of the steady time lies before the burst, half behind it. */
const times: Record<Mode, { steadyMs: number; burstMs: number }> = {
  smoke: { steadyMs: 20_000, burstMs: 5000 },
  short: { steadyMs: 60_000, burstMs: 15_000 },
  normal: { steadyMs: 600_000, burstMs: 60_000 },
  full: { steadyMs: 3_600_000, burstMs: 300_000 },
}

/** PF-10, B1, B2: a steady load with a burst in it. Everything acknowledged is stored, and memory stays flat. */
export async function benchSoak({ mode, note, machine }: BenchOptions): Promise<Figure[]> {
  const { steadyMs, burstMs } = times[mode]
  const target = await startTarget('bench-soak', connections)
  const { installation, adminUrl, sql, userNames } = target
  try {
    const { commitMs } = await measureCopy(adminUrl, copyMs)
    const counter = new StoredCounter(sql)
    await counter.start()
    const startedAt = performance.now()
    const memory: { s: number; mb: number }[] = []
    const timer = setInterval(() => {
      memory.push({ s: (performance.now() - startedAt) / 1000, mb: rssMbOf(installation.pid) })
    }, sampleMs)
    const phases = [
      { measureMs: steadyMs / 2, perSecond },
      { measureMs: burstMs, perSecond: burstFactor * perSecond },
      { measureMs: steadyMs / 2, perSecond },
    ]
    const runs = await runPhases(
      { port: installation.ports.mqtt, userNames, inFlight, payload, warmUpMs, phases },
      installation.pid,
      machine.cores,
    ).finally(() => clearInterval(timer))
    const [before, burst, after] = runs as [LoadFigures, LoadFigures, LoadFigures]
    const stored = await counter.stop()
    for (const [name, run] of Object.entries({ before, burst, after })) note(`PF-10 ${name.padEnd(6)} ${describeLoad(run)}`)
    note(`PF-10 acknowledged ${formatNumber(before.ackedInAll)}, stored ${formatNumber(stored)}`)
    const rss = describeMemory(memory)
    note(`PF-10 memory ${rss.line}`)
    if (stored !== before.ackedInAll) throw new Error(`${before.ackedInAll} messages were acknowledged, ${stored} are stored`)
    const common = { ratio: null, ratioCopy: null, anchor: null, disturbed: runs.some((run) => run.others > disturbedShare) }
    const kept = after.messagesPerS / perSecond
    if (kept < 0.99) throw new Error(`only ${(100 * kept).toFixed(0)} % of the rate was kept after the burst`)
    return [
      makeFigure({
        ...common,
        bench: 'soak',
        id: 'PF-10',
        title: `acknowledgement p99 of ${formatNumber(perSecond)} msg/s from ${formatNumber(connections)} connections`,
        values: [before.p99Ms, after.p99Ms],
        unit: 'ms',
        bar: { most: Math.round(60 + 10 * commitMs), goal: Math.round(25 + 10 * commitMs) },
      }),
      makeFigure({
        ...common,
        bench: 'soak:burst',
        id: 'PF-10',
        title: `the same in a burst of ${burstFactor} times as much`,
        values: [burst.p99Ms],
        unit: 'ms',
        bar: { most: 500, goal: 150 },
      }),
      makeFigure({
        ...common,
        bench: 'soak:memory',
        id: 'PF-10',
        title: 'memory at the end, over that before the burst',
        values: [rss.endMb / rss.beforeMb],
        unit: '×',
        bar: { most: 1.2, goal: 1.05 },
      }),
    ]
  } finally {
    await target.stop()
  }
}

/** Medians of tenths of the time: single samples go up and down with the garbage collector. */
function describeMemory(memory: readonly { s: number; mb: number }[]): { line: string; beforeMb: number; endMb: number } {
  const parts = 10
  const tenths = Array.from({ length: parts }, (_, index) =>
    memory.slice(Math.floor((index * memory.length) / parts), Math.floor(((index + 1) * memory.length) / parts)).map((one) => one.mb),
  )
  const medians = tenths.map((values) => median(values))
  return {
    line: `${medians.map((mb) => mb.toFixed(0)).join(', ')} MB in tenths of the time`,
    beforeMb: medians[3]!,
    endMb: medians.at(-1)!,
  }
}
