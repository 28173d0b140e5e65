// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { Id, IdParams, NoContent, Nullable, Page, isUuid, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Alarms } from './alarms.ts'
import {
  Alarm,
  AlarmAction,
  AlarmAssign,
  AlarmBulk,
  AlarmBulkResult,
  AlarmComment,
  AlarmCreate,
  AlarmEvent,
  AlarmListQuery,
  AlarmSummary,
} from './schemas.ts'

const tags = ['alarms']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EventsQuery = Type.Object(pageQuery, { additionalProperties: false })
const SummaryQuery = Type.Object({ deviceIds: Type.Optional(Type.String({ maxLength: 18_500 })) }, { additionalProperties: false })
const CommentParams = Type.Object({ id: Id, eventId: Id })
const mostSummarized = 500

/** Alarms and what people do about them (alarms and rules §6, §11). */
export function registerAlarmRoutes(app: App, { alarms }: { alarms: Alarms }): void {
  app.get(
    '/api/v1/alarms',
    {
      config: { permission: 'alarm.read' },
      schema: {
        tags,
        summary: 'List alarms: first what is active and waits for somebody, then the latest',
        querystring: AlarmListQuery,
        response: {
          200: Type.Object({ items: Type.Array(Alarm), nextCursor: Nullable(Type.String()), total: Type.Optional(Type.Integer()) }),
          ...problems(400, 401, 403),
        },
      },
    },
    (request) => alarms.list(actorOf(request).scope, request.query),
  )
  app.post(
    '/api/v1/alarms',
    {
      config: { permission: 'alarm.create' },
      schema: {
        tags,
        summary: 'Raise an alarm, or bring the open one of this device, type and instance up to date',
        querystring: EmptyQuery,
        body: AlarmCreate,
        response: { 200: Alarm, 201: Alarm, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    async (request, reply) => {
      const { alarm, isNew } = await alarms.create(actorOf(request), request.body)
      return reply.code(isNew ? 201 : 200).send(alarm)
    },
  )
  app.get(
    '/api/v1/alarms/summary',
    {
      config: { permission: 'alarm.read' },
      schema: {
        tags,
        summary: 'Count alarms by severity and status; with deviceIds (up to 500, by commas) the highest active severity of each',
        querystring: SummaryQuery,
        response: { 200: AlarmSummary, ...problems(400, 401, 403) },
      },
    },
    (request) =>
      alarms.summarize(actorOf(request).scope, (request.query.deviceIds ?? '').split(',').filter(isUuid).slice(0, mostSummarized)),
  )
  app.post(
    '/api/v1/alarms/bulk',
    {
      config: { permission: 'alarm.write' },
      schema: {
        tags,
        summary: 'Acknowledge, clear or delete up to 200 alarms, each for itself; deleting needs alarm.delete too',
        querystring: EmptyQuery,
        body: AlarmBulk,
        response: { 200: AlarmBulkResult, ...problems(400, 401, 403) },
      },
    },
    (request) => {
      const actor = actorOf(request)
      if (request.body.action === 'delete' && !actor.permissions.has('alarm.delete')) {
        throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'alarm.delete' } })
      }
      return alarms.changeMany(actor, request.body)
    },
  )
  registerOneAlarm(app, alarms)
  registerActions(app, alarms)
  registerComments(app, alarms)
}

function registerOneAlarm(app: App, alarms: Alarms): void {
  app.get(
    '/api/v1/alarms/:id',
    {
      config: { permission: 'alarm.read' },
      schema: {
        tags,
        summary: 'Read an alarm',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Alarm, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => alarms.get(actorOf(request).scope, request.params.id),
  )
  app.get(
    '/api/v1/alarms/:id/events',
    {
      config: { permission: 'alarm.read' },
      schema: {
        tags,
        summary: 'Who did what to an alarm and when, the oldest first',
        params: IdParams,
        querystring: EventsQuery,
        response: { 200: Page(AlarmEvent), ...problems(400, 401, 403, 404) },
      },
    },
    (request) => alarms.listEvents(actorOf(request).scope, request.params.id, request.query.limit ?? 50, request.query.cursor),
  )
  app.delete(
    '/api/v1/alarms/:id',
    {
      config: { permission: 'alarm.delete' },
      schema: {
        tags,
        summary: 'Delete an alarm that is cleared',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await alarms.delete(actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

const simpleActions = [
  { path: 'ack', permission: 'alarm.ack', summary: 'Acknowledge an alarm; the first one counts', method: 'acknowledge' },
  { path: 'unack', permission: 'alarm.ack', summary: 'Take an acknowledgement back', method: 'unacknowledge' },
  { path: 'clear', permission: 'alarm.write', summary: 'Clear an alarm by hand', method: 'clear' },
] as const

function registerActions(app: App, alarms: Alarms): void {
  for (const { path, permission, summary, method } of simpleActions) {
    app.post(
      `/api/v1/alarms/:id/${path}`,
      {
        config: { permission },
        schema: {
          tags,
          summary,
          params: IdParams,
          querystring: EmptyQuery,
          body: AlarmAction,
          response: { 200: Alarm, ...problems(400, 401, 403, 404) },
        },
      },
      (request) => alarms[method](actorOf(request), request.params.id, request.body.comment),
    )
  }
  app.post(
    '/api/v1/alarms/:id/assign',
    {
      config: { permission: 'alarm.write' },
      schema: {
        tags,
        summary: 'Give an alarm to somebody who sees the device, or to nobody',
        params: IdParams,
        querystring: EmptyQuery,
        body: AlarmAssign,
        response: { 200: Alarm, ...problems(400, 401, 403, 404, 422) },
      },
    },
    (request) => alarms.assign(actorOf(request), request.params.id, request.body.assigneeId ?? null, request.body.comment),
  )
}

function registerComments(app: App, alarms: Alarms): void {
  app.post(
    '/api/v1/alarms/:id/comments',
    {
      config: { permission: 'alarm.write' },
      schema: {
        tags,
        summary: 'Comment on an alarm',
        params: IdParams,
        querystring: EmptyQuery,
        body: AlarmComment,
        response: { 200: Alarm, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => alarms.comment(actorOf(request), request.params.id, request.body.comment),
  )
  app.patch(
    '/api/v1/alarms/:id/comments/:eventId',
    {
      config: { permission: 'alarm.write' },
      schema: {
        tags,
        summary: 'Mend an own comment within 15 minutes',
        params: CommentParams,
        querystring: EmptyQuery,
        body: AlarmComment,
        response: { 200: Alarm, ...problems(400, 401, 403, 404, 409) },
      },
    },
    (request) => alarms.editComment(actorOf(request), request.params.id, request.params.eventId, request.body.comment),
  )
}
