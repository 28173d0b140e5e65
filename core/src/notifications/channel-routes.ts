// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { callbackUrlOf } from './callbacks.ts'
import { testChannel } from './channel-tests.ts'
import { channelTypes } from './channel-types.ts'
import type { ChannelRow } from './channels.ts'
import type { NotificationHub } from './hub.ts'
import { ChannelCreate, ChannelPatch, ChannelTest, ChannelTypeView, ChannelView, DraftTest, TestResult } from './schemas.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })

/** Accounts at providers. */
export function registerChannelRoutes(app: App, context: Context, hub: NotificationHub): void {
  const read = { config: { permission: 'notify.read' as const } }
  const write = { config: { permission: 'notify.write' as const } }
  const { channels } = hub
  app.get(
    '/api/v1/notifications/channel-types',
    {
      ...read,
      schema: {
        tags,
        summary: 'Kinds of channels with the schema of their configuration',
        querystring: EmptyQuery,
        response: { 200: Type.Object({ items: Type.Array(ChannelTypeView) }), ...problems(400, 401, 403) },
      },
    },
    () => ({
      items: channelTypes.map((one) => ({
        type: one.type,
        title: one.title,
        schema: one.config,
        secrets: [...one.secrets],
        rates: [...one.rates],
        limit: one.limit,
        dialect: one.dialect,
        digests: one.digests ?? false,
        acceptsUrl: one.url !== undefined,
      })),
    }),
  )
  app.get(
    '/api/v1/notifications/channels',
    {
      ...read,
      schema: {
        tags,
        summary: 'Channels by name',
        querystring: ListQuery,
        response: { 200: Page(ChannelView), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { items, nextCursor } = await channels.list(actorOf(request).scope, request.query.limit ?? 50, request.query.cursor)
      return { items: items.map(view), nextCursor }
    },
  )
  app.post(
    '/api/v1/notifications/channels',
    {
      ...write,
      schema: {
        tags,
        summary: 'Create a channel',
        querystring: EmptyQuery,
        body: ChannelCreate,
        response: { 201: ChannelView, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const { row, shown } = await channels.create(actorOf(request).scope, request.body)
      return reply
        .code(201)
        .header('etag', `"${row.version}"`)
        .send({ ...view(row), ...shown })
    },
  )
  app.get(
    '/api/v1/notifications/channels/:id',
    {
      ...read,
      schema: {
        tags,
        summary: 'Read a channel',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: ChannelView, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { scope, permissions } = actorOf(request)
      const row = await channels.get(scope, request.params.id)
      const callbackUrl = permissions.has('notify.write') ? callbackUrlOf(context, row) : undefined
      return reply.header('etag', `"${row.version}"`).send({ ...view(row), ...(callbackUrl === undefined ? {} : { callbackUrl }) })
    },
  )
  app.patch(
    '/api/v1/notifications/channels/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Edit a channel; secrets that are left out stay',
        params: IdParams,
        querystring: EmptyQuery,
        body: ChannelPatch,
        response: { 200: ChannelView, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const row = await channels.update(actorOf(request).scope, request.params.id, request.body, parseIfMatch(request.headers['if-match']))
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.delete(
    '/api/v1/notifications/channels/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Delete a channel that no receiver uses',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await channels.delete(actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
  for (const [action, enabled] of [
    ['enable', true],
    ['disable', false],
  ] as const) {
    app.post(
      `/api/v1/notifications/channels/:id/${action}`,
      {
        ...write,
        schema: {
          tags,
          summary: enabled ? 'Let a channel send' : 'Keep a channel from sending',
          params: IdParams,
          querystring: EmptyQuery,
          body: EmptyBody,
          response: { 200: ChannelView, ...problems(400, 401, 403, 404) },
        },
      },
      async (request) => view(await channels.update(actorOf(request).scope, request.params.id, { enabled })),
    )
  }
  app.post(
    '/api/v1/notifications/channels/:id/rotate-secret',
    {
      ...write,
      schema: {
        tags,
        summary: 'A new signing secret for a webhook, shown this once; the one before signs too for a day',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 200: ChannelView, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request) => {
      const { row, shown } = await channels.rotateSecret(actorOf(request).scope, request.params.id)
      return { ...view(row), ...shown }
    },
  )
  registerTestRoutes(app, context, hub)
}

function registerTestRoutes(app: App, context: Context, hub: NotificationHub): void {
  const write = { config: { permission: 'notify.write' as const } }
  app.post(
    '/api/v1/notifications/channels/:id/test',
    {
      ...write,
      schema: {
        tags,
        summary: 'Send a message now, and say what the provider said',
        params: IdParams,
        querystring: EmptyQuery,
        body: ChannelTest,
        response: { 200: TestResult, ...problems(400, 401, 403, 404, 429) },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const { type, config, row } = await hub.channels.open(actor.scope, request.params.id)
      return testChannel(
        context,
        hub,
        actor.scope,
        { type, config, id: row.id },
        { ...request.body, userId: actor.userId, language: languageOf(request) },
      )
    },
  )
  app.post(
    '/api/v1/notifications/channel-tests',
    {
      ...write,
      schema: {
        tags,
        summary: 'The same with a configuration that is not saved',
        querystring: EmptyQuery,
        body: DraftTest,
        response: { 200: TestResult, ...problems(400, 401, 403, 422, 429) },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const { type: typeName, config: given, ...wanted } = request.body
      const checked = await hub.channels.check(typeName, given)
      return testChannel(context, hub, actor.scope, checked, { ...wanted, userId: actor.userId, language: languageOf(request) })
    },
  )
}

/** What is shown of a channel: of its secrets that they are set, and how they end. */
function view(row: ChannelRow): ChannelView {
  return {
    id: row.id,
    name: row.name,
    type: row.type,
    config: row.config,
    secretsSet: Object.keys(row.secretTails),
    secretTails: row.secretTails,
    rate: row.rate,
    digest: row.digest,
    enabled: row.enabled,
    state: row.state,
    reason: row.reason,
    stateSince: row.stateSince.toISOString(),
    lastSentAt: row.lastSentAt?.toISOString() ?? null,
    lastError: row.lastError,
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
  }
}
