// SPDX-License-Identifier: AGPL-3.0-only
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { commandTools, patienceMs } from './testing.ts'

let platform: TestPlatform
let tools: ReturnType<typeof commandTools>
beforeAll(async () => {
  platform = await startTestPlatform()
  tools = commandTools(platform)
})
afterAll(async () => {
  tools.end()
  await platform.close()
})

const poll = (token: string, query = '') => platform.call('GET', `/api/v1/${token}/rpc${query}`, { token: null })
const answer = (token: string, no: number | string, body?: string | Buffer) =>
  platform.call('POST', `/api/v1/${token}/rpc/${no}`, { token: null, ...(body === undefined ? {} : { body }) })
const isPolling = (id: string) => platform.ingest.polls.has(id, 'rpc')

describe('commands over HTTP [§11]', () => {
  it('come one per poll, the oldest first, and are delivered when they are written', async () => {
    const device = await platform.createDevice()
    const stored = [await tools.queue(device.id, { params: [1] }), await tools.queue(device.id, { kind: 'oneway' })]
    const first = await poll(device.token)
    expect(first).toMatchObject({ status: 200, text: '{"id":1,"method":"m","params":[1]}' })
    expect(first.headers.get('content-type')).toContain('application/json')
    expect((await poll(device.token)).json()).toEqual({ id: 2, method: 'm', params: null })
    for (const { id } of stored) expect(tools.states(await tools.reach(device.id, id, 'DELIVERED'))).toEqual(['QUEUED', 'DELIVERED'])
    expect(await answer(device.token, 1, '{"ok":true}')).toMatchObject({ status: 200, text: '' })
    expect((await tools.reach(device.id, stored[0]!.id, 'SUCCESSFUL')).response).toEqual({ ok: true })
  })

  it('that are waited for reach a poll that waits, and its answer the caller [R-2, R-3]', async () => {
    const device = await platform.createDevice()
    const waiting = poll(device.token)
    await until(() => isPolling(device.id), patienceMs)
    const called = platform.call('POST', `/api/rpc/twoway/${device.id}`, { body: { method: 'get', params: { a: 1 }, timeout: 60_000 } })
    const { id } = (await waiting).json<{ id: number }>()
    expect((await answer(device.token, id, 'plain text')).status).toBe(200)
    expect(await called).toMatchObject({ status: 200, text: '"plain text"' })
    const oneway = tools.post(device.id, { method: 'm', kind: 'oneway', timeoutMs: 60_000 })
    expect((await poll(device.token)).status).toBe(200)
    expect((await oneway).status).toBe(200)
  })

  it('do not come: the poll ends in 408, and a second poll ends the first [H-3]', async () => {
    const device = await platform.createDevice()
    const ended = await poll(device.token, '?timeout=100')
    expect(ended.json()).toMatchObject({ status: 408, code: 'POLL_TIMEOUT' })
    const first = poll(device.token)
    await until(() => isPolling(device.id), patienceMs)
    const second = poll(device.token)
    expect((await first).status).toBe(408)
    await tools.queue(device.id)
    expect((await second).status).toBe(200)
  })

  it('are kept when the device leaves before it was written to [R-9]', async () => {
    const device = await platform.createDevice()
    const left = request(`${platform.url}/api/v1/${device.token}/rpc`)
    left.on('error', () => {})
    left.end()
    await until(() => isPolling(device.id), patienceMs)
    left.destroy()
    await until(() => !isPolling(device.id), patienceMs)
    const { id } = await tools.queue(device.id)
    expect((await tools.get(device.id, id)).state).toBe('QUEUED')
    expect((await poll(device.token)).json()).toMatchObject({ id: 1 })
  })

  it('are sent to the session of a device that has one besides', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    await tools.queue(device.id)
    expect((await session.next()).no).toBe(1)
  })

  it('are answered with an empty body too, and refused when the answer is none [H-4, R-5]', async () => {
    const device = await platform.createDevice()
    const { id } = await tools.queue(device.id)
    await poll(device.token)
    expect((await answer(device.token, 1)).status).toBe(200)
    expect((await tools.reach(device.id, id, 'SUCCESSFUL')).response).toBeNull()
    expect(await answer(device.token, 1, '{}'), 'an answer nobody waits for').toMatchObject({ status: 200, text: '' })
    await until(() => tools.hasReject(device.id, 'RPC_STALE'), patienceMs)
    for (const wrong of ['x', '-1', '2147483648', '01']) {
      expect((await answer(device.token, wrong, '{}')).json(), wrong).toMatchObject({ status: 400, code: 'SHAPE_INVALID' })
    }
    expect((await answer(device.token, 1, `"${'x'.repeat(65_536)}"`)).json()).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' })
    expect((await answer('unknown-token', 1, '{}')).status).toBe(401)
    expect((await poll('unknown-token', '?timeout=1')).status).toBe(401)
    expect((await poll(device.token, '?timeout=x')).status).toBe(400)
  })

  it('count for the rate of the device [§15.2]', async () => {
    const name = `product-${Math.random()}`
    const product = await platform.call('POST', '/api/v1/products', { body: { name, limits: { device: { messages: '2:600' } } } })
    const device = await platform.createDevice({ productId: product.json<{ id: string }>().id })
    await tools.queue(device.id)
    expect((await poll(device.token)).status).toBe(200)
    expect((await answer(device.token, 1, '1')).status).toBe(200)
    expect((await poll(device.token, '?timeout=1')).json()).toMatchObject({ status: 429, code: 'RATE_LIMITED' })
  })
})
