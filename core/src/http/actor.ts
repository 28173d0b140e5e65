// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { ErrorCode, Language } from '../errors.ts'
import type { Permission } from './permissions.ts'

/** Who makes a request, as the authenticator found it. */
export type Actor = {
  kind: 'user' | 'api-key'
  userId: string
  /** Of an API key. */
  keyId?: string
  /** Name or e-mail for "deleted by" and events. */
  name: string
  /** Undefined for API keys. */
  sessionId: string | undefined
  /** ms since 1970 of the last password check in this session. */
  authenticatedAt: number
  permissions: ReadonlySet<Permission>
  scope: Scope
}

/** Finds the actor of a request from its headers, or undefined when it carries no credential. */
export type Authenticate = (request: FastifyRequest) => Promise<Actor | undefined>

declare module 'fastify' {
  interface FastifyRequest {
    actor: Actor | null
  }
  interface FastifyContextConfig {
    /** Permission the route needs; `session` is any signed-in user. */
    permission?: Permission | 'session'
    /** Reachable without a credential. The list of such routes is committed and tested. */
    public?: true
    /** Answered before the first administrator exists. */
    beforeSetup?: true
    /** Code of a body above the route's limit, where it has one of its own. */
    tooLarge?: ErrorCode
    /** [L-56] How the license gate sees the route where its method misleads: `always` stays when a license has expired. */
    license?: 'always' | 'write'
    /** Only a place: the server of a module answers. */
    isHandedOver?: true
    /** Waits long for something to come, bounded by itself: not counted with the requests in flight. */
    waits?: true
    /** ThingsBoard-style answers and errors. */
    compat?: true
  }
}

/** The actor of a route that is not public. */
export function actorOf(request: FastifyRequest): Actor {
  if (!request.actor) throw new ProblemError('TOKEN_INVALID')
  return request.actor
}

/** The language of server texts: zh unless English is asked for first. */
export function languageOf(request: FastifyRequest): Language {
  const asked = request.headers['accept-language'] ?? ''
  return /^\s*en\b/i.test(asked) ? 'en' : 'zh'
}
