// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { ModuleContext, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import type { Checkpoint } from './chain.ts'
import { streamOf } from './event.ts'
import { Forwarder } from './forwarder.ts'
import { listStreams, makeCheckpoint } from './log.ts'
import { createFileSink } from './sinks.ts'
import type { Sink } from './sinks.ts'
import type { SinkStore } from './sink-store.ts'

/** [AU-40] */
const checkpointEvents = 1000
const checkpointMs = 60_000
const tickMs = 2000
/** [AU-41] Name of the sink that is always there: checkpoints in files beside the data. */
export const ownSink = 'own'

/**
 * What goes on beside recording: checkpoints by count and time, and one forwarder for each chain and sink. All of it is
 * found again in the database, so nothing is lost when it stops.
 */
export class Keeper {
  readonly #context: ModuleContext
  readonly #sinks: SinkStore
  readonly #forwarders = new Map<string, { forwarder: Forwarder; version: string }>()
  readonly #own: Sink
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> = Promise.resolve()
  #isStopped = false

  constructor(context: ModuleContext, sinks: SinkStore) {
    this.#context = context
    this.#sinks = sinks
    this.#own = createFileSink(context.folder, { name: ownSink, events: false })
  }

  async start(): Promise<void> {
    // Made now and not in the first change: it is a change of its own.
    await this.#context.evidence.signer()
    this.#context.metrics.watch('sinks', 'Chains that are brought to a sink.', () => this.#forwarders.size)
    this.#schedule()
  }

  /** Signs what there is; what is not delivered yet is when it runs again. */
  async stop(): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    clearTimeout(this.#timer)
    await this.#working
    await Promise.all([...this.#forwarders.values()].map(({ forwarder }) => forwarder.stop()))
    this.#forwarders.clear()
    for (const scope of await this.#context.listTenants()) {
      for (const stream of await this.#streamsOf(scope)) await this.checkpoint(scope, stream)
    }
  }

  /** One round of what the timer does: due checkpoints, and forwarders as the sinks say. */
  refresh(): Promise<void> {
    this.#working = this.#working
      .then(() => this.#round())
      .catch((error: unknown) => {
        if (!this.#isStopped) this.#context.log.warn({ err: error }, 'checkpoints or sinks could not be looked after; tried again')
      })
    return this.#working
  }

  /** Signs what a chain is now, if anything is new. */
  async checkpoint(scope: Scope, stream: string): Promise<Checkpoint | undefined> {
    const signer = await this.#context.evidence.signer()
    return this.#context.db.withTenant(scope, (tx) => makeCheckpoint(tx, scope, stream, signer))
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      void this.refresh().then(() => {
        if (!this.#isStopped) this.#schedule()
      })
    }, tickMs).unref()
  }

  async #round(): Promise<void> {
    const wanted = new Map<string, { version: string; create: () => Forwarder }>()
    for (const scope of await this.#context.listTenants()) {
      const streams = await this.#streamsOf(scope)
      for (const stream of await this.#findDue(scope)) await this.checkpoint(scope, stream)
      const sinks = [{ sink: this.#own, chains: 'both' as const, version: '' }, ...(await this.#sinks.open(scope))]
      for (const { sink, chains, version } of sinks) {
        for (const stream of streams.filter((one) => chains === 'both' || (chains === 'platform') === (one === streamOf(undefined)))) {
          wanted.set(`${sink.name} ${stream}`, { version, create: () => this.#createForwarder(scope, stream, sink) })
        }
      }
    }
    for (const [key, { forwarder, version }] of this.#forwarders) {
      if (wanted.get(key)?.version === version) continue
      this.#forwarders.delete(key)
      await forwarder.stop()
    }
    if (this.#isStopped) return
    for (const [key, { version, create }] of wanted) {
      if (this.#forwarders.has(key)) continue
      const forwarder = create()
      this.#forwarders.set(key, { forwarder, version })
      forwarder.start()
    }
  }

  #streamsOf(scope: Scope): Promise<string[]> {
    return this.#context.db.withTenant(scope, (tx) => listStreams(tx))
  }

  async #findDue(scope: Scope): Promise<string[]> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ stream: string }>(sql`select c.stream from audit.chains c
        left join lateral (select size, at from audit.checkpoints p where p.stream = c.stream order by size desc limit 1) p on true
        where c.head_seq > coalesce(p.size, 0)
          and (c.head_seq - coalesce(p.size, 0) >= ${checkpointEvents} or p.at is null or p.at <= now() - ${checkpointMs} * interval '1 millisecond')`),
    )
    return rows.map(({ stream }) => stream)
  }

  #createForwarder(scope: Scope, stream: string, sink: Sink): Forwarder {
    const run = <T>(work: (tx: Tx) => Promise<T>): Promise<T> => this.#context.db.withTenant(scope, work)
    return new Forwarder({
      scope,
      stream,
      sink,
      run,
      now: () => this.#context.clock.now(),
      random: Math.random,
      onChange: (state, reason) => this.#tell(scope, sink, state, reason),
    })
  }

  /** [AU-42] One event when an episode begins and one when it ends. */
  #tell(scope: Scope, sink: Sink, state: 'failing' | 'recovered', reason: string): void {
    this.#context.log.warn({ sink: sink.name, state, reason }, 'delivery of audit events')
    const outcome = state === 'failing' ? ({ type: 'audit.sink.fail', outcome: 'failure' } as const) : { type: 'audit.sink.recover' }
    const draft = { ...outcome, subject: `sink:${sink.name}`, actor: 'system' }
    this.#context.db
      .withTenant(scope, async (tx) => this.#context.audit.record(tx, draft))
      .catch((error: unknown) => this.#context.log.error({ err: error }, 'an episode of a sink could not be recorded'))
  }
}
