// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { isOutsideIntervals, matchRoutes } from './route-tree.ts'
import { Route, Routing, readRouting, routingProblems, saveRouting } from './routing-document.ts'
import { RoutingTest, RoutingTested, SilenceCreate, SilencePatch, SilenceView, Simulate, SimulatedAnswer } from './routing-schemas.ts'
import { createSilence, expireSilence, listSilences, updateSilence } from './silences.ts'
import { simulate } from './simulate.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
/** Checked in depth by {@link parseRouting}. */
const Document = Type.Record(Type.String(), Type.Unknown())

/** Who is told what, and who is not. */
export function registerRoutingRoutes(app: App, context: Context): void {
  const read = { config: { permission: 'notify.read' as const } }
  app.get(
    '/api/v1/notifications/routing',
    {
      ...read,
      schema: { tags, summary: 'The routing document', querystring: EmptyQuery, response: { 200: Document, ...problems(400, 401, 403) } },
    },
    async (request, reply) => {
      const { routing, version } = await context.db.withTenant(actorOf(request).scope, (tx) => readRouting(tx))
      return reply.header('etag', `"${version}"`).send({ ...routing })
    },
  )
  app.put(
    '/api/v1/notifications/routing',
    {
      config: { permission: 'notify.write' },
      schema: {
        tags,
        summary: 'Replace the routing document',
        querystring: EmptyQuery,
        body: Document,
        response: { 200: Document, ...problems(400, 401, 403, 412, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const routing = parseRouting(request.body)
      const version = await context.db.withTenant(actor.scope, (tx) =>
        saveRouting(tx, actor.scope, routing, actor.name, parseIfMatch(request.headers['if-match'])),
      )
      return reply.header('etag', `"${version}"`).send({ ...routing })
    },
  )
  app.post(
    '/api/v1/notifications/routing/test',
    {
      ...read,
      schema: {
        tags,
        summary: 'Which receivers an alert with these labels would have',
        querystring: EmptyQuery,
        body: RoutingTest,
        response: { 200: RoutingTested, ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => {
      const { labels, at, routing: given } = request.body
      const routing = await routingOr(context, actorOf(request).scope, given)
      const instant = at === undefined ? new Date(context.clock.now()) : new Date(at)
      return {
        matches: matchRoutes(routing, labels).map(({ activeIntervals, muteIntervals, groupBy, ...match }) => ({
          ...match,
          groupBy: [...groupBy],
          muted: isOutsideIntervals(routing, { activeIntervals, muteIntervals }, instant),
        })),
      }
    },
  )
  app.post(
    '/api/v1/notifications/simulate',
    {
      ...read,
      schema: {
        tags,
        summary: 'What would be told of these events, in virtual time',
        querystring: EmptyQuery,
        body: Simulate,
        response: { 200: SimulatedAnswer, ...problems(400, 401, 403, 413, 422) },
      },
    },
    async (request) => {
      const { routing: given, silences = [], startAt, untilMs, events } = request.body
      const routing = await routingOr(context, actorOf(request).scope, given)
      const start = startAt === undefined ? context.clock.now() : Date.parse(startAt)
      const open = silences.map((one) => ({ matchers: one.matchers, startsAt: start + one.startsAtMs, endsAt: start + one.endsAtMs }))
      return { notifications: simulate({ routing, silences: open, startAt: start, untilMs, events }) }
    },
  )
  registerSilenceRoutes(app, context)
}

function registerSilenceRoutes(app: App, context: Context): void {
  const read = { config: { permission: 'notify.read' as const } }
  // Whoever may say something may also keep quiet what he sees.
  const send = { config: { permission: 'notify.send' as const } }
  app.get(
    '/api/v1/notifications/silences',
    {
      ...read,
      schema: {
        tags,
        summary: 'Silences, newest first',
        querystring: ListQuery,
        response: { 200: Page(SilenceView), ...problems(400, 401, 403) },
      },
    },
    (request) => listSilences(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor),
  )
  app.post(
    '/api/v1/notifications/silences',
    {
      ...send,
      schema: {
        tags,
        summary: 'Create a silence',
        querystring: EmptyQuery,
        body: SilenceCreate,
        response: { 201: SilenceView, ...problems(400, 401, 403, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      return reply.code(201).send(await createSilence(context, actor.scope, request.body, { id: actor.userId, name: actor.name }))
    },
  )
  app.patch(
    '/api/v1/notifications/silences/:id',
    {
      ...send,
      schema: {
        tags,
        summary: 'Edit a silence',
        params: IdParams,
        querystring: EmptyQuery,
        body: SilencePatch,
        response: { 200: SilenceView, ...problems(400, 401, 403, 404, 422) },
      },
    },
    (request) => {
      const actor = actorOf(request)
      return updateSilence(context, actor.scope, request.params.id, request.body, actor.name)
    },
  )
  app.delete(
    '/api/v1/notifications/silences/:id',
    {
      ...send,
      schema: {
        tags,
        summary: 'End a silence now; it stays in the list',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await expireSilence(context, actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

async function routingOr(context: Context, scope: Scope, given: unknown): Promise<Routing> {
  if (given === undefined) return (await context.db.withTenant(scope, (tx) => readRouting(tx))).routing
  const routing = parseRouting(given)
  const errors = routingProblems(routing)
  if (errors.length > 0) throw new ProblemError('ROUTING_INVALID', { errors: errors.slice(0, 50) })
  return routing
}

/** The shape, in every node of the tree. @throws {ProblemError} `ROUTING_INVALID` */
function parseRouting(given: unknown): Routing {
  const errors = Value.Check(Routing, given)
    ? routeErrors((given as Routing).route, '/route', 0)
    : [...Value.Errors(Routing, given)].map((one) => ({ pointer: one.instancePath, detail: one.message }))
  if (errors.length > 0) throw new ProblemError('ROUTING_INVALID', { errors: errors.slice(0, 50) })
  return given as Routing
}

const deepest = 50

function routeErrors(route: unknown, pointer: string, depth: number): { pointer: string; detail: string }[] {
  if (depth > deepest) return [{ pointer, detail: 'The tree is too deep.' }]
  if (!Value.Check(Route, route)) {
    return [...Value.Errors(Route, route)].map((one) => ({ pointer: pointer + one.instancePath, detail: one.message }))
  }
  return (route.routes ?? []).flatMap((child, index) => routeErrors(child, `${pointer}/routes/${index}`, depth + 1))
}
