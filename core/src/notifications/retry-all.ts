// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, inArray, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Context } from '../context.ts'
import type { OperationFailure } from '../db/job-tables.ts'
import type { Tx } from '../db/client.ts'
import { notifyChannels, notifyDeliveries } from '../db/notify-tables.ts'
import { Id, Instant, isUuid } from '../http/schemas.ts'
import type { OperationDef } from '../jobs/operations.ts'
import { beginAgain } from './delivery-log.ts'

export const RetryAll = Type.Object(
  {
    state: Type.Optional(Type.Union([Type.Literal('failed'), Type.Literal('expired')])),
    channelId: Type.Optional(Id),
    type: Type.Optional(Type.String({ maxLength: 50 })),
    from: Type.Optional(Instant),
    to: Type.Optional(Instant),
    ids: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 1000 })),
  },
  { additionalProperties: false },
)
type RetryAll = Static<typeof RetryAll>

const perStep = 200

const matching = ({ state, channelId, type, from, to, ids }: RetryAll) =>
  and(
    inArray(notifyDeliveries.state, state === undefined ? ['failed', 'expired'] : [state]),
    channelId === undefined ? undefined : eq(notifyDeliveries.channelId, channelId),
    type === undefined ? undefined : eq(notifyDeliveries.type, type),
    from === undefined ? undefined : sql`${notifyDeliveries.createdAt} >= ${from}`,
    to === undefined ? undefined : sql`${notifyDeliveries.createdAt} < ${to}`,
    ids === undefined ? undefined : inArray(notifyDeliveries.id, ids),
  )

/** Every delivery that failed or came too late, once more; those whose channel cannot send are named. */
export function createRetryAll(context: Context): OperationDef<typeof RetryAll> {
  return {
    kind: 'notification.retry',
    input: RetryAll,
    async count(tx, input) {
      const [row] = await tx
        .select({ count: sql<number>`count(*)::int` })
        .from(notifyDeliveries)
        .where(matching(input))
      return row!.count
    },
    async step(tx, scope, input, cursor) {
      const found = await tx
        .select()
        .from(notifyDeliveries)
        .where(and(matching(input), isUuid(cursor) ? sql`${notifyDeliveries.id} > ${cursor}` : undefined))
        .orderBy(notifyDeliveries.id)
        .limit(perStep)
        .for('update')
      const usable = await usableChannels(tx)
      const failures: OperationFailure[] = found
        .filter((one) => !usable.has(one.channelId))
        .map((one) => ({ item: one.id, code: 'CHANNEL_DISABLED', detail: 'Its channel is out of order, switched off, or gone.' }))
      const again = found.filter((one) => usable.has(one.channelId))
      if (again.length > 0) await beginAgain(context, tx, scope, again)
      const last = found.length === perStep ? found.at(-1)!.id : undefined
      return { done: found.length, failures, ...(last === undefined ? {} : { cursor: last }) }
    },
    only: (_, ids) => ({ ids }),
  }
}

async function usableChannels(tx: Tx): Promise<Set<string>> {
  const rows = await tx.select().from(notifyChannels)
  return new Set(rows.filter((row) => row.enabled && row.state !== 'disabled').map((row) => row.id))
}
