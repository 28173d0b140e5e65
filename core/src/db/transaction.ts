// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'

/**
 * Runs `work` in a transaction on a connection of its own. Where its end fails, the connection is dropped,
 * and with it what was tried.
 *
 * @param end `rollback` takes back what succeeded, too
 */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
  end: 'commit' | 'rollback' = 'commit',
): Promise<T> {
  const client = await pool.connect()
  let lost: Error | boolean = false
  const onError = (error: Error) => (lost = error)
  client.on('error', onError)
  try {
    await client.query('begin')
    const result = await work(client)
    await client.query(end)
    return result
  } catch (error) {
    await client.query('rollback').catch((failed: unknown) => (lost = failed instanceof Error ? failed : true))
    throw error
  } finally {
    client.off('error', onError)
    client.release(lost)
  }
}
