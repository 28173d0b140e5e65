// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Actor } from '../http/actor.ts'
import { rolePermissions } from '../http/permissions.ts'
import { createServer } from '../http/server.ts'
import type { App, ServerOptions } from '../http/server.ts'
import { communityLicense } from '../license/snapshot.ts'
import type { FeatureStatus, License } from '../license/snapshot.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { rootDir } from '../version.ts'
import { discoverModules } from './discovery.ts'
import type { ModuleContext } from './manifest.ts'
import { Mounts } from './mount.ts'

let context: TestContext
let app: App
let status: FeatureStatus = 'locked'
const [block] = discoverModules([join(rootDir, 'test/modules/greenhouse')]).modules
beforeAll(async () => {
  context = await createTestContext()
  const license: License = { ...communityLicense, status: () => status }
  const options: ServerOptions = {
    log: context.log,
    version: '0',
    trustedProxies: [],
    authenticate: async (request) =>
      request.headers.authorization
        ? ({ kind: 'user', userId: 'u', permissions: rolePermissions.admin, scope: context.rootTenant } as Actor)
        : undefined,
    isSetUp: () => true,
    isHttps: false,
    requireHttps: false,
    testHooks: new Set(),
    basePath: '/iot/',
    compatProblem: (error) => ({ status: error.status, body: {} }),
  }
  app = await createServer(options)
  const mounts = new Mounts({ ...context, license }, options)
  const [mount] = await mounts.register(app, [block!], () => 'active')
  const manifest = {
    name: 'greenhouse',
    routes: () => (scope: App) => {
      scope.get('/who', { config: { permission: 'session' } }, async (request) => ({ id: request.id, url: request.url, body: null }))
      scope.post('/echo', { config: { permission: 'session', license: 'always' } }, async (request) => ({ body: request.body }))
      scope.post('/open', { config: { public: true } }, async () => ({ ok: true }))
    },
  }
  mount!.app = await mounts.build(mount!, manifest, {} as ModuleContext)
})
afterAll(async () => {
  await app.close()
  await context.close()
})

const headers = { authorization: 'Bearer x' }

describe('a mounted module', () => {
  it('is found below the base path of the product [D-95]', async () => {
    status = 'active'
    const answer = await app.inject({ url: '/iot/api/v1/greenhouse/who', headers })
    expect([answer.statusCode, answer.json<{ url: string }>().url]).toEqual([200, '/api/v1/greenhouse/who'])
    expect((await app.inject({ url: '/api/v1/greenhouse/who', headers })).statusCode).toBe(404)
  })

  it('gets the body unread, in one piece and in many', async () => {
    const body = { text: 'x'.repeat(200_000) }
    const answer = await app.inject({ method: 'POST', url: '/iot/api/v1/greenhouse/echo', headers, payload: body })
    expect(answer.json()).toEqual({ body })
  })

  it('has ids of requests of its own only where the server has given none', async () => {
    const ids = await Promise.all(
      [0, 1, 2].map(async () => (await app.inject({ url: '/iot/api/v1/greenhouse/who', headers })).json<{ id: string }>().id),
    )
    expect(ids.every((id) => /^[0-9a-f]{16}$/.test(id))).toBe(true)
    expect(new Set(ids).size).toBe(3)
  })

  it('asks the license on public routes, too, and as its routes say', async () => {
    const open = () => app.inject({ method: 'POST', url: '/iot/api/v1/greenhouse/open' })
    expect((await open()).statusCode).toBe(200)
    status = 'readonly'
    expect((await open()).json()).toMatchObject({ status: 403, code: 'LICENSE_EXPIRED_READONLY' })
    const always = await app.inject({ method: 'POST', url: '/iot/api/v1/greenhouse/echo', headers, payload: {} })
    expect(always.statusCode).toBe(200)
    status = 'active'
  })
})
