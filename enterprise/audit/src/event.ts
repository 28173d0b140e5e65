// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Change } from './mask.ts'

export type Outcome = 'success' | 'failure' | 'denied'
export type AuthKind = 'password' | 'oidc' | 'saml' | 'ldap' | 'api_key' | 'token' | 'none'

/** What an operation says about itself; the rest comes from the request. */
export type Draft = {
  type: string
  outcome: Outcome
  reason?: string | null
  /** `<kind>:<id>`; `-` for none */
  subject: string
  targetName?: string | null
  /** Already compared and masked. */
  changes?: readonly Change[]
  /** `user:<id>`, `api_key:<id>`, `device:<id>`, `scim:<id>`, `job:<name>`, `system` or `anonymous` */
  actor: string
  actorName?: string | null
  session?: string | null
  auth?: AuthKind
  onBehalfOf?: string | null
  context?: Partial<EventContext>
}

export type EventContext = {
  ip: string | null
  userAgent: string | null
  requestId: string | null
  node: string | null
  route: string | null
}

/** An event as it is hashed, stored and exported: all members are always there (audit rules §3). */
export type EventPayload = {
  v: 1
  stream: string
  seq: number
  ts: string
  type: string
  actor: string
  subject: string
  data: {
    id: string
    outcome: Outcome
    reason: string | null
    actor: { name: string | null; session: string | null; auth: AuthKind; onBehalfOf: string | null }
    target: { name: string | null }
    changes: Change[]
    context: EventContext
  }
}

const maxChanges = 50
const maxValueCharacters = 1000
const maxAgentCharacters = 200

/** The chain of a tenant, or that of the platform for acts without one. */
export function streamOf(tenant: string | undefined): string {
  return `audit:log:${tenant ?? 'platform'}`
}

/** The tenant a checkpoint of this stream names. */
export function tenantOf(stream: string): string {
  return stream.slice(stream.lastIndexOf(':') + 1)
}

/** @param place where in the chain and when: `ts` is the clock of the database */
export function buildEvent(draft: Draft, place: { id: string; stream: string; seq: number; ts: Date }): EventPayload {
  const { context = {} } = draft
  const payload: EventPayload = {
    v: 1,
    stream: place.stream,
    seq: place.seq,
    ts: place.ts.toISOString(),
    type: draft.type,
    actor: draft.actor,
    subject: draft.subject,
    data: {
      id: place.id,
      outcome: draft.outcome,
      reason: draft.reason ?? null,
      actor: {
        name: draft.actorName ?? null,
        session: draft.session ?? null,
        auth: draft.auth ?? 'none',
        onBehalfOf: draft.onBehalfOf ?? null,
      },
      target: { name: draft.targetName ?? null },
      changes: limitChanges(draft.changes ?? []),
      context: {
        ip: context.ip ?? null,
        userAgent: context.userAgent === undefined || context.userAgent === null ? null : cut(context.userAgent, maxAgentCharacters, ''),
        requestId: context.requestId ?? null,
        node: context.node ?? null,
        route: context.route ?? null,
      },
    },
  }
  return clean(payload) as EventPayload
}

function limitChanges(changes: readonly Change[]): Change[] {
  const shown = changes.slice(0, maxChanges).map(({ path, from, to }) => ({ path, from: cutValue(from), to: cutValue(to) }))
  const more = changes.length - maxChanges
  return more > 0 ? [...shown, { path: '…', from: null, to: `${more} more` }] : shown
}

function cutValue(value: unknown): unknown {
  if (typeof value === 'string') return cut(value, maxValueCharacters, '…')
  if (typeof value !== 'object' || value === null) return value ?? null
  const text = JSON.stringify(value)
  // A short value keeps its form, a long one is told as the text that was cut.
  return text.length <= maxValueCharacters ? value : cut(text, maxValueCharacters, '…')
}

/** By characters, so that no pair of surrogates is cut in two. */
function cut(text: string, most: number, mark: string): string {
  if (text.length <= most) return text
  const characters = [...text]
  return characters.length <= most ? text : characters.slice(0, most).join('') + mark
}

/** [AU-20] PostgreSQL stores no U+0000 and RFC 8785 has no form for lone surrogates; nothing else is altered. */
function clean(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed().replaceAll('\u0000', '\ufffd')
  if (Array.isArray(value)) return value.map(clean)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [clean(name), clean(one)]))
}
