// SPDX-License-Identifier: AGPL-3.0-only
import { EventEmitter, once } from 'node:events'
import type { Duplex } from 'node:stream'
import type pg from 'pg'

/** Binary COPY begins with a signature, flags and an empty extension, and ends with a field count of −1. */
const headerBytes = 19
const trailerFields = -1
/** The socket is not read while more than this waits to be taken. */
const heldBytes = 4 * 1024 * 1024
const silenceMs = 60_000

type CopyConnection = { query(text: string): void; stream: Duplex }

/** One `COPY … TO STDOUT (FORMAT binary)`; each message of the server is one row. */
class CopyOut extends EventEmitter implements pg.Submittable {
  /** The driver's own: ends the timer it has set; a COPY may take long. */
  callback?: () => void
  readonly #text: string
  #stream: Duplex | undefined
  #rows: Buffer[] = []
  #bytes = 0
  #isFirst = true
  error: Error | undefined
  isDone = false

  constructor(text: string) {
    super()
    this.#text = text
  }

  submit(connection: unknown): void {
    this.callback?.()
    this.#stream = (connection as CopyConnection).stream
    ;(connection as CopyConnection).query(this.#text)
  }

  handleCopyData({ chunk }: { chunk: Buffer }): void {
    const row = this.#isFirst ? chunk.subarray(headerBytes) : chunk
    this.#isFirst = false
    if (row.length < 2 || row.readInt16BE(0) === trailerFields) return
    // The driver's buffer is used again for what comes next.
    this.#rows.push(Buffer.from(row))
    this.#bytes += row.length
    if (this.#bytes > heldBytes) this.#stream!.pause()
    this.emit('rows')
  }

  /** Rows that have come so far. */
  take(): Buffer[] {
    const rows = this.#rows
    this.#rows = []
    this.#bytes = 0
    this.#stream?.resume()
    return rows
  }

  get hasRows(): boolean {
    return this.#rows.length > 0
  }

  fail(error: Error): void {
    this.error ??= error
    this.emit('rows')
  }

  handleError(error: Error): void {
    this.fail(error)
  }

  handleReadyForQuery(): void {
    this.isDone = true
    this.emit('rows')
  }

  handleCommandComplete(): void {}
  handleDataRow(): void {}
  handleRowDescription(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
}

/**
 * Rows of a query in binary form, field count first, as they come: what is not taken stays on the other side.
 * The connection cannot be used for anything else until the end.
 *
 * @throws the database's error
 */
export async function* copyOut(client: pg.PoolClient, query: string): AsyncGenerator<Buffer[]> {
  const copy = new CopyOut(`copy (${query}) to stdout (format binary)`)
  const onEnd = () => copy.fail(Object.assign(new Error('the database connection ended during COPY'), { code: 'CONNECTION_ENDED' }))
  client.once('end', onEnd)
  client.query(copy)
  try {
    for (;;) {
      if (copy.error) throw copy.error
      if (copy.hasRows) yield copy.take()
      else if (copy.isDone) return
      else await nextRows(copy)
    }
  } finally {
    client.off('end', onEnd)
    copy.take()
  }
}

/** Fails when the other side says nothing for so long: a frozen server is not waited for. */
async function nextRows(copy: CopyOut): Promise<void> {
  const late = AbortSignal.timeout(silenceMs)
  try {
    await once(copy, 'rows', { signal: late })
  } catch (error) {
    if (!late.aborted) throw error
    throw Object.assign(new Error('the database sent nothing more during COPY'), { code: 'COPY_TIMEOUT' })
  }
}
