// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Tx } from '../db/client.ts'
import { securityEvents } from '../db/tables.ts'
import type { Language } from '../errors.ts'
import { languageOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'

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

/** `::ffff:192.0.2.1`, as dual-stack sockets give it, is 192.0.2.1. */
export function plainAddress(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address
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
}

export function actorName(actor: Actor): string {
  return `${actor.kind}:${actor.userId}`
}
