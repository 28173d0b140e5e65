// SPDX-License-Identifier: AGPL-3.0-only
import type { IPublishPacket } from 'mqtt'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import type { Device } from '../ingest/registry.ts'
import type { Outbound } from '../outbound.ts'
import { parseTarget } from '../outbound.ts'
import { BrokerError, connectBroker } from './broker.ts'
import type { Broker, BrokerOptions } from './broker.ts'
import { Feed } from './feed.ts'
import type { Fed, FeedParts } from './feed.ts'
import { Intake } from './intake.ts'
import type { CompiledRule } from './mapping.ts'
import { MinuteRate } from './minute-rate.ts'
import { Samples } from './samples.ts'
import type { ConnectorStatus, Failure, Sample } from './schemas.ts'

/** A connector as it runs: its settings, checked. */
export type LinkSettings = {
  id: string
  name: string
  deviceId: string | undefined
  broker: Omit<BrokerOptions, 'password'>
  /** In clear only as long as a connection begins. @throws {ProblemError} `SEAL_BROKEN` */
  openPassword: () => string | undefined
  topics: readonly string[]
  /** Filters of earlier settings, which a kept session would go on serving. */
  formerTopics: readonly string[]
  rules: readonly CompiledRule[]
}

export type LinkParts = {
  outbound: Outbound
  feed: FeedParts
  states: { relay(device: Device, isConnected: boolean): void }
  failed: (settings: LinkSettings, failure: Failure) => void
}

/** Waits between attempts: doubling, each ±50 % at random, so that many servers do not come back at once. */
const firstWaitMs = 1000
const longestWaitMs = 60_000
/** A connection that has held this long was a good one: after it the waits begin anew. */
const goodMs = 30_000
/** What was taken before a stop has this long to be committed, and the good-bye this long. */
const drainMs = 3000
const goodbyeMs = 1000

/** The supervised connection of one connector. It comes back by itself until it is stopped. */
export class Link {
  readonly settings: LinkSettings
  readonly #context: Context
  readonly #parts: LinkParts
  readonly #rate: MinuteRate
  readonly #samples = new Samples()
  readonly #stopping = new AbortController()
  #running: Promise<void> | undefined
  #intake: Intake | undefined
  #broker: Broker | undefined
  #wake: (() => void) | undefined
  #attempts = 0
  #forgets = false
  #status: Pick<ConnectorStatus, 'state' | 'since' | 'lastError' | 'nextAttemptAt' | 'lastMessageAt' | 'received' | 'points' | 'refused'>

  constructor(context: Context, parts: LinkParts, settings: LinkSettings) {
    this.#context = context
    this.#parts = parts
    this.settings = settings
    this.#rate = new MinuteRate(context.clock)
    const since = new Date(context.clock.now()).toISOString()
    const nothing = { lastError: null, nextAttemptAt: null, lastMessageAt: null, received: 0, points: 0, refused: 0 }
    this.#status = { state: 'connecting', since, ...nothing }
  }

  get status(): ConnectorStatus {
    const oldestAt = this.#intake?.oldestAt
    return {
      ...this.#status,
      messagesPerMinute: this.#rate.perMinute,
      inFlight: this.#intake?.size ?? 0,
      oldestMs: oldestAt === undefined ? 0 : Math.max(0, this.#context.clock.now() - oldestAt),
    }
  }

  /** The last messages, newest first. */
  get samples(): Sample[] {
    return this.#samples.list()
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /**
   * Takes nothing more, waits until what was taken is acknowledged, and disconnects; the broker keeps the session.
   *
   * @param forget the broker shall forget the session, because the connector is gone
   */
  async stop(forget = false): Promise<void> {
    this.#forgets = forget
    this.#stopping.abort()
    this.#wake?.()
    await this.#intake?.drain(drainMs)
    await this.#disconnect()
    // An attempt that is on its way ends by itself as soon as it is through.
    await Promise.race([this.#running, new Promise<void>((resolve) => this.#context.clock.after(goodbyeMs, resolve))])
  }

  /** The connector's device has changed: whether it may be used is looked at again, now. */
  recheck(): void {
    const device = this.#gateway()
    if (!device) this.#broker?.destroy()
    this.#wake?.()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      const startedAt = this.#context.clock.monotonic()
      const failure = await this.#connect().catch((error: unknown) => this.#toFailure(error))
      if (signal.aborted) break
      if (this.#context.clock.monotonic() - startedAt > goodMs) this.#attempts = 0
      await this.#wait(failure)
    }
    this.#setState('off')
  }

  /** One connection from its beginning to its end. @returns why it ended */
  async #connect(): Promise<Failure> {
    const { outbound, feed, states } = this.#parts
    const { broker: options, topics, formerTopics, rules } = this.settings
    const gateway = this.#gateway()
    if (!gateway) throw new BrokerError('DEVICE_MISSING', 'the device of the connector is deleted or disabled')
    if (this.#status.state === 'off') this.#setState('connecting')
    const data = new Feed(this.#context, feed, gateway, rules)
    const { host, port } = parseTarget(options.url, 'mqtt')
    const address = `${host}:${port}`
    const intake = new Intake({
      clock: this.#context.clock,
      pipeline: feed.pipeline,
      gateway,
      feed: (message, packet, settle) => {
        this.#note(message.payload, packet, message.receivedAt)
        const source = { transport: 'connector', topic: message.topic, clientId: options.clientId, address } as const
        data.take({ ...message, source: packet.messageId ? { ...source, packetId: packet.messageId } : source }, settle)
      },
      taken: (fed) => this.#count(fed),
    })
    this.#intake = intake
    const broker = await connectBroker(outbound, { ...options, password: this.settings.openPassword() }, intake.take)
    this.#broker = broker
    intake.open(broker)
    try {
      if (this.#stopping.signal.aborted) await broker.end(this.#forgets)
      await broker.unsubscribe(formerTopics)
      await broker.subscribe(topics)
      this.#setState('connected')
      states.relay(gateway, true)
      return await broker.closed
    } finally {
      intake.stop()
      if (!this.#stopping.signal.aborted) broker.destroy()
      if (this.#status.state === 'connected') states.relay(gateway, false)
    }
  }

  async #disconnect(): Promise<void> {
    const broker = this.#broker
    if (!broker) return
    const cancel = this.#context.clock.after(goodbyeMs, () => broker.destroy())
    await broker.end(this.#forgets)
    cancel()
  }

  #gateway(): Device | undefined {
    const device = this.settings.deviceId === undefined ? undefined : this.#parts.feed.registry.get(this.settings.deviceId)
    return device?.isDisabled ? undefined : device
  }

  async #wait(failure: Failure): Promise<void> {
    const { clock, log } = this.#context
    const waitMs = Math.min(longestWaitMs, firstWaitMs * 2 ** this.#attempts++) * (0.5 + Math.random())
    const at = new Date(clock.now()).toISOString()
    this.#setState('failing')
    this.#status = { ...this.#status, lastError: { ...failure, at }, nextAttemptAt: new Date(clock.now() + waitMs).toISOString() }
    this.#parts.failed(this.settings, failure)
    // The first time somebody should know, afterwards the page says it.
    if (this.#attempts === 1) {
      log.warn({ connector: this.settings.id, code: failure.code, detail: failure.detail }, 'a connector has no connection')
    }
    await new Promise<void>((resolve) => {
      const cancel = clock.after(waitMs, resolve)
      this.#wake = () => {
        cancel()
        resolve()
      }
      if (this.#stopping.signal.aborted) this.#wake()
    })
    this.#wake = undefined
    this.#status = { ...this.#status, nextAttemptAt: null }
  }

  #setState(state: ConnectorStatus['state']): void {
    if (this.#status.state === state) return
    this.#status = { ...this.#status, state, since: new Date(this.#context.clock.now()).toISOString() }
  }

  #note(payload: Buffer, { topic, qos, retain }: IPublishPacket, receivedAt: number): void {
    this.#rate.add()
    this.#samples.add({ topic, payload, qos, retain, at: receivedAt })
    this.#status.received++
    this.#status.lastMessageAt = new Date(receivedAt).toISOString()
  }

  #count({ points, refused }: Exclude<Fed, 'unavailable'>): void {
    this.#status.points += points
    this.#status.refused += refused
  }

  #toFailure(error: unknown): Failure {
    if (error instanceof BrokerError) return error.failure
    if (error instanceof ProblemError && error.code === 'SEAL_BROKEN') {
      return { code: 'SEAL_BROKEN', detail: 'the stored password does not open; enter it again' }
    }
    this.#context.log.error({ err: error, connector: this.settings.id }, 'a connector failed')
    return { code: 'INTERNAL', detail: 'an error of the server; its log says more' }
  }
}
