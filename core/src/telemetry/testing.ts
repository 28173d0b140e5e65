// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { compatProblem } from '../http/compat.ts'
import { rolePermissions } from '../http/permissions.ts'
import { createServer } from '../http/server.ts'
import type { App } from '../http/server.ts'
import { decodeTelemetry } from '../ingest/codecs.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Device } from '../ingest/registry.ts'
import { defaultSettings } from '../products/settings.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import type { TelemetryParts } from './answers.ts'
import { registerCompatTelemetryRoutes } from './compat.ts'
import type { Point } from './points.ts'
import { registerTelemetryRoutes } from './routes.ts'
import { TelemetryLog } from './telemetry-log.ts'

/** Who calls: roles of the one tenant, somebody of another tenant, or nobody. */
export type Caller = 'operator' | 'viewer' | 'stranger' | 'nobody'
export type Answer = { status: number; headers: Record<string, unknown>; text: string; json: <T = Record<string, unknown>>() => T }
type CallOptions = { as?: Caller; body?: string; headers?: Record<string, string> }

/** The telemetry routes on a real store and database, with the codec as their way in. */
export type ReadingServer = {
  context: TestContext
  store: TelemetryLog
  app: App
  /** A device of the installation's zone, which is UTC here, or of its own. */
  createDevice(wanted?: { name?: string; timeZone?: string }): Promise<Device>
  write(device: Device, points: readonly Point[]): Promise<void>
  call(method: 'GET' | 'POST' | 'DELETE', url: string, options?: CallOptions): Promise<Answer>
  close(): Promise<void>
}

export async function startReadingServer(): Promise<ReadingServer> {
  const context = await createTestContext()
  const store = new TelemetryLog(context, { graceMs: 0, compacts: false })
  await store.start()
  const devices = new Map<string, Device>()
  const app = await createServer({
    log: context.log,
    version: '1.2.3',
    trustedProxies: [],
    authenticate: async (request) => actorFor(request.headers['x-caller'], context.rootTenant),
    isSetUp: () => true,
    isHttps: false,
    basePath: '/',
    requireHttps: false,
    testHooks: new Set(),
    compatProblem,
  })
  const parts: TelemetryParts = {
    store,
    audit: context.audit,
    async findDevice(scope, id) {
      const rows = await context.db.withTenant(scope, (tx) =>
        tx.execute<{ id: string; name: string; timeZone: string }>(
          sql`select id, name, coalesce(time_zone, 'UTC') as "timeZone" from devices where id = ${id} and deleted_at is null`,
        ),
      )
      return rows[0]
    },
    async writeAsUser(_, deviceId, payload, { cast, allOrNothing }) {
      const device = devices.get(deviceId)!
      const decoded = decodeTelemetry(payload, { ...defaultPayloadRules, castNumericStrings: cast }, device, context.clock.now())
      if ('refused' in decoded) throw new ProblemError('PAYLOAD_MALFORMED', { errors: [{ pointer: '', detail: decoded.refused.detail }] })
      const { points, rejects } = decoded
      if (allOrNothing && rejects.length > 0) return { accepted: 0, rejected: rejects }
      await store.write([{ device, points }])
      return { accepted: points.length, rejected: rejects }
    },
  }
  await registerTelemetryRoutes(app, context, parts)
  await registerCompatTelemetryRoutes(app, parts)
  return {
    context,
    store,
    app,
    async createDevice({ name = randomUUID(), timeZone } = {}) {
      const { tenantId, tenantNo } = context.rootTenant
      const id = randomUUID()
      const rows = await context.db.withTenant(context.rootTenant, (tx) =>
        tx.execute<{ number: number }>(sql`insert into devices (tenant_id, id, product_id, name, time_zone)
          select ${tenantId}, ${id}, id, ${name}, ${timeZone ?? null} from products where is_default returning number`),
      )
      const device: Device = {
        tenantId,
        tenantNo,
        id,
        no: rows[0]!.number,
        name,
        isDisabled: false,
        isGateway: false,
        settings: defaultSettings,
        rules: defaultPayloadRules,
        inactivityTimeoutMs: 600_000,
        lastServerTs: 0,
      }
      devices.set(id, device)
      return device
    },
    async write(device, points) {
      await store.write([{ device, points }])
    },
    async call(method, url, { as = 'operator', body, headers = {} } = {}) {
      const answer = await app.inject({
        method,
        url,
        headers: { 'x-caller': as, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(body === undefined ? {} : { payload: body }),
      })
      return { status: answer.statusCode, headers: answer.headers, text: answer.body, json: <T>() => answer.json<T>() }
    },
    async close() {
      await app.close()
      await store.stop()
      await context.close()
    },
  }
}

function actorFor(caller: unknown, rootTenant: Scope): Actor | undefined {
  if (caller !== 'operator' && caller !== 'viewer' && caller !== 'stranger') return undefined
  const scope = caller === 'stranger' ? { tenantId: '018f0000-0000-7000-8000-000000000000', tenantNo: 4711 } : rootTenant
  const permissions = rolePermissions[caller === 'viewer' ? 'viewer' : 'operator']
  return {
    kind: 'user',
    userId: '018f0000-0000-7000-8000-000000000001',
    name: caller,
    sessionId: 'session',
    authenticatedAt: 0,
    permissions,
    scope,
  }
}
