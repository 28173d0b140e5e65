// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { EventPayload, Outcome } from './event.ts'

/** What is looked for; all that is given has to hold. */
export type EventFilter = {
  /** A type, or the beginning of some: then it ends with a full stop. */
  type?: string | undefined
  actor?: string | undefined
  subject?: string | undefined
  outcome?: Outcome | undefined
  /** First and last instant, both included. */
  from?: Date | undefined
  to?: Date | undefined
  /** A part of a name or of the reason. */
  q?: string | undefined
  ip?: string | undefined
  requestId?: string | undefined
}

export type FoundEvent = EventPayload & { hash: string }

/**
 * Events of a chain, newest first.
 *
 * @param before number that the page ends before; the number of the last item leads to the next page
 */
export async function searchEvents(
  tx: Tx,
  stream: string,
  filter: EventFilter,
  page: { limit: number; before?: number | undefined },
): Promise<FoundEvent[]> {
  const conditions = [sql`stream = ${stream}`, ...listConditions(filter)]
  if (page.before !== undefined) conditions.push(sql`seq < ${page.before}`)
  const rows = await tx.execute<{ payload: string; hash: string }>(sql`select payload, encode(hash, 'hex') as hash from audit.events
    where ${sql.join(conditions, sql` and `)} order by seq desc limit ${page.limit}`)
  return rows.map(({ payload, hash }) => ({ ...(JSON.parse(payload) as EventPayload), hash }))
}

export function listConditions({ type, actor, subject, outcome, from, to, q, ip, requestId }: EventFilter): SQL[] {
  const conditions: (SQL | undefined)[] = [
    type === undefined ? undefined : type.endsWith('.') ? sql`type like ${`${escapeLike(type)}%`}` : sql`type = ${type}`,
    actor === undefined ? undefined : sql`actor = ${actor}`,
    subject === undefined ? undefined : sql`subject = ${subject}`,
    outcome === undefined ? undefined : sql`outcome = ${outcome}`,
    from && sql`ts >= ${from.toISOString()}`,
    to && sql`ts <= ${to.toISOString()}`,
    ip === undefined ? undefined : sql`payload::jsonb #>> '{data,context,ip}' = ${ip}`,
    requestId === undefined ? undefined : sql`payload::jsonb #>> '{data,context,requestId}' = ${requestId}`,
    q === undefined
      ? undefined
      : sql`concat_ws(E'\\n', payload::jsonb #>> '{data,actor,name}', payload::jsonb #>> '{data,target,name}', payload::jsonb #>> '{data,reason}')
          ilike ${`%${escapeLike(q)}%`}`,
  ]
  return conditions.filter((one) => one !== undefined)
}

/** What is typed is looked for as it is, not as a pattern. */
function escapeLike(text: string): string {
  return text.replace(/[\\%_]/g, '\\$&')
}
