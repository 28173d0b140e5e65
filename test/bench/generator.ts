// SPDX-License-Identifier: AGPL-3.0-only
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { encodeConnect } from '../faults/mqtt.ts'
import { HttpConnection, PacedConnection, WindowConnection } from './connections.ts'
import { Meter } from './meter.ts'

/**
 * The load generator, a process of its own: raw sockets, packets encoded beforehand, so that it measures
 * the server and as little as possible of itself. Settings come as JSON on standard input; it prints
 * `begin` and `end` around each measured time and in the end its figures as one JSON line.
 */
export type GeneratorSettings = {
  protocol?: 'mqtt' | 'http'
  port: number
  /** One connection each. */
  userNames: string[]
  /** Messages in flight per connection, 1 over HTTP; 0 only keeps the connections open until standard input says more. */
  inFlight: number
  /** `#` becomes a number that is another in each message. */
  payload: string
  warmUpMs: number
  /** One after the other; with a rate all connections together send so often, without one as fast as they are answered. */
  phases: { measureMs: number; perSecond?: number }[]
}

/** Of a phase. */
export type PhaseFigures = { acked: number; seconds: number; cpuMs: number; p50Ms: number; p99Ms: number }
export type GeneratorFigures = { phases: PhaseFigures[]; ackedInAll: number }

/** Connections being opened at a time; the server looks at no more than 50 unknown ones of an address. */
const opening = 40
const lastAnswersMs = 20_000

const meter = new Meter()

async function openAll(settings: GeneratorSettings): Promise<Socket[]> {
  const sockets: Socket[] = []
  let next = 0
  const worker = async () => {
    while (next < settings.userNames.length) {
      const index = next++
      sockets[index] = await open(settings, index)
    }
  }
  await Promise.all(Array.from({ length: opening }, worker))
  return sockets
}

function open({ protocol, port, userNames }: GeneratorSettings, index: number): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('error', (error) => meter.fail(error.message))
    socket.on('close', () => meter.isStopping || meter.fail('the server closed a connection'))
    if (protocol === 'http') {
      socket.on('connect', () => resolve(socket))
      return
    }
    socket.on('connect', () => socket.write(encodeConnect(4, `bench-${index}`, userNames[index]!, 1200)))
    socket.once('data', (chunk: Buffer) => (chunk[3] === 0 ? resolve(socket) : meter.fail(`CONNACK ${chunk.toString('hex')}`)))
  })
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Sends on time whatever the answers do; who has no room is passed over. */
async function pace(connections: readonly PacedConnection[], perSecond: number, ms: number): Promise<void> {
  const startedAt = performance.now()
  let sent = 0
  let turn = 0
  while (performance.now() - startedAt < ms) {
    const due = ((performance.now() - startedAt) * perSecond) / 1000
    for (let passedOver = 0; sent < due && passedOver < connections.length; turn++) {
      if (connections[turn % connections.length]!.send(startedAt + (sent * 1000) / perSecond)) sent++
      else passedOver++
    }
    await pause(1)
  }
}

async function measure(work: Promise<unknown>): Promise<PhaseFigures> {
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  meter.begin()
  console.log('begin')
  await work
  meter.isMeasuring = false
  const seconds = (performance.now() - startedAt) / 1000
  const used = process.cpuUsage(cpu)
  console.log('end')
  return {
    acked: meter.acked,
    seconds,
    cpuMs: (used.user + used.system) / 1000,
    p50Ms: meter.percentileMs(0.5),
    p99Ms: meter.percentileMs(0.99),
  }
}

async function run(settings: GeneratorSettings): Promise<void> {
  const { protocol, payload, inFlight, userNames, warmUpMs } = settings
  const sockets = await openAll(settings)
  console.log('open')
  if (inFlight === 0) return
  const phases: PhaseFigures[] = []
  if (settings.phases[0]?.perSecond === undefined) {
    const connections = sockets.map((socket, index) =>
      protocol === 'http'
        ? new HttpConnection(socket, meter, payload, userNames[index]!)
        : new WindowConnection(socket, meter, payload, inFlight),
    )
    for (const connection of connections) connection.start()
    await pause(warmUpMs)
    for (const { measureMs } of settings.phases) phases.push(await measure(pause(measureMs)))
  } else {
    const connections = sockets.map((socket, index) => new PacedConnection(socket, meter, payload, inFlight, index * inFlight))
    await pace(connections, settings.phases[0].perSecond, warmUpMs)
    for (const { measureMs, perSecond = 1 } of settings.phases) phases.push(await measure(pace(connections, perSecond, measureMs)))
  }
  meter.isStopping = true
  for (let waited = 0; meter.outstanding > 0; waited += 10) {
    if (waited >= lastAnswersMs) meter.fail(`${meter.outstanding} messages were never acknowledged`)
    await pause(10)
  }
  const figures: GeneratorFigures = { phases, ackedInAll: meter.ackedInAll }
  console.log(JSON.stringify(figures))
  process.exit(0)
}

await run(JSON.parse(await text(process.stdin)) as GeneratorSettings)
