// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { Installation } from '../faults/installation.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure } from './figures.ts'
import { holdIdle } from './load.ts'
import { cpuMsOf, rssMbOf } from './machine.ts'

const counts = [
  { connections: 0, bar: { most: 160, goal: 120 } },
  { connections: 1000, bar: { most: 180, goal: 125 } },
  { connections: 10_000, bar: { most: 300, goal: 160 } },
]

/** Garbage of the opening is gone by then. */
const settleMs = 10_000
const samples = 3

/** PF-9: memory of the server process with MQTT connections that say nothing. */
export async function benchIdle({ note }: BenchOptions): Promise<Figure[]> {
  const installation = new Installation({ name: 'bench-idle', environment: { IOT_PMS_CONNECT_RATE: '100000' } })
  try {
    await installation.start()
    await installation.openApi()
    const devices = await installation.createDevices(counts.at(-1)!.connections)
    // Making ten thousand devices is no part of being idle.
    await installation.stop()
    await installation.start()
    const figures: Figure[] = []
    for (const { connections, bar } of counts) {
      const held =
        connections > 0
          ? await holdIdle(
              installation.ports.mqtt,
              devices.slice(0, connections).map((device) => device.token),
            )
          : undefined
      await sleep(settleMs)
      const cpuMs = cpuMsOf([installation.pid])
      const values: number[] = []
      for (let sample = 0; sample < samples; sample++) {
        values.push(rssMbOf(installation.pid))
        await sleep(1000)
      }
      const cpuPercent = (cpuMsOf([installation.pid]) - cpuMs) / (10 * samples)
      note(
        `PF-9 ${connections} connections: ${values.map((value) => value.toFixed(0)).join(', ')} MB, ${cpuPercent.toFixed(1)} % of a core`,
      )
      held?.close()
      const title = `memory with ${connections.toLocaleString('en-US')} idle connections`
      figures.push(
        makeFigure({
          bench: `idle:${connections}`,
          id: 'PF-9',
          title,
          values,
          unit: 'MB',
          ratio: null,
          ratioCopy: null,
          anchor: null,
          disturbed: false,
          bar,
        }),
      )
      await sleep(1000)
    }
    return figures
  } finally {
    await installation.dispose(false)
  }
}
