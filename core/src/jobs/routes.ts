// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { NoContent, Page, formatCursor, isUuid, parseCursor, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { JobConsole } from './console.ts'
import { readMachine } from './machine.ts'
import { registerOperationRoutes } from './operation-routes.ts'
import type { Operations } from './operations.ts'
import { registerScheduleRoutes } from './schedule-routes.ts'
import type { Schedules } from './schedules.ts'
import {
  JobDetail,
  JobSummary,
  JobsQuery,
  MachineView,
  Quarantined,
  QueueJobParams,
  QueueParams,
  QueuePoint,
  QueueView,
  Redrive,
  Redriven,
  Release,
  WorkerView,
} from './schemas.ts'

const tags = ['jobs']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const items = <T extends Parameters<typeof Type.Array>[0]>(item: T) => Type.Object({ items: Type.Array(item) })
const sparklineMs = 6 * 3_600_000

export type JobRouteParts = { console: JobConsole; schedules: Schedules; operations: Operations }

/** Queues, workers, schedules and state machines as administrators see them. */
export function registerJobRoutes(app: App, context: Context, parts: JobRouteParts): void {
  registerQueueRoutes(app, context, parts.console)
  registerDeadLetterRoutes(app, context, parts.console)
  registerScheduleRoutes(app, parts.schedules)
  registerWorkerRoutes(app, context)
  registerOperationRoutes(app, parts.operations)
}

function registerQueueRoutes(app: App, context: Context, console: JobConsole): void {
  const read = { config: { permission: 'job.read' as const } }
  const write = { config: { permission: 'job.write' as const } }
  app.get(
    '/api/v1/job-queues',
    {
      ...read,
      schema: {
        tags,
        summary: 'Queues with their numbers',
        querystring: EmptyQuery,
        response: { 200: items(QueueView), ...problems(400, 401, 403) },
      },
    },
    async () => ({ items: await console.listQueues() }),
  )
  app.get(
    '/api/v1/job-queues/:queue',
    {
      ...read,
      schema: {
        tags,
        summary: 'A queue and its last hours',
        params: QueueParams,
        querystring: EmptyQuery,
        response: { 200: Type.Object({ ...QueueView.properties, series: Type.Array(QueuePoint) }), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const queue = await console.getQueue(request.params.queue)
      const series = await console.series(queue.name, new Date(Date.now() - sparklineMs))
      return { ...queue, series: series.map((one) => ({ ...one, at: one.at.toISOString() })) }
    },
  )
  app.get(
    '/api/v1/job-queues/:queue/jobs',
    {
      ...read,
      schema: {
        tags,
        summary: 'Jobs of a queue, newest first',
        params: QueueParams,
        querystring: JobsQuery,
        response: { 200: Page(JobSummary), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { limit = 50, cursor, from, to, ...filter } = request.query
      const [at, id] = cursor ? parseCursor(cursor, 2) : []
      if (cursor && (typeof at !== 'string' || Number.isNaN(Date.parse(at)) || !isUuid(id))) throw new ProblemError('CURSOR_INVALID')
      const rows = await console.listJobs(
        request.params.queue,
        { ...filter, from: from === undefined ? undefined : new Date(from), to: to === undefined ? undefined : new Date(to) },
        limit + 1,
        cursor ? { at: String(at), id: String(id) } : undefined,
      )
      const page = rows.slice(0, limit)
      const last = page.at(-1)
      return {
        items: page.map((row) => ({
          ...row,
          createdAt: row.createdAt.toISOString(),
          startAfter: row.startAfter.toISOString(),
          startedAt: row.startedAt?.toISOString() ?? null,
          completedAt: row.completedAt?.toISOString() ?? null,
        })),
        nextCursor: last && rows.length > limit ? formatCursor([last.createdAt.toISOString(), last.id]) : null,
      }
    },
  )
  app.get(
    '/api/v1/job-queues/:queue/jobs/:id',
    {
      ...read,
      schema: {
        tags,
        summary: 'A job with its payload and its last error',
        params: QueueJobParams,
        querystring: EmptyQuery,
        response: { 200: JobDetail, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => console.getJob(request.params.queue, request.params.id),
  )
  for (const [action, summary] of [
    ['retry', 'Run a failed or waiting job now'],
    ['cancel', 'Cancel a job'],
  ] as const) {
    app.post(
      `/api/v1/job-queues/:queue/jobs/:id/${action}`,
      {
        ...write,
        schema: {
          tags,
          summary,
          params: QueueJobParams,
          querystring: EmptyQuery,
          body: EmptyBody,
          response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
        },
      },
      async (request, reply) => {
        const { queue, id } = request.params
        await context.audit.around(actorOf(request).scope, { type: `job.${action}`, subject: `job:${id}`, targetName: queue }, () =>
          console[action](queue, id),
        )
        return reply.code(204).send(null)
      },
    )
  }
}

function registerDeadLetterRoutes(app: App, context: Context, console: JobConsole): void {
  app.post(
    '/api/v1/job-queues/:queue/dead/redrive',
    {
      config: { permission: 'job.write' },
      schema: {
        tags,
        summary: 'Put dead letters back into their queue, or see what would move',
        params: QueueParams,
        querystring: EmptyQuery,
        body: Redrive,
        response: { 200: Redriven, ...problems(400, 401, 403, 404, 422) },
      },
    },
    (request) => {
      const { createdBefore, ...filter } = request.body
      const { queue } = request.params
      const act = () => console.redrive(queue, { ...filter, ...(createdBefore ? { createdBefore: new Date(createdBefore) } : {}) })
      if (filter.dryRun) return act()
      return context.audit.around(actorOf(request).scope, { type: 'job.redrive', subject: `job_queue:${queue}`, targetName: queue }, act)
    },
  )
  app.get(
    '/api/v1/job-quarantine',
    {
      config: { permission: 'job.read' },
      schema: {
        tags,
        summary: 'Payloads that kept failing',
        querystring: EmptyQuery,
        response: { 200: items(Quarantined), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const rows = await context.jobs.poison.list(actorOf(request).scope)
      return { items: rows.map((row) => ({ ...row, since: row.since.toISOString() })) }
    },
  )
  app.post(
    '/api/v1/job-quarantine/release',
    {
      config: { permission: 'job.write' },
      schema: {
        tags,
        summary: 'Let jobs with this payload run again',
        querystring: EmptyQuery,
        body: Release,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { queue, hash } = request.body
      const { scope } = actorOf(request)
      await context.audit.around(scope, { type: 'job.release', subject: `job_queue:${queue}`, targetName: queue }, async () => {
        if (!(await context.jobs.poison.release(scope, queue, hash))) throw new ProblemError('NOT_FOUND')
      })
      return reply.code(204).send(null)
    },
  )
}

function registerWorkerRoutes(app: App, context: Context): void {
  app.get(
    '/api/v1/workers',
    {
      config: { permission: 'job.read' },
      schema: {
        tags,
        summary: 'Workers of this server',
        querystring: EmptyQuery,
        response: { 200: items(WorkerView), ...problems(400, 401, 403) },
      },
    },
    async () => ({
      items: context.jobs.supervisor.list().map((worker) => ({
        ...worker,
        since: worker.since.toISOString(),
        lastRunAt: worker.lastRunAt?.toISOString() ?? null,
      })),
    }),
  )
  app.post(
    '/api/v1/workers/:name/restart',
    {
      config: { permission: 'job.write' },
      schema: {
        tags,
        summary: 'Restart a worker',
        params: Type.Object({ name: Type.String({ maxLength: 100 }) }),
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { name } = request.params
      await context.audit.around(
        actorOf(request).scope,
        { type: 'worker.restart', subject: `worker:${name}`, targetName: name },
        async () => {
          if (!(await context.jobs.supervisor.restart(name))) throw new ProblemError('NOT_FOUND')
        },
      )
      return reply.code(204).send(null)
    },
  )
  app.get(
    '/api/v1/machines/:name/:key',
    {
      config: { permission: 'job.read' },
      schema: {
        tags,
        summary: 'Where a state machine stands, and how it came there',
        params: Type.Object({ name: Type.String({ maxLength: 100 }), key: Type.String({ maxLength: 200 }) }),
        querystring: EmptyQuery,
        response: { 200: MachineView, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { name, key } = request.params
      const { machine, events } = await context.db.withTenant(actorOf(request).scope, (tx) => readMachine(tx, name, key))
      return {
        machine: machine.machine,
        key: machine.key,
        state: machine.state,
        version: machine.version,
        updatedAt: machine.updatedAt.toISOString(),
        events: events.map(({ id, version, event, fromState, toState, actor, outcome, at }) => ({
          id,
          version,
          event,
          fromState,
          toState,
          actor,
          outcome,
          at: at.toISOString(),
        })),
      }
    },
  )
}
