// SPDX-License-Identifier: AGPL-3.0-only
import type { Writable } from 'node:stream'
import type pg from 'pg'

/** The parts of pg's connection that a COPY needs; its types leave them out. */
type CopyConnection = { query(text: string): void; stream: Writable }

/** CopyData: its type and length; CopyDone (PostgreSQL documentation, message formats). */
const copyDataType = 0x64
const copyDone = Buffer.from([0x63, 0, 0, 0, 4])

/**
 * One `COPY … FROM STDIN` with all its bytes at hand. Settles at ReadyForQuery: the statement is its
 * own transaction, and only then is it sure to be committed.
 *
 * postgres.js cannot serve here: it never reports an error that comes after the last byte, such as a
 * unique violation (see docs/decisions/0006-two-database-drivers.md).
 */
class CopyIn implements pg.Submittable {
  /** The driver's own: ends the timer it has set, which would hold the bytes for 20 s. */
  callback?: () => void
  readonly #text: string
  readonly #bytes: Buffer
  readonly #settle: (error?: Error) => void

  constructor(text: string, bytes: Buffer, settle: (error?: Error) => void) {
    this.#text = text
    this.#bytes = bytes
    this.#settle = settle
  }

  /**
   * Statement and data leave in one write, without waiting for CopyInResponse and without copying the
   * bytes. When the statement fails at once, the server drops the data that follows (message flow, COPY).
   */
  submit(connection: unknown): void {
    const { stream } = connection as CopyConnection
    const head = Buffer.allocUnsafe(5)
    this.callback?.()
    head[0] = copyDataType
    head.writeInt32BE(this.#bytes.length + 4, 1)
    stream.cork()
    ;(connection as CopyConnection).query(this.#text)
    stream.write(head)
    stream.write(this.#bytes)
    stream.write(copyDone)
    stream.uncork()
  }

  handleCopyInResponse(): void {}

  handleError(error: Error): void {
    this.#settle(error)
  }

  handleReadyForQuery(): void {
    this.#settle()
  }

  handleCommandComplete(): void {}
  handleDataRow(): void {}
  handleRowDescription(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
}

/** Longer than the statement time-out of the writer's connections, 15 s. */
const deadlineMs = 20_000

/**
 * Runs a binary COPY on one connection of the pool, as a transaction of its own.
 *
 * @throws the database's error; the connection is dropped when it broke
 */
export async function copyIn(pool: pg.Pool, text: string, bytes: Buffer): Promise<void> {
  const client = await pool.connect()
  let lost: Error | undefined
  const onError = (error: Error) => (lost = error)
  client.on('error', onError)
  try {
    await copyOn(client, text, bytes)
  } catch (error) {
    if (!(error as { severity?: string }).severity) lost ??= error as Error
    throw error
  } finally {
    client.off('error', onError)
    client.release(lost ?? false)
  }
}

/**
 * Runs a binary COPY on this connection, inside the transaction it may have open.
 *
 * @throws the database's error, or one without `severity` when the connection is of no use any more
 */
export async function copyOn(client: pg.PoolClient, text: string, bytes: Buffer): Promise<void> {
  let deadline: NodeJS.Timeout | undefined
  let onEnd = () => {}
  try {
    await new Promise<void>((resolve, reject) => {
      onEnd = () => reject(Object.assign(new Error('the database connection ended during COPY'), { code: 'CONNECTION_ENDED' }))
      client.once('end', onEnd)
      client.query(new CopyIn(text, bytes, (error) => (error ? reject(error) : resolve())))
      // The server's own statement time-out is shorter; this one is for a server that no longer answers at all.
      deadline = setTimeout(
        () => reject(Object.assign(new Error('the database did not answer a COPY'), { code: 'COPY_TIMEOUT' })),
        deadlineMs,
      )
    })
  } finally {
    clearTimeout(deadline)
    client.off('end', onEnd)
  }
}
