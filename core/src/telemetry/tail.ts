// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { sqlStateOf } from '../db/errors.ts'

/** What is brought at once of rows that are not in chunks yet; nearly always that is all there is. */
export const blockBytes = 4 * 1024 * 1024

const undefinedTable = '42P01'

/**
 * All rows of a device that are not in chunks yet, oldest first, in blocks: for a device with more than one block.
 * A cursor sees them as they were at its start: what moves into chunks meanwhile is neither missed nor older than them.
 */
export async function* readTail(tx: Tx, deviceNo: number, from: number, to: number): AsyncGenerator<Buffer> {
  await tx.execute(sql`declare telemetry_blocks no scroll cursor for
    select points from telemetry_tail(array[${deviceNo}::int4], ${from}::int8, ${to}::int8, null)`)
  for (;;) {
    const [row] = await tx.execute<{ points: Buffer }>(sql`fetch 1 from telemetry_blocks`)
    if (!row) break
    yield row.points
  }
  await tx.execute(sql`close telemetry_blocks`)
}

/** A segment's table may go between the list of segments and the look into it: a second try does not see it any more. */
export async function askTwice<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (sqlStateOf(error) !== undefinedTable) throw error
    return ask()
  }
}
