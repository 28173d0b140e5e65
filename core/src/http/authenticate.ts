// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../clock.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { People } from '../users/people.ts'
import { plainAddress } from './client-address.ts'
import { verifyAccessToken } from '../users/tokens.ts'
import type { Actor, Authenticate } from './actor.ts'
import { rolePermissions } from './permissions.ts'

/** [SC-26] */
const freshMs = 10 * 60_000

/**
 * Finds who makes a request: `Bearer <access token>` or `ApiKey <key>` in `Authorization`, or in
 * `X-Authorization` as ThingsBoard clients send it [TB-1]. A credential that is no good is as none.
 */
export function createAuthenticate(people: People): Authenticate {
  return async (request) => {
    const credential = readCredential(request)
    return credential && findActor(people, credential, plainAddress(request.ip))
  }
}

/** An access token or an API key, as a request or the first frame of a socket brings it. */
export type Credential = { scheme: 'bearer' | 'apikey'; text: string }

/** @returns undefined when the credential is no good, or not from this address */
export function findActor(people: People, { scheme, text }: Credential, address: string): Promise<Actor | undefined> {
  return scheme === 'bearer' ? findUser(people, text) : findKeyOwner(people, text, address)
}

/**
 * Who holds this access token.
 *
 * @returns undefined when the token, its login or its user is not good, or no longer
 */
async function findUser(people: People, token: string): Promise<Actor | undefined> {
  const { secrets, installId, clock, rootTenant } = people.context
  const claims = await verifyAccessToken(secrets, installId, token, clock.now()).catch(() => undefined)
  if (!claims || claims.tenantId !== rootTenant.tenantId) return undefined
  const session = await people.sessions.find(claims.sessionId)
  if (!session || session.userId !== claims.userId || session.sessionVersion !== claims.sessionVersion) return undefined
  return {
    kind: 'user',
    userId: session.userId,
    name: session.name,
    sessionId: claims.sessionId,
    authenticatedAt: session.authenticatedAt,
    permissions: rolePermissions[session.role],
    scope: scopeOf(rootTenant, session.customerId),
  }
}

async function findKeyOwner(people: People, text: string, address: string): Promise<Actor | undefined> {
  const key = await people.keys.find(text, address)
  if (!key) return undefined
  return {
    kind: 'api-key',
    userId: key.userId,
    keyId: key.id,
    name: key.name,
    sessionId: undefined,
    authenticatedAt: 0,
    permissions: key.permissions,
    scope: scopeOf(people.context.rootTenant, key.customerId),
  }
}

function scopeOf(tenant: Scope, customerId: string | null): Scope {
  return customerId ? { ...tenant, customerIds: [customerId] } : tenant
}

function readCredential(request: FastifyRequest): Credential | undefined {
  for (const header of [request.headers.authorization, request.headers['x-authorization']]) {
    const match = typeof header === 'string' ? /^(bearer|apikey) +([^\s]+)$/i.exec(header) : null
    if (match) return { scheme: match[1]!.toLowerCase() === 'bearer' ? 'bearer' : 'apikey', text: match[2]! }
  }
  return undefined
}

/**
 * [SC-26] For what a found or stolen session must not do. API keys have no password to confirm with.
 *
 * @throws {ProblemError} `REAUTH_REQUIRED` unless the password was checked within ten minutes
 */
export function requireReauthentication(actor: Actor, clock: Clock): void {
  if (clock.now() - actor.authenticatedAt > freshMs) throw new ProblemError('REAUTH_REQUIRED')
}
