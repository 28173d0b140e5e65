// SPDX-License-Identifier: AGPL-3.0-only
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SecureContext, TLSSocket } from 'node:tls'
import type { Clock } from '../../clock.ts'
import type { Log } from '../../log.ts'
import type { Device } from '../registry.ts'
import type { RequestHandlers } from '../requests.ts'
import type { Sessions } from '../sessions.ts'
import type { IngestSink } from '../uplink.ts'
import { Admission, Refusals, TokenBucket } from './admission.ts'
import type { ConnectRefusal } from './answers.ts'
import type { Authentication, Connect, Credentials } from './connect.ts'
import { Connection } from './connection.ts'
import type { ConnectionContext, Login, Peer } from './connection-context.ts'
import { defaultMqttLimits } from './limits.ts'
import type { MqttLimits } from './limits.ts'
import { readIntoOneBuffer } from './one-buffer.ts'
import type { ProvisionHandler } from './provisioning-session.ts'
import { RequestRoom } from './request-room.ts'
import { readClientCertificate, startTls } from './tls.ts'
import type { RejectRecorder } from './uplinks.ts'

/** A refused CONNECT for the list of these; nothing in it is a secret [L-4]. */
export type RefusedConnect = { at: number; address: string; clientId: string; userNameLast4: string | undefined; reason: ConnectRefusal }

export type MqttEndpointOptions = {
  /** 0 takes a free port, `off` opens none. */
  port: number | 'off'
  /** The same over TLS; `context` is asked for each new connection. */
  tls?: { port: number; context: () => SecureContext } | undefined
  host?: string | undefined
  sink: IngestSink
  sessions: Sessions
  /** Looks credentials up in memory (device API §2.2). */
  authenticate(credentials: Credentials): Authentication | Promise<Authentication>
  /** Logs what never reaches the sink; the sink logs the rest. */
  rejects: RejectRecorder
  /** Who serves what is neither telemetry nor client attributes. */
  requests?: RequestHandlers
  /** Serves devices that have no credentials yet [§7]; without it they are refused. */
  provision?: ProvisionHandler
  refused(entry: RefusedConnect): void
  /** Whether new sessions are welcome: `full` while the disk guard is critical. */
  admission(): 'open' | 'starting' | 'draining' | 'overloaded' | 'full'
  clock: Clock
  log: Log
  limits?: Partial<MqttLimits>
  /** Fault tests set this to false to prove that they would notice. */
  pausesKeepAlive?: boolean
}

/** A longer time between two ticks means that the process was stopped, not that clients are late [RE-51]. */
const pauseMs = 2_000
const acceptErrorPauseMs = 60_000
const tcpKeepAliveMs = 60_000
const stopMs = 10_000
/** User name or client id of those who have no credentials yet [§2.2]. */
const provisionName = 'provision'
/** Only of names long enough that the end says nothing about the rest. */
const shortestShownName = 12

/** Refusals that say something about the client, not about the state of the server. */
const guesses: ReadonlySet<ConnectRefusal> = new Set<ConnectRefusal>([
  'bad_credentials',
  'unknown_client_id',
  'nothing_given',
  'certificate',
  'disabled',
  'client_id_invalid',
])

/**
 * The MQTT endpoint, 3.1, 3.1.1 and 5, over TCP and TLS. It is no broker: devices send, the server answers
 * after the commit (device API §2).
 */
export class MqttEndpoint {
  readonly #options: MqttEndpointOptions
  readonly #limits: MqttLimits
  readonly #context: ConnectionContext
  readonly #admission: Admission
  readonly #refusals: Refusals
  readonly #connections = new Set<Connection>()
  readonly #unauthenticated = new Set<Connection>()
  readonly #waitingForRoom = new Set<Connection>()
  /** Sockets that begin with a handshake of TLS, and those that are at it. */
  readonly #encrypted = new WeakSet<Duplex>()
  readonly #handshakes = new Set<TLSSocket>()
  readonly #connectBuckets = new WeakMap<Device, TokenBucket>()
  #dirty: Connection[] = []
  #server: Server | undefined
  #tlsServer: Server | undefined
  #isStarted = false
  #stopping: Promise<void> | undefined
  #whenEmpty: (() => void) | undefined
  #cancelTick: (() => void) | undefined
  #leaveSink: (() => void) | undefined
  #lastTickAt = 0
  #delayedRefusals = 0
  #provisioningSessions = 0
  #acceptErrorAt = Number.NEGATIVE_INFINITY

  constructor(options: MqttEndpointOptions) {
    this.#options = options
    this.#limits = { ...defaultMqttLimits, ...options.limits }
    this.#admission = new Admission(options.clock, this.#limits, (socket, address, since) => this.#begin(socket, address, since))
    this.#refusals = new Refusals(this.#limits)
    const { sink, sessions, rejects, clock, log } = options
    this.#context = {
      sink,
      sessions,
      rejects,
      requests: options.requests ?? {},
      requestRoom: new RequestRoom(this.#limits),
      clock,
      log,
      limits: this.#limits,
      pausesKeepAlive: options.pausesKeepAlive ?? true,
      login: (connect, peer) => this.#login(connect, peer),
      noteRefusal: (address, refusal, credentials) => this.#noteRefusal(address, refusal, credentials),
      leaveUnauthenticated: (connection) => this.#leaveUnauthenticated(connection),
      markDirty: (connection) => this.#markDirty(connection),
      waitForRoom: (connection) => this.#waitingForRoom.add(connection),
      closed: (connection) => this.#forget(connection),
    }
  }

  /** Port in use; 0 before the start. */
  get port(): number {
    return portOf(this.#server)
  }

  get tlsPort(): number {
    return portOf(this.#tlsServer)
  }

  /** Depths of what is bounded here, for the metrics [RE-50]. */
  get depths(): Record<'connections' | 'unauthenticated' | 'waiting' | 'delayedRefusals' | 'waitingRequests', number> {
    const { unauthenticated, waiting } = this.#admission
    const waitingRequests = this.#context.requestRoom.waiting
    return { connections: this.#connections.size, unauthenticated, waiting, delayedRefusals: this.#delayedRefusals, waitingRequests }
  }

  async start(): Promise<void> {
    if (this.#isStarted) return
    this.#isStarted = true
    const { port, tls, sink, clock, log } = this.#options
    try {
      if (port !== 'off') this.#server = await this.#listen(port, (socket) => this.#accept(readIntoOneBuffer(socket)))
      if (tls !== undefined) {
        this.#tlsServer = await this.#listen(tls.port, (socket) => {
          this.#encrypted.add(socket)
          this.#accept(socket)
        })
      }
    } catch (err) {
      this.#server?.close()
      this.#isStarted = false
      throw err
    }
    this.#leaveSink = sink.onRoom(() => this.#onRoom())
    this.#lastTickAt = clock.monotonic()
    this.#scheduleTick()
    log.info({ port: this.port, tlsPort: this.tlsPort }, 'MQTT endpoint listens')
  }

  async #listen(port: number, accept: (socket: Socket) => void): Promise<Server> {
    const { host } = this.#options
    // A socket stays unread until it is admitted.
    const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: tcpKeepAliveMs })
    server.on('connection', accept)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      // The queue of the kernel must hold a storm of devices that all come back at once.
      server.listen({ port, backlog: 4_096, ...(host === undefined ? {} : { host }) }, () => {
        server.off('error', reject)
        resolve()
      })
    })
    server.on('error', (err) => this.#onAcceptError(err))
    return server
  }

  /** Takes no new connections, answers what is pending, says goodbye to each session [M-20]. */
  stop(deadlineMs = stopMs): Promise<void> {
    this.#stopping ??= this.#stop(deadlineMs)
    return this.#stopping
  }

  async #stop(deadlineMs: number): Promise<void> {
    if (!this.#isStarted) return
    const servers = [this.#server, this.#tlsServer].filter((server) => server !== undefined)
    const closed = Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))))
    this.#admission.stop()
    for (const secure of this.#handshakes) secure.destroy()
    const empty = new Promise<void>((resolve) => (this.#whenEmpty = resolve))
    for (const connection of this.#connections) connection.drain()
    if (this.#connections.size === 0) this.#whenEmpty?.()
    const cancel = this.#options.clock.after(deadlineMs, () => {
      for (const connection of this.#connections) connection.close('shutdown')
    })
    await empty
    cancel()
    await closed
    this.#cancelTick?.()
    this.#leaveSink?.()
    this.#options.log.info('MQTT endpoint stopped')
  }

  #accept(socket: Socket): void {
    const address = socket.remoteAddress
    if (address === undefined) socket.destroy()
    else this.accept(socket, address.startsWith('::ffff:') ? address.slice(7) : address)
  }

  /** Takes a stream of MQTT that nobody has read from, from wherever it comes. */
  accept(stream: Duplex, address: string): void {
    // Without a listener an error of a socket would end the process; 'close' follows and is handled.
    stream.on('error', (err) => this.#options.log.debug({ err }, 'MQTT socket error'))
    if (!this.#isStarted || this.#stopping !== undefined) stream.destroy()
    else this.#admission.add(stream, address)
  }

  #begin(socket: Duplex, address: string, since: number): void {
    const { tls, clock } = this.#options
    if (tls === undefined || !this.#encrypted.has(socket)) return this.#connect(socket, { address, tls: false }, since)
    const { handshakeMs } = this.#limits
    const secure = startTls(socket as Socket, { context: tls.context(), clock, handshakeMs }, (done) => {
      this.#handshakes.delete(secure)
      // [M-2] The time for a CONNECT begins after the handshake.
      if (done !== undefined) this.#connect(done, { address, tls: true, certificate: readClientCertificate(done) }, clock.monotonic())
      else this.#admission.release(address)
    })
    secure.on('error', (err) => this.#options.log.debug({ err, address }, 'TLS socket error'))
    this.#handshakes.add(secure)
  }

  #connect(socket: Duplex, peer: Peer, since: number): void {
    const connection = new Connection(this.#context, socket, peer, since)
    this.#connections.add(connection)
    this.#unauthenticated.add(connection)
  }

  #login(connect: Connect, peer: Peer): Login | Promise<Login> {
    const { provision } = this.#options
    const state = this.#options.admission()
    if (state !== 'open') return { refusal: state }
    const { clientId, userName } = connect.credentials
    if (provision !== undefined && (userName === provisionName || clientId === provisionName)) {
      if (this.#provisioningSessions >= this.#limits.provisioningSessions) return { refusal: 'full' }
      this.#provisioningSessions++
      return { provision }
    }
    const found = this.#options.authenticate({ ...connect.credentials, certificate: peer.certificate })
    if (found instanceof Promise) return found.then((result) => this.#admit(connect, peer, result))
    return this.#admit(connect, peer, found)
  }

  #admit(connect: Connect, { address }: Peer, found: Authentication): Login {
    const { sessions, rejects, clock } = this.#options
    if (found.status === 'refused') {
      if (found.device !== undefined) {
        const source = { transport: 'mqtt' as const, topic: '', clientId: connect.clientId, address }
        rejects.record({
          device: found.device,
          source,
          reject: { code: 'AUTH_FAILED', detail: `CONNECT refused: ${found.reason}` },
          payload: Buffer.alloc(0),
        })
      }
      return { refusal: found.reason }
    }
    const { device } = found
    const { deviceConnects, deviceConnectsS } = this.#limits
    const now = clock.monotonic()
    const bucket = this.#connectBuckets.get(device) ?? new TokenBucket(deviceConnects, deviceConnects / deviceConnectsS, now)
    this.#connectBuckets.set(device, bucket)
    if (!bucket.take(now)) return { refusal: 'connect_rate' }
    return sessions.hasRoomFor(device.id) ? { device } : { refusal: 'full' }
  }

  #noteRefusal(address: string, refusal: ConnectRefusal, credentials: Credentials | undefined): number | undefined {
    const { clock, log } = this.#options
    const { clientId = '', userName } = credentials ?? {}
    const userNameLast4 = userName !== undefined && userName.length >= shortestShownName ? userName.slice(-4).toWellFormed() : undefined
    this.#options.refused({ at: clock.now(), address, clientId: clientId.slice(0, 256).toWellFormed(), userNameLast4, reason: refusal })
    log.debug({ address, refusal }, 'MQTT connect refused')
    if (!guesses.has(refusal) || !this.#refusals.add(address, clock.monotonic())) return 0
    if (this.#delayedRefusals >= this.#limits.delayedRefusals) return undefined
    this.#delayedRefusals++
    clock.after(this.#limits.refusalDelayMs, () => this.#delayedRefusals--)
    return this.#limits.refusalDelayMs
  }

  #leaveUnauthenticated(connection: Connection): void {
    if (this.#unauthenticated.delete(connection)) this.#admission.release(connection.address)
  }

  #forget(connection: Connection): void {
    this.#connections.delete(connection)
    this.#waitingForRoom.delete(connection)
    if (connection.isProvisioning) this.#provisioningSessions--
    if (this.#connections.size === 0) this.#whenEmpty?.()
  }

  /** All settles of one commit come in one go: their answers leave together right after it. */
  #markDirty(connection: Connection): void {
    if (this.#dirty.length === 0) process.nextTick(() => this.#flushDirty())
    if (connection.isDirty) return
    connection.isDirty = true
    this.#dirty.push(connection)
  }

  #flushDirty(): void {
    const dirty = this.#dirty
    this.#dirty = []
    for (const connection of dirty) {
      connection.isDirty = false
      connection.flush()
    }
  }

  #onRoom(): void {
    const waiting = [...this.#waitingForRoom]
    this.#waitingForRoom.clear()
    for (const connection of waiting) connection.pump()
  }

  #scheduleTick(): void {
    this.#cancelTick = this.#options.clock.after(this.#limits.tickMs, () => {
      const now = this.#options.clock.monotonic()
      const isAfterPause = now - this.#lastTickAt > this.#limits.tickMs + pauseMs
      this.#lastTickAt = now
      for (const connection of this.#connections) connection.tick(now, isAfterPause)
      this.#scheduleTick()
    })
  }

  /** Out of file descriptors, mostly: accepting goes on by itself when some are free again. */
  #onAcceptError(err: Error): void {
    const now = this.#options.clock.monotonic()
    if (now - this.#acceptErrorAt < acceptErrorPauseMs) return
    this.#acceptErrorAt = now
    this.#options.log.warn({ err }, 'MQTT connections cannot be accepted')
  }
}

function portOf(server: Server | undefined): number {
  const address = server?.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}
