// SPDX-License-Identifier: AGPL-3.0-only
import { measureCopy } from './copy.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { describeLoad, repeatWhileDisturbed, runLoad } from './load.ts'
import type { LoadFigures } from './load.ts'
import { payload, startTarget } from './target.ts'

const connections = 1000
/** So many may be unanswered per connection before it is passed over; the rate decides, not this. */
const inFlight = 20

const times: Record<Mode, { rounds: number; warmUpMs: number; measureMs: number; copyMs: number }> = {
  smoke: { rounds: 1, warmUpMs: 1000, measureMs: 2500, copyMs: 500 },
  short: { rounds: 1, warmUpMs: 1500, measureMs: 5000, copyMs: 1000 },
  normal: { rounds: 3, warmUpMs: 2000, measureMs: 10_000, copyMs: 2000 },
  full: { rounds: 3, warmUpMs: 3000, measureMs: 30_000, copyMs: 3000 },
}

/** Shares of the maximum, and what p99 may be: so many ms and ten commits [RE §12 B4]. */
const loads = [
  { share: 0.25, mostMs: 60, goalMs: 30 },
  { share: 0.5, mostMs: 150, goalMs: 75 },
  { share: 0.75, mostMs: 300, goalMs: 150 },
]

/** PF-4: how long an acknowledgement takes when messages come on time, at shares of what the server can do. */
export async function benchLatency(options: BenchOptions): Promise<Figure[]> {
  const { mode, note } = options
  const { rounds, warmUpMs, measureMs, copyMs } = times[mode]
  const target = await startTarget('bench-latency', connections)
  const run = (window: number, perSecond?: number) => {
    const phases = [perSecond === undefined ? { measureMs } : { measureMs, perSecond }]
    const settings = { port: target.installation.ports.mqtt, userNames: target.userNames, inFlight: window, payload, warmUpMs, phases }
    return repeatWhileDisturbed(options, () => target.runChecked(() => runLoad(settings, target.installation.pid, options.machine.cores)))
  }
  try {
    const { commitMs, commitP99Ms } = await measureCopy(target.adminUrl, copyMs)
    note(`PF-4 the bare COPY of one row with its commit: p50 ${commitMs.toFixed(2)}, p99 ${commitP99Ms.toFixed(2)} ms`)
    const most = await run(1)
    note(`PF-4 the maximum ${describeLoad(most)}`)
    const figures: Figure[] = []
    for (const { share, mostMs, goalMs } of loads) {
      const runs: (LoadFigures & { disturbed: boolean })[] = []
      for (let round = 0; round < rounds; round++) {
        runs.push(await run(inFlight, share * most.messagesPerS))
        note(
          `PF-4 at ${100 * share} %     ${describeLoad(runs.at(-1)!)}; p99 is ${(runs.at(-1)!.p99Ms / commitP99Ms).toFixed(1)} × that of the bare commit`,
        )
      }
      figures.push(
        makeFigure({
          bench: `latency:${100 * share}`,
          id: 'PF-4',
          title: `acknowledgement p99 at ${100 * share} % of the maximum`,
          values: runs.map((one) => one.p99Ms),
          unit: 'ms',
          ratio: null,
          ratioCopy: null,
          anchor: `p99 of the bare COPY commit: ${commitP99Ms.toFixed(2)} ms`,
          disturbed: [most, ...runs].some((one) => one.disturbed),
          bar: { most: Math.round(mostMs + 10 * commitMs), goal: goalMs },
        }),
      )
    }
    return figures
  } finally {
    await target.stop()
  }
}
