// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyReply, FastifyRequest } from 'fastify'
import { actorOf } from '../http/actor.ts'
import { rolePermissions } from '../http/permissions.ts'
import { IdParams, NoContent, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { ProblemError } from '../errors.ts'
import {
  clearRefreshCookie,
  isInsecure,
  knownDeviceCookie,
  readRefreshCookie,
  requireSameOrigin,
  setKnownDeviceCookie,
  setRefreshCookie,
} from './cookies.ts'
import { login, logout, reauthenticate } from './login.ts'
import { changeOwnPassword, endOwnSessions, getOwnUser, getSite, updateOwnUser } from './me.ts'
import type { People, User } from './people.ts'
import {
  EmptyBody,
  LoginBody,
  MeAnswer,
  MeChange,
  NoSession,
  OwnSessions,
  PasswordBody,
  PasswordChange,
  ResetBody,
  Session,
  SetupBody,
  SetupNeeded,
} from './schemas.ts'
import type { Me, Site } from './schemas.ts'
import { originOf } from './security-events.ts'
import type { IssuedSession } from './sessions.ts'
import type { Setup } from './setup.ts'
import { completeSetup } from './setup.ts'
import { Type } from 'typebox'
import { registerUserAdminRoutes } from './admin-routes.ts'
import { resetPassword } from './users.ts'

/** Set-up, login, the own account, users and API keys. */
export function registerUserRoutes(app: App, people: People, setup: Setup): void {
  registerSetupRoutes(app, people, setup)
  registerSessionRoutes(app, people, setup)
  registerMeRoutes(app, people)
  registerUserAdminRoutes(app, people)
}

function registerSetupRoutes(app: App, people: People, setup: Setup): void {
  app.get(
    '/api/v1/setup',
    {
      config: { public: true, beforeSetup: true },
      schema: {
        tags: ['session'],
        summary: 'Whether the first administrator is still to be made',
        response: { 200: SetupNeeded, ...problems(404) },
      },
    },
    async () => {
      if (setup.isSetUp()) throw new ProblemError('NOT_FOUND')
      return { needed: true as const }
    },
  )
  app.post(
    '/api/v1/setup',
    {
      config: { public: true, beforeSetup: true },
      schema: {
        tags: ['session'],
        summary: 'Make the first administrator with the set-up link',
        body: SetupBody,
        response: { 201: Session, ...problems(400, 401, 404, 422, 503) },
      },
    },
    async (request, reply) => {
      const issued = await completeSetup(people, request.body, originOf(request))
      return reply.code(201).send(await handOut(people, request, reply, issued))
    },
  )
}

function registerSessionRoutes(app: App, people: People, setup: Setup): void {
  const { config } = people.context
  app.post(
    '/api/v1/auth/login',
    {
      config: { public: true },
      schema: {
        tags: ['session'],
        summary: 'Sign in with e-mail and password',
        body: LoginBody,
        response: { 200: Session, ...problems(400, 401, 429, 503) },
      },
    },
    async (request, reply) => {
      const issued = await login(
        people,
        { ...request.body, method: 'password', knownDevice: knownDeviceCookie(request) },
        originOf(request),
      )
      return handOut(people, request, reply, issued)
    },
  )
  app.post(
    '/api/v1/auth/refresh',
    {
      config: { public: true, beforeSetup: true },
      schema: {
        tags: ['session'],
        summary: 'Renew the session of the refresh cookie; user null without one',
        body: EmptyBody,
        response: { 200: Type.Union([Session, NoSession]), ...problems(400, 401, 403, 503) },
      },
    },
    async (request, reply) => {
      requireSameOrigin(request, config)
      if (!setup.isSetUp()) return { user: null, setupNeeded: true as const, site: await describeSite(people, request) }
      const token = readRefreshCookie(request, config)
      const issued = token ? await people.sessions.refresh(token, originOf(request), false) : 'none'
      if (typeof issued === 'object') return handOut(people, request, reply, issued)
      if (token) clearRefreshCookie(request, reply, config)
      if (issued === 'reused') throw new ProblemError('TOKEN_INVALID')
      return { user: null, site: await describeSite(people, request) }
    },
  )
  app.post(
    '/api/v1/auth/logout',
    {
      config: { public: true },
      schema: {
        tags: ['session'],
        summary: 'End the session of the refresh cookie',
        body: EmptyBody,
        response: { 204: NoContent, ...problems(400, 403, 503) },
      },
    },
    async (request, reply) => {
      requireSameOrigin(request, config)
      await logout(people, readRefreshCookie(request, config), originOf(request))
      clearRefreshCookie(request, reply, config)
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/api/v1/auth/reauth',
    {
      config: { permission: 'session' },
      schema: {
        tags: ['session'],
        summary: 'Confirm the session with the password for ten minutes',
        body: PasswordBody,
        response: { 204: NoContent, ...problems(400, 401, 403, 422, 429, 503) },
      },
    },
    async (request, reply) => {
      await reauthenticate(people, actorOf(request), request.body.password, originOf(request))
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/api/v1/auth/reset',
    {
      config: { public: true },
      schema: {
        tags: ['session'],
        summary: 'Set a password with a reset link',
        body: ResetBody,
        response: { 204: NoContent, ...problems(400, 401, 404, 422, 503) },
      },
    },
    async (request, reply) => {
      await resetPassword(people, request.body, originOf(request))
      return reply.code(204).send(null)
    },
  )
}

function registerMeRoutes(app: App, people: People): void {
  app.get(
    '/api/v1/me',
    {
      config: { permission: 'session' },
      schema: { tags: ['me'], summary: 'The own account', response: { 200: MeAnswer, ...problems(401, 403) } },
    },
    async (request) => describeMe(await getOwnUser(people, actorOf(request).userId)),
  )
  app.patch(
    '/api/v1/me',
    {
      config: { permission: 'session' },
      schema: {
        tags: ['me'],
        summary: 'Change name, language, preferences',
        body: MeChange,
        response: { 200: MeAnswer, ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => describeMe(await updateOwnUser(people, actorOf(request), request.body, originOf(request))),
  )
  app.post(
    '/api/v1/me/password',
    {
      config: { permission: 'session' },
      schema: {
        tags: ['me'],
        summary: 'Change the own password; all other sessions end',
        body: PasswordChange,
        response: { 204: NoContent, ...problems(400, 401, 403, 422, 429, 503) },
      },
    },
    async (request, reply) => {
      await changeOwnPassword(people, actorOf(request), request.body, originOf(request))
      return reply.code(204).send(null)
    },
  )
  app.get(
    '/api/v1/me/sessions',
    {
      config: { permission: 'session' },
      schema: { tags: ['me'], summary: 'The own logins', response: { 200: OwnSessions, ...problems(401, 403) } },
    },
    async (request) => {
      const actor = actorOf(request)
      const rows = await people.context.db.withTenant(people.context.rootTenant, (tx) => people.sessions.list(tx, actor.userId))
      return {
        items: rows.map((row) => ({
          id: row.id,
          createdAt: row.createdAt.toISOString(),
          lastUsedAt: row.lastUsedAt.toISOString(),
          address: row.address,
          userAgent: row.userAgent,
          method: row.method,
          isCurrent: row.id === actor.sessionId,
        })),
      }
    },
  )
  app.delete(
    '/api/v1/me/sessions',
    {
      config: { permission: 'session' },
      schema: { tags: ['me'], summary: 'Sign out everywhere, here too', response: { 204: NoContent, ...problems(401, 403, 404) } },
    },
    async (request, reply) => {
      await endOwnSessions(people, actorOf(request), undefined, originOf(request))
      return reply.code(204).send(null)
    },
  )
  app.delete(
    '/api/v1/me/sessions/:id',
    {
      config: { permission: 'session' },
      schema: {
        tags: ['me'],
        summary: 'End one own login',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await endOwnSessions(people, actorOf(request), request.params.id, originOf(request))
      return reply.code(204).send(null)
    },
  )
}

/** Cookies and body of a session that begins or goes on. */
async function handOut(people: People, request: FastifyRequest, reply: FastifyReply, issued: IssuedSession): Promise<Session> {
  const { config, secrets, clock } = people.context
  const user = await getOwnUser(people, issued.userId)
  setRefreshCookie(request, reply, config, issued.refreshToken)
  setKnownDeviceCookie(request, reply, config, secrets, user.id, clock.now())
  return {
    ...describeMe(user),
    accessToken: issued.accessToken,
    expiresAt: new Date(issued.expiresAt).toISOString(),
    site: await describeSite(people, request),
  }
}

function describeMe(user: User): { user: Me; permissions: string[]; prefs: Record<string, unknown> } {
  const { id, name, email, role, language } = user
  return { user: { id, name, email, role, language }, permissions: [...rolePermissions[role]], prefs: user.prefs }
}

async function describeSite(people: People, request: FastifyRequest): Promise<Site> {
  const { config } = people.context
  return {
    ...(await getSite(people)),
    version: people.version,
    hasDemo: await people.hasDemo(),
    testHooks: [...config.testHooks],
    insecure: isInsecure(request, config),
  }
}
