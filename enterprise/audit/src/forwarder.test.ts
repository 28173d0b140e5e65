// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { connect, createServer as createTcpServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { Entry } from './chain.ts'
import { Forwarder, findDelivered } from './forwarder.ts'
import { makeCheckpoint } from './log.ts'
import { createHttpSink } from './http-sink.ts'
import { createFileSink } from './sinks.ts'
import type { Sink } from './sinks.ts'
import { createSyslogSink, toSyslog } from './syslog-sink.ts'
import { createAuditContext, draftOf } from './testing-log.ts'
import type { AuditContext } from './testing-log.ts'
import { fixtureLog, publicKeyHex, signer } from './testing.ts'
import { main } from './verify.mjs'

const folder = mkdtempSync(join(tmpdir(), 'audit-sinks-'))
const secret = 'a secret of the receiver'
let context: AuditContext
let server: Server
/** What the receiver answers next; 200 when there is nothing more. `hang` answers nothing. */
let answers: (number | 'hang' | 'cut')[] = []
const received: { key: string; seqs: number[]; sizes: number[] }[] = []

beforeAll(async () => {
  context = await createAuditContext()
  server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      const answer = answers.shift() ?? 200
      if (answer === 'hang') return
      if (answer === 'cut') return response.destroy()
      const [, t, v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(request.headers['x-iot-pms-signature'])) ?? []
      const isSigned = v1 === createHmac('sha256', secret).update(`${t}.${body}`).digest('hex')
      const { events, checkpoints } = JSON.parse(body) as { events: Entry[]; checkpoints: { body: { size: number } }[] }
      if (isSigned && answer === 200) {
        received.push({
          key: String(request.headers['idempotency-key']),
          seqs: events.map(({ payload }) => payload.seq),
          sizes: checkpoints.map((one) => one.body.size),
        })
      }
      response.writeHead(isSigned ? answer : 403).end('{}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await context.close()
  rmSync(folder, { recursive: true, force: true })
})

const sign = (stream: string) => context.work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
/** The guard of core lets nobody call this computer; here nothing else is there. */
const outbound = {
  async connect({ host, port }: { host: string; port: number }): Promise<Socket> {
    const socket = connect({ host, port })
    await once(socket, 'connect')
    return socket
  },
}
const httpSink = (name: string, port = (server.address() as AddressInfo).port) =>
  createHttpSink({ name, target: { kind: 'http', url: `http://127.0.0.1:${port}/audit`, secret }, outbound, now: Date.now })

function forward(stream: string, sink: Sink) {
  const changes: string[] = []
  const forwarder = new Forwarder({
    scope: context.rootTenant,
    stream,
    sink,
    run: (work) => context.work(work),
    now: Date.now,
    random: () => 0,
    onChange: (state) => changes.push(state),
  })
  return { forwarder, changes }
}

test(
  'every event arrives in order whatever the receiver does, and a failure is told once per episode [§11.6]',
  { timeout: 60_000 },
  async () => {
    const stream = context.newStream()
    const { forwarder, changes } = forward(stream, httpSink('receiver'))
    expect(await forwarder.deliver()).toBe('idle')
    await context.append(stream, ...['a', 'b', 'c'].map(draftOf))
    answers = [500, 429, 'cut', 302]
    for (let n = 0; n < 4; n++) expect(await forwarder.deliver()).toBe('failed')
    expect(await forwarder.deliver()).toBe('delivered')
    await context.append(stream, draftOf('d'))
    await sign(stream)
    answers = [503]
    expect([await forwarder.deliver(), await forwarder.deliver(), await forwarder.deliver()]).toEqual(['failed', 'delivered', 'idle'])
    await context.append(stream, draftOf('e'))
    expect(await forwarder.deliver()).toBe('delivered')
    expect(received.splice(0)).toEqual([
      { key: `${stream}:1-3`, seqs: [1, 2, 3], sizes: [] },
      { key: `${stream}:4-4`, seqs: [4], sizes: [4] },
      { key: `${stream}:5-5`, seqs: [5], sizes: [] },
    ])
    expect(changes).toEqual(['failing', 'recovered', 'failing', 'recovered'])
  },
)

test(
  'a receiver that is down, then there, gets everything by itself, and a restart goes on where it was',
  { timeout: 60_000 },
  async () => {
    const stream = context.newStream()
    const closed = createServer()
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve))
    const { port } = closed.address() as AddressInfo
    await new Promise((resolve) => closed.close(resolve))
    await context.append(stream, ...Array.from({ length: 1200 }, (_, n) => draftOf(String(n))))
    const down = forward(stream, httpSink('by itself', port))
    down.forwarder.start()
    await vi.waitFor(() => expect(down.changes).toEqual(['failing']), { timeout: 20_000 })
    await down.forwarder.stop()
    const up = forward(stream, httpSink('by itself'))
    up.forwarder.start()
    await vi.waitFor(() => expect(received.flatMap(({ seqs }) => seqs)).toHaveLength(1200), { timeout: 20_000 })
    await up.forwarder.stop()
    await up.forwarder.stop()
    const batches = received.splice(0)
    expect(batches.flatMap(({ seqs }) => seqs)).toEqual(Array.from({ length: 1200 }, (_, n) => n + 1))
    expect(Math.max(...batches.map(({ seqs }) => seqs.length))).toBeLessThanOrEqual(500)
    expect(up.changes).toEqual(['recovered'])
  },
)

test('a receiver that never answers does not hold up a stop', { timeout: 60_000 }, async () => {
  const stream = context.newStream()
  await context.append(stream, draftOf('a'))
  answers = ['hang']
  const { forwarder } = forward(stream, httpSink('silent'))
  forwarder.start()
  await vi.waitFor(() => expect(answers).toEqual([]), { timeout: 20_000 })
  await forwarder.stop()
  expect(received.splice(0)).toEqual([])
  expect(await forwarder.deliver()).toBe('delivered')
  expect(received.splice(0)).toHaveLength(1)
})

test('files of events and checkpoints are what the offline verifier takes [AU-41]', async () => {
  const stream = context.newStream()
  const path = join(folder, 'files')
  const { forwarder } = forward(stream, createFileSink(path, { name: 'file', events: true }))
  await context.append(stream, ...['a', 'b'].map(draftOf))
  await sign(stream)
  expect(await forwarder.deliver()).toBe('delivered')
  await context.append(stream, draftOf('c'))
  await sign(stream)
  expect(await forwarder.deliver()).toBe('delivered')
  const names = readdirSync(path)
  expect(names.filter((name) => name.startsWith('checkpoints-'))).toEqual([`checkpoints-${stream.replaceAll(':', '-')}.jsonl`])
  const events = names.filter((name) => name.startsWith('events-')).sort()
  // The test may run over midnight.
  if (events.length === 1) {
    const printed: string[] = []
    const checkpoints = join(
      path,
      names.find((name) => name.startsWith('checkpoints-'))!,
    )
    expect(
      await main([join(path, events[0]!), '--checkpoints', checkpoints, '--key', publicKeyHex, '--json'], (line) => printed.push(line)),
    ).toBe(0)
    expect(JSON.parse(printed[0]!)).toEqual({ ok: true, findings: [], lastSeq: 3, anchoredTo: 3, unanchored: 0 })
  }
  expect(events.flatMap((name) => readFileSync(join(path, name), 'utf8').trimEnd().split('\n'))).toHaveLength(3)
})

test('retention asks how far the slowest sink is', async () => {
  const stream = context.newStream()
  await context.append(stream, draftOf('a'))
  await sign(stream)
  const delivered = (...sinks: string[]) => context.work((tx) => findDelivered(tx, stream, sinks))
  await forward(stream, createFileSink(join(folder, 'one'), { name: 'one', events: false })).forwarder.deliver()
  expect([await delivered('one'), await delivered('one', 'two')]).toEqual([1, 0])
  await forward(stream, createFileSink(join(folder, 'two'), { name: 'two', events: false })).forwarder.deliver()
  expect(await delivered('one', 'two')).toBe(1)
})

test('syslog messages are framed by their length, whatever is in a name', () => {
  const entry = structuredClone(fixtureLog().entries[6]!)
  entry.payload.data.target.name = 'two\nlines 二'
  for (const format of ['cef', 'json'] as const) {
    const frame = toSyslog(entry, { host: 'pms 0\n', version: '0.1.0', format })
    const [, length, message] = /^(\d+) ([\s\S]*)$/.exec(frame.toString())!
    expect(Buffer.byteLength(message!)).toBe(Number(length))
    // Facility 13, level error: it was denied.
    expect(message).toMatch(/^<107>1 2026-11-20T08:00:08\.750Z pms0 iot-pms - user\.update - \ufeff/)
    expect(message!.split('\n')).toHaveLength(1)
  }
})

test('syslog gets each event in a frame of its own, and a batch is taken when the receiver has closed [AU-41]', async () => {
  const texts: Buffer[] = []
  const receiver = createTcpServer((socket) => socket.on('data', (chunk: Buffer) => texts.push(chunk)))
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve))
  const { port } = receiver.address() as AddressInfo
  const target = { kind: 'syslog', host: '127.0.0.1', port, tls: false, format: 'cef' } as const
  const sink = createSyslogSink({ name: 'syslog', target, outbound, host: 'pms-0', version: '0.1.0' })
  const { stream, entries, checkpoints } = fixtureLog()
  await sink.send({ stream, entries, checkpoints: checkpoints.slice(0, 1) }, AbortSignal.timeout(5000))
  const frames: string[] = []
  for (let rest = Buffer.concat(texts); rest.length > 0;) {
    const space = rest.indexOf(' ')
    const length = Number(rest.subarray(0, space))
    frames.push(rest.subarray(space + 1, space + 1 + length).toString())
    rest = rest.subarray(space + 1 + length)
  }
  expect(frames.length).toBe(entries.length + 1)
  expect(frames.every((frame) => /^<\d+>1 \S+ pms-0 iot-pms - \S+ - \ufeff[^\n]*$/.test(frame))).toBe(true)
  receiver.close()
  await expect(sink.send({ stream, entries, checkpoints: [] }, AbortSignal.timeout(5000))).rejects.toThrow()
})
