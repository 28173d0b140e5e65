// SPDX-License-Identifier: AGPL-3.0-only
import { eq, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import { notifySuppressions } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { Id, IdParams, Instant, NoContent, Page, formatCursor, isUuid, pageQuery, parseCursor, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { maskAddress } from './delivery-log.ts'

const tags = ['notifications']
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const Suppression = Type.Object({
  id: Id,
  /** Of the channel that was told so. */
  type: Type.String(),
  /** Masked. */
  address: Type.String(),
  reason: Type.String(),
  createdAt: Instant,
})

/** Addresses that get nothing more, because a provider said that they are dead. */
export function registerSuppressionRoutes(app: App, context: Context): void {
  const base = '/api/v1/notifications/suppressions'
  app.get(
    base,
    {
      config: { permission: 'notify.read' },
      schema: {
        tags,
        summary: 'Addresses that get nothing more, newest first',
        querystring: ListQuery,
        response: { 200: Page(Suppression), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { limit = 50, cursor } = request.query
      const [after] = cursor ? parseCursor(cursor, 1) : []
      if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
      const rows = await context.db.withTenant(actorOf(request).scope, (tx) =>
        tx
          .select()
          .from(notifySuppressions)
          .where(after === undefined ? undefined : sql`${notifySuppressions.id} < ${after}`)
          .orderBy(sql`${notifySuppressions.id} desc`)
          .limit(limit + 1),
      )
      const items = rows.slice(0, limit).map(({ id, type, address, reason, createdAt }) => ({
        id,
        type,
        address: maskAddress(address) ?? '',
        reason,
        createdAt: createdAt.toISOString(),
      }))
      return { items, nextCursor: rows.length > limit ? formatCursor([items.at(-1)!.id]) : null }
    },
  )
  app.delete(
    `${base}/:id`,
    {
      config: { permission: 'notify.write' },
      schema: {
        tags,
        summary: 'Let an address be tried again',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      await context.db.withTenant(actorOf(request).scope, async (tx) => {
        const gone = await tx.delete(notifySuppressions).where(eq(notifySuppressions.id, id)).returning()
        if (gone.length === 0) throw new ProblemError('NOT_FOUND')
        recordAudit(tx, {
          type: 'notify_suppression.delete',
          subject: `notify_suppression:${id}`,
          changes: { from: { type: gone[0]!.type }, to: null },
        })
      })
      return reply.code(204).send(null)
    },
  )
}
