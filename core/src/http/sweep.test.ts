// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { reservedTokens } from '../devices/credentials.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { rolePermissions } from './permissions.ts'
import type { Permission } from './permissions.ts'
import type { RouteGuard } from './server.ts'

/**
 * Every endpoint of the API, taken from the running server and not from a list, so that a new one
 * cannot be forgotten: without a credential 401, without the permission 403, with an unknown id 404.
 */
type Route = RouteGuard

/** Routes anybody may call, each with its reason in the code beside it. */
const publicRoutes = [
  'GET /api/v1/editions',
  'GET /api/v1/setup',
  'GET /api/v1/:token/attributes',
  'GET /api/v1/:token/attributes/updates',
  'GET /api/v1/:token/rpc',
  'GET /api/v1/:token/firmware',
  'GET /api/v1/:token/software',
  'POST /api/auth/login',
  'POST /api/auth/token',
  'POST /api/v1/:token/claim',
  'POST /api/v1/:token/attributes',
  'POST /api/v1/:token/rpc/:requestId',
  'POST /api/v1/:token/rpc',
  'POST /api/v1/:token/telemetry',
  'POST /api/v1/auth/login',
  'POST /api/v1/notifications/inbound/:channelId/:pathToken',
  'POST /api/v1/auth/logout',
  'POST /api/v1/auth/refresh',
  'POST /api/v1/auth/reset',
  'POST /api/v1/provision',
  'POST /api/v1/setup',
  'POST /api/v2/write',
]
const unknownId = '01920000-0000-7000-8000-000000000000'

let platform: TestPlatform
let viewer: string
let routes: Route[]
beforeAll(async () => {
  platform = await startTestPlatform()
  viewer = await platform.login('viewer')
  routes = platform.routes.filter((route) => route.path.startsWith('/api/'))
})
afterAll(() => platform.close())

/** A plausible value for each query parameter a route insists on. */
function requiredQuery(route: Route): string {
  const values: Record<string, string> = { keys: 'a', from: '0', to: '1000', format: 'csv' }
  const given = route.requiredQuery.filter((name) => values[name])
  return given.length > 0 ? `?${given.map((name) => `${name}=${values[name]}`).join('&')}` : ''
}

function call(route: Route, token: string | null) {
  const path = route.path.replace(/:\w+/g, unknownId)
  const body = ['POST', 'PUT', 'PATCH'].includes(route.method) ? {} : undefined
  return platform.call(route.method, path, { token, ...(body ? { body } : {}) })
}

describe('every endpoint', () => {
  it('is on the committed list when it needs no credential [SC-86]', () => {
    expect(routes.length).toBeGreaterThan(50)
    expect(
      routes
        .filter((route) => route.isPublic)
        .map((route) => `${route.method} ${route.path}`)
        .sort(),
    ).toEqual(publicRoutes.sort())
  })

  it('answers 401 without a credential and with a bad one', async () => {
    for (const route of routes.filter((one) => !one.isPublic)) {
      for (const token of [null, 'nonsense', 'eyJhbGciOiJub25lIn0.e30.']) {
        const answer = await call(route, token)
        expect(answer.status, `${route.method} ${route.path} ${answer.text}`).toBe(401)
      }
    }
  })

  it('answers 403 to a viewer who lacks its permission, and does not answer 403 to one who has it', async () => {
    for (const route of routes.filter((one) => one.permission && one.permission !== 'session')) {
      const answer = await call(route, viewer)
      const isAllowed = rolePermissions.viewer.has(route.permission as Permission)
      expect(answer.status === 403, `${route.method} ${route.path} ${answer.status} ${answer.text}`).toBe(!isAllowed)
    }
  })

  it('answers 404 for an unknown id and for what is no id at all, alike', async () => {
    const withId = routes.filter((route) => route.hasId && !route.isPublic && ['GET', 'DELETE'].includes(route.method))
    expect(withId.length).toBeGreaterThan(10)
    for (const route of withId) {
      const required = requiredQuery(route)
      const answer = await platform.call(route.method, route.path.replace(/:\w+/g, unknownId) + required)
      expect(answer.status, `${route.method} ${route.path} ${answer.text}`).toBe(404)
    }
  })

  it('refuses an unknown query parameter with 400 on the native API [SC-45, S-14]', async () => {
    for (const route of routes.filter((one) => one.path.startsWith('/api/v1/') && !one.isPublic && one.method === 'GET')) {
      if (route.path === '/api/v1/openapi.json') continue
      const required = requiredQuery(route)
      const answer = await platform.call(
        'GET',
        `${route.path.replace(/:\w+/g, unknownId)}${required || '?'}${required ? '&' : ''}surprise=1`,
      )
      expect([400, 404], `${route.path} ${answer.text}`).toContain(answer.status)
      if (!route.hasId) expect(answer.status, route.path).toBe(400)
    }
    for (const query of ['sort=name;drop', 'limit=1000000000', 'limit[]=1', 'limit=1&limit=2', 'cursor=nonsense', 'state=on', 'tag[x]=1']) {
      expect((await platform.call('GET', `/api/v1/devices?${query}`)).status, query).toBe(400)
    }
  })

  it('has no first path segment that a device token could be [H-1]', () => {
    const segments = new Set(routes.map((route) => /^\/api\/v1\/([^/:]+)/.exec(route.path)?.[1]).filter((one) => one !== undefined))
    expect([...segments].filter((segment) => !reservedTokens.has(segment))).toEqual([])
  })

  it('answers problem+json with a stable code, a trace id and no stack, in the asked language', async () => {
    const answer = await platform.call('GET', `/api/v1/devices/${unknownId}`, { headers: { 'accept-language': 'en' } })
    expect(answer.headers.get('content-type')).toBe('application/problem+json; charset=utf-8')
    expect(answer.json()).toMatchObject({
      code: 'NOT_FOUND',
      status: 404,
      title: 'Not found.',
      traceId: expect.stringMatching(/^[0-9a-f]{16}$/),
    })
    expect((await platform.call('GET', '/api/v1/nothing')).json()).toMatchObject({ code: 'NOT_FOUND', title: '找不到。' })
    for (const [name, value] of [
      ['x-content-type-options', 'nosniff'],
      ['referrer-policy', 'no-referrer'],
      ['cross-origin-opener-policy', 'same-origin'],
      ['cache-control', 'no-store'],
    ] as const) {
      expect(answer.headers.get(name)).toBe(value)
    }
  })
})
