// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import type { WebSocket } from 'ws'
import type { Context } from '../context.ts'
import type { Attributes } from '../attributes/attributes.ts'
import type { Devices } from '../devices/devices.ts'
import { findActor } from '../http/authenticate.ts'
import type { Credential } from '../http/authenticate.ts'
import { createAddressOf } from '../http/client-address.ts'
import { refuseUpgrade } from '../http/upgrades.ts'
import type { UpgradeHandler } from '../http/upgrades.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import type { People } from '../users/people.ts'
import { CompatClient } from './compat-client.ts'
import type { CompatParts } from './compat-client.ts'
import { parseRequest } from './compat-commands.ts'
import { compatErrors, formatError } from './compat-frames.ts'
import type { Topics } from './topics.ts'

/** [W-6] */
const maxFrameBytes = 65_536
const pingMs = 10_000
const silenceMs = 30_000
/** [W-2] */
const authWaitMs = 10_000
const maxFramesPerSecond = 50
/** Frames of one socket that wait for the ones before them. */
const maxFramesWaiting = 100
const maxSockets = 2000
const maxUnknown = 500
/** A client that is so far behind, or has so many answers waiting, is closed. */
const stuckBytes = 4 * 1_048_576
const maxWaiting = 1500
const tickMs = 100

const closeCodes = { goingAway: 1001, badCredential: 1007, policy: 1008, badToken: 1011, tryLater: 1013 } as const

type Peer = {
  socket: WebSocket
  address: string
  /** Undefined until the credential has been checked. */
  client: CompatClient | undefined
  credential: Credential | undefined
  heardAt: number
  frames: number
  waiting: number
  /** What a socket asks is done one after the other. */
  turn: Promise<void>
}

type StreamParts = { topics: Topics; store: TelemetryStore; attributes: Attributes; devices: Devices; people: People }

/**
 * The WebSocket of ThingsBoard's clients (device API §16.6): its frames, closing codes and text values, with our
 * users, permissions and bounds. No cookie counts here, so it does not matter from which page it is opened.
 */
export class CompatStream {
  readonly #context: Context
  readonly #parts: CompatParts
  readonly #people: People
  readonly #addressOf: ReturnType<typeof createAddressOf>
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: maxFrameBytes, perMessageDeflate: false })
  readonly #peers = new Set<Peer>()
  #timers: NodeJS.Timeout[] = []
  #stops: (() => void)[] = []

  constructor(context: Context, { devices, people, ...parts }: StreamParts) {
    this.#context = context
    this.#people = people
    this.#addressOf = createAddressOf(context.config.trustedProxies)
    this.#parts = { ...parts, findDevice: (scope, id) => devices.find(scope, id), log: context.log }
  }

  start(): void {
    this.#timers = [
      setInterval(() => this.#tick(), tickMs).unref(),
      setInterval(() => this.#ping(), pingMs).unref(),
      setInterval(() => this.#peers.forEach((peer) => (peer.frames = 0)), 1000).unref(),
    ]
    this.#stops = [
      this.#context.events.on('session.ended', ({ sessionId }) => {
        for (const { client, socket } of this.#peers) {
          if (client?.actor.sessionId === sessionId) socket.close(closeCodes.badToken, 'session ended')
        }
      }),
    ]
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer)
    for (const stop of this.#stops) stop()
    for (const { socket } of this.#peers) socket.close(closeCodes.goingAway, 'server stopping')
    this.#sockets.close()
  }

  /** Both paths with what takes their sockets. */
  upgrades(basePath: string): [string, UpgradeHandler][] {
    return [
      [`${basePath}api/ws/plugins/telemetry`, (...upgrade) => this.#upgrade(...upgrade, true)],
      [`${basePath}api/ws`, (...upgrade) => this.#upgrade(...upgrade, false)],
    ]
  }

  /** `needsToken`: the path of [W-1], where a client has no other chance to say who it is. */
  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, url: URL, needsToken: boolean): void {
    const unknown = [...this.#peers].filter(({ client }) => !client).length
    if (this.#peers.size >= maxSockets || unknown >= maxUnknown) return refuseUpgrade(socket, '503 Service Unavailable')
    const token = url.searchParams.get('token') ?? (needsToken ? '' : undefined)
    const address = this.#addressOf(request)
    if (address === undefined) return void socket.destroy()
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#open(webSocket, address, token))
  }

  #open(socket: WebSocket, address: string, token: string | undefined): void {
    const heardAt = this.#context.clock.monotonic()
    const peer: Peer = {
      socket,
      address,
      client: undefined,
      credential: undefined,
      heardAt,
      frames: 0,
      waiting: 0,
      turn: Promise.resolve(),
    }
    this.#peers.add(peer)
    const hear = () => (peer.heardAt = this.#context.clock.monotonic())
    socket.on('pong', hear)
    socket.on('ping', hear)
    socket.on('error', () => socket.terminate())
    socket.on('message', (data, isBinary) => {
      hear()
      if (isBinary) return socket.close(closeCodes.policy, 'text frames only')
      if (++peer.frames > maxFramesPerSecond || peer.waiting >= maxFramesWaiting) return socket.close(closeCodes.policy, 'too many frames')
      this.#inTurn(peer, () => this.#receive(peer, String(data)))
    })
    const cancel =
      token === undefined
        ? this.#context.clock.after(authWaitMs, () => !peer.client && socket.close(closeCodes.policy, 'no authCmd'))
        : () => {}
    socket.on('close', () => {
      cancel()
      this.#peers.delete(peer)
      peer.client?.close()
    })
    if (token !== undefined) this.#inTurn(peer, () => this.#admit(peer, { scheme: 'bearer', text: token }, closeCodes.badToken))
  }

  #inTurn(peer: Peer, work: () => Promise<void>): void {
    peer.waiting++
    peer.turn = peer.turn
      .then(() => (isOpen(peer) ? work() : undefined))
      .catch((error: unknown) => {
        this.#context.log.error({ err: error }, 'a frame of a compatible WebSocket failed')
        peer.socket.close(closeCodes.badToken, 'internal error')
      })
      .finally(() => peer.waiting--)
  }

  async #admit(peer: Peer, credential: Credential, refusal: number): Promise<void> {
    const actor = await findActor(this.#people, credential, peer.address)
    if (!actor) return peer.socket.close(refusal, 'the token is no good')
    if (!isOpen(peer)) return
    const { socket } = peer
    const outlet = {
      get bufferedAmount() {
        return socket.bufferedAmount
      },
      send: (text: string) => isOpen(peer) && socket.send(text),
    }
    peer.credential = credential
    peer.client = new CompatClient(this.#parts, actor, outlet)
  }

  async #receive(peer: Peer, text: string): Promise<void> {
    const request = parseRequest(text)
    if (!peer.client) {
      if (!request?.credential) return peer.socket.close(closeCodes.policy, 'the first frame holds authCmd')
      await this.#admit(peer, request.credential, closeCodes.badCredential)
    }
    const { client } = peer
    if (!client) return
    if (!request) return peer.socket.send(formatError(1, compatErrors.badRequest, 'the frame cannot be read'))
    for (const command of request.commands) {
      if (!isOpen(peer)) return
      await client.run(command)
    }
    // Whoever asks faster than it reads would fill the memory.
    if (peer.socket.bufferedAmount > stuckBytes || client.waiting > maxWaiting) peer.socket.close(closeCodes.tryLater, 'too slow')
  }

  #tick(): void {
    for (const { client } of this.#peers) client?.flush()
  }

  #ping(): void {
    const now = this.#context.clock.monotonic()
    for (const peer of this.#peers) {
      if (now - peer.heardAt > silenceMs) {
        peer.socket.terminate()
        continue
      }
      peer.socket.ping()
      // The end of a session is told of, the end of an API key is not.
      if (peer.client?.actor.kind === 'api-key') this.#inTurn(peer, () => this.#checkKey(peer))
    }
  }

  async #checkKey(peer: Peer): Promise<void> {
    if (peer.credential && !(await findActor(this.#people, peer.credential, peer.address))) {
      peer.socket.close(closeCodes.badToken, 'the key is no good any more')
    }
  }
}

function isOpen({ socket }: Peer): boolean {
  return socket.readyState === socket.OPEN
}
