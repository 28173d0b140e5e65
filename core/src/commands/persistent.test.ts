// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { commandTools, patienceMs } from './testing.ts'
import type { Command } from './testing.ts'

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

const day = 86_400_000

describe('a persistent command', () => {
  it('waits for its device; ten arrive in order, answered or only delivered [R-6, R-7, R-12]', async () => {
    const device = await platform.createDevice()
    const stored: Command[] = []
    for (let count = 0; count < 10; count++) {
      stored.push(await tools.queue(device.id, { params: count, kind: count % 2 === 0 ? 'twoway' : 'oneway' }))
    }
    expect(stored[0]).toMatchObject({
      requestId: 1,
      method: 'm',
      params: 0,
      kind: 'twoway',
      state: 'QUEUED',
      response: null,
      attempts: 0,
      retries: 5,
    })
    const session = await tools.listen(device)
    for (let count = 0; count < 10; count++) {
      expect(await session.next()).toMatchObject({ no: count + 1, qos: 1, body: { method: 'm', params: count } })
    }
    for (const { requestId } of stored.filter((_, count) => count % 2 === 0)) await session.answer(requestId, `{"big":9007199254740993}`)
    for (const [count, { id }] of stored.entries()) {
      const done = await tools.reach(device.id, id, count % 2 === 0 ? 'SUCCESSFUL' : 'DELIVERED')
      expect(tools.states(done)).toEqual(['QUEUED', 'SENT', 'DELIVERED', ...(count % 2 === 0 ? ['SUCCESSFUL'] : [])])
    }
    const text = (await platform.call('GET', `/api/v1/devices/${device.id}/commands/${stored[0]!.id}`)).text
    expect(text).toContain('"response":{"big":9007199254740993}')
    const page = (await platform.call('GET', `/api/v1/devices/${device.id}/commands?limit=6`)).json<{
      items: Command[]
      nextCursor: string
    }>()
    const rest = (await platform.call('GET', `/api/v1/devices/${device.id}/commands?limit=6&cursor=${page.nextCursor}`)).json<{
      items: Command[]
    }>()
    expect([...page.items, ...rest.items].map((one) => one.requestId)).toEqual([10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
  })

  it('is delivered at once when it was written at QoS 0', async () => {
    const device = await platform.createDevice()
    const { id } = await tools.queue(device.id, { kind: 'oneway' })
    const session = await tools.listen(device, 0)
    expect(await session.next()).toMatchObject({ no: 1, qos: 0 })
    expect(tools.states(await tools.reach(device.id, id, 'DELIVERED'))).toEqual(['QUEUED', 'DELIVERED'])
  })

  it('of a connected device goes out without waiting, many as fast as they are acknowledged', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const stored = await Promise.all(Array.from({ length: 130 }, () => tools.queue(device.id, { kind: 'oneway' })))
    const numbers: number[] = []
    for (let count = 0; count < 130; count++) numbers.push((await session.next()).no)
    expect(new Set(numbers).size).toBe(130)
    for (const { id } of stored) await tools.reach(device.id, id, 'DELIVERED')
  })

  it('that is answered before it is acknowledged is successful all the same', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id)
    const { no, packetId } = await session.next(false)
    await session.answer(no, '{"ok":1}')
    session.client.put({ cmd: 'puback', messageId: packetId! })
    await session.client.ping()
    expect(tools.states(await tools.reach(device.id, id, 'SUCCESSFUL'))).toEqual(['QUEUED', 'SENT', 'SUCCESSFUL'])
    expect(await session.answer(no, '{"ok":2}')).toBe(0)
    await until(() => tools.hasReject(device.id, 'RPC_STALE'), patienceMs)
    expect((await tools.get(device.id, id)).response).toEqual({ ok: 1 })
  })

  it('lives 7 days, or its time-out of at least 5 s, or until the given time [R-10]', async () => {
    const device = await platform.createDevice()
    const life = async (body: Record<string, unknown>) => {
      const { createdAt, expiresAt } = (await tools.post(device.id, { method: 'm', persistent: true, ...body })).json<
        Record<string, string>
      >()
      return Date.parse(expiresAt!) - Date.parse(createdAt!)
    }
    expect(await life({})).toBe(7 * day)
    expect(await life({ timeoutMs: 1 })).toBe(5000)
    expect(await life({ timeoutMs: day })).toBe(day)
    const at = Date.now() + 3 * day
    const until3 = await tools.post(device.id, { method: 'm', persistent: true, timeoutMs: 1, expiresAt: at })
    expect(until3.json()).toMatchObject({ expiresAt: new Date(at).toISOString() })
    const past = await tools.post(device.id, { method: 'm', persistent: true, expiresAt: Date.now() - 1 })
    expect(past.json()).toMatchObject({ status: 422, code: 'UNPROCESSABLE' })
    const { id } = await tools.queue(device.id, { expiresAt: Date.now() + 300 })
    expect(tools.states(await tools.reach(device.id, id, 'EXPIRED'))).toEqual(['QUEUED', 'EXPIRED'])
  })

  it('expires while its answer is waited for, and takes no answer then [R-5]', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id, { expiresAt: Date.now() + 1500 })
    const { no } = await session.next()
    await tools.reach(device.id, id, 'EXPIRED')
    expect(await session.answer(no, '{}')).toBe(0)
    await until(() => tools.hasReject(device.id, 'RPC_STALE'), patienceMs)
    expect((await tools.get(device.id, id)).state).toBe('EXPIRED')
  })

  it('that was taken back is never sent; one that has ended stays [§16.5]', async () => {
    const device = await platform.createDevice()
    const [first, second] = [await tools.queue(device.id, { kind: 'oneway' }), await tools.queue(device.id, { kind: 'oneway' })]
    const remove = (id: string) => platform.call('DELETE', `/api/v1/devices/${device.id}/commands/${id}`)
    expect((await remove(first.id)).status).toBe(204)
    const session = await tools.listen(device)
    expect(await session.next()).toMatchObject({ no: second.requestId })
    await tools.reach(device.id, second.id, 'DELIVERED')
    expect((await remove(second.id)).status).toBe(204)
    expect((await tools.get(device.id, second.id)).state).toBe('DELIVERED')
    expect(tools.states(await tools.get(device.id, first.id))).toEqual(['QUEUED', 'DELETED'])
    const other = await platform.createDevice()
    expect((await platform.call('DELETE', `/api/v1/devices/${other.id}/commands/${first.id}`)).status).toBe(404)
    expect((await platform.call('GET', `/api/v1/devices/${other.id}/commands/${first.id}`)).status).toBe(404)
  })

  it('is refused when a thousand are open [R-11]', async () => {
    const device = await platform.createDevice()
    await tools.queue(device.id)
    await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`insert into commands (tenant_id, id, device_id, no, method, params, oneway, state, retries, created_by, created_at, expires_at, updated_at)
        select tenant_id, gen_random_uuid(), device_id, 100 + n, method, params, oneway, state, retries, created_by, created_at, expires_at, updated_at
        from commands, generate_series(1, 999) n where device_id = ${device.id}`),
    )
    const full = await tools.post(device.id, { method: 'm', persistent: true })
    expect(full.json()).toMatchObject({ status: 409, code: 'COMMAND_QUEUE_FULL' })
    const compat = await platform.call('POST', `/api/rpc/oneway/${device.id}`, { body: { method: 'm', persistent: true } })
    expect(compat.json()).toMatchObject({ status: 400, errorCode: 31 })
  })

  it('is told to who watches the device, with each of its moves [R-12]', async () => {
    const device = await platform.createDevice()
    const moves: [string, string][] = []
    const stop = platform.context.events.on('command.moved', ({ deviceId, command }) => {
      if (deviceId === device.id) moves.push([command.id, command.state])
    })
    const { id } = await tools.queue(device.id)
    const session = await tools.listen(device)
    await session.answer((await session.next()).no, '1')
    await until(() => moves.length === 4, patienceMs)
    stop()
    expect(moves).toEqual(['QUEUED', 'SENT', 'DELIVERED', 'SUCCESSFUL'].map((state) => [id, state]))
  })

  it('that has ended long ago is forgotten with its moves', async () => {
    const device = await platform.createDevice()
    const [ended, open] = [await tools.queue(device.id), await tools.queue(device.id)]
    await platform.call('DELETE', `/api/v1/devices/${device.id}/commands/${ended.id}`)
    const scope = platform.context.rootTenant
    await platform.context.db.withTenant(scope, (tx) =>
      tx.execute(sql`update commands set updated_at = now() - interval '31 days' where device_id = ${device.id}`),
    )
    await platform.ingest.commands.removeOld(scope)
    const { items } = (await platform.call('GET', `/api/v1/devices/${device.id}/commands`)).json<{ items: Command[] }>()
    expect(items.map((one) => one.id)).toEqual([open.id])
  })
})

describe('a database that does not answer', () => {
  it('makes the answer of a device wait, and loses none [M-29]', { timeout: 60_000 }, async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id)
    const { no } = await session.next()
    await tools.reach(device.id, id, 'DELIVERED')
    const admin = postgres(platform.context.config.database.migrateUrl!, { max: 1, onnotice: () => {} })
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const locked = Promise.withResolvers<void>()
    // Longer than any statement waits for a lock, so that the first try fails.
    const holding = admin.begin(async (tx) => {
      await tx`lock table commands in access exclusive mode`
      locked.resolve()
      await released
    })
    await locked.promise
    let isAnswered = false
    const answered = session.answer(no, '{"kept":true}').then((code) => {
      isAnswered = true
      return code
    })
    await sleep(6500)
    expect(isAnswered).toBe(false)
    release()
    await holding
    await admin.end()
    expect(await answered).toBe(0)
    expect((await tools.get(device.id, id)).response).toEqual({ kept: true })
  })
})

describe('a repeated request', () => {
  it('with the same Idempotency-Key stores one command', async () => {
    const device = await platform.createDevice()
    const post = () =>
      platform.call('POST', `/api/v1/devices/${device.id}/commands`, {
        body: { method: 'm', persistent: true },
        headers: { 'idempotency-key': `key-${device.id}` },
      })
    const [first, second] = [await post(), await post()]
    expect([first.status, second.status]).toEqual([201, 201])
    expect(second.json<Command>().id).toBe(first.json<Command>().id)
  })
})

describe('commands of ThingsBoard clients [§16.5]', () => {
  it('are shown one by one and as a page, and taken back', async () => {
    const device = await platform.createDevice()
    const send = async (body: Record<string, unknown>) =>
      (await platform.call('POST', `/api/rpc/twoway/${device.id}`, { body: { persistent: true, ...body } })).json<{ rpcId: string }>().rpcId
    const expirationTime = Date.now() + day
    const first = await send({ method: 'a', params: { x: 1 }, expirationTime, additionalInfo: { note: 'x' }, retries: 99 })
    const second = await send({ method: 'b' })
    expect((await platform.call('GET', `/api/rpc/persistent/${first}`)).json()).toEqual({
      id: { entityType: 'RPC', id: first },
      createdTime: expect.any(Number) as number,
      tenantId: { entityType: 'TENANT', id: platform.context.rootTenant.tenantId },
      deviceId: { entityType: 'DEVICE', id: device.id },
      expirationTime,
      request: { id: first, oneway: false, persisted: true, body: { method: 'a', params: '{"x":1}' } },
      response: null,
      status: 'QUEUED',
      additionalInfo: { note: 'x' },
    })
    const page = async (query: string) =>
      (await platform.call('GET', `/api/rpc/persistent/device/${device.id}?${query}`)).json<{
        data: { id: { id: string } }[]
        totalElements: number
        hasNext: boolean
      }>()
    const ids = async (query: string) => (await page(query)).data.map((one) => one.id.id)
    expect(await ids('pageSize=10&page=0')).toEqual([second, first])
    expect(await ids('pageSize=10&page=0&sortOrder=ASC')).toEqual([first, second])
    expect(await ids('pageSize=10&page=0&sortProperty=expirationTime&sortOrder=ASC')).toEqual([first, second])
    expect(await page('pageSize=1&page=0')).toMatchObject({ totalElements: 2, hasNext: true })
    expect(await platform.call('DELETE', `/api/rpc/persistent/${first}`)).toMatchObject({ status: 200, text: '' })
    expect(await ids('pageSize=10&page=0&rpcStatus=DELETED')).toEqual([first])
    expect(await ids('pageSize=10&page=0&rpcStatus=QUEUED')).toEqual([second])
    expect((await platform.call('GET', `/api/rpc/persistent/device/${device.id}`)).json()).toMatchObject({ status: 400, errorCode: 31 })
    expect((await platform.call('GET', `/api/rpc/persistent/${device.id}`)).json()).toMatchObject({ status: 404, errorCode: 32 })
  })
})
