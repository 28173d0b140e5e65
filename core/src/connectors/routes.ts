// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { originOf } from '../users/security-events.ts'
import type { Connectors } from './connectors.ts'
import { presets } from './presets.ts'
import {
  Connector,
  ConnectorCreate,
  ConnectorPatch,
  ConnectorTest,
  Preset,
  Preview,
  PreviewRequest,
  Sample,
  TestResult,
} from './schemas.ts'
import { previewMessage } from './trial.ts'

const tags = ['connectors']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const callerOf = (request: FastifyRequest) => ({ actor: actorOf(request), origin: originOf(request) })

/** Connectors to brokers of others: at least once from the broker on. */
export function registerConnectorRoutes(app: App, context: Context, { connectors }: { connectors: Connectors }): void {
  app.get(
    '/api/v1/connectors',
    {
      config: { permission: 'settings.read' },
      schema: {
        tags,
        summary: 'List connectors by name',
        querystring: ListQuery,
        response: { 200: Page(Connector), ...problems(400, 401, 403) },
      },
    },
    (request) => connectors.list(actorOf(request).scope, request.query.limit ?? 50, request.query.cursor),
  )
  app.post(
    '/api/v1/connectors',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Create a connector, with a device of its name that is the gateway of what it brings',
        querystring: EmptyQuery,
        body: ConnectorCreate,
        response: { 201: Connector, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const { connector, version } = await connectors.create(callerOf(request), request.body)
      return reply.code(201).header('etag', `"${version}"`).send(connector)
    },
  )
  app.get(
    '/api/v1/connectors/presets',
    {
      config: { permission: 'settings.read' },
      schema: {
        tags,
        summary: 'Mappings to begin with',
        querystring: EmptyQuery,
        response: { 200: Type.Array(Preset), ...problems(400, 401, 403) },
      },
    },
    async () => [...presets],
  )
  app.post(
    '/api/v1/connectors/test',
    {
      config: { permission: 'settings.write', waits: true },
      schema: {
        tags,
        summary: 'Connect with settings that need not be saved, and show up to five messages; nothing is stored',
        querystring: EmptyQuery,
        body: ConnectorTest,
        response: { 200: TestResult, ...problems(400, 401, 403, 404, 422, 503) },
      },
    },
    async (request) => {
      await context.audit.note(actorOf(request).scope, {
        type: 'connector.test',
        subject: request.body.id ? `connector:${request.body.id}` : '-',
      })
      return connectors.test(callerOf(request), request.body)
    },
  )
  app.post(
    '/api/v1/connectors/preview',
    {
      config: { permission: 'settings.read' },
      schema: {
        tags,
        summary: 'What a message would become by these rules; nothing is stored',
        querystring: EmptyQuery,
        body: PreviewRequest,
        response: { 200: Preview, ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => previewMessage(context, request.body),
  )
  registerOneConnector(app, connectors)
}

function registerOneConnector(app: App, connectors: Connectors): void {
  app.get(
    '/api/v1/connectors/:id',
    {
      config: { permission: 'settings.read' },
      schema: {
        tags,
        summary: 'Read a connector and how it goes',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Connector, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { connector, version } = await connectors.get(actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${version}"`).send(connector)
    },
  )
  app.get(
    '/api/v1/connectors/:id/messages',
    {
      config: { permission: 'settings.read' },
      schema: {
        tags,
        summary: 'The last messages of the broker, newest first',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Type.Array(Sample), ...problems(400, 401, 403, 404) },
      },
    },
    (request) => connectors.samples(actorOf(request).scope, request.params.id),
  )
  app.patch(
    '/api/v1/connectors/:id',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Edit a connector, or switch it on or off; what changed applies at once',
        params: IdParams,
        querystring: EmptyQuery,
        body: ConnectorPatch,
        response: { 200: Connector, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const version = parseIfMatch(request.headers['if-match'])
      const updated = await connectors.update(callerOf(request), request.params.id, request.body, version)
      return reply.header('etag', `"${updated.version}"`).send(updated.connector)
    },
  )
  app.delete(
    '/api/v1/connectors/:id',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Delete a connector; its own device goes to the bin, those it brought stay',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 412) },
      },
    },
    async (request, reply) => {
      await connectors.delete(callerOf(request), request.params.id, parseIfMatch(request.headers['if-match']))
      return reply.code(204).send(null)
    },
  )
}
