// SPDX-License-Identifier: AGPL-3.0-only
import { hasMosquitto, startMosquitto } from './brokers.ts'
import { measureCopy } from './copy.ts'
import type { CopyReference } from './copy.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { describeLoad, repeatWhileDisturbed, runLoad } from './load.ts'
import type { LoadFigures } from './load.ts'
import { median } from './machine.ts'
import { payload, startTarget } from './target.ts'
import type { Target } from './target.ts'

const valuesPerMessage = 5

const shapes = [
  {
    bench: 'ingest',
    id: 'PF-1',
    title: 'durable QoS 1, 1,000 connections, 1 in flight',
    connections: 1000,
    inFlight: 1,
    bar: { least: 0.6, goal: 1 },
  },
  {
    bench: 'ingest:window',
    id: 'PF-2',
    title: 'durable QoS 1, 100 connections, 20 in flight',
    connections: 100,
    inFlight: 20,
    bar: { least: 0.8, goal: 2 },
  },
]
type Shape = (typeof shapes)[number]

const times: Record<Mode, { rounds: number; warmUpMs: number; measureMs: number; copyMs: number }> = {
  smoke: { rounds: 2, warmUpMs: 1000, measureMs: 2500, copyMs: 1000 },
  short: { rounds: 3, warmUpMs: 1500, measureMs: 5000, copyMs: 2000 },
  normal: { rounds: 3, warmUpMs: 2000, measureMs: 10_000, copyMs: 3000 },
  full: { rounds: 3, warmUpMs: 3000, measureMs: 30_000, copyMs: 5000 },
}

type Run = LoadFigures & { disturbed: boolean }
type Runs = { ours: Run[]; anchor: Run[] }

/**
 * PF-1, PF-2: messages of five values acknowledged after their commit, over what Mosquitto alone
 * acknowledges from memory for the same generator in the same minutes.
 */
export async function benchIngest(options: BenchOptions): Promise<Figure[]> {
  const target = await startTarget('bench', 1000)
  const { adminUrl } = target
  try {
    const copies: CopyReference[] = []
    const runs = new Map<Shape, Runs>(shapes.map((shape) => [shape, { ours: [], anchor: [] }]))
    for (let round = 0; round < times[options.mode].rounds; round++) {
      copies.push(await measureCopy(adminUrl, times[options.mode].copyMs))
      for (const [shape, of] of runs) {
        if (hasMosquitto) of.anchor.push(await repeatWhileDisturbed(options, () => runAnchor(shape, target, options)))
        of.ours.push(await repeatWhileDisturbed(options, () => runOurs(shape, target, options)))
      }
    }
    const pointsPerS = median(copies.map((copy) => copy.pointsPerS))
    const commitMs = median(copies.map((copy) => copy.commitMs))
    options.note(
      `PF-1 PostgreSQL ${copies[0]!.postgresVersion}; R = ${formatNumber(pointsPerS)} points/s of COPY into a plain heap, C = ${commitMs.toFixed(2)} ms for one row with its commit`,
    )
    return [...runs].map(([shape, of]) => toFigure(shape, of, pointsPerS))
  } finally {
    await target.stop()
  }
}

function settingsOf(shape: Shape, port: number, { userNames }: Target, options: BenchOptions) {
  const { warmUpMs, measureMs } = times[options.mode]
  return { port, userNames: userNames.slice(0, shape.connections), inFlight: shape.inFlight, payload, warmUpMs, phases: [{ measureMs }] }
}

async function runAnchor(shape: Shape, target: Target, options: BenchOptions): Promise<LoadFigures> {
  const mosquitto = await startMosquitto()
  try {
    const figures = await runLoad(settingsOf(shape, mosquitto.port, target, options), mosquitto.pid, options.machine.cores)
    options.note(`${shape.id} Mosquitto  ${describeLoad(figures)}`)
    return figures
  } finally {
    await mosquitto.stop()
  }
}

async function runOurs(shape: Shape, target: Target, options: BenchOptions): Promise<LoadFigures> {
  const { ports, pid } = target.installation
  const figures = await target.runChecked(() => runLoad(settingsOf(shape, ports.mqtt, target, options), pid, options.machine.cores))
  options.note(`${shape.id} IoT PMS    ${describeLoad(figures)}`)
  return figures
}

function toFigure({ bench, id, title, bar }: Shape, { ours, anchor }: Runs, copyPointsPerS: number): Figure {
  const rate = (runs: readonly LoadFigures[]) => median(runs.map((run) => run.messagesPerS))
  // Round by round: the two runs of a round lie close together and share what else the machine does.
  const ratios = anchor.map((run, round) => ours[round]!.messagesPerS / run.messagesPerS)
  return makeFigure({
    bench,
    id,
    title,
    values: ours.map((run) => run.messagesPerS),
    unit: 'msg/s',
    ratio: ratios.length > 0 ? median(ratios) : null,
    ratioCopy: (rate(ours) * valuesPerMessage) / copyPointsPerS,
    anchor: anchor.length > 0 ? `Mosquitto alone, acknowledged from memory: ${Math.round(rate(anchor))} msg/s` : null,
    disturbed: [...ours, ...anchor].some((run) => run.disturbed),
    bar,
    ...(anchor.length > 0 ? {} : { reason: 'no Mosquitto' }),
  })
}
