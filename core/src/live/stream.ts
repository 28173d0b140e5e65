// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { Ajv } from 'ajv'
import type { ValidateFunction } from 'ajv'
import formatsPlugin from 'ajv-formats'
import { Type } from 'typebox'
import { WebSocketServer } from 'ws'
import type { RawData, WebSocket } from 'ws'
import type { Context } from '../context.ts'
import { errorCodes } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import type { Permission } from '../http/permissions.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { refuseUpgrade } from '../http/upgrades.ts'
import { createSubscription } from './subscription.ts'
import type { Subscription } from './subscription.ts'
import { Tickets, ticketLifeMs } from './tickets.ts'
import { topicParams, topicPermissions } from './topics.ts'
import type { Topic, Topics } from './topics.ts'

/** [SC-56] */
const maxFrameBytes = 65_536
const maxFramesPerSecond = 50
const maxSubscriptions = 500
/** [RE §7] Above the first the client is too slow and gets the newest only, above the second it is closed. */
const slowBytes = 1024 * 1024
const stuckBytes = 4 * 1024 * 1024
const tickMs = 100
const pingMs = 10_000

const closeCodes = { sessionEnded: 4401, goingAway: 1001, policy: 1008, tryLater: 1013 } as const

type Client = {
  socket: WebSocket
  actor: Actor
  subscriptions: Map<string, Subscription>
  frames: number
  isAlive: boolean
}

type Frame = { op?: unknown; id?: unknown; topic?: unknown; params?: unknown; t?: unknown }

/** The one WebSocket of a browser tab: it multiplexes every live topic (dashboard [D-37]). */
export class LiveStream {
  readonly #context: Context
  readonly #topics: Topics
  readonly #tickets: Tickets
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: maxFrameBytes, perMessageDeflate: false })
  readonly #clients = new Set<Client>()
  readonly #validators: Record<Topic, ValidateFunction>
  #timers: NodeJS.Timeout[] = []
  #stops: (() => void)[] = []

  constructor(context: Context, topics: Topics) {
    this.#context = context
    this.#topics = topics
    this.#tickets = new Tickets(context.clock)
    const ajv = formatsPlugin.default(new Ajv({ strict: false }))
    this.#validators = Object.fromEntries(Object.entries(topicParams).map(([topic, schema]) => [topic, ajv.compile(schema)])) as Record<
      Topic,
      ValidateFunction
    >
  }

  /** Open sockets. */
  get count(): number {
    return this.#clients.size
  }

  registerRoutes(app: App): void {
    app.post(
      '/api/v1/stream/ticket',
      {
        config: { permission: 'session' },
        schema: {
          tags: ['stream'],
          summary: 'Get a one-time ticket for the WebSocket /api/v1/stream?ticket=…',
          body: Type.Optional(Type.Object({}, { additionalProperties: false })),
          response: { 200: Type.Object({ ticket: Type.String(), expiresInS: Type.Integer() }), ...problems(400, 401, 403) },
        },
      },
      (request) => ({ ticket: this.#tickets.create(actorOf(request)), expiresInS: ticketLifeMs / 1000 }),
    )
  }

  start(): void {
    this.#timers = [
      setInterval(() => this.#tick(), tickMs).unref(),
      setInterval(() => this.#ping(), pingMs).unref(),
      setInterval(() => this.#clients.forEach((client) => (client.frames = 0)), 1000).unref(),
    ]
    this.#stops = [
      this.#context.events.on('session.ended', ({ sessionId }) => {
        for (const client of this.#clients) {
          if (client.actor.sessionId === sessionId) client.socket.close(closeCodes.sessionEnded, 'session ended')
        }
      }),
      // Pages of modules come and go; of the license itself only its readers hear [L-125].
      this.#context.events.on('module.changed', ({ name, status }) => this.#tellAll('modules', { name, status })),
      this.#context.events.on('license.changed', ({ state }) => this.#tellAll('license', { state }, 'license.read')),
    ]
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer)
    for (const stop of this.#stops) stop()
    for (const client of this.#clients) {
      send(client, { op: 'event', topic: 'server', data: { state: 'stopping' } })
      client.socket.close(closeCodes.goingAway, 'server stopping')
    }
    this.#sockets.close()
  }

  #tellAll(topic: string, data: Record<string, unknown>, permission?: Permission): void {
    for (const client of this.#clients) {
      if (!permission || client.actor.permissions.has(permission)) send(client, { op: 'event', topic, data })
    }
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, url: URL): void {
    if (!this.#isOwnOrigin(request)) return refuseUpgrade(socket, '403 Forbidden')
    const actor = this.#tickets.take(url.searchParams.get('ticket') ?? '')
    if (!actor) return refuseUpgrade(socket, '401 Unauthorized')
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#open(webSocket, actor))
  }

  /** [SC-55] Only browsers send an Origin; theirs must be our own. */
  #isOwnOrigin(request: IncomingMessage): boolean {
    const { origin, host } = request.headers
    if (origin === undefined) return true
    return URL.parse(origin)?.host === host || origin === this.#context.config.publicUrl?.origin
  }

  #open(socket: WebSocket, actor: Actor): void {
    const client: Client = { socket, actor, subscriptions: new Map(), frames: 0, isAlive: true }
    this.#clients.add(client)
    socket.on('pong', () => (client.isAlive = true))
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      this.#clients.delete(client)
      for (const subscription of client.subscriptions.values()) this.#topics.remove(subscription)
    })
    socket.on('message', (data, isBinary) => {
      client.isAlive = true
      if (isBinary || ++client.frames > maxFramesPerSecond) {
        return socket.close(closeCodes.policy, isBinary ? 'text frames only' : 'too many frames')
      }
      this.#receive(client, data).catch((error: unknown) => {
        this.#context.log.error({ err: error }, 'a stream frame failed')
        socket.close(1011, 'internal error')
      })
    })
  }

  async #receive(client: Client, data: RawData): Promise<void> {
    const frame = parseFrame(data)
    if (frame?.op === 'ping') return send(client, { op: 'pong', t: frame.t })
    const id = frame?.id
    if (!frame || typeof id !== 'string' || id.length > 64) {
      return sendError(client, typeof id === 'string' ? id.slice(0, 64) : '', 'VALIDATION_FAILED')
    }
    if (frame.op === 'unsub') return this.#unsubscribe(client, id)
    if (frame.op !== 'sub') return sendError(client, id, 'VALIDATION_FAILED')
    await this.#subscribe(client, id, frame)
  }

  async #subscribe(client: Client, id: string, frame: Frame): Promise<void> {
    const topic = frame.topic as Topic
    const params = frame.params ?? {}
    if (typeof topic !== 'string' || !Object.hasOwn(topicParams, topic) || !this.#validators[topic](params)) {
      return sendError(client, id, 'VALIDATION_FAILED')
    }
    if (!client.actor.permissions.has(topicPermissions[topic])) return sendError(client, id, 'PERMISSION_DENIED')
    if (client.subscriptions.size >= maxSubscriptions) return sendError(client, id, 'RATE_LIMITED')
    this.#unsubscribe(client, id)
    const subscription = createSubscription(id, client.actor, { topic, params } as Parameters<typeof createSubscription>[2])
    client.subscriptions.set(id, subscription)
    const isKnown = await this.#topics.add(subscription, client.actor)
    // The client may have left, or unsubscribed again, while its devices were looked up.
    if (client.subscriptions.get(id) !== subscription || client.socket.readyState !== client.socket.OPEN) {
      return this.#topics.remove(subscription)
    }
    if (!isKnown) {
      client.subscriptions.delete(id)
      return sendError(client, id, 'NOT_FOUND')
    }
    send(client, { op: 'ok', id })
    subscription.isOpen = true
  }

  #unsubscribe(client: Client, id: string): void {
    const subscription = client.subscriptions.get(id)
    if (!subscription) return
    client.subscriptions.delete(id)
    this.#topics.remove(subscription)
  }

  #tick(): void {
    const now = this.#context.clock.monotonic()
    for (const client of this.#clients) {
      if (client.socket.bufferedAmount > stuckBytes) {
        client.socket.close(closeCodes.tryLater, 'too slow')
        continue
      }
      if (client.socket.bufferedAmount > slowBytes) continue
      for (const subscription of client.subscriptions.values()) {
        const due = subscription.isOpen ? subscription.take(now) : undefined
        if (due) send(client, { op: 'data', id: subscription.id, ...due })
      }
    }
  }

  #ping(): void {
    for (const client of this.#clients) {
      if (!client.isAlive) {
        client.socket.terminate()
        continue
      }
      client.isAlive = false
      client.socket.ping()
    }
  }
}

function parseFrame(data: RawData): Frame | undefined {
  try {
    const value: unknown = JSON.parse(String(data))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

function send(client: Client, frame: unknown): void {
  if (client.socket.readyState === client.socket.OPEN) client.socket.send(JSON.stringify(frame))
}

function sendError(client: Client, id: string, code: ErrorCode): void {
  send(client, { op: 'err', id, code, detail: errorCodes[code].en })
}
