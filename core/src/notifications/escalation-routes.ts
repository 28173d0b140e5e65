// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { Id, IdParams, Instant, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { Escalation, createEscalation, deleteEscalation, getEscalation, listEscalations, updateEscalation } from './escalations.ts'
import type { EscalationRow, EscalationStep } from './escalations.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const EscalationPatch = Type.Partial(Escalation, { minProperties: 1 })
const EscalationView = Type.Object({
  id: Id,
  ...Escalation.properties,
  repeat: Type.Integer(),
  version: Type.Integer(),
  updatedBy: Type.String(),
  createdAt: Instant,
  updatedAt: Instant,
})

/** Policies that tell further people while nobody acknowledges; routes name them. */
export function registerEscalationRoutes(app: App, context: Context): void {
  const read = { config: { permission: 'notify.read' as const } }
  const write = { config: { permission: 'notify.write' as const } }
  const base = '/api/v1/notifications/escalations'
  app.get(
    base,
    {
      ...read,
      schema: {
        tags,
        summary: 'Escalations by name',
        querystring: ListQuery,
        response: { 200: Page(EscalationView), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { items, nextCursor } = await listEscalations(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor)
      return { items: items.map(view), nextCursor }
    },
  )
  app.post(
    base,
    {
      ...write,
      schema: {
        tags,
        summary: 'Create an escalation',
        querystring: EmptyQuery,
        body: Escalation,
        response: { 201: EscalationView, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const row = await createEscalation(context, actor.scope, request.body, actor.name)
      return reply.code(201).header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.get(
    `${base}/:id`,
    {
      ...read,
      schema: {
        tags,
        summary: 'Read an escalation',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: EscalationView, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const row = await getEscalation(context, actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.patch(
    `${base}/:id`,
    {
      ...write,
      schema: {
        tags,
        summary: 'Edit an escalation',
        params: IdParams,
        querystring: EmptyQuery,
        body: EscalationPatch,
        response: { 200: EscalationView, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const version = parseIfMatch(request.headers['if-match'])
      const row = await updateEscalation(context, actor.scope, request.params.id, request.body, actor.name, version)
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.delete(
    `${base}/:id`,
    {
      ...write,
      schema: {
        tags,
        summary: 'Delete an escalation that no route calls for',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await deleteEscalation(context, actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

function view({ id, name, steps, repeat, version, updatedBy, createdAt, updatedAt }: EscalationRow) {
  const times = { createdAt: createdAt.toISOString(), updatedAt: updatedAt.toISOString() }
  return { id, name, steps: steps as EscalationStep[], repeat, version, updatedBy, ...times }
}
