// SPDX-License-Identifier: AGPL-3.0-only
import { Readable } from 'node:stream'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import type { notifyAttempts } from '../db/notify-tables.ts'
import { actorOf } from '../http/actor.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { OperationView, operationPath, viewOperation } from '../jobs/operation-routes.ts'
import type { Operations } from '../jobs/operations.ts'
import {
  deliveryView,
  exportDeliveries,
  getMessage,
  listDeliveries,
  listMessages,
  messageView,
  readStats,
  retryDeliveries,
  retryDelivery,
} from './delivery-log.ts'
import { RetryAll, createRetryAll } from './retry-all.ts'
import { BulkRetry, DeliveriesExport, DeliveriesQuery, DeliveryEntry, MessageDetail, MessageView, Stats, StatsQuery } from './schemas.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })

/** What became of messages. */
export function registerLogRoutes(app: App, context: Context, operations: Operations): void {
  const read = { config: { permission: 'notify.read' as const } }
  app.get(
    '/api/v1/notifications/messages',
    {
      ...read,
      schema: {
        tags,
        summary: 'Messages, newest first',
        querystring: ListQuery,
        response: { 200: Page(MessageView), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { items, nextCursor } = await listMessages(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor)
      return { items: items.map(messageView), nextCursor }
    },
  )
  app.get(
    '/api/v1/notifications/messages/:id',
    {
      ...read,
      schema: {
        tags,
        summary: 'A message with its deliveries and attempts',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: MessageDetail, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { message, deliveries } = await getMessage(context, actorOf(request).scope, request.params.id)
      return {
        ...messageView(message),
        deliveries: deliveries.map(({ delivery, log, events }) => ({
          ...deliveryView(delivery),
          log: log.map(attemptView),
          events: events.map(({ kind, detail, at }) => ({ kind, detail, at: at.toISOString() })),
        })),
      }
    },
  )
  app.get(
    '/api/v1/notifications/deliveries',
    {
      ...read,
      schema: {
        tags,
        summary: 'Deliveries, newest first',
        querystring: DeliveriesQuery,
        response: { 200: Page(DeliveryEntry), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { limit = 50, cursor, ...filter } = request.query
      const { items, nextCursor } = await listDeliveries(context, actorOf(request).scope, filter, limit, cursor)
      return { items: items.map(({ title, ...row }) => ({ ...deliveryView(row), title })), nextCursor }
    },
  )
  app.post(
    '/api/v1/notifications/deliveries/:id/retry',
    {
      config: { permission: 'notify.send' },
      schema: {
        tags,
        summary: 'Try a failed delivery again',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 202: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await retryDelivery(context, actorOf(request).scope, request.params.id)
      return reply.code(202).send(null)
    },
  )
  app.post(
    '/api/v1/notifications/deliveries/bulk-retry',
    {
      config: { permission: 'notify.send' },
      schema: {
        tags,
        summary: 'Try up to 1,000 failed or expired deliveries again',
        querystring: EmptyQuery,
        body: BulkRetry,
        response: { 202: Type.Object({ retried: Type.Integer() }), ...problems(400, 401, 403) },
      },
    },
    async (request, reply) => reply.code(202).send({ retried: await retryDeliveries(context, actorOf(request).scope, request.body) }),
  )
  const retryAll = createRetryAll(context)
  operations.define(retryAll)
  app.post(
    '/api/v1/notifications/deliveries/retry-all',
    {
      config: { permission: 'notify.send' },
      schema: {
        tags,
        summary: 'Try all failed or expired deliveries again, as an operation that can be followed and canceled',
        querystring: EmptyQuery,
        body: RetryAll,
        response: { 202: OperationView, ...problems(400, 401, 403) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const row = await context.db.withTenant(actor.scope, (tx) => operations.create(tx, actor, retryAll, request.body))
      return reply.code(202).header('location', operationPath(row.id)).send(viewOperation(row))
    },
  )
  app.get(
    '/api/v1/notifications/deliveries/export',
    {
      ...read,
      schema: {
        tags,
        summary: 'The log of deliveries as CSV, up to 100,000 rows',
        querystring: DeliveriesExport,
        response: { 200: Type.Unknown(), ...problems(400, 401, 403) },
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      const { format: _, ...filter } = request.query
      await context.audit.note(scope, { type: 'export.create', subject: '-', targetName: 'notification deliveries' })
      return reply
        .headers({ 'content-disposition': 'attachment; filename="deliveries.csv"', 'cache-control': 'no-store' })
        .type('text/csv; charset=utf-8')
        .send(Readable.from(exportDeliveries(context, scope, filter)))
    },
  )
  app.get(
    '/api/v1/notifications/stats',
    {
      ...read,
      schema: {
        tags,
        summary: 'What became of deliveries in a span',
        querystring: StatsQuery,
        response: { 200: Stats, ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { from, to, by = 'channel' } = request.query
      return { items: await readStats(context, actorOf(request).scope, from, to, by) }
    },
  )
}

function attemptView(row: typeof notifyAttempts.$inferSelect) {
  const { tenantId: _, deliveryId: __, at, ...entry } = row
  return { ...entry, at: at.toISOString() }
}
