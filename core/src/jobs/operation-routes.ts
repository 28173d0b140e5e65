// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { actorOf } from '../http/actor.ts'
import { Id, IdParams, Instant, Nullable, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { byteOrderMark, csvRow, textCell } from '../telemetry/csv.ts'
import type { OperationRow, Operations } from './operations.ts'

const tags = ['jobs']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const FailuresQuery = Type.Object(
  { format: Type.Optional(Type.Union([Type.Literal('json'), Type.Literal('csv')])) },
  { additionalProperties: false },
)
const Failure = Type.Object({ item: Type.String(), code: Type.String(), detail: Type.String() })

/** A long request, and how far it is. */
export const OperationView = Type.Object({
  id: Id,
  kind: Type.String(),
  state: Type.Union([
    Type.Literal('queued'),
    Type.Literal('running'),
    Type.Literal('succeeded'),
    Type.Literal('failed'),
    Type.Literal('canceled'),
  ]),
  progress: Type.Object({ done: Type.Integer(), total: Nullable(Type.Integer()) }),
  startedAt: Nullable(Instant),
  finishedAt: Nullable(Instant),
  result: Type.Unknown(),
  failures: Type.Object({ count: Type.Integer(), url: Type.String() }),
  createdBy: Type.String(),
  createdAt: Instant,
})

export const operationPath = (id: string): string => `/api/v1/jobs/${id}`

export function viewOperation(row: OperationRow) {
  return {
    id: row.id,
    kind: row.kind,
    state: row.state,
    progress: { done: row.done, total: row.total },
    startedAt: row.startedAt?.toISOString() ?? null,
    finishedAt: row.finishedAt?.toISOString() ?? null,
    result: row.result ?? null,
    failures: { count: row.failureCount, url: `${operationPath(row.id)}/failures` },
    createdBy: row.createdBy,
    createdAt: row.createdAt.toISOString(),
  }
}

/** Operations are their creator's, and everybody's who may read or write jobs. */
export function registerOperationRoutes(app: App, operations: Operations): void {
  const own = { config: { permission: 'session' as const } }
  app.get(
    '/api/v1/jobs',
    {
      ...own,
      schema: {
        tags,
        summary: 'Operations, newest first',
        querystring: ListQuery,
        response: { 200: Page(OperationView), ...problems(400, 401) },
      },
    },
    async (request) => {
      const { items, nextCursor } = await operations.list(actorOf(request), request.query.limit ?? 50, request.query.cursor)
      return { items: items.map(viewOperation), nextCursor }
    },
  )
  app.get(
    '/api/v1/jobs/:id',
    {
      ...own,
      schema: {
        tags,
        summary: 'How far an operation is',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: OperationView, ...problems(400, 401, 404) },
      },
    },
    async (request) => viewOperation(await operations.get(actorOf(request), request.params.id)),
  )
  app.get(
    '/api/v1/jobs/:id/failures',
    {
      ...own,
      schema: {
        tags,
        summary: 'What it could not do, up to 1,000 items',
        params: IdParams,
        querystring: FailuresQuery,
        response: { 200: Type.Union([Type.Object({ items: Type.Array(Failure) }), Type.String()]), ...problems(400, 401, 404) },
      },
    },
    async (request, reply) => {
      const { failures } = await operations.get(actorOf(request), request.params.id)
      if (request.query.format !== 'csv') return { items: failures }
      const rows = failures.map((one) => csvRow([one.item, one.code, one.detail].map(textCell)))
      const text = byteOrderMark + csvRow(['item', 'code', 'detail'].map(textCell)) + rows.join('')
      return reply.header('content-disposition', 'attachment; filename="failures.csv"').type('text/csv; charset=utf-8').send(text)
    },
  )
  app.post(
    '/api/v1/jobs/:id/cancel',
    {
      ...own,
      schema: {
        tags,
        summary: 'End an operation after the step that runs',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 200: OperationView, ...problems(400, 401, 404, 409) },
      },
    },
    async (request) => viewOperation(await operations.cancel(actorOf(request), request.params.id)),
  )
  app.post(
    '/api/v1/jobs/:id/retry',
    {
      ...own,
      schema: {
        tags,
        summary: 'Do the failed items once more, as a new operation',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 202: OperationView, ...problems(400, 401, 404, 409) },
      },
    },
    async (request, reply) => {
      const row = await operations.retry(actorOf(request), request.params.id)
      return reply.code(202).header('location', operationPath(row.id)).send(viewOperation(row))
    },
  )
}
