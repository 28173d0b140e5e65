// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { Registry } from 'prom-client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { createProduct } from '../products/products.ts'
import { startReadingServer } from '../telemetry/testing.ts'
import type { ReadingServer } from '../telemetry/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { matchesGlob, planRetention } from './retention-plan.ts'
import { createRule, deleteRule, listAllRules } from './retention-rules.ts'
import type { RetentionRuleCreate, RuleDraft } from './retention-rules.ts'
import { Retention } from './retention.ts'

const dayMs = 86_400_000

describe('a key pattern', () => {
  it.each([
    ['temp', 'temp', true],
    ['temp', 'temperature', false],
    ['temp*', 'temperature', true],
    ['*', 'anything', true],
    ['*', '', true],
    ['?', 'ab', false],
    ['t?mp', 'temp', true],
    ['a*b*c', 'a-b-b-c', true],
    ['a*b*c', 'a-c-b', false],
    ['温?', '温度', true],
    ['a.c', 'abc', false],
    ['[a]', 'a', false],
    ['?', '😀', true],
  ])('%s and the key %s: %s', (pattern, key, matches) => {
    expect(matchesGlob(pattern, key)).toBe(matches)
  })

  it('of many stars is quick on a key it does not match', () => {
    const startedAt = performance.now()
    expect(matchesGlob('*a'.repeat(120) + 'b', 'a'.repeat(255))).toBe(false)
    expect(performance.now() - startedAt).toBeLessThan(100)
  })
})

describe('the plan of retention', () => {
  const rule = (id: string, keepDays: number | null, productId: string | null = null, keyPattern: string | null = null): RuleDraft => ({
    id,
    productId,
    keyPattern,
    keepDays,
  })
  const keys = ['temperature', 'temp_raw', 'door'].map((key, index) => ({ key, keyNo: index + 1 }))
  const shown = (rules: RuleDraft[]) =>
    planRetention(rules, keys).map(({ productId, exceptProductIds, shares }) => [
      productId ?? exceptProductIds,
      Object.fromEntries(shares.map((share) => [share.rule.id, share.keyNos ?? 'all'])),
    ])

  it('is empty without rules, and where everything is kept', () => {
    expect(shown([])).toEqual([])
    expect(shown([rule('tenant', null)])).toEqual([])
  })

  it('takes the rule of the product before that of the tenant', () => {
    expect(shown([rule('tenant', 730), rule('p', 30, 'p1'), rule('kept', null, 'p2')])).toEqual([
      ['p1', { p: 'all' }],
      [['p1', 'p2'], { tenant: 'all' }],
    ])
  })

  it('takes product and pattern before pattern before product', () => {
    const rules = [rule('tenant', 730), rule('product', 365, 'p1'), rule('pattern', 30, null, 'temp*'), rule('both', null, 'p1', '*_raw')]
    expect(shown(rules)).toEqual([
      ['p1', { pattern: [1], product: [3] }],
      [['p1'], { pattern: [1, 2], tenant: [3] }],
    ])
  })

  it('takes of two patterns the one with more letters, then the one that keeps longer', () => {
    expect(shown([rule('long', 1, null, 'temp*'), rule('short', 5, null, 't*')])).toEqual([[[], { long: [1, 2] }]])
    expect(shown([rule('less', 1, null, 'tem*'), rule('more', 5, null, '*tem*')])).toEqual([[[], { more: [1, 2] }]])
    expect(shown([rule('less', 1, null, 'tem*'), rule('forever', null, null, '*tem*')])).toEqual([])
  })
})

describe('retention on a real store', { timeout: 60_000 }, () => {
  let server: ReadingServer
  let retention: Retention
  const now = Date.now()
  beforeAll(async () => {
    server = await startReadingServer()
    retention = new Retention(server.context, server.store, new Registry())
  })
  afterEach(async () => {
    const { context } = server
    for (const { id } of await listAllRules(context, context.rootTenant)) await deleteRule(context, context.rootTenant, id!)
  })
  afterAll(async () => {
    await retention.stop()
    await server.close()
  })
  const create = (wanted: RetentionRuleCreate) => createRule(server.context, server.context.rootTenant, wanted)
  const ages = [1, 40, 100, 400]

  /** One point of both keys at each age in days, all in chunks. */
  async function createHistory(productId?: string): Promise<Device> {
    const device = await server.createDevice()
    if (productId) {
      await server.context.db.withTenant(server.context.rootTenant, (tx) =>
        tx.execute(sql`update devices set product_id = ${productId} where id = ${device.id}`),
      )
    }
    for (const age of ages) {
      const ts = now - age * dayMs
      await server.write(device, [
        { key: 'temperature', ts, kind: 'double', value: age },
        { key: 'door', ts, kind: 'boolean', value: true },
      ])
    }
    await server.store.compact()
    return device
  }

  async function agesOf(device: Device, key: string): Promise<number[]> {
    const found: number[] = []
    for await (const block of server.store.read(server.context.rootTenant, { deviceId: device.id, key, from: 0, to: now + dayMs })) {
      found.push(...block.map((point) => Math.round((now - point.ts) / dayMs)))
    }
    return found.sort((a, b) => a - b)
  }

  it('removes nothing without a rule', async () => {
    const device = await createHistory()
    await retention.run()
    expect(await agesOf(device, 'temperature')).toEqual(ages)
  })

  it('shows what a rule would release, releases it, and then shows nothing', async () => {
    const device = await createHistory()
    const { rule } = await create({ keepDays: 60 })
    const before = (await retention.preview(server.context.rootTenant)).items
    expect(before).toHaveLength(1)
    expect(before[0]).toMatchObject({ id: rule.id, releases: { oldestTs: now - 400 * dayMs } })
    expect(before[0]!.releases.points).toBeGreaterThanOrEqual(4)
    expect(before[0]!.releases.bytes).toBeGreaterThan(100)
    expect(await agesOf(device, 'door')).toEqual(ages)
    await retention.run()
    expect(await agesOf(device, 'door')).toEqual([1, 40])
    expect(await agesOf(device, 'temperature')).toEqual([1, 40])
    const { items, isComplete } = await retention.preview(server.context.rootTenant)
    expect([items[0]!.releases, isComplete]).toEqual([{ points: 0, bytes: 0, oldestTs: null }, true])
  })

  it('follows the most specific rule for each product and key', async () => {
    const { context } = server
    const { product } = await createProduct(context, context.rootTenant, { name: `p-${randomUUID()}` })
    const own = await createHistory(product.id)
    const other = await createHistory()
    await create({ keepDays: 200 })
    await create({ productId: product.id, keepDays: 60 })
    await create({ keyPattern: 'temp*', keepDays: 20 })
    await create({ productId: product.id, keyPattern: '*ature', keepDays: null })
    await retention.run()
    expect(await agesOf(own, 'temperature')).toEqual(ages)
    expect(await agesOf(own, 'door')).toEqual([1, 40])
    expect(await agesOf(other, 'temperature')).toEqual([1])
    expect(await agesOf(other, 'door')).toEqual([1, 40, 100])
  })

  it('tries a rule out without keeping it', async () => {
    const device = await createHistory()
    const { items } = await retention.preview(server.context.rootTenant, { productId: null, keyPattern: 'door', keepDays: 60 })
    expect(items).toHaveLength(1)
    expect(items[0]).toMatchObject({ id: null, keyPattern: 'door', releases: { oldestTs: now - 400 * dayMs } })
    await retention.run()
    expect(await agesOf(device, 'door')).toEqual(ages)
  })

  it('goes on in smaller steps when the database cancels one that takes too long', async () => {
    const { context, store } = server
    const all = [await createHistory(), await createHistory(), await createHistory()]
    await create({ keepDays: 60 })
    const sizes: number[] = []
    const slow = new Retention(
      context,
      {
        listKeys: (scope) => store.listKeys(scope),
        previewRetention: (tenantNo, batch) => store.previewRetention(tenantNo, batch),
        async applyRetention(tenantNo, batch) {
          sizes.push(batch.deviceNos.length)
          // The error of a real statement that was too slow.
          if (batch.deviceNos.length > 1) {
            await context.db.withTenant(context.rootTenant, async (tx) => {
              await tx.execute(sql`set local statement_timeout = 1`)
              await tx.execute(sql`select pg_sleep(1)`)
            })
          }
          return store.applyRetention(tenantNo, batch)
        },
      },
      new Registry(),
    )
    await slow.run()
    expect(Math.max(...sizes)).toBeGreaterThan(2)
    for (const device of all) expect(await agesOf(device, 'door')).toEqual([1, 40])
  })

  it('runs when the disk gets full', async () => {
    const device = await createHistory()
    await create({ keepDays: 60 })
    retention.start()
    server.context.events.emit('disk.level', { level: 'warn', before: 'ok' })
    server.context.events.emit('disk.level', { level: 'high', before: 'warn' })
    for (let waited = 0; (await agesOf(device, 'door')).length > 2 && waited < 10_000; waited += 50) {
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(await agesOf(device, 'door')).toEqual([1, 40])
  })
})

describe('/api/v1/retention-rules', { timeout: 30_000 }, () => {
  let platform: TestPlatform
  beforeAll(async () => {
    platform = await startTestPlatform()
  })
  afterAll(() => platform.close())
  const path = '/api/v1/retention-rules'

  it('keeps a rule, changes it by version and deletes it', async () => {
    const created = await platform.call('POST', path, { body: { keyPattern: 'debug_*', keepDays: 30 } })
    expect([created.status, created.headers.get('etag')]).toEqual([201, '"1"'])
    const { id } = created.json<{ id: string }>()
    expect(created.json()).toMatchObject({ productId: null, keyPattern: 'debug_*', keepDays: 30 })
    const changed = await platform.call('PATCH', `${path}/${id}`, { body: { keepDays: null }, headers: { 'if-match': '"1"' } })
    expect([changed.status, changed.json()['keepDays'], changed.headers.get('etag')]).toEqual([200, null, '"2"'])
    const late = await platform.call('DELETE', `${path}/${id}`, { headers: { 'if-match': '"1"' } })
    expect([late.status, late.json()['code']]).toEqual([412, 'VERSION_CONFLICT'])
    expect((await platform.call('GET', path)).json<{ items: { id: string }[] }>().items.map((rule) => rule.id)).toEqual([id])
    expect((await platform.call('DELETE', `${path}/${id}`)).status).toBe(204)
    expect((await platform.call('GET', `${path}/${id}`)).status).toBe(404)
  })

  it('has one rule for each place, and refuses what makes no sense with a code', async () => {
    expect((await platform.call('POST', path, { body: { keepDays: 730 } })).status).toBe(201)
    const cases: [unknown, number, string][] = [
      [{ keepDays: 10 }, 409, 'RETENTION_RULE_EXISTS'],
      [{ productId: null, keyPattern: null, keepDays: null }, 409, 'RETENTION_RULE_EXISTS'],
      [{ productId: randomUUID(), keepDays: 10 }, 422, 'UNPROCESSABLE'],
      [{ keepDays: 0 }, 400, 'VALIDATION_FAILED'],
      [{ keepDays: 1.5 }, 400, 'VALIDATION_FAILED'],
      [{ keyPattern: '', keepDays: 1 }, 400, 'VALIDATION_FAILED'],
      [{ keyPattern: 'a\u0000', keepDays: 1 }, 400, 'VALIDATION_FAILED'],
      [{}, 400, 'VALIDATION_FAILED'],
      [{ keepDays: 1, until: 2 }, 400, 'VALIDATION_FAILED'],
    ]
    for (const [body, status, code] of cases) {
      const answer = await platform.call('POST', path, { body })
      expect([answer.status, answer.json()['code']], JSON.stringify(body)).toEqual([status, code])
    }
    expect((await platform.call('GET', `${path}?cursor=nonsense`)).json()['code']).toBe('CURSOR_INVALID')
  })

  it('pages by cursor', async () => {
    for (const keyPattern of ['a', 'b', 'c']) await platform.call('POST', path, { body: { keyPattern, keepDays: 5 } })
    const seen: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const page = await platform.call('GET', `${path}?limit=2${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`)
      const { items, nextCursor }: { items: { id: string }[]; nextCursor: string | null } = page.json()
      seen.push(...items.map((rule) => rule.id))
      cursor = nextCursor
    }
    expect(seen).toHaveLength(new Set(seen).size)
    expect(seen).toHaveLength(4)
  })

  it('previews each rule and one that is only thought of, and says when the next run is', async () => {
    const product = await platform.call('POST', '/api/v1/products', { body: { name: 'with a rule' } })
    const productId = product.json<{ id: string }>().id
    const answer = await platform.call('GET', `${path}/preview?productId=${productId}&keyPattern=t*&keepDays=7`)
    expect(answer.status).toBe(200)
    const { items, nextAt } = answer.json<{ items: Record<string, unknown>[]; nextAt: string }>()
    expect(items.at(-1)).toEqual({
      ruleId: null,
      productId,
      keyPattern: 't*',
      keepDays: 7,
      cutoff: expect.any(String),
      releases: { points: 0, bytes: 0, oldestTs: null },
    })
    expect(new Date(nextAt).getTime()).toBeGreaterThan(Date.now())
    const forEver = await platform.call('GET', `${path}/preview?keepDays=0`)
    expect(forEver.json<{ items: Record<string, unknown>[] }>().items.at(-1)).toMatchObject({ keepDays: null, cutoff: null })
    expect((await platform.call('GET', `${path}/preview?keyPattern=x`)).json()['code']).toBe('UNPROCESSABLE')
  })

  it('goes with its product', async () => {
    const { id: productId } = (await platform.call('POST', '/api/v1/products', { body: { name: 'short-lived' } })).json<{ id: string }>()
    const { id } = (await platform.call('POST', path, { body: { productId, keepDays: 9 } })).json<{ id: string }>()
    expect((await platform.call('DELETE', `/api/v1/products/${productId}`)).status).toBe(204)
    expect((await platform.call('GET', `${path}/${id}`)).status).toBe(404)
  })
})
