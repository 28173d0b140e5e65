// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { GeneratorFigures, GeneratorSettings } from './generator.ts'
import { sampleCpu } from './machine.ts'
import type { CpuSample } from './machine.ts'

/** A run and what the CPU did in its measured time; `others`: share of the machine used by nobody of ours. */
export type LoadFigures = GeneratorFigures & {
  messagesPerS: number
  serverCpuUs: number
  databaseCpuUs: number
  generatorCpuUs: number
  others: number
}

/** Above this share of foreign CPU time a run counts as disturbed [RE §12]. */
export const disturbedShare = 0.08

/** Runs the generator against a server that is `serverPid` and its children. */
export async function runLoad(settings: GeneratorSettings, serverPid: number, cores: number): Promise<LoadFigures> {
  const child = startGenerator(settings)
  let begin: CpuSample | undefined
  let end: CpuSample | undefined
  let figures: GeneratorFigures | undefined
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'begin') begin = sampleCpu(serverPid)
    else if (line === 'end') end = sampleCpu(serverPid)
    else if (line.startsWith('{')) figures = JSON.parse(line) as GeneratorFigures
  }
  if (!begin || !end || !figures) throw new Error('the load generator did not finish')
  const server = end.server - begin.server
  const database = end.database - begin.database
  const ours = server + database + figures.cpuMs
  const perMessage = (ms: number) => (1000 * ms) / figures.acked
  return {
    ...figures,
    messagesPerS: figures.acked / figures.seconds,
    serverCpuUs: perMessage(server),
    databaseCpuUs: perMessage(database),
    generatorCpuUs: perMessage(figures.cpuMs),
    others: Math.max(0, (end.machine - begin.machine - ours) / (cores * (end.at - begin.at))),
  }
}

/** Opens connections that do nothing; `close` ends them. */
export async function holdIdle(port: number, userNames: string[]): Promise<{ close(): void }> {
  const child = startGenerator({ port, userNames, inFlight: 0, payload: '', warmUpMs: 0, measureMs: 0 })
  for await (const line of createInterface({ input: child.stdout })) if (line === 'open') return { close: () => child.kill('SIGKILL') }
  throw new Error('the connections were not opened')
}

function startGenerator(settings: GeneratorSettings): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'generator.ts')], { stdio: ['pipe', 'pipe', 'pipe'] })
  child.stderr.pipe(process.stderr)
  child.stdin.end(JSON.stringify(settings))
  return child
}
