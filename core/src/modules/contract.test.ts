// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { schemaOf } from '../db/module-migrations.ts'
import type { RouteGuard } from '../http/server.ts'
import { FEATURES } from '../license/features.ts'
import { actOf } from '../license/gate.ts'
import { rootDir } from '../version.ts'
import { discoverModules } from './discovery.ts'
import { testApp } from './testing.ts'
import type { TestApp } from './testing.ts'

/**
 * What holds for every route of every module of this build [MO-42], taken from the running server. The example stands in
 * for all of them in a build without any.
 */
const blocks = [...discoverModules().modules, ...discoverModules([join(rootDir, 'test/modules/greenhouse')]).modules]
const unknownId = '01920000-0000-7000-8000-000000000000'
type Operation = { operationId?: string; responses?: Record<string, unknown> }

describe('the modules of this build', () => {
  it('have package.json blocks that are good', () => {
    expect(discoverModules().problems).toEqual([])
  })

  it('have a row for their feature, of ours or their own', () => {
    for (const { name, feature, row } of blocks) expect(FEATURES[feature] ?? row.message.en, name).toBeTruthy()
  })

  it('have a canary in their code', () => {
    for (const { name, entry } of blocks) expect(readFileSync(entry, 'utf8'), name).toMatch(/IOT-PMS-CANARY-[0-9a-f]{32}/)
  })
})

describe.each(blocks)('$name', (block) => {
  let app: TestApp
  let routes: readonly RouteGuard[]
  beforeAll(async () => {
    // Whatever it needs is granted with it; ports are not opened.
    const needed = blocks.filter(({ name }) => name === block.name || block.requires.includes(name))
    const settings = Object.fromEntries(block.ports.map(({ env }) => [env, 'off']))
    app = await testApp({
      modules: needed.map(({ folder }) => folder),
      license: { features: needed.map(({ feature }) => feature) },
      settings,
    })
    routes = app.mounts.routesOf(block.name)
  })
  afterAll(() => app.close())

  const call = (route: RouteGuard, token?: string | null) =>
    app.call(route.method, route.path.replace(/:\w+/g, unknownId), {
      ...(['POST', 'PUT', 'PATCH'].includes(route.method) ? { body: {} } : {}),
      ...(token === undefined ? {} : { token }),
    })

  it('is active, and every path of it lies below its prefixes', () => {
    expect(app.modules.describe(block.name)?.reason).toBeUndefined()
    expect(app.modules.list().find(({ name }) => name === block.name)?.status).toBe('active')
    const strangers = routes.filter(({ path }) => !block.prefixes.some((prefix) => path.startsWith(prefix)))
    expect(strangers).toEqual([])
  })

  it('names a permission or is public on purpose, and answers 401 to nobody', async () => {
    for (const route of routes) {
      expect(route.permission ?? route.isPublic, route.path).toBeTruthy()
      if (!route.isPublic) expect((await call(route, null)).status, `${route.method} ${route.path}`).toBe(401)
    }
  })

  it('describes each operation under an id of its own, with its answers', async () => {
    const document = (await app.call('GET', '/api/v1/openapi.json')).json<{ paths: Record<string, Record<string, Operation>> }>()
    const own = Object.entries(document.paths).filter(([path]) => block.prefixes.some((prefix) => path.startsWith(prefix)))
    const operations = own.flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ at: `${method} ${path}`, ...operation })),
    )
    expect(operations.length).toBe(routes.length)
    const start = block.name.replaceAll(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
    for (const { at, operationId, responses } of operations) {
      expect(operationId, at).toMatch(new RegExp(`^${start}[A-Z]`))
      expect(
        Object.keys(responses ?? {}).some((status) => status.startsWith('2')),
        at,
      ).toBe(true)
    }
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length)
  })

  it('keeps its tables behind row level security, and core can delete what they refer to [MO-50, MO-51]', async () => {
    const tables = await app.context.db.withRole('pms_jobs', (tx) =>
      tx.execute<{ name: string; isWalled: boolean }>(sql`
        select c.relname as name, c.relrowsecurity and c.relforcerowsecurity and exists (
          select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id') as "isWalled"
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = ${schemaOf(block.name)} and c.relkind in ('r', 'p')`),
    )
    expect(tables.length > 0).toBe(block.migrations !== undefined && existsSync(block.migrations))
    for (const { name, isWalled } of tables) expect(isWalled, name).toBe(true)
    const kept = await app.context.db.withRole('pms_jobs', (tx) =>
      tx.execute(sql`select conname from pg_constraint k join pg_namespace n on n.oid = k.connamespace
        join pg_class parent on parent.oid = k.confrelid
        where n.nspname = ${schemaOf(block.name)} and k.contype = 'f' and parent.relnamespace = 'public'::regnamespace and k.confdeltype not in ('c', 'n')`),
    )
    expect([...kept]).toEqual([])
  })

  it('refuses writes and nothing else when the license has run out', async () => {
    await app.relicense('restricted')
    for (const route of routes.filter(({ isPublic }) => !isPublic)) {
      const { text } = await call(route)
      const isRefused = text.includes('LICENSE_EXPIRED_READONLY')
      expect(isRefused, `${route.method} ${route.path} ${text}`).toBe(
        actOf(route.method, route.license ? { license: route.license } : {}) === 'write',
      )
    }
  })

  it('answers 403 to everybody and everything when it is locked', async () => {
    await app.relicense('none')
    for (const route of routes) {
      expect((await call(route, null)).status, route.path).toBe(401)
      expect((await call(route)).json(), route.path).toMatchObject({ status: 403, code: 'LICENSE_FEATURE_REQUIRED' })
    }
  })
})
