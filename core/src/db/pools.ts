// SPDX-License-Identifier: AGPL-3.0-only
import pg from 'pg'

/** Locks of a server that has vanished are given back within a minute. */
const deadPeer =
  '-c idle_in_transaction_session_timeout=60000 -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3'

export type PoolSettings = { role: 'pms_store' | 'pms_ingest'; connections: number; synchronousCommit?: 'on' | 'off' | undefined }

/** What a pool is made of; plain data, so that it can be handed to a thread. */
export function poolOptions(url: string, { role, connections, synchronousCommit = 'on' }: PoolSettings): pg.PoolConfig {
  return {
    connectionString: url,
    application_name: role === 'pms_ingest' ? 'iot-pms writer' : 'iot-pms keeper',
    options: `-c role=${role} -c synchronous_commit=${synchronousCommit} -c timezone=UTC ${deadPeer}`,
    max: connections,
    ...(role === 'pms_ingest' ? { min: connections } : {}),
    idleTimeoutMillis: 0,
    connectionTimeoutMillis: 10_000,
    statement_timeout: 15_000,
    query_timeout: 20_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5000,
  }
}

/** @param onEnd an idle connection may die with the database; the next query opens another */
export function createPool(options: pg.PoolConfig, onEnd: (error: Error) => void): pg.Pool {
  const pool = new pg.Pool(options)
  // A connection may end while nobody listens to it, even before it is handed out: its next query fails, and that is enough.
  pool.on('connect', (client) => client.on('error', () => {}))
  pool.on('error', onEnd)
  return pool
}
