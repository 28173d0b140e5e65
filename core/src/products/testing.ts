// SPDX-License-Identifier: AGPL-3.0-only
import { registerCompatDeviceRoutes } from '../devices/compat.ts'
import { Devices } from '../devices/devices.ts'
import { registerDeviceRoutes } from '../devices/routes.ts'
import { createAuthenticate } from '../http/authenticate.ts'
import { compatProblem, registerCompatScope } from '../http/compat.ts'
import { createServer } from '../http/server.ts'
import type { App } from '../http/server.ts'
import { DeviceRegistry } from '../ingest/device-registry.ts'
import { RejectLog } from '../ingest/reject-log.ts'
import { Sessions } from '../ingest/sessions.ts'
import { TableStore } from '../telemetry/table-store.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { createPeople } from '../users/people.ts'
import { registerUserRoutes } from '../users/routes.ts'
import { ensureSetup } from '../users/setup.ts'
import { addUser, completeTestSetup } from '../users/testing.ts'
import type { Login } from '../users/testing.ts'
import { registerProductRoutes } from './routes.ts'

type Answer = { status: number; headers: Record<string, unknown>; body: Record<string, unknown>; text: string }
type Call = { headers?: Record<string, string>; body?: unknown; raw?: string; as?: Login | null }

/** A server with people, products and devices on a database of its own, called as its administrator. */
export type DeviceServer = {
  context: TestContext
  app: App
  registry: DeviceRegistry
  devices: Devices
  store: TelemetryStore
  admin: Login
  viewer: Login
  call(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', url: string, options?: Call): Promise<Answer>
  close(): Promise<void>
}

export async function startDeviceServer(): Promise<DeviceServer> {
  const context = await createTestContext()
  const { clock, log, db, events } = context
  const people = createPeople(context, { version: '1.2.3', hasDemo: () => false })
  const setup = await ensureSetup(people)
  const app = await createServer({
    log,
    version: '1.2.3',
    trustedProxies: [],
    authenticate: createAuthenticate(people),
    isSetUp: setup.isSetUp,
    isHttps: false,
    basePath: '/',
    requireHttps: false,
    testHooks: new Set(),
    compatProblem,
  })
  const store = new TableStore(context)
  await store.start()
  const registry = new DeviceRegistry(context)
  await registry.start()
  const devices = new Devices(context, registry, store)
  registerUserRoutes(app, people, setup)
  registerDeviceRoutes(app, context, {
    devices,
    store,
    sessions: new Sessions({ clock, log }),
    rejects: new RejectLog({ db, clock, events, log }),
  })
  registerProductRoutes(app, context, { registry })
  await registerCompatScope(app, (scope) => registerCompatDeviceRoutes(scope, context, { devices }))

  const server = { context, people, setup, app, advance: () => {}, close: async () => {} }
  const admin = await completeTestSetup(server)
  const viewer = await addUser(server, admin, 'viewer', 'viewer@example.com')
  return {
    context,
    app,
    registry,
    devices,
    store,
    admin,
    viewer,
    async call(method, url, { headers = {}, body, raw, as = admin } = {}) {
      const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body))
      const answer = await app.inject({
        method,
        url,
        headers: { ...as?.headers, ...(payload === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(payload === undefined ? {} : { payload }),
      })
      const isJson = String(answer.headers['content-type']).includes('json')
      return {
        status: answer.statusCode,
        headers: answer.headers,
        body: isJson ? answer.json<Record<string, unknown>>() : {},
        text: answer.body,
      }
    },
    async close() {
      await app.close()
      await store.stop()
      await context.close()
    },
  }
}
