// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { actorOf } from '../http/actor.ts'
import { Id, IdParams, NoContent, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { bindSendKey, listSendKeys, unbindSendKey } from './simple-send.ts'

const tags = ['notifications']
const base = '/api/v1/notifications/send-keys'
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const Bound = Type.Object({ apiKeyId: Id, name: Type.String(), last4: Type.String(), receiver: Type.String() })
const Binding = Type.Object({ receiver: Type.String({ minLength: 1, maxLength: 100 }) }, { additionalProperties: false })

/** Whom messages by the simple address of an API key go to. */
export function registerSendKeyRoutes(app: App, context: Context): void {
  const write = { config: { permission: 'notify.write' as const } }
  app.get(
    base,
    {
      config: { permission: 'notify.read' },
      schema: {
        tags,
        summary: 'Keys that send to a receiver of their own',
        querystring: EmptyQuery,
        response: { 200: Type.Object({ items: Type.Array(Bound) }), ...problems(400, 401, 403) },
      },
    },
    async (request) => ({ items: await listSendKeys(context, actorOf(request).scope) }),
  )
  app.put(
    `${base}/:id`,
    {
      ...write,
      schema: {
        tags,
        summary: 'Bind an API key to a receiver',
        params: IdParams,
        querystring: EmptyQuery,
        body: Binding,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request, reply) => {
      await bindSendKey(context, actorOf(request).scope, request.params.id, request.body.receiver)
      return reply.code(204).send(null)
    },
  )
  app.delete(
    `${base}/:id`,
    {
      ...write,
      schema: {
        tags,
        summary: 'Let it go to the receiver of the root route again',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await unbindSendKey(context, actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
}
