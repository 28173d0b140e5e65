// SPDX-License-Identifier: AGPL-3.0-only
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { parser } from 'mqtt-packet'
import type { IPubackPacket, Packet } from 'mqtt-packet'
import postgres from 'postgres'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import type { Installation, LoadedDevice } from './installation.ts'
import { encodeConnect, encodePublish, packetIdAt } from './mqtt.ts'
import type { Protocol } from './mqtt.ts'

/** Devices that send a good message in the same moment. */
const neighbours = 20
/** A value that nothing but a constraint of ours refuses: the database's own "no" [RE-40]. */
const refusedByDatabase = 666.25

type Case = {
  title: string
  /** Member beside `"good":1`, or the whole body. */
  member?: string
  body?: string
  /** Code in the reject log; none when the value is stored exactly. */
  code?: string
  /** Key that must be absent, or present with `stored`. */
  key?: string
  stored?: unknown
}

const cases: readonly Case[] = [
  { title: 'number beyond doubles', member: '"bad":1e400', code: 'VALUE_NOT_FINITE', key: 'bad' },
  { title: 'null character in a string', member: String.raw`"bad":"a\u0000b"`, code: 'STRING_INVALID', key: 'bad' },
  { title: 'integer beyond 2^53', member: '"n":9007199254740993', key: 'n', stored: '9007199254740993' },
  { title: 'key of 256 characters', member: `"${'k'.repeat(256)}":1`, code: 'KEY_INVALID' },
  { title: 'body that is not JSON', body: '{"a":', code: 'PAYLOAD_MALFORMED' },
  { title: 'value the database refuses', member: `"bad":${refusedByDatabase}`, code: 'STORE_FAILED', key: 'bad' },
]

/** [F24] A bad point among good ones of the same message and batch: it alone is refused, with its reason. */
export async function poisonCases(installation: Installation): Promise<string[]> {
  const { adminUrl } = (await findRunningDatabase(installation.dataDir))!
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  const good = await installation.createDevices(neighbours, 'neighbour')
  const problems: string[] = []
  let ts = Date.now() - 3_600_000
  for (const protocol of [5, 4] as const) {
    const clients = await Promise.all(good.map((device, index) => Client.open(installation.ports.mqtt, device, index % 2 === 0 ? 5 : 4)))
    for (const [number, one] of cases.entries()) {
      // A device of its own, so that its reject log tells of this case only.
      const [device] = await installation.createDevices(1, `poison-${protocol}-${number}`)
      await refuseInSegments(sql)
      const found = await poison(installation, { one, protocol, device: device!, clients, ts: ts++ })
      console.log(`${`F24 v${protocol}`.padEnd(8)} ${found.length === 0 ? 'ok  ' : 'FAIL'} ${one.title}`)
      problems.push(...found.map((problem) => `v${protocol}, ${one.title}: ${problem}`))
    }
    for (const client of clients) client.close()
  }
  await sql.end({ timeout: 5 })
  return problems
}

/** Makes the segments that are open now refuse the value; another one may have been opened since the last case. */
async function refuseInSegments(sql: postgres.Sql): Promise<void> {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(refusedByDatabase)
  const segments = await sql<{ no: number }[]>`select segment_no as no from telemetry_segments where state = 'active'`
  for (const { no } of segments) {
    const table = `telemetry_segment_${no}`
    await sql.unsafe(`alter table ${table} drop constraint if exists faults_poison`)
    await sql.unsafe(
      `alter table ${table} add constraint faults_poison check (position('\\x${bytes.toString('hex')}'::bytea in points) = 0)`,
    )
  }
}

type Attempt = { one: Case; protocol: Protocol; device: LoadedDevice; clients: readonly Client[]; ts: number }

async function poison(installation: Installation, { one, protocol, device, clients, ts }: Attempt): Promise<string[]> {
  const problems: string[] = []
  const poisoner = await Client.open(installation.ports.mqtt, device, protocol)
  const answers: Promise<IPubackPacket | 'closed'>[] = []
  const goodBody = `{"ts":${ts},"values":{"good":1}}`
  // All in one turn of the loop, the bad one in the middle.
  for (const client of clients.slice(0, neighbours / 2)) answers.push(client.publish(goodBody))
  const answer = poisoner.publish(one.body ?? `{"ts":${ts},"values":{"good":1,${one.member}}}`)
  for (const client of clients.slice(neighbours / 2)) answers.push(client.publish(goodBody))

  for (const [index, given] of (await Promise.all(answers)).entries()) {
    if (given === 'closed' || (given.reasonCode ?? 0) !== 0) problems.push(`neighbour ${index} was not acknowledged`)
    else if (given.properties?.userProperties) problems.push(`neighbour ${index} was told of a reject`)
  }
  for (const [index, client] of clients.entries()) {
    if ((await readPoint(installation, client.device.id, 'good', ts)) !== 1) problems.push(`the point of neighbour ${index} is not there`)
  }
  problems.push(...checkAnswer(one, protocol, await answer))
  const isWhole = one.body === undefined
  if (((await readPoint(installation, device.id, 'good', ts)) === 1) !== isWhole) {
    problems.push(isWhole ? 'the good point of the same message is not there' : 'the refused message left a point')
  }
  if (one.key && (await readPoint(installation, device.id, one.key, ts)) !== one.stored) {
    problems.push(`${one.key} is not ${one.stored === undefined ? 'absent' : JSON.stringify(one.stored)}`)
  }
  if (one.code && !(await findReject(installation, device.id, one.code))) problems.push(`the reject log does not say ${one.code}`)
  if (protocol === 5 && !poisoner.isOpen) problems.push('the session did not stay')
  poisoner.close()
  return problems
}

/** MQTT 5 says what was refused; 3.1.1 acknowledges a part and closes on a whole message [device API §2.11]. */
function checkAnswer(one: Case, protocol: Protocol, answer: IPubackPacket | 'closed'): string[] {
  const isWholeRefused = one.body !== undefined
  if (answer === 'closed') return isWholeRefused && protocol === 4 ? [] : ['closed without an answer']
  if (protocol === 4) return isWholeRefused ? ['acknowledged though nothing of it was stored'] : []
  const code = isWholeRefused ? 0x99 : 0
  if ((answer.reasonCode ?? 0) !== code) return [`PUBACK has the code ${answer.reasonCode}, not ${code}`]
  const rejected = { ...answer.properties?.userProperties }['rejected']
  const expected = one.code && !isWholeRefused ? '1' : undefined
  return rejected === expected ? [] : [`PUBACK has rejected = ${String(rejected)}, not ${expected}`]
}

async function readPoint(installation: Installation, deviceId: string, key: string, ts: number): Promise<unknown> {
  const query = new URLSearchParams({ keys: key, from: String(ts), to: String(ts + 1) })
  const page = (await installation.call('GET', `/api/v1/devices/${deviceId}/telemetry/history?${query.toString()}`)) as {
    series: { points: [number, unknown][] }[]
  }
  return page.series[0]?.points[0]?.[1]
}

/** Rejects are written once a second. */
async function findReject(installation: Installation, deviceId: string, code: string): Promise<boolean> {
  for (let waited = 0; waited < 4000; waited += 100) {
    const page = (await installation.call('GET', `/api/v1/devices/${deviceId}/rejects`)) as { items: { code: string }[] }
    if (page.items.some((item) => item.code === code)) return true
    await sleep(100)
  }
  return false
}

/** One session that waits for each answer. */
class Client {
  readonly device: LoadedDevice
  readonly #socket: Socket
  readonly #protocol: Protocol
  #lastId = 0
  #answer: ((answer: IPubackPacket | 'closed') => void) | undefined
  isOpen = false

  private constructor(socket: Socket, device: LoadedDevice, protocol: Protocol) {
    this.#socket = socket
    this.device = device
    this.#protocol = protocol
  }

  static async open(port: number, device: LoadedDevice, protocol: Protocol): Promise<Client> {
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    const client = new Client(socket, device, protocol)
    const reader = parser({ protocolVersion: protocol })
    return new Promise((resolve, reject) => {
      socket.on('connect', () => socket.write(encodeConnect(protocol, device.id, device.token)))
      socket.on('data', (chunk: Buffer) => reader.parse(chunk))
      socket.on('error', () => {})
      socket.on('close', () => {
        client.isOpen = false
        client.#answer?.('closed')
        reject(new Error('the session was not opened'))
      })
      reader.on('packet', (packet: Packet) => {
        if (packet.cmd === 'puback') client.#answer?.(packet)
        if (packet.cmd !== 'connack') return
        client.isOpen = (packet.reasonCode ?? packet.returnCode) === 0
        if (client.isOpen) resolve(client)
      })
    })
  }

  publish(body: string): Promise<IPubackPacket | 'closed'> {
    const bytes = encodePublish(this.#protocol, body)
    bytes.writeUInt16BE(++this.#lastId, packetIdAt(bytes))
    this.#socket.write(bytes)
    return new Promise((resolve) => (this.#answer = resolve))
  }

  close(): void {
    this.#socket.destroy()
  }
}
