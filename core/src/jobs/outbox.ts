// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { fromDrizzle } from 'pg-boss'
import type { Db as JobsDatabase } from 'pg-boss'
import type { Tx } from '../db/client.ts'

/**
 * A transaction of ours as the queues' connection: what is sent is there when it commits. The queues belong to the
 * role `pms_jobs`, so each statement runs as that one. The change of role, the statement and the way back are handed
 * over together and in order, so that no other statement of the transaction can come between.
 */
export function asJobs(tx: Tx): JobsDatabase {
  type Statement = Parameters<Tx['execute']>[0]
  // Drizzle sends a query when it is waited for: `then` at once, one after the other, keeps the order.
  const send = (statement: Statement) => tx.execute(statement).then((rows) => rows)
  const execute = async (statement: unknown): Promise<{ rows: unknown[] }> => {
    const entering = send(sql`select set_config('iot_pms.role_before', current_user, true), set_config('role', 'pms_jobs', true)`)
    const answering = send(statement as Statement)
    const leaving = send(sql`select set_config('role', current_setting('iot_pms.role_before'), true)`)
    const [, rows] = await Promise.all([entering, answering, leaving])
    return { rows: [...rows] }
  }
  return fromDrizzle({ execute }, sql)
}
