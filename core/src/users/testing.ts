// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { desc, eq } from 'drizzle-orm'
import type { Clock } from '../clock.ts'
import { systemClock } from '../clock.ts'
import type { Config } from '../config.ts'
import { securityEvents } from '../db/tables.ts'
import { createAuthenticate } from '../http/authenticate.ts'
import { createServer } from '../http/server.ts'
import type { App } from '../http/server.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { registerCompatLogin } from './compat.ts'
import { createPeople } from './people.ts'
import type { People } from './people.ts'
import { registerUserRoutes } from './routes.ts'
import { ensureSetup } from './setup.ts'
import type { Setup } from './setup.ts'

/** A server with nothing but people, on a database of its own, whose time the test can move. */
export type PeopleServer = {
  context: TestContext
  people: People
  setup: Setup
  app: App
  /** Moves wall clock and monotonic time. */
  advance(ms: number): void
  close(): Promise<void>
}

export async function startPeopleServer(change: Partial<Config> = {}): Promise<PeopleServer> {
  const base = await createTestContext(change)
  let offset = 0
  const clock: Clock = {
    now: () => Date.now() + offset,
    monotonic: () => performance.now() + offset,
    after: (ms, callback) => systemClock.after(ms, callback),
  }
  const context = { ...base, clock }
  const people = createPeople(context, { version: '1.2.3', hasDemo: () => false })
  const setup = await ensureSetup(people)
  const app = await createServer({
    log: context.log,
    version: '1.2.3',
    trustedProxies: ['127.0.0.1'],
    authenticate: createAuthenticate(people),
    isSetUp: setup.isSetUp,
    isHttps: false,
    requireHttps: false,
    testHooks: new Set(),
    basePath: '/',
    compatProblem: (error) => ({ status: error.status, body: { status: error.status, message: error.message, errorCode: error.code } }),
  })
  registerUserRoutes(app, people, setup)
  registerCompatLogin(app, people)
  // Routes that ask for rights, for the keys' and roles' tests.
  app.get('/api/v1/test/devices', { config: { permission: 'device.read' } }, async (request) => ({ name: request.actor?.name }))
  app.post('/api/v1/test/devices', { config: { permission: 'device.write' } }, async () => ({}))
  return {
    context,
    people,
    setup,
    app,
    advance: (ms) => void (offset += ms),
    async close() {
      await app.close()
      await base.close()
    },
  }
}

export const adminEmail = 'Linda.Chen@Example.com'
export const password = 'teapot violin gravel'

/** Headers a browser sends from our own page. */
export const ownPage = { 'sec-fetch-site': 'same-origin', 'user-agent': 'Firefox' }

export function setupToken(context: TestContext): string {
  return /#t=([\w-]{43})\s*$/.exec(readFileSync(join(context.config.dataDir, 'setup-link.txt'), 'utf8'))![1]!
}

export type Login = {
  accessToken: string
  refreshToken: string
  cookies: Record<string, string>
  body: Record<string, unknown>
  headers: { authorization: string }
}

/** Goes through the set-up as Linda, the administrator. */
export async function completeTestSetup(server: PeopleServer): Promise<Login> {
  const answer = await server.app.inject({
    method: 'POST',
    url: '/api/v1/setup',
    headers: ownPage,
    payload: {
      token: setupToken(server.context),
      name: 'Linda',
      email: adminEmail,
      password,
      language: 'zh',
      timeZone: 'Asia/Shanghai',
      siteName: '一号工厂',
    },
  })
  return toLogin(answer)
}

export async function signIn(server: PeopleServer, email: string, secret = password, headers: Record<string, string> = {}): Promise<Login> {
  return toLogin(
    await server.app.inject({
      method: 'POST',
      url: '/api/v1/auth/login',
      headers: { ...ownPage, ...headers },
      payload: { email, password: secret },
    }),
  )
}

type Answer = { statusCode: number; body: string; json(): unknown; cookies: { name: string; value: string }[] }

export function toLogin(answer: Answer): Login {
  if (answer.statusCode >= 300) throw new Error(`signing in answered ${answer.statusCode} ${answer.body}`)
  const body = answer.json() as Record<string, unknown>
  const cookies = Object.fromEntries(answer.cookies.map((one) => [one.name, one.value]))
  const accessToken = String(body['accessToken'])
  return { accessToken, refreshToken: cookies['iot_pms_refresh'] ?? '', cookies, body, headers: { authorization: `Bearer ${accessToken}` } }
}

/** Creates a user with the test password and signs in. */
export async function addUser(
  server: PeopleServer,
  admin: Login,
  role: 'viewer' | 'operator' | 'admin',
  email: string,
): Promise<Login & { id: string }> {
  const answer = await server.app.inject({
    method: 'POST',
    url: '/api/v1/users',
    headers: admin.headers,
    payload: { name: email.split('@')[0], email, role, password },
  })
  if (answer.statusCode !== 201) throw new Error(`creating a user answered ${answer.statusCode} ${answer.body}`)
  return { ...(await signIn(server, email)), id: answer.json<{ user: { id: string } }>().user.id }
}

export function refresh(server: PeopleServer, token: string, headers: Record<string, string> = {}) {
  return server.app.inject({
    method: 'POST',
    url: '/api/v1/auth/refresh',
    headers: { ...ownPage, ...headers },
    cookies: { iot_pms_refresh: token },
    payload: {},
  })
}

/** The security events of an action, newest first. */
export async function listEvents(server: PeopleServer, action: string) {
  return server.context.db.withTenant(server.context.rootTenant, (tx) =>
    tx.select().from(securityEvents).where(eq(securityEvents.action, action)).orderBy(desc(securityEvents.id)),
  )
}
