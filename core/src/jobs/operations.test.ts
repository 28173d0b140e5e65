// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ProblemError } from '../errors.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { OperationDef, Operations } from './operations.ts'

let platform: TestPlatform
let operations: Operations
let actor: Parameters<Operations['create']>[1]
const soon = { timeout: 40_000, interval: 50 }
const Input = Type.Object({ items: Type.Array(Type.String()) })
let breaks = 0
let gate: Promise<void> = Promise.resolve()

/** Writes each item down; one named `bad` cannot be done, one named `refused` ends all of it. */
const writing: OperationDef<typeof Input> = {
  kind: 'test.write',
  input: Input,
  count: async (_, { items }) => items.length,
  async step(tx, { tenantId }, { items }, cursor) {
    await gate
    const at = typeof cursor === 'number' ? cursor : 0
    const item = items[at]!
    if (item === 'refused') throw new ProblemError('NOT_FOUND')
    if (item !== 'bad') {
      await tx.execute(
        sql`insert into state_documents (tenant_id, scope, key, value) values (${tenantId}, 'operation', ${`${item} ${Math.random()}`}, '{}')`,
      )
    }
    if (breaks-- > 0) throw new Error('the server dies here')
    const failures = item === 'bad' ? [{ item, code: 'BAD', detail: '=it is bad' }] : []
    return { done: 1, failures, ...(at + 1 < items.length ? { cursor: at + 1 } : { result: { last: item } }) }
  },
  only: (_, items) => ({ items }),
}

beforeAll(async () => {
  platform = await startTestPlatform()
  const { context } = platform
  operations = platform.operations
  operations.define(writing)
  const me = (await platform.call('GET', '/api/v1/me')).json<{ user: { id: string } }>()
  actor = {
    kind: 'user',
    userId: me.user.id,
    name: 'admin',
    sessionId: undefined,
    authenticatedAt: 0,
    permissions: new Set(['job.read', 'job.write']),
    scope: context.rootTenant,
  }
})
afterAll(() => platform.close())

const create = (...items: string[]) =>
  platform.context.db.withTenant(platform.context.rootTenant, (tx) => operations.create(tx, actor, writing, { items }))
type View = {
  id: string
  state: string
  progress: { done: number; total: number | null }
  result: unknown
  failures: { count: number; url: string }
  startedAt: string | null
  finishedAt: string | null
}
const read = async (id: string) => (await platform.call('GET', `/api/v1/jobs/${id}`)).json<View>()
const written = async (item: string) => {
  const [row] = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
    tx.execute<{ n: number }>(sql`select count(*)::int as n from state_documents where scope = 'operation' and key like ${`${item} %`}`),
  )
  return row!.n
}

describe('an operation', () => {
  it('goes on where it was after a crash, and does nothing twice', async () => {
    breaks = 1
    const { id } = await create('a', 'b', 'c')
    await vi.waitFor(async () => expect(await read(id)).toMatchObject({ state: 'succeeded', progress: { done: 3, total: 3 } }), soon)
    expect(await Promise.all(['a', 'b', 'c'].map(written))).toEqual([1, 1, 1])
    expect(await read(id)).toMatchObject({
      kind: 'test.write',
      result: { last: 'c' },
      failures: { count: 0 },
      startedAt: expect.any(String),
      finishedAt: expect.any(String),
    })
  })

  it('names what it could not do, also as CSV, and does that alone once more', async () => {
    const { id } = await create('d', 'bad', 'e')
    await vi.waitFor(async () => expect(await read(id)).toMatchObject({ state: 'succeeded', failures: { count: 1 } }), soon)
    const { url } = (await read(id)).failures
    expect((await platform.call('GET', url)).json()).toEqual({ items: [{ item: 'bad', code: 'BAD', detail: '=it is bad' }] })
    const csv = await platform.call('GET', `${url}?format=csv`)
    expect([csv.headers.get('content-type'), csv.text.split('\r\n')[1]]).toEqual(['text/csv; charset=utf-8', `"bad","BAD","'=it is bad"`])
    const again = await platform.call('POST', `/api/v1/jobs/${id}/retry`, { body: {} })
    expect(again.status).toBe(202)
    expect(again.headers.get('location')).toBe(`/api/v1/jobs/${again.json<View>().id}`)
    expect(again.json()).toMatchObject({ progress: { done: 0, total: 1 } })
    expect(await written('d')).toBe(1)
  })

  it('is canceled between two steps, and not after its end', async () => {
    let open = () => {}
    gate = new Promise((resolve) => (open = resolve))
    const { id } = await create('f', 'g', 'h')
    const cancel = () => platform.call('POST', `/api/v1/jobs/${id}/cancel`, { body: {} })
    const canceled = cancel()
    open()
    expect((await canceled).status).toBe(200)
    await vi.waitFor(async () => expect((await read(id)).state).toBe('canceled'), soon)
    expect(await written('h')).toBe(0)
    expect((await cancel()).json()).toMatchObject({ code: 'JOB_STATE' })
    expect((await platform.call('POST', `/api/v1/jobs/${id}/retry`, { body: {} })).status).toBe(409)
  })

  it('ends with the reason when it is refused', async () => {
    const { id } = await create('i', 'refused', 'j')
    await vi.waitFor(async () => expect(await read(id)).toMatchObject({ state: 'failed', failures: { count: 1 } }), soon)
    expect((await platform.call('GET', `/api/v1/jobs/${id}/failures`)).json()).toMatchObject({ items: [{ code: 'NOT_FOUND' }] })
    expect([await written('i'), await written('j')]).toEqual([1, 0])
  })

  it('is seen by whoever asked for it, and by those who may see all', async () => {
    const { id } = await create('k')
    const viewer = await platform.login('viewer')
    expect((await platform.call('GET', `/api/v1/jobs/${id}`, { token: viewer })).status).toBe(404)
    expect((await platform.call('GET', '/api/v1/jobs', { token: viewer })).json()).toEqual({ items: [], nextCursor: null })
    const [first] = (await platform.call('GET', '/api/v1/jobs?limit=1')).json<{ items: { id: string }[] }>().items
    expect(first!.id).toBe(id)
  })

  it('tries all failed notifications again, but those whose channel cannot send', async () => {
    const make = async (name: string) => {
      const body = { name, type: 'feishu', config: { token: `${name}-token-0001` } }
      return (await platform.call('POST', '/api/v1/notifications/channels', { body })).json<{ id: string }>().id
    }
    const [good, off] = [await make('good'), await make('off')]
    const scheduledAt = new Date(Date.now() + 3_600_000).toISOString()
    for (const channelId of [good, good, off]) {
      await platform.call('POST', '/api/v1/notifications/messages', { body: { to: { channelId }, text: 'x', scheduledAt } })
    }
    await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`update notify_deliveries set state = 'failed'`),
    )
    await platform.call('POST', `/api/v1/notifications/channels/${off}/disable`, { body: {} })
    const answer = await platform.call('POST', '/api/v1/notifications/deliveries/retry-all', { body: {} })
    expect(answer.status).toBe(202)
    const { id } = answer.json<View>()
    expect(answer.headers.get('location')).toBe(`/api/v1/jobs/${id}`)
    await vi.waitFor(
      async () => expect(await read(id)).toMatchObject({ state: 'succeeded', progress: { done: 3, total: 3 }, failures: { count: 1 } }),
      soon,
    )
    expect((await platform.call('GET', `/api/v1/notifications/deliveries?channelId=${off}`)).json()).toMatchObject({
      items: [{ state: 'failed' }],
    })
  })
})
