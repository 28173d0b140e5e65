// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import { Installation } from '../faults/installation.ts'
import { hasMosquitto, startMosquitto } from './brokers.ts'
import { measureCopy } from './copy.ts'
import type { CopyReference } from './copy.ts'
import { formatNumber, makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { disturbedShare, runLoad } from './load.ts'
import type { LoadFigures } from './load.ts'
import { median } from './machine.ts'
import { countSince, readStored } from './stored.ts'

const payload = '{"temperature":21.5,"humidity":60.2,"pressure":1013.25,"voltage":3.61,"current":0.125}'
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

/** A run that others disturbed is repeated so often at most. */
const repeats = 2

type Runs = { ours: LoadFigures[]; anchor: LoadFigures[]; disturbed: boolean }

/**
 * PF-1, PF-2: messages of five values acknowledged after their commit, over what Mosquitto alone
 * acknowledges from memory for the same generator in the same minutes.
 */
export async function benchIngest(options: BenchOptions): Promise<Figure[]> {
  const installation = new Installation({ name: 'bench', environment: { IOT_PMS_CONNECT_RATE: '100000' } })
  try {
    await installation.start()
    await installation.openApi()
    const devices = await installation.createDevices(1000)
    const { adminUrl } = (await findRunningDatabase(installation.dataDir))!
    const target: Target = { installation, adminUrl, userNames: devices.map((device) => device.token), options }
    const copies: CopyReference[] = []
    const runs = new Map<Shape, Runs>(shapes.map((shape) => [shape, { ours: [], anchor: [], disturbed: false }]))
    for (let round = 0; round < times[options.mode].rounds; round++) {
      copies.push(await measureCopy(adminUrl, times[options.mode].copyMs))
      for (const [shape, of] of runs) {
        if (hasMosquitto) of.anchor.push(await repeatWhileDisturbed(target, of, () => runAnchor(shape, target)))
        of.ours.push(await repeatWhileDisturbed(target, of, () => runOurs(shape, target)))
      }
    }
    const pointsPerS = median(copies.map((copy) => copy.pointsPerS))
    const commitMs = median(copies.map((copy) => copy.commitMs))
    options.note(
      `PF-1 PostgreSQL ${copies[0]!.postgresVersion}; R = ${formatNumber(pointsPerS)} points/s of COPY into a plain heap, C = ${commitMs.toFixed(2)} ms for one row with its commit`,
    )
    return [...runs].map(([shape, of]) => toFigure(shape, of, pointsPerS))
  } finally {
    await installation.dispose(false)
  }
}

type Target = { installation: Installation; adminUrl: string; userNames: string[]; options: BenchOptions }

async function repeatWhileDisturbed({ options }: Target, runs: Runs, run: () => Promise<LoadFigures>): Promise<LoadFigures> {
  for (let repeat = 0; ; repeat++) {
    const figures = await run()
    if (figures.others <= disturbedShare) return figures
    if (repeat === repeats || options.mode === 'smoke') {
      runs.disturbed = true
      return figures
    }
    options.note('     others took too much of the machine: once more')
  }
}

function settingsOf(shape: Shape, port: number, { userNames, options }: Target) {
  const { warmUpMs, measureMs } = times[options.mode]
  return { port, userNames: userNames.slice(0, shape.connections), inFlight: shape.inFlight, payload, warmUpMs, measureMs }
}

async function runAnchor(shape: Shape, target: Target): Promise<LoadFigures> {
  const mosquitto = await startMosquitto()
  try {
    const figures = await runLoad(settingsOf(shape, mosquitto.port, target), mosquitto.pid, target.options.machine.cores)
    target.options.note(`${shape.id} Mosquitto  ${describe(figures)}`)
    return figures
  } finally {
    await mosquitto.stop()
  }
}

/** Our server; what was acknowledged has to be stored. */
async function runOurs(shape: Shape, target: Target): Promise<LoadFigures> {
  const { installation } = target
  const sql = postgres(target.adminUrl, { max: 1, onnotice: () => {} })
  try {
    const before = await readStored(sql)
    const figures = await runLoad(settingsOf(shape, installation.ports.mqtt, target), installation.pid, target.options.machine.cores)
    const stored = countSince(before, await readStored(sql))
    if (stored !== figures.ackedInAll) throw new Error(`${figures.ackedInAll} messages were acknowledged, ${stored} are stored`)
    target.options.note(`${shape.id} IoT PMS    ${describe(figures)}`)
    return figures
  } finally {
    await sql.end()
  }
}

function describe(figures: LoadFigures): string {
  const { messagesPerS, p50Ms, p99Ms, serverCpuUs, databaseCpuUs, generatorCpuUs, others } = figures
  const cpu = `CPU per message: server ${serverCpuUs.toFixed(1)}, its children ${databaseCpuUs.toFixed(1)}, generator ${generatorCpuUs.toFixed(1)} µs`
  return `${formatNumber(messagesPerS).padStart(9)} msg/s  p50 ${p50Ms.toFixed(1)}  p99 ${p99Ms.toFixed(1)} ms  ${cpu}; others ${(100 * others).toFixed(0)} % of the machine`
}

function toFigure({ bench, id, title, bar }: Shape, { ours, anchor, disturbed }: Runs, copyPointsPerS: number): Figure {
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
    disturbed,
    bar,
    ...(anchor.length > 0 ? {} : { reason: 'no Mosquitto' }),
  })
}
