// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { App } from '../http/server.ts'
import { endLogin, login } from './login.ts'
import { getOwnUser } from './me.ts'
import type { People } from './people.ts'
import { originOf } from './security-events.ts'

/** ThingsBoard's "no customer" [TB-2]. */
const noCustomerId = '13814000-1dd2-11b2-8080-808080808080'

const Tokens = Type.Object({ token: Type.String(), refreshToken: Type.String(), scope: Type.Null() })
const EntityId = Type.Object({ entityType: Type.String(), id: Type.String() })
const CompatUser = Type.Object({
  id: EntityId,
  createdTime: Type.Integer(),
  tenantId: EntityId,
  customerId: EntityId,
  email: Type.String(),
  authority: Type.Union([Type.Literal('TENANT_ADMIN'), Type.Literal('CUSTOMER_USER')]),
  firstName: Type.String(),
  lastName: Type.Null(),
  additionalInfo: Type.Object({}),
})

/** Login as ThingsBoard's clients do it (device API §16.2): same users, limits and events as the native one. */
export function registerCompatLogin(app: App, people: People): void {
  const { sessions } = people
  app.post(
    '/api/auth/login',
    {
      config: { public: true, compat: true },
      schema: {
        tags: ['compat'],
        summary: 'Sign in; the token lives 9,000 s',
        // Unknown members are accepted and ignored [TB-4].
        body: Type.Object({
          username: Type.String({ minLength: 1, maxLength: 254 }),
          password: Type.String({ minLength: 1, maxLength: 1000 }),
        }),
        response: { 200: Tokens },
      },
    },
    async (request) => {
      const { username, password } = request.body
      const issued = await login(people, { email: username, password, method: 'compat', knownDevice: undefined }, originOf(request))
      return { token: issued.accessToken, refreshToken: issued.refreshToken, scope: null }
    },
  )
  app.post(
    '/api/auth/token',
    {
      config: { public: true, compat: true },
      schema: {
        tags: ['compat'],
        summary: 'Exchange a refresh token for the next pair',
        body: Type.Object({ refreshToken: Type.String({ minLength: 1, maxLength: 1000 }) }),
        response: { 200: Tokens },
      },
    },
    async (request) => {
      const issued = await sessions.refresh(request.body.refreshToken, originOf(request), true)
      if (typeof issued !== 'object') throw new ProblemError('TOKEN_EXPIRED')
      return { token: issued.accessToken, refreshToken: issued.refreshToken, scope: null }
    },
  )
  app.get(
    '/api/auth/user',
    {
      config: { permission: 'session', compat: true },
      schema: { tags: ['compat'], summary: 'The signed-in user', response: { 200: CompatUser } },
    },
    async (request) => {
      const user = await getOwnUser(people, actorOf(request).userId)
      return {
        id: { entityType: 'USER', id: user.id },
        createdTime: user.createdAt.getTime(),
        tenantId: { entityType: 'TENANT', id: user.tenantId },
        customerId: { entityType: 'CUSTOMER', id: user.customerId ?? noCustomerId },
        email: user.email,
        authority: user.customerId ? ('CUSTOMER_USER' as const) : ('TENANT_ADMIN' as const),
        firstName: user.name,
        lastName: null,
        additionalInfo: {},
      }
    },
  )
  app.post(
    '/api/auth/logout',
    { config: { permission: 'session', compat: true }, schema: { tags: ['compat'], summary: 'End the session of the token' } },
    async (request, reply) => {
      const actor = actorOf(request)
      if (actor.sessionId) await endLogin(people, actor.userId, actor.sessionId, originOf(request))
      return reply.code(200).send(undefined)
    },
  )
}
