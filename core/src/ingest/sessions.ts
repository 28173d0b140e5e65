// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import type { Downlink } from './downlink.ts'
import type { Device } from './registry.ts'

/** Why a session ended, as devices show it [S-3]. */
export const disconnectReasons = ['client', 'keepalive', 'takeover', 'network', 'protocol', 'admin', 'shutdown'] as const
export type DisconnectReason = (typeof disconnectReasons)[number]

/** One live connection of a device, with what is shown about it [S-6]. */
export type Session = {
  readonly device: Device
  /** MQTT protocol level: 3, 4 (3.1.1) or 5. */
  readonly protocol: number
  readonly clientId: string
  readonly address: string
  readonly tls: boolean
  /** 0: closed after the product's inactivity time. */
  readonly keepAliveS: number
  /** ms since 1970 */
  readonly connectedAt: number
  lastActivityAt: number
  messagesIn: number
  pointsIn: number
  /** Messages taken and not yet answered. */
  readonly inFlight: number
  /** Granted filters with their QoS. */
  readonly subscriptions: ReadonlyMap<string, number>
  /** Ends the connection with the answer that belongs to the reason; reports back through `Sessions.end`. */
  close(reason: DisconnectReason): void
  /** Sends a message to the device; the returned function takes it back, which works until it is written. */
  send(downlink: Downlink): () => boolean
  /** Topic of a push that has several forms, given by their filters: that of the one subscribed last [M-39]. */
  pushTopic(filters: readonly string[], id?: number): string | undefined
}

/** Two clients that keep pushing each other out with the credentials of one device [M-18]. */
export type TakeoverLoop = {
  device: Device
  at: number
  count: number
  older: { address: string; clientId: string }
  newer: { address: string; clientId: string }
}

type Listeners = {
  opened: (session: Session) => void
  closed: (session: Session, reason: DisconnectReason) => void
  /** Filters were granted, those held before among them; the device has its SUBACK before what is sent now. */
  subscribed: (session: Session, filters: readonly string[]) => void
  takeoverLoop: (event: TakeoverLoop) => void
}

const loopTakeovers = 5
const loopWindowMs = 60_000
const loopEventPauseMs = 600_000

/**
 * The live sessions, one per device. Keyed by device and never by client id: another device that
 * uses the same client id disturbs nobody [M-17].
 */
export class Sessions {
  readonly limit: number
  readonly #clock: Clock
  readonly #log: Log
  readonly #sessions = new Map<string, Session>()
  /** Last take-overs per device, the device taken over last at the end. */
  readonly #takeovers = new Map<string, { times: number[]; reportedAt: number }>()
  readonly #listeners: { [Name in keyof Listeners]: Set<Listeners[Name]> } = {
    opened: new Set(),
    closed: new Set(),
    subscribed: new Set(),
    takeoverLoop: new Set(),
  }

  constructor(options: { clock: Clock; log: Log; limit?: number }) {
    this.#clock = options.clock
    this.#log = options.log
    this.limit = options.limit ?? 20_000
  }

  get count(): number {
    return this.#sessions.size
  }

  get(deviceId: string): Session | undefined {
    return this.#sessions.get(deviceId)
  }

  all(): IterableIterator<Session> {
    return this.#sessions.values()
  }

  /** A take-over needs no room. */
  hasRoomFor(deviceId: string): boolean {
    return this.#sessions.size < this.limit || this.#sessions.has(deviceId)
  }

  /** Adds a session; an older one of the same device is closed, the newer stays [M-17]. */
  open(session: Session): void {
    const older = this.#sessions.get(session.device.id)
    this.#sessions.set(session.device.id, session)
    if (older !== undefined) {
      older.close('takeover')
      this.#tell('closed', older, 'takeover')
      this.#countTakeover(older, session)
    }
    this.#tell('opened', session)
  }

  /** Reported by the session's connection when it has ended; one that was taken over is known already. */
  end(session: Session, reason: DisconnectReason): void {
    if (this.#sessions.get(session.device.id) !== session) return
    this.#sessions.delete(session.device.id)
    this.#tell('closed', session, reason)
  }

  /** Reported by the session's connection when filters were granted. */
  subscribed(session: Session, filters: readonly string[]): void {
    if (this.#sessions.get(session.device.id) === session) this.#tell('subscribed', session, filters)
  }

  /** Closes the session of a device, if it has one [M-19]. */
  close(deviceId: string, reason: DisconnectReason): boolean {
    const session = this.#sessions.get(deviceId)
    session?.close(reason)
    return session !== undefined
  }

  /** Calls the listener from now on; the returned function ends that. */
  on<Name extends keyof Listeners>(name: Name, listener: Listeners[Name]): () => void {
    const listeners = this.#listeners[name]
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  #tell<Name extends keyof Listeners>(name: Name, ...event: Parameters<Listeners[Name]>): void {
    for (const listener of this.#listeners[name]) {
      try {
        ;(listener as (...event: Parameters<Listeners[Name]>) => void)(...event)
      } catch (err) {
        this.#log.error({ err, event: name }, 'session listener failed')
      }
    }
  }

  #countTakeover(older: Session, newer: Session): void {
    const now = this.#clock.monotonic()
    for (const [deviceId, entry] of this.#takeovers) {
      if (Math.max(entry.times.at(-1) ?? 0, entry.reportedAt) > now - loopEventPauseMs) break
      this.#takeovers.delete(deviceId)
    }
    const { device } = newer
    const entry = this.#takeovers.get(device.id) ?? { times: [], reportedAt: Number.NEGATIVE_INFINITY }
    // Inserted again so that the map stays in order of the last take-over and can be pruned from its start.
    this.#takeovers.delete(device.id)
    this.#takeovers.set(device.id, entry)
    entry.times = [...entry.times.slice(1 - loopTakeovers), now].filter((time) => time > now - loopWindowMs)
    if (entry.times.length < loopTakeovers || now - entry.reportedAt < loopEventPauseMs) return
    entry.reportedAt = now
    this.#tell('takeoverLoop', {
      device,
      at: this.#clock.now(),
      count: entry.times.length,
      older: { address: older.address, clientId: older.clientId },
      newer: { address: newer.address, clientId: newer.clientId },
    })
  }
}
