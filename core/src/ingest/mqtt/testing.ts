// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import type { IClientOptions, MqttClient } from 'mqtt'
import { generate, parser } from 'mqtt-packet'
import type { IConnectPacket, Packet } from 'mqtt-packet'
import { pino } from 'pino'
import { systemClock } from '../../clock.ts'
import type { Clock } from '../../clock.ts'
import type { Point } from '../../telemetry/points.ts'
import { decodeAttributes, decodeTelemetry } from '../codecs.ts'
import { defaultPayloadRules } from '../registry.ts'
import type { Device } from '../registry.ts'
import { defaultSettings } from '../../products/settings.ts'
import type { Reject } from '../rejects.ts'
import { Sessions } from '../sessions.ts'
import type { DisconnectReason, TakeoverLoop } from '../sessions.ts'
import type { IngestSink, Outcome, Uplink, UplinkSource } from '../uplink.ts'
import { MqttEndpoint } from './endpoint.ts'
import type { MqttEndpointOptions, RefusedConnect } from './endpoint.ts'
import type { MqttLimits } from './limits.ts'

let lastNo = 0

export function makeDevice(name = 'device', changes: Partial<Device> = {}): Device {
  const no = ++lastNo
  return {
    tenantId: 'tenant',
    tenantNo: 1,
    id: `${name}-${no}`,
    no,
    name,
    isDisabled: false,
    isGateway: false,
    settings: defaultSettings,
    rules: { ...defaultPayloadRules },
    inactivityTimeoutMs: 600_000,
    lastServerTs: 0,
    ...changes,
  }
}

type Taken = { uplink: Omit<Uplink, 'payload'>; text: string; settle(): void }

/**
 * A sink that keeps points in memory: decodes like the pipeline, and settles either by itself or
 * when the test says so.
 */
export class MemorySink implements IngestSink {
  readonly taken: Taken[] = []
  readonly points: (Point & { deviceId: string })[] = []
  readonly attributes: string[] = []
  settlesByItself = true
  isFull = false
  outcome: Outcome | undefined
  readonly #listeners = new Set<() => void>()

  accept(uplink: Uplink, settle: (outcome: Outcome) => void): void {
    const text = uplink.payload.toString()
    const outcome = this.outcome ?? this.#store(uplink)
    const { device, kind, transport, source, receivedAt } = uplink
    const taken = { uplink: { device, kind, transport, source, receivedAt }, text, settle: () => settle(outcome) }
    this.taken.push(taken)
    if (this.settlesByItself) setImmediate(() => taken.settle())
  }

  onRoom(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  giveRoom(): void {
    this.isFull = false
    for (const listener of this.#listeners) listener()
  }

  settleAll(): void {
    for (const taken of this.taken) taken.settle()
  }

  #store({ device, kind, payload, receivedAt }: Uplink): Outcome {
    const decoded =
      kind === 'telemetry' ? decodeTelemetry(payload, device.rules, device, receivedAt) : decodeAttributes(payload, device.rules)
    if ('refused' in decoded) return { status: 'refused', reject: decoded.refused }
    const accepted = 'points' in decoded ? decoded.points.length : decoded.attributes.length
    if ('points' in decoded) this.points.push(...decoded.points.map((point) => ({ ...point, deviceId: device.id })))
    else this.attributes.push(...decoded.attributes.map((attribute) => attribute.key))
    if (accepted === 0 && decoded.rejects.length > 0) return { status: 'rejected', rejects: decoded.rejects }
    return { status: 'stored', accepted, rejects: decoded.rejects }
  }
}

export type Bench = Awaited<ReturnType<typeof startEndpoint>>

/** A running endpoint on a free port; devices are known by the token `token-<name>`. */
export async function startEndpoint(
  options: { limits?: Partial<MqttLimits>; maxSessions?: number; clock?: Clock } & Partial<
    Pick<MqttEndpointOptions, 'pausesKeepAlive' | 'port' | 'requests' | 'provision' | 'tls'>
  > = {},
) {
  const clock = options.clock ?? systemClock
  const errors: string[] = []
  const log = pino({ level: 'error' }, { write: (line: string) => errors.push(line) })
  const sink = new MemorySink()
  const sessions = new Sessions({ clock, log, limit: options.maxSessions ?? 20_000 })
  const devices = new Map<string, Device>()
  const rejects: { device: Device; source: UplinkSource; reject: Reject; sample: string }[] = []
  const refused: RefusedConnect[] = []
  const events: [string, string, DisconnectReason?][] = []
  const loops: TakeoverLoop[] = []
  const state = { admission: 'open' as ReturnType<MqttEndpointOptions['admission']> }
  sessions.on('opened', (session) => events.push(['opened', session.clientId]))
  sessions.on('closed', (session, reason) => events.push(['closed', session.clientId, reason]))
  sessions.on('takeoverLoop', (event) => loops.push(event))
  const endpoint = new MqttEndpoint({
    port: 0,
    host: '127.0.0.1',
    sink,
    sessions,
    authenticate({ clientId, userName, password }) {
      const device = devices.get(userName ?? '')
      if (device?.isDisabled === true) return { status: 'refused', reason: 'disabled', device }
      if (device !== undefined) return { status: 'ok', device }
      if (userName !== undefined || password !== undefined) return { status: 'refused', reason: 'bad_credentials' }
      return { status: 'refused', reason: clientId === '' ? 'nothing_given' : 'unknown_client_id' }
    },
    rejects: {
      record: ({ device, source, reject, payload }) => rejects.push({ device, source, reject, sample: payload.toString('latin1') }),
    },
    refused: (entry) => refused.push(entry),
    admission: () => state.admission,
    clock,
    log,
    ...options,
    limits: { tickMs: 20, ...options.limits },
  })
  await endpoint.start()
  const clients: { end(): void }[] = []
  return {
    endpoint,
    sink,
    sessions,
    rejects,
    refused,
    events,
    loops,
    state,
    errors,
    devices,
    addDevice(name: string, changes: Partial<Device> = {}): Device {
      const device = makeDevice(name, changes)
      devices.set(`token-${name}`, device)
      return device
    },
    /** A raw socket that speaks MQTT packet by packet. */
    async open(): Promise<RawClient> {
      const client = new RawClient(connectSocket(endpoint.port, '127.0.0.1'))
      clients.push(client)
      await once(client.socket, 'connect')
      return client
    },
    /** A raw socket with a session of the device `name`. */
    async session(name: string, connect: Partial<IConnectPacket> = {}): Promise<RawClient> {
      if (!devices.has(`token-${name}`)) this.addDevice(name)
      const client = await this.open()
      client.connect({ username: `token-${name}`, ...connect })
      const connack = await client.next('connack')
      if ((connack.reasonCode ?? connack.returnCode) !== 0) throw new Error(`refused: ${JSON.stringify(connack)}`)
      return client
    },
    /** The client library that devices use. */
    async client(name: string, clientOptions: IClientOptions = {}): Promise<MqttClient> {
      if (!devices.has(`token-${name}`)) this.addDevice(name)
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${endpoint.port}`, {
        username: `token-${name}`,
        reconnectPeriod: 0,
        ...clientOptions,
      })
      clients.push({ end: () => client.end(true) })
      return client
    },
    /** Drops the clients that have closed, for tests with very many. */
    forget(): void {
      clients.splice(0, clients.length, ...clients.filter((client) => !(client instanceof RawClient && client.isClosed)))
    },
    async stop(): Promise<void> {
      for (const client of clients) client.end()
      await endpoint.stop(100)
      // No mistake of a client is an error of the server [M-42].
      if (errors.length > 0) throw new Error(`error lines: ${errors.join('')}`)
      const problems = clients.flatMap((client) => (client instanceof RawClient ? client.problems : []))
      if (problems.length > 0) throw new Error(`the server sent what is no MQTT: ${problems.join(', ')}`)
    },
  }
}

type Received<Cmd> = Extract<Packet, { cmd: Cmd }>

/** A client that can also send nonsense, and that tells exactly what came back. */
export class RawClient {
  readonly socket: Socket
  readonly packets: Packet[] = []
  /** What the server sent that is no MQTT: must stay empty. */
  readonly problems: string[] = []
  readonly closed: Promise<void>
  protocol = 4
  isClosed = false
  #parser = parser({ protocolVersion: 4 })
  #wake: () => void = () => {}

  constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      this.#parser.parse(chunk)
      this.#wake()
    })
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.isClosed = true
        this.#wake()
        resolve()
      })
    })
  }

  send(bytes: Buffer | string): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes.replaceAll(' ', ''), 'hex') : bytes)
  }

  connect(packet: Partial<IConnectPacket> = {}): void {
    this.protocol = packet.protocolVersion ?? 4
    this.#parser = parser({ protocolVersion: this.protocol })
    this.#parser.on('packet', (one: Packet) => this.packets.push(one))
    this.#parser.on('error', (err: Error) => this.problems.push(err.message))
    this.send(
      generate({
        cmd: 'connect',
        protocolId: this.protocol === 3 ? 'MQIsdp' : 'MQTT',
        protocolVersion: 4,
        clean: true,
        clientId: 'raw',
        keepalive: 60,
        ...packet,
      }),
    )
  }

  /** Encodes and sends a packet in the protocol of the session. */
  put(packet: Packet): void {
    this.send(this.encode(packet))
  }

  encode(packet: Packet): Buffer {
    return generate(packet, { protocolVersion: this.protocol })
  }

  publish(
    topic: string,
    payload: string | Buffer,
    more: { qos?: 0 | 1 | 2; messageId?: number; properties?: object; dup?: boolean; retain?: boolean } = {},
  ): void {
    this.put({ cmd: 'publish', topic, payload, qos: 1, messageId: 1, dup: false, retain: false, ...more })
  }

  /** The next packet of that kind, at most `ms` from now; packets before it are dropped. */
  async next<Cmd extends Packet['cmd']>(cmd: Cmd, ms = 3_000): Promise<Received<Cmd>> {
    const deadline = Date.now() + ms
    for (;;) {
      const packet = this.packets.shift()
      if (packet?.cmd === cmd) return packet as Received<Cmd>
      if (packet !== undefined) continue
      if (this.isClosed || Date.now() >= deadline) throw new Error(`no ${cmd}${this.isClosed ? ', closed' : ''}`)
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), sleep(deadline - Date.now() + 1)])
    }
  }

  /** Resolves when the server has closed; how long that took in ms. */
  async closedWithin(ms: number): Promise<number> {
    const start = performance.now()
    const isClosed = await Promise.race([this.closed.then(() => true), sleep(ms, false)])
    if (!isClosed) throw new Error(`still open after ${ms} ms`)
    return performance.now() - start
  }

  /** A PINGREQ is answered: the session is alive, and everything sent before has been handled. */
  async ping(): Promise<void> {
    this.put({ cmd: 'pingreq' })
    await this.next('pingresp')
  }

  end(): void {
    this.socket.destroy()
  }
}

/** The client library of devices; tries again while the server is too busy to let anybody in, as devices do. */
export async function connectDevice(
  port: number | undefined,
  token: string | undefined,
  options: IClientOptions = {},
): Promise<MqttClient> {
  const deadline = Date.now() + 20_000
  for (;;) {
    try {
      const credentials = token === undefined ? {} : { username: token }
      return await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { ...credentials, reconnectPeriod: 0, ...options })
    } catch (error) {
      if (!/server (busy|unavailable)/i.test(String(error)) || Date.now() > deadline) throw error
      await sleep(200)
    }
  }
}

/** Waits until the condition holds, at most `ms`. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 3_000): Promise<void> {
  const deadline = Date.now() + ms
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('did not happen in time')
    await sleep(2)
  }
}

/** Connects like a device does that tries again while the server says that it is busy, as on a loaded machine. */
export async function connectPatiently(url: string, options: IClientOptions): Promise<MqttClient> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options })
    } catch (error) {
      // Server unavailable of 3.1.1, and busy of MQTT 5.
      if (attempt === 40 || ![3, 0x88, 0x89].includes(Number((error as { code?: number }).code))) throw error
      await sleep(250)
    }
  }
}
