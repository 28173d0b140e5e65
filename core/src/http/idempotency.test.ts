// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestAnswer, TestPlatform } from '../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

const create = (key: string, body: unknown, token?: string): Promise<TestAnswer> =>
  platform.call('POST', '/api/v1/devices', { body, headers: { 'idempotency-key': key }, ...(token ? { token } : {}) })

describe('Idempotency-Key', () => {
  it('gives the first answer again, secret included, and creates nothing twice', async () => {
    const first = await create('key-1', { name: 'once' })
    const again = await create('key-1', { name: 'once' })
    expect([first.status, again.status, again.headers.get('idempotency-replayed')]).toEqual([201, 201, 'true'])
    expect(again.json()).toEqual(first.json())
    const rows = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`select sealed_body from idempotency_keys where key = 'key-1'`),
    )
    expect(JSON.stringify(rows)).not.toContain(first.json<{ credentials: { token: string } }>().credentials.token)
  })

  it('repeats a refusal too, and refuses another request under the same key', async () => {
    await platform.createDevice({ name: 'taken' })
    const refused = await create('key-2', { name: 'taken' })
    const again = await create('key-2', { name: 'taken' })
    expect([refused.status, again.status, again.json()['code']]).toEqual([409, 409, 'NAME_TAKEN'])
    const other = await create('key-2', { name: 'free' })
    expect([other.status, other.json()['code']]).toEqual([422, 'IDEMPOTENCY_MISMATCH'])
  })

  it('lets one of many at the same time through', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => create('key-3', { name: 'racing' })))
    const made = new Set(answers.filter((answer) => answer.status === 201).map((answer) => answer.json()['id']))
    expect(made.size).toBe(1)
    for (const answer of answers) expect([201, 409]).toContain(answer.status)
    expect((await platform.call('GET', '/api/v1/devices?q=racing')).json<{ items: unknown[] }>().items).toHaveLength(1)
  })

  it('belongs to one user, and must be visible ASCII', async () => {
    const operator = await platform.login('operator')
    expect((await create('key-1', { name: 'another' }, operator)).status).toBe(201)
    for (const key of ['', ' ', 'x'.repeat(129)]) {
      expect((await create(key, { name: 'never' })).status, key).toBe(400)
    }
  })
})
