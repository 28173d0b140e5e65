// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { formatNumber } from './figures.ts'
import type { BenchOptions } from './figures.ts'
import type { GeneratorFigures, GeneratorSettings, PhaseFigures } from './generator.ts'
import { sampleCpu } from './machine.ts'
import type { CpuSample } from './machine.ts'

/** A measured time and what the CPU did in it; `others`: share of the machine used by nobody of ours. */
export type LoadFigures = PhaseFigures & {
  /** Of the whole run, warming up included. */
  ackedInAll: number
  messagesPerS: number
  serverCpuUs: number
  databaseCpuUs: number
  generatorCpuUs: number
  others: number
}

/** Above this share of foreign CPU time a run counts as disturbed [RE §12]. */
export const disturbedShare = 0.08

/** Runs the generator for one phase against a server that is `serverPid` and its children. */
export async function runLoad(settings: GeneratorSettings, serverPid: number, cores: number): Promise<LoadFigures> {
  return (await runPhases(settings, serverPid, cores))[0]!
}

/** The same with several phases; each has its figures. */
export async function runPhases(settings: GeneratorSettings, serverPid: number, cores: number): Promise<LoadFigures[]> {
  const child = startGenerator(settings)
  const begins: Sample[] = []
  const ends: Sample[] = []
  let figures: GeneratorFigures | undefined
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'begin') begins.push(sample(serverPid))
    else if (line === 'end') ends.push(sample(serverPid))
    else if (line.startsWith('{')) figures = JSON.parse(line) as GeneratorFigures
  }
  if (!figures) throw new Error('the load generator did not finish')
  const { phases, ackedInAll } = figures
  return phases.map((phase, index) => ({ ...phase, ackedInAll, ...compare(begins[index]!, ends[index]!, phase, cores) }))
}

type Sample = CpuSample & { bench: number }

/** Our own process may take part in the load: it is none of the others. */
function sample(serverPid: number): Sample {
  const { user, system } = process.cpuUsage()
  return { ...sampleCpu(serverPid), bench: (user + system) / 1000 }
}

function compare(begin: Sample, end: Sample, { acked, seconds, cpuMs }: PhaseFigures, cores: number) {
  const server = end.server - begin.server
  const database = end.database - begin.database
  const ours = server + database + cpuMs + end.bench - begin.bench
  const perMessage = (ms: number) => (1000 * ms) / acked
  return {
    messagesPerS: acked / seconds,
    serverCpuUs: perMessage(server),
    databaseCpuUs: perMessage(database),
    generatorCpuUs: perMessage(cpuMs),
    others: Math.max(0, (end.machine - begin.machine - ours) / (cores * (end.at - begin.at))),
  }
}

/** A measured time in words. */
export function describeLoad({ messagesPerS, p50Ms, p99Ms, serverCpuUs, databaseCpuUs, generatorCpuUs, others }: LoadFigures): string {
  const cpu = `CPU per message: server ${serverCpuUs.toFixed(1)}, its children ${databaseCpuUs.toFixed(1)}, generator ${generatorCpuUs.toFixed(1)} µs`
  return `${formatNumber(messagesPerS).padStart(9)} msg/s  p50 ${p50Ms.toFixed(1)}  p99 ${p99Ms.toFixed(1)} ms  ${cpu}; others ${(100 * others).toFixed(0)} % of the machine`
}

/** Runs again what others disturbed, twice at most. */
export async function repeatWhileDisturbed(
  { mode, note }: Pick<BenchOptions, 'mode' | 'note'>,
  run: () => Promise<LoadFigures>,
): Promise<LoadFigures & { disturbed: boolean }> {
  for (let repeat = 0; ; repeat++) {
    const figures = await run()
    const disturbed = figures.others > disturbedShare
    if (!disturbed || repeat === repeats || mode === 'smoke') return { ...figures, disturbed }
    note('     others took too much of the machine: once more')
  }
}

const repeats = 2

/** Opens connections that do nothing; `close` ends them. */
export async function holdIdle(port: number, userNames: string[]): Promise<{ close(): void }> {
  const child = startGenerator({ port, userNames, inFlight: 0, payload: '', warmUpMs: 0, phases: [] })
  for await (const line of createInterface({ input: child.stdout })) if (line === 'open') return { close: () => child.kill('SIGKILL') }
  throw new Error('the connections were not opened')
}

function startGenerator(settings: GeneratorSettings): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'generator.ts')], { stdio: ['pipe', 'pipe', 'pipe'] })
  child.stderr.pipe(process.stderr)
  child.stdin.end(JSON.stringify(settings))
  return child
}
