// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { PacketReader, encodeConnect, encodePublish, packet, packetIdAt } from '../faults/mqtt.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { Meter } from './meter.ts'
import { payload, startTarget } from './target.ts'

const connections = 200
/** Twice what asks for. */
const perSecond = 1000
const tickMs = 5
const publishType = 3
const telemetryTopic = Buffer.from('v1/devices/me/telemetry')
const requestTopic = Buffer.from('v1/devices/me/attributes/request/1')
const question = '{"clientKeys":"c0,c1,c2","sharedKeys":"s0,s1,s2"}'

const times: Record<Mode, { rounds: number; warmUpMs: number; measureMs: number }> = {
  smoke: { rounds: 1, warmUpMs: 1000, measureMs: 2500 },
  short: { rounds: 1, warmUpMs: 1500, measureMs: 5000 },
  normal: { rounds: 3, warmUpMs: 2000, measureMs: 10_000 },
  full: { rounds: 3, warmUpMs: 3000, measureMs: 30_000 },
}

/**
 * how long a device waits for its attributes at 1,000 requests a second of 200 devices, beside the
 * acknowledgement of telemetry sent the same way. Latency counts from when a message was due.
 */
export async function benchAttributes({ mode, note }: BenchOptions): Promise<Figure[]> {
  const { rounds, warmUpMs, measureMs } = times[mode]
  const target = await startTarget('bench-attributes', connections)
  try {
    const { installation, deviceIds, userNames } = target
    const shared = Object.fromEntries(Array.from({ length: 10 }, (_, no) => [`s${no}`, no % 2 === 0 ? no : `value ${no}`]))
    for (const id of deviceIds) await installation.call('PATCH', `/api/v1/devices/${id}/attributes/shared`, shared)
    const p99s: { telemetry: number[]; attributes: number[] } = { telemetry: [], attributes: [] }
    for (let round = 0; round < rounds; round++) {
      for (const kind of ['telemetry', 'attributes'] as const) {
        const meter = new Meter()
        const asking = await Promise.all(userNames.map((name) => open(installation.ports.mqtt, name, kind, meter)))
        await send(asking, meter, warmUpMs)
        meter.begin()
        await send(asking, meter, measureMs)
        for (const { socket } of asking) socket.destroy()
        const [p50, p99] = [meter.percentileMs(0.5), meter.percentileMs(0.99)]
        p99s[kind].push(p99)
        note(
          `A-5 ${kind.padEnd(10)} ${Math.round((1000 * meter.acked) / measureMs)} per second  p50 ${p50.toFixed(1)}  p99 ${p99.toFixed(1)} ms`,
        )
      }
    }
    return [
      makeFigure({
        bench: 'attributes',
        id: 'A-5',
        title: 'answer to an attribute request, p99 at 1,000 per second',
        values: p99s.attributes,
        unit: 'ms',
        ratio: null,
        ratioCopy: null,
        anchor: `acknowledgement of telemetry, p99: ${p99s.telemetry.map((one) => one.toFixed(1)).join(', ')} ms`,
        disturbed: false,
        bar: { most: 50, goal: 25 },
      }),
    ]
  } finally {
    await target.stop()
  }
}

type Asking = { socket: Socket; send: (dueAt: number) => void }

async function open(port: number, userName: string, kind: 'telemetry' | 'attributes', meter: Meter): Promise<Asking> {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  socket.on('error', (error) => meter.fail(error.message))
  await once(socket, 'connect')
  const isAsking = kind === 'attributes'
  const topic = isAsking ? requestTopic : telemetryTopic
  const message = encodePublish(4, isAsking ? question : payload.replace('#', '1'), topic)
  const connected = Promise.withResolvers<void>()
  /** Answers come in the order of the requests. */
  const dueAt: number[] = []
  const arrived = () => meter.acknowledged(performance.now() - dueAt.shift()!)
  const reader = new PacketReader((type, body) => {
    if (type === packet.connack) connected.resolve()
    else if (type === packet.puback && !isAsking) arrived()
    else if (type === publishType) {
      const idAt = 2 + body.readUInt16BE(0)
      socket.write(Buffer.from([packet.puback << 4, 2, body[idAt]!, body[idAt + 1]!]))
      arrived()
    } else if (type === packet.disconnect) meter.fail('the server closed a session')
  })
  socket.on('data', (chunk: Buffer) => reader.push(chunk))
  socket.write(encodeConnect(4, userName, userName))
  await connected.promise
  if (isAsking) {
    socket.write(
      withId(encodePublish(4, '{"c0":1,"c1":2.5,"c2":"text"}', Buffer.from('v1/devices/me/attributes')), 'v1/devices/me/attributes', 1),
    )
  }
  let sent = 0
  return {
    socket,
    send(due) {
      dueAt.push(due)
      meter.sent(1)
      socket.write(withId(message, topic, (sent++ % 60_000) + 2))
    },
  }
}

function withId(message: Buffer, topic: Buffer | string, packetId: number): Buffer {
  const bytes = Buffer.from(message)
  bytes.writeUInt16BE(packetId, packetIdAt(bytes, Buffer.from(topic)))
  return bytes
}

/** Sends on time, whatever is still unanswered, and waits for the last answers. */
async function send(asking: readonly Asking[], meter: Meter, ms: number): Promise<void> {
  const start = performance.now()
  const count = (perSecond * ms) / 1000
  let sent = 0
  while (sent < count) {
    const due = Math.min(count, Math.floor(((performance.now() - start) * perSecond) / 1000))
    for (; sent < due; sent++) asking[sent % asking.length]!.send(start + (1000 * sent) / perSecond)
    await sleep(tickMs)
  }
  for (let waited = 0; meter.outstanding > 0 && waited < 20_000; waited += 20) await sleep(20)
  if (meter.outstanding > 0) meter.fail(`${meter.outstanding} messages were not answered`)
}
