// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { ProblemError, actorOf, formatCursor, parseCursor, problem, problems } from '@iot-pms/core'
import type { App, Scope, Tx } from '@iot-pms/core'
import { Type } from 'typebox'
import { listChains, pickStream, verifyChain } from './chains.ts'
import { createExport } from './exports.ts'
import { findChain, listCheckpoints, readEntries } from './log.ts'
import type { AuditParts } from './parts.ts'
import { canExport, canRead, canWrite } from './permissions.ts'
import { proveEvent } from './proofs.ts'
import { countOlder } from './retention.ts'
import {
  AuditEvent,
  AuditEventRef,
  ChainQuery,
  ChainView,
  EventQuery,
  ExportBody,
  KeyView,
  OneEvent,
  SettingsBody,
  SettingsView,
  Verification,
  VerifyBody,
} from './schemas.ts'
import { searchEvents } from './search.ts'
import type { EventFilter } from './search.ts'
import { registerSinkRoutes } from './sink-routes.ts'

const tags = ['audit']
const closed = { additionalProperties: false } as const
const maxRangeMs = 3660 * 86_400_000

/** Routes below /api/v1/audit (audit rules §7). */
export function registerAuditRoutes(parts: AuditParts): (app: App) => void {
  return (app) => {
    app.addSchema(AuditEvent)
    registerEvents(app, parts)
    registerIntegrity(app, parts)
    registerSettings(app, parts)
    registerSinkRoutes(app, parts)
  }
}

function registerEvents(app: App, { context, keeper }: AuditParts): void {
  const { db } = context
  const reads = new ReadNotes(() => context.clock.now())
  app.get(
    '/events',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditListEvents',
        summary: 'Search the audit log, newest first',
        querystring: EventQuery,
        response: {
          200: Type.Object({ items: Type.Array(AuditEventRef), nextCursor: Type.Union([Type.String(), Type.Null()]) }),
          ...problems(400, 401, 403, 404, 422),
        },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const { limit = 50, cursor, chain, ...filter } = request.query
      const stream = pickStream(context, actor.scope, chain)
      const [, before] = cursor ? parseCursor(cursor, 2) : []
      if (cursor && typeof before !== 'number') throw new ProblemError('CURSOR_INVALID')
      const wanted = toFilter(filter)
      return db.withTenant(actor.scope, async (tx) => {
        const found = await searchEvents(tx, stream, wanted, { limit: limit + 1, before: typeof before === 'number' ? before : undefined })
        const items = found.slice(0, limit)
        if (reads.isNew(actor.sessionId ?? actor.userId, filter)) {
          context.audit.record(tx, { type: 'audit.read', subject: `chain:${stream}`, changes: { from: null, to: filter } })
        }
        return { items, nextCursor: found.length > limit ? formatCursor(['audit', items.at(-1)!.seq]) : null }
      })
    },
  )
  app.get(
    '/events/:seq',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditGetEvent',
        summary: 'One event with the hash before it and its proof',
        params: Type.Object({ seq: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }) }),
        querystring: Type.Object(ChainQuery, closed),
        response: { 200: OneEvent, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => {
      const { scope } = actorOf(request)
      const stream = pickStream(context, scope, request.query.chain)
      return db.withTenant(scope, async (tx) => {
        const chain = await findChain(tx, stream)
        const [entry] = await readEntries(tx, stream, request.params.seq, request.params.seq)
        if (!chain || !entry) throw new ProblemError('NOT_FOUND')
        return {
          event: { ...entry.payload, hash: entry.hash },
          prev: entry.prev,
          proof: await proveEvent(tx, stream, chain, entry.payload.seq),
        }
      })
    },
  )
  app.post(
    '/exports',
    {
      config: canExport,
      schema: {
        tags,
        operationId: 'auditCreateExport',
        summary: 'Events as a file: JSON Lines, CEF, OCSF, CSV, or a bundle that verifies itself',
        body: ExportBody,
        response: { 200: Type.Unsafe<string>({ type: 'string', format: 'binary' }), ...problems(400, 401, 403, 404, 413, 422) },
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      const { format, chain, from, to, filter } = request.body
      if (format === 'bundle' && filter) {
        throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/filter', detail: 'A bundle has no gaps, so no filter.' }] })
      }
      const stream = pickStream(context, scope, chain)
      const wanted = toFilter({ ...filter, from, to })
      await db.withTenant(scope, async (tx) =>
        context.audit.record(tx, { type: 'audit.export', subject: `chain:${stream}`, changes: { from: null, to: request.body } }),
      )
      await keeper.checkpoint(scope, stream)
      const file = await createExport(context, scope, { stream, format, filter: wanted })
      reply.header('content-type', file.type).header('content-disposition', `attachment; filename="${file.name}"`)
      // The bytes are written already; a serializer would take them for JSON.
      return reply.serializer((content: string) => content).send(file.content as unknown as string)
    },
  )
}

function registerIntegrity(app: App, { context, keeper }: AuditParts): void {
  const { db } = context
  app.get(
    '/chains',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditListChains',
        summary: 'The chains and how far they are signed and anchored',
        response: { 200: Type.Object({ items: Type.Array(ChainView) }), ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const items = await db.withTenant(scope, (tx) => listChains(tx))
      return { items: items.filter(({ chain }) => chain === 'own' || scope.tenantId === context.rootTenant.tenantId) }
    },
  )
  app.get(
    '/checkpoints',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditListCheckpoints',
        summary: 'Signed statements about a chain, newest first',
        querystring: Type.Object({ ...ChainQuery, limit: EventQuery.properties.limit, cursor: EventQuery.properties.cursor }, closed),
        response: {
          200: Type.Object({ items: Type.Array(Type.Unknown()), nextCursor: Type.Union([Type.String(), Type.Null()]) }),
          ...problems(400, 401, 403, 404),
        },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const { chain, limit = 50, cursor } = request.query
      const [, before] = cursor ? parseCursor(cursor, 2) : []
      const all = await db.withTenant(scope, (tx) => listCheckpoints(tx, pickStream(context, scope, chain)))
      const rest = all.reverse().filter(({ body }) => typeof before !== 'number' || body.size < before)
      const items = rest.slice(0, limit)
      return { items, nextCursor: rest.length > limit ? formatCursor(['checkpoints', items.at(-1)!.body.size]) : null }
    },
  )
  app.get(
    '/keys',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditListKeys',
        summary: 'Public keys that checkpoints are signed with',
        response: { 200: Type.Object({ items: Type.Array(KeyView) }), ...problems(400, 401, 403) },
      },
    },
    async () => ({
      items: (await context.evidence.publicKeys()).map(({ id, publicKey, createdAt }) => ({
        id,
        publicKey: publicKey.toString('hex'),
        createdAt: createdAt.toISOString(),
      })),
    }),
  )
  app.post(
    '/verify',
    {
      config: { ...canRead, license: 'always' },
      schema: {
        tags,
        operationId: 'auditVerify',
        summary: 'Check a chain as it is stored',
        body: VerifyBody,
        response: { 200: Verification, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const stream = pickStream(context, scope, request.body.chain)
      await keeper.checkpoint(scope, stream)
      return verifyChain(context, scope, stream)
    },
  )
}

function registerSettings(app: App, { context, settings }: AuditParts): void {
  const { db, clock } = context
  const view = async (tx: Tx, scope: Scope) => {
    const current = await settings.get(tx, scope)
    return { ...current, toDelete: await countOlder(tx, current.pendingDays ?? current.auditDays, clock.now()) }
  }
  app.get(
    '/settings',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditGetSettings',
        summary: 'How long events stay, and what is masked',
        response: { 200: SettingsView, ...problems(400, 401, 403) },
      },
    },
    (request) => db.withTenant(actorOf(request).scope, (tx) => view(tx, actorOf(request).scope)),
  )
  app.put(
    '/settings',
    {
      config: canWrite,
      schema: {
        tags,
        operationId: 'auditUpdateSettings',
        summary: 'Change how long events stay; a shorter time counts in seven days',
        body: SettingsBody,
        response: { 200: SettingsView, ...problems(400, 401, 403, 422) },
      },
    },
    (request) => {
      const { scope } = actorOf(request)
      return db.withTenant(scope, async (tx) => {
        await settings.update(tx, scope, request.body)
        return view(tx, scope)
      })
    },
  )
}

/** @throws {ProblemError} `AUDIT_RANGE` */
type Asked = Omit<EventQuery, 'limit' | 'cursor' | 'chain' | 'from' | 'to'> & { from?: string | undefined; to?: string | undefined }

function toFilter({ from, to, ...rest }: Asked): EventFilter {
  const [first, last] = [from, to].map((text) => (text === undefined ? undefined : new Date(text)))
  if (first && last && (first > last || last.getTime() - first.getTime() > maxRangeMs)) throw problem('AUDIT_RANGE')
  return { ...rest, outcome: rest.outcome as EventFilter['outcome'], from: first, to: last }
}

const hourMs = 3_600_000
const maxNoted = 10_000

/** [AU-10] Reading is told once per session, hour and filter. */
class ReadNotes {
  readonly #now: () => number
  readonly #seen = new Map<string, number>()

  constructor(now: () => number) {
    this.#now = now
  }

  isNew(session: string, filter: object): boolean {
    const key = `${session} ${Math.floor(this.#now() / hourMs)} ${JSON.stringify(filter)}`
    if (this.#seen.has(key)) return false
    this.#seen.set(key, this.#now())
    for (const oldest of this.#seen.keys()) {
      if (this.#seen.size <= maxNoted) break
      this.#seen.delete(oldest)
    }
    return true
  }
}
