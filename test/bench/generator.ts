// SPDX-License-Identifier: AGPL-3.0-only
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { encodeConnect, encodePublish, packetIdAt } from '../faults/mqtt.ts'

/**
 * The load generator, a process of its own: raw sockets, packets encoded beforehand, so that it measures
 * the server and as little as possible of itself. Settings come as JSON on standard input; it prints
 * `begin` and `end` around the measured time and then its figures as one JSON line.
 */
export type GeneratorSettings = {
  port: number
  /** One connection each. */
  userNames: string[]
  /** Messages in flight per connection; 0 only keeps the connections open until standard input says more. */
  inFlight: number
  payload: string
  warmUpMs: number
  measureMs: number
}

export type GeneratorFigures = { acked: number; ackedInAll: number; seconds: number; cpuMs: number; p50Ms: number; p99Ms: number }

/** Connections being opened at a time; the server looks at no more than 50 unknown ones of an address. */
const opening = 40
const pubackSize = 4
/** Latencies are counted in steps of 0.1 ms up to 10 s. */
const stepMs = 0.1
const steps = 100_000
const lastAnswersMs = 20_000

const counts = new Uint32Array(steps)
let acked = 0
let ackedInAll = 0
let outstanding = 0
let isMeasuring = false
let isStopping = false

/** One connection: its packets lie one behind the other with fixed ids, and each is sent again when it is acknowledged. */
class Connection {
  readonly #socket: Socket
  readonly #packets: Buffer
  readonly #packetSize: number
  readonly #inFlight: number
  readonly #sentAt: Float64Array
  #rest: Buffer = Buffer.alloc(0)

  constructor(socket: Socket, payload: string, inFlight: number) {
    const one = encodePublish(4, payload)
    this.#socket = socket
    this.#inFlight = inFlight
    this.#packetSize = one.length
    this.#packets = Buffer.concat(Array.from({ length: inFlight }, () => one))
    this.#sentAt = new Float64Array(inFlight)
    for (let index = 0; index < inFlight; index++) this.#packets.writeUInt16BE(index + 1, index * one.length + packetIdAt(one))
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
  }

  start(): void {
    outstanding += this.#inFlight
    this.#sentAt.fill(performance.now())
    this.#socket.write(this.#packets)
  }

  #receive(chunk: Buffer): void {
    const data = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    const count = Math.floor(data.length / pubackSize)
    this.#rest = data.subarray(count * pubackSize)
    if (count === 0) return
    const now = performance.now()
    // Answers come in the order of the packets, so what to send again lies side by side too.
    let start = -1
    let end = -1
    for (let at = 0; at < count * pubackSize; at += pubackSize) {
      if (data[at] !== 0x40 || data[at + 1] !== 2) fail(`an answer that is no PUBACK: ${data.subarray(at, at + 8).toString('hex')}`)
      const index = data.readUInt16BE(at + 2) - 1
      if (isMeasuring) {
        counts[Math.min(steps - 1, Math.floor((now - this.#sentAt[index]!) / stepMs))]!++
        acked++
      }
      this.#sentAt[index] = now
      if (index !== end) {
        this.#send(start, end)
        start = index
      }
      end = index + 1
    }
    ackedInAll += count
    if (isStopping) outstanding -= count
    else this.#send(start, end)
  }

  #send(start: number, end: number): void {
    if (start < 0 || isStopping) return
    this.#socket.write(this.#packets.subarray(start * this.#packetSize, end * this.#packetSize))
  }
}

async function openAll(settings: GeneratorSettings): Promise<Socket[]> {
  const sockets: Socket[] = []
  let next = 0
  const worker = async () => {
    while (next < settings.userNames.length) {
      const index = next++
      sockets[index] = await open(settings.port, `bench-${index}`, settings.userNames[index]!)
    }
  }
  await Promise.all(Array.from({ length: opening }, worker))
  return sockets
}

function open(port: number, clientId: string, userName: string): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('connect', () => socket.write(encodeConnect(4, clientId, userName, 1200)))
    socket.on('error', (error) => fail(error.message))
    socket.on('close', () => isStopping || fail('the server closed a connection'))
    socket.once('data', (chunk: Buffer) => (chunk[3] === 0 ? resolve(socket) : fail(`CONNACK ${chunk.toString('hex')}`)))
  })
}

function fail(reason: string): never {
  console.error(`generator: ${reason}`)
  process.exit(1)
}

function percentile(share: number): number {
  let left = acked * share
  for (let step = 0; step < steps; step++) {
    left -= counts[step]!
    if (left <= 0) return step * stepMs
  }
  return steps * stepMs
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Messages whose acknowledgement is still to come once nothing is sent any more. */
function unanswered(): number {
  return outstanding
}

async function run(settings: GeneratorSettings): Promise<void> {
  const sockets = await openAll(settings)
  console.log('open')
  if (settings.inFlight === 0) return
  for (const connection of sockets.map((socket) => new Connection(socket, settings.payload, settings.inFlight))) connection.start()
  await pause(settings.warmUpMs)
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  isMeasuring = true
  console.log('begin')
  await pause(settings.measureMs)
  isMeasuring = false
  const seconds = (performance.now() - startedAt) / 1000
  const used = process.cpuUsage(cpu)
  console.log('end')
  isStopping = true
  for (let waited = 0; unanswered() > 0; waited += 10) {
    if (waited >= lastAnswersMs) fail(`${unanswered()} messages were never acknowledged`)
    await pause(10)
  }
  const figures: GeneratorFigures = {
    acked,
    ackedInAll,
    seconds,
    cpuMs: (used.user + used.system) / 1000,
    p50Ms: percentile(0.5),
    p99Ms: percentile(0.99),
  }
  console.log(JSON.stringify(figures))
  process.exit(0)
}

await run(JSON.parse(await text(process.stdin)) as GeneratorSettings)
