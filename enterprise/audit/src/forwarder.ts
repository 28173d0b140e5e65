// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { findChain, listCheckpoints, readEntries } from './log.ts'
import type { Batch, Sink } from './sinks.ts'

/** How work in the name of the chain's tenant is done. */
export type Run = <T>(work: (tx: Tx) => Promise<T>) => Promise<T>

export type ForwarderParts = {
  scope: Scope
  stream: string
  sink: Sink
  run: Run
  now: () => number
  /** Between 0 and 1. */
  random: () => number
  /** Told once when an episode of failures begins and once when it ends. */
  onChange?: (state: 'failing' | 'recovered', reason: string) => void
}

const maxEntries = 500
/** Of the texts of a batch, before they are wrapped. */
const maxBytes = 1024 * 1024
const sendLimitMs = 5000
const firstPauseMs = 1000
const longestPauseMs = 300_000
/** How often a chain without news is looked at. */
const idlePauseMs = 1000

type Cursor = { seq: number; checkpointSize: number; isFailing: boolean }

/**
 * [AU-42] Brings one chain to one sink: in order, at least once, from where it was left. What a sink does not take waits
 * in the database and holds up nobody else.
 */
export class Forwarder {
  readonly #parts: ForwarderParts
  #stopping = new AbortController()
  #running: Promise<void> | undefined

  constructor(parts: ForwarderParts) {
    this.#parts = parts
  }

  start(): void {
    this.#running ??= this.#forward()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
    this.#running = undefined
    this.#stopping = new AbortController()
  }

  async #forward(): Promise<void> {
    const { signal } = this.#stopping
    let failures = 0
    while (!signal.aborted) {
      const outcome = await this.deliver(signal)
      failures = outcome === 'failed' ? failures + 1 : 0
      if (outcome === 'delivered') continue
      const pause = outcome === 'idle' ? idlePauseMs : Math.min(firstPauseMs * 2 ** (failures - 1), longestPauseMs)
      // Jitter, so that many chains do not come back to a receiver in the same moment.
      await wait(pause * (0.5 + this.#parts.random() / 2), signal)
    }
  }

  /** One batch. Errors of the database count as failures too: nothing is lost by trying again. */
  async deliver(signal: AbortSignal = this.#stopping.signal): Promise<'delivered' | 'idle' | 'failed'> {
    const { sink, run } = this.#parts
    let cursor: Cursor | undefined
    try {
      const [read, batch] = await run(async (tx) => this.#readNext(tx))
      cursor = read
      if (batch.entries.length === 0 && batch.checkpoints.length === 0) return 'idle'
      await sink.send(batch, AbortSignal.any([signal, AbortSignal.timeout(sendLimitMs)]))
      const seq = batch.entries.at(-1)?.payload.seq ?? cursor.seq
      const checkpointSize = batch.checkpoints.at(-1)?.body.size ?? cursor.checkpointSize
      await this.#write({ seq, checkpointSize, isFailing: false })
      if (cursor.isFailing) this.#parts.onChange?.('recovered', '')
      return 'delivered'
    } catch (error) {
      if (signal.aborted) return 'failed'
      const isNew = cursor?.isFailing === false
      if (cursor) await this.#write({ ...cursor, isFailing: true }).catch(() => {})
      if (isNew) this.#parts.onChange?.('failing', error instanceof Error ? error.message : String(error))
      return 'failed'
    }
  }

  async #readNext(tx: Tx): Promise<[Cursor, Batch]> {
    const { stream, sink } = this.#parts
    const [row] = await tx.execute<{ seq: string; size: string; failing: boolean }>(sql`select seq, checkpoint_size as size,
      failing_since is not null as failing from audit.sink_state where stream = ${stream} and sink = ${sink.name}`)
    const chain = await findChain(tx, stream)
    // What retention took away before it was delivered cannot be: it asks the sinks first.
    const seq = Math.max(Number(row?.seq ?? 0), (chain?.first.seq ?? 1) - 1)
    const cursor = { seq, checkpointSize: Number(row?.size ?? 0), isFailing: row?.failing ?? false }
    let bytes = 0
    const entries = (await readEntries(tx, stream, cursor.seq + 1, cursor.seq + maxEntries)).filter(({ payload }, index) => {
      bytes += Buffer.byteLength(JSON.stringify(payload)) + 200
      return index === 0 || bytes <= maxBytes
    })
    const reached = entries.at(-1)?.payload.seq ?? cursor.seq
    // A checkpoint goes out with or after the events it covers.
    const checkpoints = (await listCheckpoints(tx, stream)).filter(({ body }) => body.size > cursor.checkpointSize && body.size <= reached)
    return [cursor, { stream, entries, checkpoints }]
  }

  async #write({ seq, checkpointSize, isFailing }: Cursor): Promise<void> {
    const { scope, stream, sink, run, now } = this.#parts
    const failingSince = isFailing ? new Date(now()).toISOString() : null
    await run((tx) =>
      tx.execute(sql`insert into audit.sink_state (tenant_id, stream, sink, seq, checkpoint_size, failing_since)
        values (${scope.tenantId}, ${stream}, ${sink.name}, ${seq}, ${checkpointSize}, ${failingSince})
        on conflict (tenant_id, stream, sink) do update set seq = excluded.seq, checkpoint_size = excluded.checkpoint_size,
          failing_since = case when excluded.failing_since is null then null else coalesce(sink_state.failing_since, excluded.failing_since) end`),
    )
  }
}

/** [AU-50] Size of the newest checkpoint that every one of these sinks has. */
export async function findDelivered(tx: Tx, stream: string, sinks: readonly string[]): Promise<number> {
  const rows = await tx.execute<{ sink: string; size: string }>(
    sql`select sink, checkpoint_size as size from audit.sink_state where stream = ${stream}`,
  )
  return Math.min(...sinks.map((sink) => Number(rows.find((row) => row.sink === sink)?.size ?? 0)))
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms)
    function done() {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}
