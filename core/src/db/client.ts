// SPDX-License-Identifier: AGPL-3.0-only
import { Socket } from 'node:net'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type pg from 'pg'
import postgres from 'postgres'
import type { Log } from '../log.ts'
import { classifyDbError } from './errors.ts'
import { createPool, poolOptions } from './pools.ts'
import type { PoolSettings } from './pools.ts'

/** Whose data a transaction may see. `tenantNo` stands for the tenant in telemetry rows. */
export type Scope = { tenantId: string; tenantNo: number; customerIds?: readonly string[] }

type Database = PostgresJsDatabase
export type Tx = Parameters<Parameters<Database['transaction']>[0]>[0]

/** Written at the end of transactions: what was noted while they ran. */
export type LastWork = { begin(tx: Tx): void; finish(tx: Tx, scope: Scope | undefined): Promise<void> }

/** More than there are connections in the pool that could have died together with their database. */
const openingTries = 12

/** Roles a transaction can take on besides `pms_app`; see migration 0001. */
export type WorkRole = 'pms_store' | 'pms_jobs' | 'pms_ingest'

/** Takes on the role of the application, and what rows it may see, until the transaction ends. */
export async function openAs(tx: Tx, scope: Scope): Promise<void> {
  const customers = scope.customerIds ? `{${scope.customerIds.join(',')}}` : ''
  const opening = tx.select({
    role: sql`set_config('role', 'pms_app', true)`,
    tenantId: sql`set_config('iot_pms.tenant_id', ${scope.tenantId}, true)`,
    tenantNo: sql`set_config('iot_pms.tenant_no', ${String(scope.tenantNo)}, true)`,
    customerIds: sql`set_config('iot_pms.customer_ids', ${customers}, true)`,
  })
  await opening.from(oneRow).prepare('open').execute()
}

async function openWith(tx: Tx, role: WorkRole): Promise<void> {
  await tx
    .select({ role: sql`set_config('role', ${role}, true)` })
    .from(oneRow)
    .prepare('open')
    .execute()
}

/** For selects from nothing. */
const oneRow = sql`(values (1)) as one`

/**
 * Connections of the application. The login has no rights of its own: work happens in
 * {@link Db.withTenant} or {@link Db.withRole}, and a query outside them fails instead of seeing anything.
 */
export class Db {
  readonly #url: string
  readonly #client: postgres.Sql
  readonly #database: Database
  #lastWork: LastWork | undefined

  constructor(url: string, maxConnections = 10) {
    this.#url = url
    this.#client = postgres(url, {
      ...connectionOptions(),
      max: maxConnections,
      connection: {
        application_name: 'iot-pms',
        // Attributes are acknowledged too, whatever the database's default is [RE-3].
        synchronous_commit: 'on',
        statement_timeout: 15_000,
        lock_timeout: 5000,
        idle_in_transaction_session_timeout: 30_000,
        timezone: 'UTC',
      },
    })
    this.#database = drizzle(this.#client)
  }

  /** Where the job queues open connections of their own. */
  get url(): string {
    return this.#url
  }

  /** At most one: what has to be the last statements of each transaction. */
  useLastWork(work: LastWork): void {
    this.#lastWork = work
  }

  /** Runs `work` in one transaction that sees the rows of `scope` only. */
  withTenant<T>(scope: Scope, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#transact((tx) => openAs(tx, scope), work, scope)
  }

  /** Runs `work` in one transaction as a role that belongs to no tenant: lists of tenants, the store's upkeep. */
  withRole<T>(role: WorkRole, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#transact((tx) => openWith(tx, role), work)
  }

  /** A pooled connection may have died unnoticed: as long as `work` has not begun, another one is tried. */
  async #transact<T>(open: (tx: Tx) => Promise<void>, work: (tx: Tx) => Promise<T>, scope?: Scope): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      let hasBegun = false
      try {
        return await this.#database.transaction(async (tx) => {
          hasBegun = true
          // Sent together with what follows, which saves waiting for one answer: it is done first, and without
          // it the login has no rights to do anything.
          const opened = open(tx)
          this.#lastWork?.begin(tx)
          const [result] = await Promise.all([work(tx), opened])
          await this.#lastWork?.finish(tx, scope)
          return result
        })
      } catch (error) {
        if (hasBegun || attempt === openingTries || classifyDbError(error) !== 'unavailable') throw error
      }
    }
  }

  /**
   * A pool of its own for the telemetry store: each connection has the role from the start and commits
   * synchronously whatever the database's default is [RE-3] (off is a fault test's hook).
   */
  openPool(settings: PoolSettings, log: Log): pg.Pool {
    return createPool(this.poolOptions(settings), (error) => log.warn({ err: error }, 'a writer connection ended'))
  }

  /** For a pool that a thread opens. */
  poolOptions(settings: PoolSettings): pg.PoolConfig {
    return poolOptions(this.#url, settings)
  }

  /**
   * Hears `NOTIFY channel` on a connection of its own, which opens again by itself.
   *
   * @param onListening after the first connection and after each new one: what was said in between is lost
   */
  async listen(channel: string, onNotify: () => void, onListening: () => void): Promise<void> {
    await this.#client.listen(channel, onNotify, onListening)
  }

  /** Whether the database answers within a second. */
  async isReachable(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, 1000, false)))
    const answer = this.#client`select 1`.then(
      () => true,
      () => false,
    )
    return Promise.race([answer, late]).finally(() => clearTimeout(timer))
  }

  async stop(): Promise<void> {
    await this.#client.end({ timeout: 1 })
  }
}

function connectionOptions() {
  return {
    onnotice: () => {},
    connect_timeout: 10,
    max_lifetime: null,
    // Without TCP_NODELAY each COPY waits about 88 ms for a delayed ACK [RE-53]. Handed over while
    // connecting: a failure then reaches the pool as the socket's own events, and it tries again.
    socket: ({ host, port, path }: { host: string[]; port: number[]; path?: string }) => {
      const socket = new Socket().setNoDelay(true).setKeepAlive(true, 5000)
      return path ? socket.connect(path) : socket.connect(port[0] ?? 5432, host[0] ?? '127.0.0.1')
    },
  }
}
