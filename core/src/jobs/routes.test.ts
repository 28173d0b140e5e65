// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { defineJob } from './define.ts'

let platform: TestPlatform
let tenantId: string
let fails = true
const soon = { timeout: 20_000, interval: 50 }
const def = defineJob({
  name: 'test-console',
  title: { zh: '控制台', en: 'Console' },
  data: Type.Object({ tenantId: Type.String(), token: Type.String() }),
  batch: 10,
  perNode: 1,
  retry: { strategy: 'never' },
  expireMs: 60_000,
  deadLetter: true,
})

beforeAll(async () => {
  platform = await startTestPlatform()
  tenantId = platform.context.rootTenant.tenantId
  await platform.context.jobs.handle(def, async () => {
    if (fails) throw new Error('not now')
  })
})
afterAll(() => platform.close())

it('shows queues, their jobs without secrets, and puts dead letters back', async () => {
  const id = await platform.context.jobs.send(def, { tenantId, token: 'abc' })
  const dead = async () => (await platform.call('GET', '/api/v1/job-queues/test-console')).json<{ dead: number; hasHandler: boolean }>()
  await vi.waitFor(async () => expect(await dead()).toMatchObject({ dead: 1, hasHandler: true }), soon)
  const detail = await platform.call('GET', `/api/v1/job-queues/test-console/jobs/${id}`)
  expect(detail.json()).toMatchObject({ state: 'failed', data: { token: '***' }, output: { message: 'not now' } })
  const list = await platform.call('GET', '/api/v1/job-queues/test-console.dead/jobs?limit=1')
  expect(list.json<{ items: unknown[] }>().items).toHaveLength(1)
  const preview = await platform.call('POST', '/api/v1/job-queues/test-console/dead/redrive', { body: { dryRun: true } })
  expect(preview.json()).toMatchObject({ total: 1, destinations: [{ name: 'test-console', count: 1 }], moved: 0 })
  fails = false
  const moved = await platform.call('POST', '/api/v1/job-queues/test-console/dead/redrive', { body: {} })
  expect(moved.json()).toMatchObject({ moved: 1 })
  await vi.waitFor(async () => expect((await dead()).dead).toBe(0), soon)
  expect((await platform.call('POST', `/api/v1/job-queues/test-console/jobs/${id}/cancel`, { body: {} })).json()).toMatchObject({
    code: 'JOB_STATE',
  })
  expect((await platform.call('POST', '/api/v1/job-queues/test-console/dead/redrive', { body: { sourceName: 'nobody' } })).status).toBe(422)
  expect((await platform.call('GET', '/api/v1/job-queues/nobody')).status).toBe(404)
})

it('pages through jobs by cursor', async () => {
  fails = false
  for (let i = 0; i < 3; i++) await platform.context.jobs.send(def, { tenantId, token: `t${i}` })
  const ids: string[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const answer = await platform.call('GET', `/api/v1/job-queues/test-console/jobs?limit=2${cursor ? `&cursor=${cursor}` : ''}`)
    const page = answer.json<{ items: { id: string }[]; nextCursor: string | null }>()
    ids.push(...page.items.map((one) => one.id))
    cursor = page.nextCursor
  }
  expect(new Set(ids).size).toBe(ids.length)
  expect(ids.length).toBeGreaterThanOrEqual(4)
})

it('keeps schedules with their next instants, and runs one now', async () => {
  const draft = { name: '每日', queue: 'test-console', cron: '0 8 * * 1', zone: 'Asia/Shanghai', data: { token: 'x' } }
  const made = await platform.call('POST', '/api/v1/schedules', { body: draft })
  expect(made.status, made.text).toBe(201)
  const { id, next, data } = made.json<{ id: string; next: string[]; data: unknown }>()
  expect(next).toHaveLength(3)
  expect(data).toEqual({ token: 'x' })
  expect((await platform.call('POST', '/api/v1/schedules', { body: draft })).json()).toMatchObject({ code: 'NAME_TAKEN' })
  expect((await platform.call('POST', '/api/v1/schedules', { body: { ...draft, name: 'b', cron: '99 * * * *' } })).json()).toMatchObject({
    code: 'CRON_INVALID',
  })
  const changed = await platform.call('PATCH', `/api/v1/schedules/${id}`, { body: { enabled: false }, headers: { 'if-match': '"1"' } })
  expect(changed.json()).toMatchObject({ enabled: false, next: [] })
  expect(
    (await platform.call('PATCH', `/api/v1/schedules/${id}`, { body: { enabled: true }, headers: { 'if-match': '"1"' } })).status,
  ).toBe(412)
  expect((await platform.call('POST', `/api/v1/schedules/${id}/run`, { body: {} })).status).toBe(202)
  expect((await platform.call('GET', '/api/v1/schedules/preview?cron=0+0+*+*+*&count=2')).json<{ items: string[] }>().items).toHaveLength(2)
  expect((await platform.call('DELETE', `/api/v1/schedules/${id}`)).status).toBe(204)
})

it('lists workers and restarts one', async () => {
  const names = (await platform.call('GET', '/api/v1/workers')).json<{ items: { name: string; state: string }[] }>().items
  expect(names).toContainEqual(expect.objectContaining({ name: 'schedules', state: 'running' }))
  expect((await platform.call('POST', '/api/v1/workers/test-console/restart', { body: {} })).status).toBe(204)
  expect((await platform.call('POST', '/api/v1/workers/nobody/restart', { body: {} })).status).toBe(404)
  const id = await platform.context.jobs.send(def, { tenantId, token: 'after' })
  await vi.waitFor(
    async () =>
      expect((await platform.call('GET', `/api/v1/job-queues/test-console/jobs/${id}`)).json()).toMatchObject({ state: 'completed' }),
    soon,
  )
})

it('counts runs for Prometheus', async () => {
  const text = (await platform.call('GET', '/metrics')).text
  expect(text).toMatch(/iot_pms_job_runs_total\{queue="test-console",outcome="completed"\} [1-9]/)
})
