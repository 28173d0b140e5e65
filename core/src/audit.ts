// SPDX-License-Identifier: AGPL-3.0-only
import { AsyncLocalStorage } from 'node:async_hooks'
import { hostname } from 'node:os'
import type { FastifyRequest } from 'fastify'
import type { Clock } from './clock.ts'
import { openAs } from './db/client.ts'
import type { Db, Scope, Tx } from './db/client.ts'
import { classifyDbError } from './db/errors.ts'
import { ProblemError } from './errors.ts'
import type { Actor } from './http/actor.ts'
import { plainAddress } from './http/client-address.ts'
import type { Log } from './log.ts'

/** What an operation says of itself (audit rules §2). Who did it and from where comes from the request. */
export type AuditDraft = {
  /** As in `device.update`. */
  type: string
  outcome?: 'success' | 'failure' | 'denied'
  /** Stable error code of what did not succeed. */
  reason?: string
  /** `<kind>:<id>`, `-` for none. */
  subject: string
  targetName?: string | undefined
  /** Before and after; sinks compare the two and mask what is secret by its name or by `x-secret` in the schema. */
  changes?: { from: unknown; to: unknown; schema?: object }
  /** For what no request did, or before its actor is known: `system`, `anonymous`, `job:<name>`, `device:<id>`, `user:<id>`. */
  actor?: string
  /** Of an actor that no request has yet. */
  actorName?: string | undefined
  /** Where there is no request at hand. */
  from?: { address: string; userAgent: string; requestId: string }
  /** Of the installation and of none of its tenants. */
  isPlatform?: true
}

/** A draft with all that is known of its maker. */
export type AuditRecord = Required<Pick<AuditDraft, 'type' | 'outcome' | 'subject'>> & {
  reason: string | null
  targetName: string | null
  changes: AuditDraft['changes'] | undefined
  isPlatform: boolean
  actor: { id: string; name: string | null; session: string | null; auth: 'password' | 'api_key' | 'none' }
  context: { ip: string | null; userAgent: string | null; requestId: string | null; node: string; route: string | null }
}

/** Takes records in the transaction of what they tell of, as its last statements: it fails with them [AU-30, AU-32]. */
export type AuditSink = { append(tx: Tx, scope: Scope, records: readonly AuditRecord[]): Promise<void> }

/** Drafts of transactions that are under way, of databases somebody records. */
const pending = new WeakMap<object, AuditRecord[]>()
const requests = new AsyncLocalStorage<FastifyRequest>()
const node = hostname()

/** [AU-12] Refusals of one actor within a minute that are told one by one. */
const maxDenied = 100
const deniedWindowMs = 60_000
/** Actors that are counted at a time. */
const maxCounted = 10_000

/**
 * Tells sinks of an operation, in the transaction of the change itself; nothing happens where none listens. What is
 * rolled back was never told.
 */
export function recordAudit(tx: Tx, draft: AuditDraft): void {
  pending.get(tx)?.push(complete(draft))
}

/** Runs the handler of a request so that drafts know it. */
export function withRequest(request: FastifyRequest, next: () => void): void {
  requests.run(request, next)
}

type AuditParts = { db: Db; rootTenant: Scope; clock: Clock; log: Log }

/** Where modules listen to what is done [AU-10]. */
export class Audit {
  readonly #sinks = new Set<AuditSink>()
  readonly #denied = new Map<string, { since: number; count: number }>()
  readonly #parts: AuditParts

  constructor(parts: AuditParts) {
    this.#parts = parts
    parts.db.useLastWork({
      begin: (tx) => {
        if (this.isOn) pending.set(tx, [])
      },
      finish: (tx, scope) => this.#finish(tx, scope),
    })
  }

  /** @returns the function that takes the sink away */
  addSink(sink: AuditSink): () => void {
    this.#sinks.add(sink)
    return () => this.#sinks.delete(sink)
  }

  get isOn(): boolean {
    return this.#sinks.size > 0
  }

  /** The same as {@link recordAudit}, for who has a context at hand. */
  record(tx: Tx, draft: AuditDraft): void {
    recordAudit(tx, draft)
  }

  /**
   * For acts that are no transaction of ours: points go through the writer, commands to a device. Told before the act,
   * so that none is without its record; one that fails then is told a second time.
   */
  async around<T>(scope: Scope, draft: AuditDraft, act: () => Promise<T>): Promise<T> {
    if (!this.isOn) return act()
    await this.note(scope, draft)
    try {
      return await act()
    } catch (error) {
      const reason = error instanceof ProblemError ? error.code : 'INTERNAL'
      await this.note(scope, { ...draft, outcome: 'failure', reason })
      throw error
    }
  }

  /** One record in a transaction of its own. */
  async note(scope: Scope, draft: AuditDraft): Promise<void> {
    if (!this.isOn) return
    await this.#parts.db.withTenant(scope, async (tx) => recordAudit(tx, draft))
  }

  /** [AU-12] A write that was refused; the answer does not wait for the record. */
  noteDenied(request: FastifyRequest, code: string): void {
    const { actor } = request
    if (!this.isOn || !actor || ['GET', 'HEAD', 'OPTIONS'].includes(request.method)) return
    const draft: AuditDraft = { type: 'access.denied', outcome: 'denied', reason: code, subject: '-' }
    const count = this.#countDenied(actorId(actor))
    if (count > maxDenied) return
    const told = count < maxDenied ? draft : { ...draft, changes: { from: null, to: { more: 'not told one by one for this minute' } } }
    void requests.run(request, () =>
      this.note(actor.scope, told).catch((error: unknown) => this.#parts.log.error({ err: error }, 'a refusal could not be recorded')),
    )
  }

  #countDenied(actor: string): number {
    const now = this.#parts.clock.monotonic()
    const known = this.#denied.get(actor)
    const counted = known && now - known.since < deniedWindowMs ? known : { since: now, count: 0 }
    counted.count++
    this.#denied.delete(actor)
    this.#denied.set(actor, counted)
    for (const oldest of this.#denied.keys()) {
      if (this.#denied.size <= maxCounted) break
      this.#denied.delete(oldest)
    }
    return counted.count
  }

  async #finish(tx: Tx, scope: Scope | undefined): Promise<void> {
    const records = pending.get(tx)
    if (!records || records.length === 0) return
    pending.delete(tx)
    const { rootTenant } = this.#parts
    if (!scope) await openAs(tx, rootTenant)
    for (const sink of this.#sinks) {
      try {
        await sink.append(tx, scope ?? rootTenant, records)
      } catch (error) {
        // Where the database is away, that is what is said; anything else would leave a change without its record.
        if (classifyDbError(error) === 'unavailable') throw error
        throw new ProblemError('AUDIT_UNAVAILABLE', { cause: error })
      }
    }
  }
}

function complete(draft: AuditDraft): AuditRecord {
  // What runs by itself may have been set going by a request, and is no act of whoever sent that.
  const isOwn = draft.actor === 'system' || draft.actor?.startsWith('job:')
  const request = isOwn ? undefined : requests.getStore()
  const actor = request?.actor
  const address = request ? plainAddress(request.ip) : draft.from?.address
  return {
    type: draft.type,
    outcome: draft.outcome ?? 'success',
    reason: draft.reason ?? null,
    subject: draft.subject,
    targetName: draft.targetName ?? null,
    changes: draft.changes,
    isPlatform: draft.isPlatform ?? false,
    actor: actor
      ? { id: actorId(actor), name: actor.name, session: actor.sessionId ?? null, auth: actor.kind === 'user' ? 'password' : 'api_key' }
      : { id: draft.actor ?? (request ? 'anonymous' : 'system'), name: draft.actorName ?? null, session: null, auth: 'none' },
    context: {
      ip: address || null,
      userAgent: (request ? request.headers['user-agent'] : draft.from?.userAgent) || null,
      requestId: (request ? request.id : draft.from?.requestId) || null,
      node,
      route: request ? routeOf(request) : null,
    },
  }
}

function actorId(actor: Actor): string {
  return actor.kind === 'user' ? `user:${actor.userId}` : `api_key:${actor.keyId ?? actor.userId}`
}

/** As OpenAPI writes it. */
function routeOf(request: FastifyRequest): string {
  return `${request.method} ${(request.routeOptions.url ?? '').replaceAll(/:(\w+)/g, '{$1}')}`
}
