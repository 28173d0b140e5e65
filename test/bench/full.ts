// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { describeLoad, repeatWhileDisturbed, runLoad } from './load.ts'
import type { LoadFigures } from './load.ts'
import { median } from './machine.ts'
import { payload, startTarget } from './target.ts'
import type { Target } from './target.ts'

const connections = 1000
const subscribers = 50

const times: Record<Mode, { rounds: number; warmUpMs: number; measureMs: number }> = {
  smoke: { rounds: 2, warmUpMs: 1000, measureMs: 2500 },
  short: { rounds: 3, warmUpMs: 1500, measureMs: 5000 },
  normal: { rounds: 3, warmUpMs: 2000, measureMs: 10_000 },
  full: { rounds: 3, warmUpMs: 3000, measureMs: 30_000 },
}

/** PF-5: what is left of PF-1 when everybody looks: live subscribers see every device, each of them a share. */
export async function benchFull(options: BenchOptions): Promise<Figure[]> {
  const { mode, note, machine } = options
  const { rounds, warmUpMs, measureMs } = times[mode]
  const target = await startTarget('bench-full', connections)
  const run = () => {
    const { installation, userNames } = target
    const settings = { port: installation.ports.mqtt, userNames, inFlight: 1, payload, warmUpMs, phases: [{ measureMs }] }
    return repeatWhileDisturbed(options, () => target.runChecked(() => runLoad(settings, installation.pid, machine.cores)))
  }
  try {
    note('PF-5 on: latest values, counters, device states, live subscribers. Not there yet: alarm rules')
    const plain: (LoadFigures & { disturbed: boolean })[] = []
    const full: (LoadFigures & { disturbed: boolean })[] = []
    for (let round = 0; round < rounds; round++) {
      plain.push(await run())
      note(`PF-5 nobody looks   ${describeLoad(plain.at(-1)!)}`)
      const audience = await subscribe(target)
      full.push(await run())
      note(`PF-5 ${subscribers} subscribers ${describeLoad(full.at(-1)!)}; they got ${audience.items()} values`)
      audience.close()
      if (audience.items() === 0) throw new Error('the subscribers got nothing')
    }
    const rates = full.map((one) => one.messagesPerS)
    return [
      makeFigure({
        bench: 'full',
        id: 'PF-5',
        title: `share of PF-1 kept with ${subscribers} live subscribers`,
        values: rates,
        unit: 'msg/s',
        ratio: median(rates.map((rate, round) => rate / plain[round]!.messagesPerS)),
        ratioCopy: null,
        anchor: `the same without subscribers: ${Math.round(median(plain.map((one) => one.messagesPerS)))} msg/s`,
        disturbed: [...plain, ...full].some((one) => one.disturbed),
        bar: { least: 0.7, goal: 0.85 },
      }),
    ]
  } finally {
    await target.stop()
  }
}

/** Each subscriber follows its share of the devices, as a page of the dashboard does. */
async function subscribe({ installation, deviceIds }: Target): Promise<{ items(): number; close(): void }> {
  let items = 0
  const session = await installation.login()
  const share = deviceIds.length / subscribers
  const sockets = await Promise.all(
    Array.from({ length: subscribers }, async (_, index) => {
      const { ticket } = (await installation.call('POST', '/api/v1/stream/ticket', {}, session)) as { ticket: string }
      const socket = new WebSocket(`ws://127.0.0.1:${installation.ports.http}/api/v1/stream?ticket=${ticket}`)
      await once(socket, 'open')
      const answered = once(socket, 'message')
      const ids = deviceIds.slice(index * share, (index + 1) * share)
      socket.send(JSON.stringify({ op: 'sub', id: 'all', topic: 'telemetry', params: { deviceIds: ids } }))
      await answered
      socket.addEventListener('message', ({ data }) => {
        // One bracket per value: counting them costs this process less than parsing all of it.
        items += String(data).split('],[').length
      })
      return socket
    }),
  )
  return { items: () => items, close: () => sockets.forEach((socket) => socket.close()) }
}
