// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { recordAudit } from '../audit.ts'
import type { Tx } from '../db/client.ts'
import { securityEvents } from '../db/tables.ts'
import type { Language } from '../errors.ts'
import { languageOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { plainAddress } from '../http/client-address.ts'

/** From where a call comes, for events, sessions, limits and the language of sentences. */
export type Origin = { address: string; userAgent: string; requestId: string; language: Language }

/** What the process does by itself, and what an administrator does at its command line. */
export const systemOrigin: Origin = { address: '', userAgent: '', requestId: '', language: 'en' }

export function originOf(request: FastifyRequest): Origin {
  return {
    address: plainAddress(request.ip),
    // Long enough for every browser; the rest is somebody's joke.
    userAgent: (request.headers['user-agent'] ?? '').slice(0, 300),
    requestId: request.id,
    language: languageOf(request),
  }
}

/** What an event says; never passwords, tokens, keys or links [SC-100]. */
export type SecurityEvent = {
  /** `user:<id>`, `api-key:<user id>`, `system`, `console` or `anonymous`. */
  actor: string
  action: string
  /** What it was done to: `user:<id>`, `session:<id>`, `api-key:<id>`, … */
  target: string
  outcome: 'ok' | 'failed' | 'denied'
  detail?: Record<string, unknown>
  /** Where audit has a word of its own. */
  type?: string
}

/** Notes a security event in the transaction of the change itself, so that neither exists without the other [SC-102]. */
export async function addSecurityEvent(tx: Tx, tenantId: string, origin: Origin, at: number, event: SecurityEvent): Promise<void> {
  await tx.insert(securityEvents).values({
    tenantId,
    id: randomUUIDv7(),
    at: new Date(at),
    actor: event.actor,
    action: event.action,
    target: event.target,
    outcome: event.outcome,
    address: origin.address,
    requestId: origin.requestId,
    detail: event.detail ?? {},
  })
  const { email, name } = event.detail ?? {}
  recordAudit(tx, {
    type: event.type ?? auditTypes[event.action] ?? event.action,
    outcome: event.outcome === 'ok' ? 'success' : event.outcome === 'failed' ? 'failure' : 'denied',
    ...(event.outcome === 'ok' ? {} : { reason: event.action === 'password.check' ? 'PASSWORD_WRONG' : 'LOGIN_FAILED' }),
    subject: event.target.includes(':') ? event.target.replace('api-key:', 'api_key:') : '-',
    targetName: [name, email].find((one) => typeof one === 'string'),
    ...(event.detail ? { changes: { from: null, to: event.detail } } : {}),
    actor: event.actor.replace('api-key:', 'api_key:').replace('console', 'system'),
    // Who signs in is known by now, but not to the request.
    actorName: event.actor === event.target ? [name, email].find((one) => typeof one === 'string') : undefined,
    from: origin,
  })
}

/** The words of audit where they differ [AU-10]. */
const auditTypes: Record<string, string | undefined> = {
  login: 'auth.login',
  logout: 'auth.logout',
  setup: 'user.create',
  'login.flood': 'auth.flood',
  'session.reuse': 'auth.refresh_reuse',
  'password.check': 'auth.reauth',
  'password.change': 'auth.password.change',
  'password.reset': 'auth.password.reset',
  'password.reset-link': 'user.invite',
  'api-key.create': 'api_key.create',
  'api-key.delete': 'api_key.revoke',
  'device.credentials.show': 'device.credentials.read',
  'device.credentials.change': 'device.credentials.update',
}

export function actorName(actor: Actor): string {
  return `${actor.kind}:${actor.userId}`
}
