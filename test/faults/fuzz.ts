// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createPick } from '../../core/src/ingest/mqtt/testing-mutations.ts'
import type { Pick } from '../../core/src/ingest/mqtt/testing-mutations.ts'
import { makeConversation } from './fuzz-packets.ts'
import type { FuzzSender, ProvisionKeys } from './fuzz-packets.ts'
import { Installation } from './installation.ts'
import type { LoadedDevice } from './installation.ts'
import { startNeighbours } from './neighbours.ts'

export type FuzzOptions = { packets: number; seed: number }

/** Looks at the memory, two seconds apart. */
const mostRounds = 30
/** [M-44] */
const mostGrownBytes = 50 << 20
/** Connections at a time. */
const lanes = 32
/** Connections one device may open in a minute [M-12], and what is sent over each, to know how many devices are needed. */
const connectsPerMinute = 30
const packetsPerConnection = 4
const mostDevices = 1500
/** Devices of each kind whose refusals are looked at, and how many kinds of them there must be. */
const sampledDevices = 10
const fewestCodes = 8
/** Several, so that not every refusal is one of an address that is refused slowly by now. */
const addresses = 32
/** What the server has not answered by then it will not answer: a length was made larger. */
const answerMs = 150

const keys: ProvisionKeys = { provisionDeviceKey: 'fuzz-provision-key', provisionDeviceSecret: 'fuzz-provision-secret' }

/** A server that collects its garbage when it is told to, and is never too busy for one more connection. */
export function createFuzzedInstallation(): Installation {
  return new Installation({
    name: 'fuzz',
    environment: { IOT_PMS_CONNECT_RATE: '100000' },
    nodeArgs: ['--expose-gc', '--import', 'data:text/javascript,process.on("SIGUSR2",()=>gc())'],
  })
}

/**
 * [M-44] Damaged packets for every part of the device API, at a server as users run it: it lives, writes no ERROR
 * line, keeps its memory, forgets the connections, and serves its other devices meanwhile.
 *
 * @returns what was wrong
 */
export async function fuzz(installation: Installation, { packets, seed }: FuzzOptions): Promise<string[]> {
  await installation.start()
  await installation.openApi()
  const devices = await prepare(installation, await installation.login(), packets)
  const neighbours = await startNeighbours(installation)
  const pick = createPick(seed)
  const sent = { damaged: 0, whole: 0, connections: 0 }
  const startedAt = performance.now()
  const run = async (until: number) => {
    const lane = async () => {
      while (sent.damaged < until && installation.isRunning && !neighbours.isFailed) {
        const sender = makeSender(devices, pick)
        const conversation = makeConversation(sender, keys, pick)
        sent.damaged += conversation.damaged
        sent.whole += conversation.packets.length - conversation.damaged
        sent.connections++
        await converse(installation.ports.mqtt, conversation.packets, pick)
      }
    }
    await Promise.all(Array.from({ length: lanes }, lane))
  }
  // Not sooner: the heap takes its room from the system over the first tens of thousands, and keeps it.
  await run(packets / 2)
  const before = await settledMemory(installation)
  await run(packets)
  const grown = (await settledMemory(installation)) - before
  const seconds = (performance.now() - startedAt) / 1000
  const problems = await neighbours.stop()
  if (!installation.isRunning) return [...problems, `the server ended: ${installation.log.slice(-2000)}`]
  // The session of the beginning is over in a long run.
  const admin = await installation.login()
  problems.push(...(await checkDepth(installation, admin, devices, sent)), ...(await checkClosed(installation, admin)))
  if (grown > mostGrownBytes) problems.push(`resident memory grew by ${toMb(grown)} MB in the second half`)
  const errors = installation.log.split('\n').filter((line) => /"level":"(?:error|fatal)"/.test(line))
  if (errors.length > 0) problems.push(`${errors.length} ERROR lines, the first: ${errors[0]!.slice(0, 1000)}`)
  console.log(
    `FUZZ     ${sent.damaged} damaged packets among ${sent.whole} others, ${sent.connections} connections, ${seconds.toFixed(0)} s`,
  )
  console.log(`         resident memory ${toMb(before)} MB after one half, ${toMb(before + grown)} MB after both`)
  console.log(`         neighbours: ${neighbours.report()}`)
  return problems
}

type Sent = { damaged: number; whole: number; connections: number }
type Devices = { plain: LoadedDevice[]; gateways: LoadedDevice[] }

async function prepare(installation: Installation, admin: string, packets: number): Promise<Devices> {
  const create = (path: string, body: unknown) => installation.call('POST', path, body, admin) as Promise<{ id: string }>
  const product = await create('/api/v1/products', {
    name: 'fuzz',
    provisioning: { strategy: 'create', key: keys.provisionDeviceKey, secret: keys.provisionDeviceSecret },
    limits: { maxChildDevices: 50 },
    // A session that goes on after a refusal gets further.
    payload: { ackInvalidPayload: true },
  })
  const pack = await create('/api/v1/ota-packages', { title: 'fuzz', version: '1', kind: 'firmware', productId: product.id })
  const answer = await fetch(`http://127.0.0.1:${installation.ports.http}/api/v1/ota-packages/${pack.id}/content`, {
    method: 'PUT',
    headers: { authorization: admin, 'content-type': 'application/octet-stream' },
    body: randomBytes(100_000),
  })
  if (!answer.ok) throw new Error(`no firmware to fuzz: ${answer.status}`)
  const count = Math.min(mostDevices, 30 + Math.ceil(packets / packetsPerConnection / connectsPerMinute))
  const plain = await installation.createDevices(count, 'fuzz', { productId: product.id })
  plain.push(...(await installation.createDevices(Math.ceil(count / 4), 'strict fuzz')))
  const gateways = await installation.createDevices(Math.ceil(count / 4), 'fuzz gateway', { productId: product.id, gateway: true })
  for (const { id } of plain.slice(0, 20)) await installation.call('PUT', `/api/v1/devices/${id}/firmware`, { packageId: pack.id }, admin)
  return { plain, gateways }
}

function makeSender({ plain, gateways }: Devices, pick: Pick): FuzzSender {
  const protocol = pick(2) === 0 ? 4 : 5
  const share = pick(100)
  if (share < 2) return { protocol, kind: 'provision', user: 'provision' }
  if (share < 5) return { protocol, kind: 'stranger', user: `nobody-${pick(100)}` }
  if (share < 30) return { protocol, kind: 'gateway', user: gateways[pick(gateways.length)]!.token }
  return { protocol, kind: 'device', user: plain[pick(plain.length)]!.token }
}

/** Sends all of it, in pieces that cut packets apart now and then, and waits until the server has read it or closed. */
async function converse(port: number, packets: readonly Buffer[], pick: Pick): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${2 + pick(addresses)}`, noDelay: true })
  const { promise: isOver, resolve: end } = Promise.withResolvers<void>()
  const timer = setTimeout(end, answerMs)
  let answer = Buffer.alloc(0)
  socket.on('error', () => {})
  socket.on('close', () => end())
  socket.on('data', (chunk: Buffer) => {
    answer = Buffer.concat([answer.subarray(-1), chunk])
    // PINGRESP: everything before the last packet has been read.
    if (answer.subarray(-2).equals(pingResponse)) end()
  })
  const bytes = Buffer.concat([...packets, pingRequest])
  const cut = pick(4) === 0 ? pick(bytes.length) : bytes.length
  socket.write(bytes.subarray(0, cut))
  if (cut < bytes.length) setImmediate(() => socket.writable && socket.write(bytes.subarray(cut)))
  // Now and then a device goes in the middle of it.
  if (pick(16) === 0) setTimeout(end, pick(5))
  await isOver
  clearTimeout(timer)
  if (pick(2) === 0) socket.resetAndDestroy()
  else socket.destroy()
}

const pingRequest = Buffer.from([0xc0, 0])
const pingResponse = Buffer.from([0xd0, 0])

/** It got to where it hurts: past CONNECT, to the points, into refusals of many kinds. */
async function checkDepth(installation: Installation, admin: string, { plain, gateways }: Devices, sent: Sent): Promise<string[]> {
  const metrics = await readMetrics(installation, admin)
  const [messages, points] = [metrics('iot_pms_ingest_messages_total'), metrics('iot_pms_ingest_points_total')]
  const codes = new Map<string, number>()
  for (const { id } of [...plain.slice(0, sampledDevices), ...plain.slice(-sampledDevices), ...gateways.slice(0, sampledDevices)]) {
    const path = `/api/v1/devices/${id}/rejects?limit=200`
    const { items } = (await installation.call('GET', path)) as { items: { code: string; count: number }[] }
    for (const { code, count } of items) codes.set(code, (codes.get(code) ?? 0) + count)
  }
  const listed = [...codes].sort((one, other) => other[1] - one[1]).map(([code, count]) => `${code} ${count}`)
  console.log(
    `         stored: ${messages} messages with ${points} points; refusals of ${sampledDevices * 3} devices: ${listed.join(', ')}`,
  )
  const problems: string[] = []
  if (!(messages > sent.connections / 4)) problems.push(`only ${messages} messages were stored: little was tried`)
  if (codes.size < fewestCodes) problems.push(`only refusals of ${codes.size} kinds: little was tried`)
  return problems
}

/** Nothing of it is left open. */
async function checkClosed(installation: Installation, admin: string): Promise<string[]> {
  const deadline = performance.now() + 30_000
  for (;;) {
    const metrics = await readMetrics(installation, admin)
    const [connections, sessions] = [metrics('iot_pms_mqtt_connections'), metrics('iot_pms_sessions')]
    if (connections + sessions === 0) return []
    if (performance.now() > deadline) return [`${connections} connections and ${sessions} sessions are left`]
    await sleep(200)
  }
}

async function readMetrics(installation: Installation, admin: string): Promise<(name: string) => number> {
  const text = String(await installation.call('GET', '/metrics', undefined, admin))
  return (name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
}

/** Resident memory when what was still under way is done: garbage collected until it shrinks no more. */
async function settledMemory(installation: Installation): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let still = 0, round = 0; still < 3 && round < mostRounds && installation.isRunning; round++) {
    process.kill(installation.pid, 'SIGUSR2')
    await sleep(2000)
    const status = readFileSync(`/proc/${installation.pid}/status`, 'utf8')
    const bytes = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * 1024
    still = bytes < 0.98 * least ? 0 : still + 1
    least = Math.min(least, bytes)
  }
  return least
}

function toMb(bytes: number): string {
  return (bytes / 1_048_576).toFixed(1)
}
