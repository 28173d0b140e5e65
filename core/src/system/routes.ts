// SPDX-License-Identifier: AGPL-3.0-only
import { networkInterfaces } from 'node:os'
import { sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import { Type } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import { checkTimeZone } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Authenticate } from '../http/actor.ts'
import { Instant, NoContent, Nullable, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { isEqual } from '../secrets.ts'
import { originOf } from '../users/security-events.ts'
import type { Ports } from '../start.ts'
import type { ServerCertificate } from '../tls/server-certificate.ts'
import { Overview, readOverview } from './overview.ts'
import type { OverviewParts } from './overview.ts'
import type { RefusedConnections } from './refused-connections.ts'

export type SystemParts = OverviewParts & {
  refused: RefusedConnections
  certificate: ServerCertificate | undefined
  metrics: Registry
  /** Core's API document with the paths of active modules. */
  describeApi: (core: Record<string, unknown>) => Record<string, unknown>
  authenticate: Authenticate
  health: Health
  ports: () => Ports
}

/** What the probes ask. */
export type Health = {
  /** Whether the event loop has turned lately [RE-72]. */
  isAlive(): boolean
  /** Each condition of being ready, with a word about it. What `isNeeded` is false for is only told. */
  checks(): Promise<{ name: string; ok: boolean; detail: string; isNeeded?: false }[]>
  hasBeenReady: boolean
}

const tags = ['system']
const Site = Type.Object({ name: Type.String(), timeZone: Type.String(), language: Type.String() })
const SitePatch = Type.Object(
  {
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    timeZone: Type.Optional(Type.String({ maxLength: 64 })),
    language: Type.Optional(Type.Union([Type.Literal('zh'), Type.Literal('en')])),
  },
  { additionalProperties: false, minProperties: 1 },
)
const RefusedList = Type.Object({
  items: Type.Array(
    Type.Object({
      at: Instant,
      address: Type.String(),
      clientId: Type.String(),
      reason: Type.String(),
      last4: Type.String(),
      count: Type.Integer(),
    }),
  ),
})
const Endpoints = Type.Object({
  http: Nullable(Type.String()),
  mqtt: Nullable(Type.Object({ host: Nullable(Type.String()), port: Type.Integer() })),
  /** With the SHA-256 of the certificate, so that people can tell it from another. */
  mqtts: Nullable(Type.Object({ host: Nullable(Type.String()), port: Type.Integer(), fingerprint: Type.String() })),
  addresses: Type.Array(Type.String()),
})
const ClientError = Type.Object(
  {
    message: Type.String({ maxLength: 2000 }),
    stack: Type.Optional(Type.String({ maxLength: 8000 })),
    route: Type.String({ maxLength: 500 }),
    version: Type.String({ maxLength: 50 }),
  },
  { additionalProperties: false },
)

/** Overview, site settings, endpoints, and the probes and metrics outside the API. */
export function registerSystemRoutes(app: App, context: Context, parts: SystemParts): void {
  registerProbes(app, parts)
  registerMetrics(app, context, parts)
  app.get(
    '/api/v1/overview',
    {
      config: { permission: 'device.read' },
      schema: { tags, summary: 'Figures of the first page', response: { 200: Overview, ...problems(400, 401, 403) } },
    },
    (request) => readOverview(context, parts, actorOf(request).scope, request.protocol === 'https'),
  )
  app.get(
    '/api/v1/system/refused-connections',
    {
      config: { permission: 'system.read' },
      schema: { tags, summary: 'Connections refused lately, newest first', response: { 200: RefusedList, ...problems(400, 401, 403) } },
    },
    () => ({ items: parts.refused.list() }),
  )
  app.get(
    '/api/v1/system/endpoints',
    {
      config: { permission: 'device.read' },
      schema: { tags, summary: 'Where devices connect', response: { 200: Endpoints, ...problems(400, 401, 403) } },
    },
    () => {
      const { publicUrl } = context.config
      const { mqtt, mqtts } = parts.ports()
      const host = publicUrl?.hostname ?? null
      const fingerprint = parts.certificate?.fingerprint
      return {
        http: publicUrl?.href ?? null,
        mqtt: mqtt === undefined ? null : { host, port: mqtt },
        mqtts: mqtts === undefined || fingerprint === undefined ? null : { host, port: mqtts, fingerprint },
        addresses: listAddresses(),
      }
    },
  )
  registerSite(app, context)
  app.post(
    '/api/v1/client-errors',
    {
      config: { permission: 'session' },
      schema: { tags, summary: 'Report an error of a page', body: ClientError, response: { 204: NoContent, ...problems(400, 401, 403) } },
    },
    async (request, reply) => {
      request.log.warn({ page: request.body }, 'a page reported an error')
      return reply.code(204).send(null)
    },
  )
  app.get('/api/v1/openapi.json', { config: { permission: 'session' }, schema: { hide: true } }, () =>
    parts.describeApi(app.swagger() as unknown as Record<string, unknown>),
  )
}

function registerSite(app: App, context: Context): void {
  app.get(
    '/api/v1/settings/site',
    {
      config: { permission: 'settings.read' },
      schema: { tags, summary: 'Read name, zone and language of the site', response: { 200: Site, ...problems(400, 401, 403) } },
    },
    async (request) => {
      const rows = await context.db.withTenant(actorOf(request).scope, (tx) =>
        tx.execute<{ name: string; timeZone: string; language: string }>(
          sql`select name, time_zone as "timeZone", locale as language from tenants`,
        ),
      )
      return rows[0]!
    },
  )
  app.patch(
    '/api/v1/settings/site',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Change name, zone and language of the site',
        body: SitePatch,
        response: { 200: Site, ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => {
      const { name, timeZone, language } = request.body
      checkTimeZone(timeZone)
      request.log.info({ by: actorOf(request).userId, address: originOf(request).address }, 'site settings changed')
      const rows = await context.db.withTenant(actorOf(request).scope, async (tx) => {
        const changes = { from: null, to: request.body }
        recordAudit(tx, { type: 'settings.update', subject: 'settings:site', changes })
        return tx.execute<{
          name: string
          timeZone: string
          language: string
        }>(sql`update tenants set name = coalesce(${name ?? null}, name),
          time_zone = coalesce(${timeZone ?? null}, time_zone), locale = coalesce(${language ?? null}, locale), updated_at = now()
          returning name, time_zone as "timeZone", locale as language`)
      })
      return rows[0]!
    },
  )
}

/** [RE-72] No login, no database row. */
function registerProbes(app: App, parts: SystemParts): void {
  app.get('/livez', { schema: { hide: true } }, (_, reply) =>
    reply.code(parts.health.isAlive() ? 200 : 503).send({ status: parts.health.isAlive() ? 'ok' : 'stuck' }),
  )
  app.get('/startupz', { schema: { hide: true } }, (_, reply) =>
    reply.code(parts.health.hasBeenReady ? 200 : 503).send({ status: parts.health.hasBeenReady ? 'ok' : 'starting' }),
  )
  app.get('/readyz', { schema: { hide: true } }, async (request, reply) => {
    const checks = await parts.health.checks()
    const isReady = checks.every((check) => check.ok || check.isNeeded === false)
    const isLocal = ['127.0.0.1', '::1', '::ffff:127.0.0.1'].includes(request.ip)
    const shown = checks.map(({ name, ok, detail }) => (isLocal ? { name, ok, detail } : { name, ok }))
    return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'ok' : 'not ready', checks: shown })
  })
}

function registerMetrics(app: App, context: Context, parts: SystemParts): void {
  app.get('/metrics', { schema: { hide: true } }, async (request, reply) => {
    const { metricsToken } = context.config
    const presented = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    const isToken = metricsToken !== undefined && presented !== undefined && isEqual(Buffer.from(presented), Buffer.from(metricsToken))
    if (!isToken) {
      const actor = await parts.authenticate(request)
      if (!actor) throw new ProblemError('TOKEN_INVALID')
      if (!actor.permissions.has('metrics.read')) throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'metrics.read' } })
    }
    return reply.type(parts.metrics.contentType).send(await parts.metrics.metrics())
  })
}

/** Addresses of this machine that other machines may reach. */
function listAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((one) => !one.internal && one.family === 'IPv4')
    .map((one) => one.address)
}
