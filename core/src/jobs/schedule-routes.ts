// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, Instant, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Schedule as ScheduleRow, Schedules } from './schedules.ts'
import { PreviewQuery, Schedule, ScheduleCreate, SchedulePatch } from './schemas.ts'
import type { ScheduleView } from './schemas.ts'

const tags = ['jobs']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })

/** What recurs. */
export function registerScheduleRoutes(app: App, schedules: Schedules): void {
  const read = { config: { permission: 'job.read' as const } }
  const write = { config: { permission: 'job.write' as const } }
  const view = (row: ScheduleRow): ScheduleView => {
    const { tenantId: _, lastJobId: __, version: ___, data, ...rest } = row
    const { tenantId: ____, ...shown } = data
    return {
      ...rest,
      data: shown,
      next: row.enabled && row.nextAt ? schedules.preview(row.cron, row.zone, 3).map((at) => at.toISOString()) : [],
      nextAt: row.nextAt?.toISOString() ?? null,
      lastAt: row.lastAt?.toISOString() ?? null,
      createdAt: row.createdAt.toISOString(),
      updatedAt: row.updatedAt.toISOString(),
    }
  }
  app.get(
    '/api/v1/schedules',
    {
      ...read,
      schema: { tags, summary: 'Schedules by name', querystring: ListQuery, response: { 200: Page(Schedule), ...problems(400, 401, 403) } },
    },
    async (request) => {
      const { items: rows, nextCursor } = await schedules.list(actorOf(request).scope, request.query.limit ?? 50, request.query.cursor)
      return { items: rows.map(view), nextCursor }
    },
  )
  app.get(
    '/api/v1/schedules/preview',
    {
      ...read,
      schema: {
        tags,
        summary: 'The next instants of an expression',
        querystring: PreviewQuery,
        response: { 200: Type.Object({ items: Type.Array(Instant) }), ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => {
      const { cron, zone = 'UTC', count = 10 } = request.query
      return { items: schedules.preview(cron, zone, count).map((at) => at.toISOString()) }
    },
  )
  app.post(
    '/api/v1/schedules',
    {
      ...write,
      schema: {
        tags,
        summary: 'Create a schedule',
        querystring: EmptyQuery,
        body: ScheduleCreate,
        response: { 201: Schedule, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const row = await schedules.create(actor.scope, request.body, actor.userId)
      return reply.code(201).header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.get(
    '/api/v1/schedules/:id',
    {
      ...read,
      schema: {
        tags,
        summary: 'Read a schedule',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Schedule, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const row = await schedules.get(actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.patch(
    '/api/v1/schedules/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Edit a schedule',
        params: IdParams,
        querystring: EmptyQuery,
        body: SchedulePatch,
        response: { 200: Schedule, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const row = await schedules.update(actorOf(request).scope, request.params.id, request.body, parseIfMatch(request.headers['if-match']))
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.delete(
    '/api/v1/schedules/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Delete a schedule',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await schedules.delete(actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/api/v1/schedules/:id/run',
    {
      ...write,
      schema: {
        tags,
        summary: 'Run a schedule now',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 202: Type.Object({ jobId: Type.Union([Type.String(), Type.Null()]) }), ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request, reply) => reply.code(202).send({ jobId: await schedules.runNow(actorOf(request).scope, request.params.id) }),
  )
}
