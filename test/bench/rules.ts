// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { systemClock } from '../../core/src/clock.ts'
import { defaultPayloadRules } from '../../core/src/ingest/registry.ts'
import type { Stored } from '../../core/src/ingest/pipeline.ts'
import { createLog } from '../../core/src/log.ts'
import { compileRule } from '../../core/src/rules/compile-rule.ts'
import { LiveRules } from '../../core/src/rules/live-rules.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'

const sizes: Record<Mode, { devices: number; seconds: number; rounds: number; evaluations: number }> = {
  smoke: { devices: 10_000, seconds: 2, rounds: 1, evaluations: 200_000 },
  short: { devices: 100_000, seconds: 5, rounds: 2, evaluations: 500_000 },
  normal: { devices: 100_000, seconds: 20, rounds: 3, evaluations: 1_000_000 },
  full: { devices: 100_000, seconds: 60, rounds: 5, evaluations: 3_000_000 },
}
const pointsPerSecond = 20_000
const tickMs = 20
/** One device in so many is above its threshold. */
const unusual = 100

/** Rules over 100,000 devices: how fast they are judged, what of a core 20,000 points a second take, and what memory. */
export async function benchRules({ mode, note }: BenchOptions): Promise<Figure[]> {
  const { devices, seconds, rounds, evaluations } = sizes[mode]
  const found: Round[] = []
  for (let round = 0; round < rounds; round++) {
    found.push(await runRound({ devices, seconds, evaluations }))
    const { rate, share, bytes, pairs } = found.at(-1)!
    note(
      `${devices} devices × 1 rule: ${Math.round(rate)} evaluations/s, ${share.toFixed(1)} % of a core at ${pointsPerSecond} points/s, ` +
        `${Math.round(bytes)} bytes per device, ${pairs} pairs kept`,
    )
  }
  const [rates, shares] = [found.map(({ rate }) => rate), found.map(({ share }) => share)]
  // Later rounds find the memory of the one before not given back yet.
  const bytes = found.slice(0, 1).map((one) => one.bytes)
  const common = { bench: 'rules', ratio: null, ratioCopy: null, anchor: null, disturbed: false }
  return [
    makeFigure({
      ...common,
      id: 'AL-1',
      title: 'rules judged, one core',
      values: rates,
      unit: '1/s',
      bar: { least: 300_000, goal: 500_000 },
    }),
    makeFigure({
      ...common,
      id: 'AL-2',
      title: `rules at ${pointsPerSecond} points/s, share of a core`,
      values: shares,
      unit: '%',
      bar: { most: 15, goal: 8 },
    }),
    makeFigure({
      ...common,
      id: 'AL-3',
      title: 'memory of a device under a rule',
      values: bytes,
      unit: 'B',
      bar: { most: 400, goal: 300 },
    }),
  ].map((figure) => ({ ...figure, ...statusOf(figure) }))
}

type Round = { rate: number; share: number; bytes: number; pairs: number }

async function runRound({ devices, seconds, evaluations }: { devices: number; seconds: number; evaluations: number }): Promise<Round> {
  const emptyBytes = usedBytes()
  const live = startRules(devices)
  const rate = judgeAtOnce(live, devices, evaluations)
  const bytes = (usedBytes() - emptyBytes) / devices
  const share = 100 * (await judgeSteadily(live, devices, seconds))
  const pairs = [...live.scenes.values()].reduce((sum, { lane }) => sum + lane.pairs.length, 0)
  live.stop()
  return { rate, share, bytes, pairs }
}

/** These bars are of the machine itself, not of an anchor. */
function statusOf({ bar, value }: Figure): Pick<Figure, 'status'> {
  const isMet = (bar.least === undefined || value >= bar.least) && (bar.most === undefined || value <= bar.most)
  return { status: isMet ? 'PASS' : 'FAIL' }
}

function startRules(devices: number): LiveRules {
  const when = { left: { key: 'temperature' }, op: 'gt', right: 80, hysteresis: 2 }
  const rule = compileRule({ levels: [{ severity: 'major', when, forMs: 300_000 }] })
  if (!('levels' in rule)) throw new Error(JSON.stringify(rule))
  const options = { clock: systemClock, log: createLog('error'), onJudged: () => {}, onFailing: () => {}, onOverflow: () => {} }
  const live = new LiveRules(options)
  live.read(new Set(rule.reads.keys.keys()))
  live.switch(true)
  live.release()
  for (let no = 0; no < devices; no++) {
    const id = idOf(no)
    const common = { tenantId: 't', tenantNo: 1, productId: 'p', product: 'p', tags: [], label: null, createdAt: 0, connection: undefined }
    live.put(live.ensure({ ...common, id, no, name: id }), rule)
  }
  return live
}

const idOf = (no: number): string => `0195${String(no).padStart(8, '0')}`

function messageOf(no: number, ts: number): Stored {
  const value = no % unusual === 0 ? 85 : 60 + (ts % 10)
  const device = { id: idOf(no), tenantId: 't', rules: defaultPayloadRules } as Stored['device']
  return {
    device,
    kind: 'telemetry',
    transport: 'mqtt',
    points: [{ key: 'temperature', ts, kind: 'double', value }],
    receivedAt: ts,
    rejectCount: 0,
  }
}

function judgeAtOnce(live: LiveRules, devices: number, evaluations: number): number {
  const begin = Date.now()
  const messages = Array.from({ length: devices }, (_, no) => messageOf(no, begin))
  for (const { device, points, receivedAt } of messages) live.judge(device.id, points, receivedAt)
  const started = performance.now()
  for (let i = 0; i < evaluations; i++) {
    const { device, points } = messages[i % devices]!
    const ts = begin + 1 + Math.floor(i / devices)
    live.judge(device.id, [{ ...points[0]!, ts }], ts)
  }
  return evaluations / ((performance.now() - started) / 1000)
}

/** @returns what of a core judging takes, of what making the messages does not */
async function judgeSteadily(live: LiveRules, devices: number, seconds: number): Promise<number> {
  const run = async (enqueues: boolean): Promise<number> => {
    const before = process.cpuUsage()
    const started = performance.now()
    let sent = 0
    while (performance.now() - started < seconds * 1000) {
      const due = ((performance.now() - started) / 1000) * pointsPerSecond
      for (; sent < due; sent++) {
        const message = messageOf(sent % devices, Date.now())
        if (enqueues) live.enqueue(message)
      }
      await sleep(tickMs)
    }
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1e6 / ((performance.now() - started) / 1000)
  }
  const idle = await run(false)
  return Math.max(0, (await run(true)) - idle)
}

function usedBytes(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  collect()
  return process.memoryUsage().heapUsed
}
