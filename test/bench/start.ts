// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Installation } from '../faults/installation.ts'
import { isAlive, listTree } from '../faults/processes.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure } from './figures.ts'
import { root } from './machine.ts'

const rounds = 3
const startTimeoutMs = 60_000

/** PF-11: from `npx pnpm start` to the first accepted point, and the stop by Ctrl-C. */
export async function benchStart({ note }: BenchOptions): Promise<Figure[]> {
  const installation = new Installation({ name: 'bench-start' })
  try {
    const first = await installation.start()
    note(`PF-11 very first start, with a new database: ready after ${((first.readyAt - first.spawnedAt) / 1000).toFixed(2)} s (node alone)`)
    await installation.openApi()
    const [device] = await installation.createDevices(1)
    await installation.stop()
    if (!existsSync(join(root, 'core/dashboard/dist'))) note('PF-11 the dashboard is not built: it is left out')
    const starts: number[] = []
    const stops: number[] = []
    for (let round = 0; round < rounds; round++) {
      const startedAt = performance.now()
      const running = runPnpm(installation)
      const { child } = running
      await untilAccepted(installation.ports.http, device!.token, running)
      starts.push((performance.now() - startedAt) / 1000)
      await sleep(500)
      stops.push((await interrupt(child)) / 1000)
      note(`PF-11 start ${starts.at(-1)!.toFixed(2)} s, stop ${stops.at(-1)!.toFixed(2)} s, exit ${child.exitCode ?? child.signalCode}`)
    }
    const common = { id: 'PF-11', unit: 's', ratio: null, ratioCopy: null, anchor: null, disturbed: false }
    return [
      makeFigure({
        ...common,
        bench: 'start',
        title: 'npx pnpm start to the first accepted point',
        values: starts,
        bar: { most: 6, goal: 3 },
      }),
      makeFigure({ ...common, bench: 'stop', title: 'Ctrl-C to the end of the last process', values: stops, bar: { most: 2, goal: 2 } }),
    ]
  } finally {
    await installation.dispose(false)
  }
}

type Running = { child: ChildProcess; output: string }

/** In a process group of its own, as a terminal has it. */
function runPnpm(installation: Installation): Running {
  const environment = {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:npm_|IOT_PMS_|DATABASE_URL)/i.test(name))),
    npm_config_yes: 'true',
    IOT_PMS_DATA_DIR: installation.dataDir,
    IOT_PMS_HTTP_PORT: String(installation.ports.http),
    IOT_PMS_MQTT_PORT: String(installation.ports.mqtt),
    IOT_PMS_MQTTS_PORT: 'off',
    IOT_PMS_BUILD_DASHBOARD: existsSync(join(root, 'core/dashboard/dist')) ? '1' : '0',
  }
  const child = spawn('npx', ['pnpm', 'start'], { cwd: root, env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const running: Running = { child, output: '' }
  child.stdout.on('data', (chunk: Buffer) => (running.output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (running.output += chunk.toString()))
  return running
}

async function untilAccepted(port: number, token: string, running: Running): Promise<void> {
  const deadline = performance.now() + startTimeoutMs
  while (performance.now() < deadline && running.child.exitCode === null) {
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/api/v1/${token}/telemetry`, { method: 'POST', body: '{"temperature":21.5}' })
      await answer.arrayBuffer()
      if (answer.status === 200) return
    } catch {
      // Nobody listens yet.
    }
    await sleep(10)
  }
  throw new Error(`npx pnpm start accepted no point:\n${running.output.slice(-3000)}`)
}

/** SIGINT to the whole group, as Ctrl-C sends it; the database is no member and is stopped by the server. */
async function interrupt(child: ChildProcess): Promise<number> {
  const pids = listTree(child.pid!)
  const startedAt = performance.now()
  process.kill(-child.pid!, 'SIGINT')
  while (pids.some(isAlive)) {
    if (performance.now() - startedAt > 30_000) throw new Error('the server did not stop')
    await sleep(5)
  }
  return performance.now() - startedAt
}
