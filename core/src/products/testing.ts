// SPDX-License-Identifier: AGPL-3.0-only
import { Registry } from 'prom-client'
import { registerCompatDeviceRoutes } from '../devices/compat.ts'
import { Devices } from '../devices/devices.ts'
import { registerDeviceRoutes } from '../devices/routes.ts'
import { createAuthenticate } from '../http/authenticate.ts'
import { compatProblem, registerCompatScope } from '../http/compat.ts'
import { createServer } from '../http/server.ts'
import type { App } from '../http/server.ts'
import { IngestCounters } from '../system/ingest-counters.ts'
import { createIngest } from '../ingest/start-ingest.ts'
import type { Ingest } from '../ingest/start-ingest.ts'
import { Topics } from '../live/topics.ts'
import { DiskGuard } from '../system/disk-guard.ts'
import { Load } from '../system/load.ts'
import { TelemetryLog } from '../telemetry/telemetry-log.ts'
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
export type DeviceServerParts = {
  context: TestContext
  ingest: Ingest
  devices: Devices
  store: TelemetryStore
  mqttPort: () => number | undefined
}

/** A server with people, products, devices and their MQTT endpoint on a database of its own, called as its administrator. */
export type DeviceServer = DeviceServerParts & {
  app: App
  url: string
  registry: Ingest['registry']
  admin: Login
  viewer: Login
  call(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', url: string, options?: Call): Promise<Answer>
  close(): Promise<void>
}

/** @param register adds routes of the feature under test */
export async function startDeviceServer(register: (app: App, parts: DeviceServerParts) => void = () => {}): Promise<DeviceServer> {
  const context = await createTestContext()
  const people = createPeople(context, { version: '1.2.3', hasDemo: () => false })
  const setup = await ensureSetup(people)
  const app = await createServer({
    log: context.log,
    version: '1.2.3',
    trustedProxies: [],
    authenticate: createAuthenticate(people),
    isSetUp: setup.isSetUp,
    isHttps: false,
    requireHttps: false,
    testHooks: new Set(),
    compatProblem,
  })
  const store = new TelemetryLog(context)
  await store.start()
  const metrics = new Registry()
  const counters = new IngestCounters(context, metrics)
  const topics = new Topics(context, { store, counters })
  const ingest = createIngest(context, {
    store,
    counters,
    topics,
    load: new Load(),
    disk: new DiskGuard(context, async () => undefined),
    metrics,
    isDraining: () => false,
  })
  await ingest.start()
  const devices = new Devices(context, ingest.registry, store)
  registerUserRoutes(app, people, setup)
  registerDeviceRoutes(app, context, {
    devices,
    store,
    sessions: ingest.sessions,
    childSessions: ingest.childSessions,
    rejects: ingest.rejects,
  })
  await registerProductRoutes(app, context, { registry: ingest.registry })
  await registerCompatScope(app, (scope) => registerCompatDeviceRoutes(scope, context, { devices }))
  const parts: DeviceServerParts = { context, ingest, devices, store, mqttPort: () => ingest.endpoint?.port }
  register(app, parts)
  const url = await app.listen({ port: 0, host: '127.0.0.1' })

  const server = { context, people, setup, app, advance: () => {}, close: async () => {} }
  const admin = await completeTestSetup(server)
  const viewer = await addUser(server, admin, 'viewer', 'viewer@example.com')
  return {
    ...parts,
    app,
    url,
    registry: ingest.registry,
    admin,
    viewer,
    async call(method, path, { headers = {}, body, raw, as = admin } = {}) {
      const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body))
      const answer = await app.inject({
        method,
        url: path,
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
      await ingest.stop(5000)
      await store.stop()
      await context.close()
    },
  }
}
