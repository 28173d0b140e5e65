// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import { Id, IdParams, Instant, NoContent, Nullable, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { ContactPoint } from './contact-points.ts'
import type { NotificationHub } from './hub.ts'
import { Preferences, readPreferences, savePreferences } from './preferences.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ContactKind = Type.Union([Type.Literal('email'), Type.Literal('sms'), Type.Literal('telegram')])
const ContactPointView = Type.Object({
  id: Id,
  type: ContactKind,
  address: Type.String(),
  verifiedAt: Nullable(Instant),
  createdAt: Instant,
})
const ContactPointCreate = Type.Object(
  { type: ContactKind, address: Type.String({ minLength: 1, maxLength: 300 }) },
  { additionalProperties: false },
)
const Code = Type.Object({ code: Type.String({ pattern: '^\\d{6}$' }) }, { additionalProperties: false })

/** What people say of how they want to be told. Everybody has their own, and sees nobody else's. */
export function registerPeopleRoutes(app: App, context: Context, hub: NotificationHub): void {
  const own = { config: { permission: 'session' as const } }
  app.get(
    '/api/v1/notifications/preferences/me',
    {
      ...own,
      schema: { tags, summary: 'Own preferences', querystring: EmptyQuery, response: { 200: Preferences, ...problems(400, 401) } },
    },
    async (request) => {
      const { scope, userId } = actorOf(request)
      return context.db.withTenant(scope, (tx) => readPreferences(tx, userId))
    },
  )
  app.put(
    '/api/v1/notifications/preferences/me',
    {
      ...own,
      schema: {
        tags,
        summary: 'Set own preferences: topics, least severity, quiet hours, order',
        querystring: EmptyQuery,
        body: Preferences,
        response: { 200: Preferences, ...problems(400, 401, 422) },
      },
    },
    async (request) => {
      const { scope, userId } = actorOf(request)
      await context.db.withTenant(scope, (tx) => savePreferences(tx, scope, userId, request.body))
      return request.body
    },
  )
  registerContactPoints(app, hub)
}

function registerContactPoints(app: App, hub: NotificationHub): void {
  const own = { config: { permission: 'session' as const } }
  const base = '/api/v1/notifications/contact-points/me'
  const ownerOf = (request: FastifyRequest) => ({ ...actorOf(request), language: languageOf(request) })
  app.get(
    base,
    {
      ...own,
      schema: {
        tags,
        summary: 'Own addresses',
        querystring: EmptyQuery,
        response: { 200: Type.Object({ items: Type.Array(ContactPointView) }), ...problems(400, 401) },
      },
    },
    async (request) => {
      const { scope, userId } = actorOf(request)
      return { items: (await hub.contactPoints.list(scope, userId)).map(view) }
    },
  )
  app.post(
    base,
    {
      ...own,
      schema: {
        tags,
        summary: 'Give an address; a code is sent there',
        querystring: EmptyQuery,
        body: ContactPointCreate,
        response: { 201: ContactPointView, ...problems(400, 401, 409, 422, 429) },
      },
    },
    async (request, reply) => {
      const { type, address } = request.body
      return reply.code(201).send(view(await hub.contactPoints.create(ownerOf(request), type, address)))
    },
  )
  app.post(
    `${base}/:id/code`,
    {
      ...own,
      schema: {
        tags,
        summary: 'Send another code',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 202: NoContent, ...problems(400, 401, 404, 422, 429) },
      },
    },
    async (request, reply) => {
      await hub.contactPoints.sendCode(ownerOf(request), request.params.id)
      return reply.code(202).send(null)
    },
  )
  app.post(
    `${base}/:id/verify`,
    {
      ...own,
      schema: {
        tags,
        summary: 'Say the code',
        params: IdParams,
        querystring: EmptyQuery,
        body: Code,
        response: { 200: ContactPointView, ...problems(400, 401, 404, 422) },
      },
    },
    async (request) => {
      const { scope, userId } = actorOf(request)
      return view(await hub.contactPoints.verify(scope, userId, request.params.id, request.body.code))
    },
  )
  app.delete(
    `${base}/:id`,
    {
      ...own,
      schema: {
        tags,
        summary: 'Take an address back',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 404) },
      },
    },
    async (request, reply) => {
      const { scope, userId } = actorOf(request)
      await hub.contactPoints.delete(scope, userId, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

function view({ id, type, address, verifiedAt, createdAt }: ContactPoint) {
  return { id, type, address, verifiedAt: verifiedAt?.toISOString() ?? null, createdAt: createdAt.toISOString() }
}
