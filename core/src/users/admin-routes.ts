// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { actorOf } from '../http/actor.ts'
import { requireReauthentication } from '../http/authenticate.ts'
import { IdParams, NoContent, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { ListedKey } from './api-keys.ts'
import type { People, User } from './people.ts'
import { ApiKeyList, CreatedApiKey, CreatedUser, ListedUser, NewApiKey, NewUser, ResetLink, UserChange, UserPage } from './schemas.ts'
import type { ListedApiKey } from './schemas.ts'
import { originOf } from './security-events.ts'
import { createResetLink, createUser, deleteUser, listUsers, updateUser } from './users.ts'

/** Users, for those who manage them, and API keys. */
export function registerUserAdminRoutes(app: App, people: People): void {
  const { clock } = people.context
  app.get(
    '/api/v1/users',
    {
      config: { permission: 'user.read' },
      schema: {
        tags: ['users'],
        summary: 'Users, oldest first',
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: UserPage, ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { items, nextCursor } = await listUsers(people, actorOf(request), request.query)
      return { items: items.map(describeUser), nextCursor }
    },
  )
  app.post(
    '/api/v1/users',
    {
      config: { permission: 'user.write' },
      schema: {
        tags: ['users'],
        summary: 'Create a user; without a password, with a link that sets one',
        body: NewUser,
        response: { 201: CreatedUser, ...problems(400, 401, 403, 409, 422, 503) },
      },
    },
    async (request, reply) => {
      requireReauthentication(actorOf(request), clock)
      const { user, link } = await createUser(people, actorOf(request), request.body, originOf(request))
      return reply
        .code(201)
        .send({ user: describeUser(user), ...(link ? { resetLink: link.link, resetLinkExpiresAt: link.expiresAt.toISOString() } : {}) })
    },
  )
  app.patch(
    '/api/v1/users/:id',
    {
      config: { permission: 'user.write' },
      schema: {
        tags: ['users'],
        summary: 'Change name, role, or whether the user may sign in',
        params: IdParams,
        body: UserChange,
        response: { 200: ListedUser, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request) => {
      if (request.body.role !== undefined) requireReauthentication(actorOf(request), clock)
      return describeUser(await updateUser(people, actorOf(request), request.params.id, request.body, originOf(request)))
    },
  )
  app.delete(
    '/api/v1/users/:id',
    {
      config: { permission: 'user.write' },
      schema: {
        tags: ['users'],
        summary: 'Delete a user with logins and API keys',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await deleteUser(people, actorOf(request), request.params.id, originOf(request))
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/api/v1/users/:id/reset-link',
    {
      config: { permission: 'user.write' },
      schema: {
        tags: ['users'],
        summary: 'A link by which the user sets a new password',
        params: IdParams,
        response: { 200: ResetLink, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      requireReauthentication(actorOf(request), clock)
      const { link, expiresAt } = await createResetLink(people, actorOf(request), request.params.id, originOf(request))
      return { link, expiresAt: expiresAt.toISOString() }
    },
  )
  registerApiKeyRoutes(app, people)
}

function registerApiKeyRoutes(app: App, people: People): void {
  app.get(
    '/api/v1/api-keys',
    {
      config: { permission: 'api-key.write' },
      schema: {
        tags: ['api-keys'],
        summary: 'Own API keys; all for those who see users',
        response: { 200: ApiKeyList, ...problems(401, 403) },
      },
    },
    async (request) => ({ items: (await people.keys.list(actorOf(request))).map(describeKey) }),
  )
  app.post(
    '/api/v1/api-keys',
    {
      config: { permission: 'api-key.write' },
      schema: {
        tags: ['api-keys'],
        summary: 'Create an API key; it is shown in this answer only',
        body: NewApiKey,
        response: { 201: CreatedApiKey, ...problems(400, 401, 403, 422) },
      },
    },
    async (request, reply) => {
      requireReauthentication(actorOf(request), people.context.clock)
      const { row, key } = await people.keys.create(actorOf(request), request.body, originOf(request))
      return reply.code(201).send({ ...describeKey(row), key })
    },
  )
  app.delete(
    '/api/v1/api-keys/:id',
    {
      config: { permission: 'api-key.write' },
      schema: {
        tags: ['api-keys'],
        summary: 'Delete an API key',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await people.keys.delete(actorOf(request), request.params.id, originOf(request))
      return reply.code(204).send(null)
    },
  )
}

function describeUser(user: User): ListedUser {
  return {
    id: user.id,
    name: user.name,
    email: user.email,
    role: user.role,
    language: user.language,
    disabled: user.disabledAt !== null,
    hasPassword: user.passwordHash !== null,
    lastLoginAt: user.lastLoginAt?.toISOString() ?? null,
    createdAt: user.createdAt.toISOString(),
  }
}

function describeKey(row: ListedKey): ListedApiKey {
  return {
    id: row.id,
    name: row.name,
    last4: row.last4,
    scopes: row.scopes,
    addresses: row.addresses,
    createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(),
    lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
    owner: row.owner,
  }
}
