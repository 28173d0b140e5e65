// SPDX-License-Identifier: AGPL-3.0-only
import { Disorder } from './disorder.ts'
import { LedgerWriter, keys, sampleJson } from './ledger.ts'
import type { Line } from './ledger.ts'
import { HttpDevice, MqttDevice, protocolOf } from './load-devices.ts'
import type { DeviceOptions, LoadDevice, Outgoing } from './load-devices.ts'
import { createRandom, monotonicMs } from './processes.ts'

/**
 * The load of the fault tests, a process of its own: devices that send samples at a steady rate and
 * write down in a ledger what became of each message. Its settings come as one JSON argument; it runs
 * until it is told to stop, waits a little for answers that are under way, and ends.
 */
export type LoadSettings = {
  ledger: string
  seed: number
  /** ts of sample 0, ms since 1970. */
  base: number
  /** Number of the first sample. */
  first: number
  devices: { id: string; token: string }[]
  mqttPort: number
  httpPort: number
  messagesPerS: number
  /** Sends some messages late and some twice. */
  isDisordered: boolean
}

/** What the load tells its parent while it runs. */
export type LoadReport = { acked: number; lastOkAt: number; next: number }

/** One in so many messages of devices that can be told so is malformed: it must be refused and stay away. */
const malformedShare = 0.005
const tickMs = 5
const reportMs = 50
/** How long answers under way are waited for at the end. */
const lastAnswersMs = 3000

function run(settings: LoadSettings): void {
  const random = createRandom(settings.seed)
  const ledger = new LedgerWriter(settings.ledger, {
    ledger: 1,
    run: `${settings.seed}-${settings.first}`,
    seed: settings.seed,
    base: settings.base,
    keys,
    devices: settings.devices.map((device) => device.id),
    startedAt: new Date().toISOString(),
  })
  const disorder = settings.isDisordered ? new Disorder(settings.devices.length, random) : undefined
  let next = settings.first
  let acked = 0
  let lastOkAt = 0

  const ended = (line: Line) => {
    ledger.add(line)
    if (line.e !== 'ok') return
    acked++
    lastOkAt = line.at
    disorder?.acknowledged(line.d, line.n)
  }
  const devices = settings.devices.map(({ id, token }, index) => {
    const options: DeviceOptions = { index, id, token, resends: index % 4 < 2, random, sent: (lines) => ledger.writeNow(lines), ended }
    return createDevice(options, settings)
  })

  let owed = 0
  let lastTick = monotonicMs()
  const tick = setInterval(() => {
    const now = monotonicMs()
    // After a pause it does not send everything at once.
    owed = Math.min(owed + ((now - lastTick) * settings.messagesPerS) / 1000, settings.messagesPerS / 10)
    lastTick = now
    for (let tries = 0; owed >= 1 && tries < 4 * devices.length; tries++) {
      const index = Math.floor(random() * devices.length)
      const device = devices[index]!
      if (!device.canSend) continue
      device.send(disorder?.next(index, () => makeMessage(index)) ?? makeMessage(index))
      owed--
    }
  }, tickMs)
  const report = setInterval(() => tell({ acked, lastOkAt, next }), reportMs)

  function makeMessage(index: number): Outgoing {
    const count = 1 + Math.floor(random() * 3)
    const n = next
    next += count
    const samples = Array.from({ length: count }, (_, offset) => sampleJson(settings.base, n + offset))
    const payload = count === 1 ? samples[0]! : `[${samples.join(',')}]`
    const isMalformed = protocolOf(index) !== 4 && random() < malformedShare
    return { n, count, payload: isMalformed ? payload.slice(0, -3) : payload }
  }

  const stop = async () => {
    clearInterval(tick)
    const deadline = monotonicMs() + lastAnswersMs
    while (devices.some((device) => device.unanswered > 0) && monotonicMs() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    for (const device of devices) device.stop()
    // Sockets report their end on the next turn.
    await new Promise((resolve) => setTimeout(resolve, 50))
    clearInterval(report)
    await ledger.close()
    tell({ acked, lastOkAt, next })
    process.disconnect?.()
  }
  process.once('message', () => void stop())
  // Without its parent nobody wants its numbers any more.
  process.once('disconnect', () => process.exit(0))
}

function createDevice(options: DeviceOptions, { mqttPort, httpPort }: LoadSettings): LoadDevice {
  const protocol = protocolOf(options.index)
  return protocol === 'http' ? new HttpDevice({ ...options, port: httpPort }) : new MqttDevice({ ...options, protocol, port: mqttPort })
}

function tell(report: LoadReport): void {
  process.send?.(report)
}

run(JSON.parse(process.argv[2]!) as LoadSettings)
