// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { measureCopy } from './copy.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { describeLoad, repeatWhileDisturbed, runLoad } from './load.ts'
import type { LoadFigures } from './load.ts'
import { median } from './machine.ts'
import { payload, startTarget } from './target.ts'

const connections = 200
const valuesPerMessage = 5

const times: Record<Mode, { rounds: number; warmUpMs: number; measureMs: number; copyMs: number }> = {
  smoke: { rounds: 2, warmUpMs: 1000, measureMs: 2500, copyMs: 500 },
  short: { rounds: 3, warmUpMs: 1500, measureMs: 5000, copyMs: 1000 },
  normal: { rounds: 3, warmUpMs: 2000, measureMs: 10_000, copyMs: 2000 },
  full: { rounds: 3, warmUpMs: 3000, measureMs: 30_000, copyMs: 3000 },
}

/** PF-6: POSTs of five values answered after their commit, over those a bare Fastify answers that stores nothing. */
export async function benchHttp(options: BenchOptions): Promise<Figure[]> {
  const { mode, note, machine } = options
  const { rounds, warmUpMs, measureMs, copyMs } = times[mode]
  const target = await startTarget('bench-http', connections)
  const run = (port: number, pid: number) => {
    const settings = { port, userNames: target.userNames, inFlight: 1, payload, warmUpMs, phases: [{ measureMs }] }
    return runLoad({ ...settings, protocol: 'http' }, pid, machine.cores)
  }
  try {
    const { pointsPerS } = await measureCopy(target.adminUrl, copyMs)
    const anchor: (LoadFigures & { disturbed: boolean })[] = []
    const ours: (LoadFigures & { disturbed: boolean })[] = []
    for (let round = 0; round < rounds; round++) {
      const sink = await startSink()
      anchor.push(await repeatWhileDisturbed(options, () => run(sink.port, sink.pid)))
      await sink.stop()
      note(`PF-6 bare Fastify ${describeLoad(anchor.at(-1)!)}`)
      const { ports, pid } = target.installation
      ours.push(await repeatWhileDisturbed(options, () => target.runChecked(() => run(ports.http, pid))))
      note(`PF-6 IoT PMS      ${describeLoad(ours.at(-1)!)}`)
    }
    const rates = ours.map((one) => one.messagesPerS)
    return [
      makeFigure({
        bench: 'ingest:http',
        id: 'PF-6',
        title: `POST answered after commit, ${connections} connections`,
        values: rates,
        unit: 'requests/s',
        ratio: median(rates.map((rate, round) => rate / anchor[round]!.messagesPerS)),
        ratioCopy: (median(rates) * valuesPerMessage) / pointsPerS,
        anchor: `bare Fastify: ${Math.round(median(anchor.map((one) => one.messagesPerS)))} requests/s`,
        disturbed: [...anchor, ...ours].some((one) => one.disturbed),
        bar: { least: 0.4, goal: 0.6 },
      }),
    ]
  } finally {
    await target.stop()
  }
}

async function startSink(): Promise<{ port: number; pid: number; stop(): Promise<void> }> {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.resolve('./sink.ts'))], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return {
    port: Number(line.toString()),
    pid: child.pid!,
    async stop() {
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    },
  }
}
