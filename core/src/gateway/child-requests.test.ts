// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { gatewayTools, patienceMs } from './testing.ts'

let platform: TestPlatform
let tools: ReturnType<typeof gatewayTools>
beforeAll(async () => {
  platform = await startTestPlatform()
  tools = gatewayTools(platform)
})
afterAll(async () => {
  tools.end()
  await platform.close()
})

let lastNo = 0
const newName = (start = 'child') => `${start}-${++lastNo}`
const share = (id: string, values: unknown) => platform.call('PATCH', `/api/v1/devices/${id}/attributes/shared`, { body: values })

/** A gateway with a child that is connected. */
async function createChild(settings: Record<string, unknown> = {}) {
  const gateway = await tools.createGateway(settings)
  const name = newName()
  await gateway.session.connectChild(name)
  return { gateway, session: gateway.session, name, id: (await tools.get(name)).id }
}

describe('attributes of a child', () => {
  it('are client attributes when they come up [G-5]', async () => {
    const { gateway, session, name, id } = await createChild()
    expect(await session.publish('attributes', { [name]: { model: 'x1', big: '7' }, [newName()]: { a: 1 } })).toMatchObject({ code: 0 })
    const answer = await platform.call('GET', `/api/plugins/telemetry/DEVICE/${id}/values/attributes/CLIENT_SCOPE`)
    expect(answer.json()).toMatchObject([
      { key: 'big', value: 7 },
      { key: 'model', value: 'x1' },
    ])
    expect(await session.publish('attributes', { [name]: [{ a: 1 }] })).toMatchObject({ code: 0x99 })
    expect(await tools.rejects(gateway.id)).toMatchObject([{ code: 'SHAPE_INVALID', key: name }])
  })

  it('go down when they are shared, with and without a subscription, deletions too [G-5, M-37]', async () => {
    const { session, name, id } = await createChild()
    await share(id, { interval: 30, mode: 'eco' })
    expect(await session.next('attributes')).toEqual({ device: name, data: { interval: 30, mode: 'eco' } })
    await platform.call('DELETE', `/api/plugins/telemetry/DEVICE/${id}/SHARED_SCOPE?keys=mode`)
    expect(await session.next('attributes')).toEqual({ device: name, data: { deleted: ['mode'] } })
    await session.subscribe('v1/gateway/attributes', 0)
    await share(id, { interval: 31 })
    expect(await session.next('attributes')).toEqual({ device: name, data: { interval: 31 } })
    // A child that is not connected hears nothing.
    await session.publish('disconnect', { device: name })
    await share(id, { interval: 32 })
    await session.connectChild(name)
    await share(id, { interval: 33 })
    expect(await session.next('attributes')).toEqual({ device: name, data: { interval: 33 } })
  })

  it('that a slow gateway has not taken yet are merged key by key [M-25]', async () => {
    const { session, name, id } = await createChild()
    // Nothing is acknowledged: 50 are on their way, 1,000 wait, the rest is merged into the last.
    const changes = 1_060
    for (let no = 1; no <= changes; no++) {
      platform.context.events.emit('attributes.changed', {
        tenantId: platform.context.rootTenant.tenantId,
        deviceId: id,
        scope: 'shared',
        values: [{ key: no > 1_050 ? `k${no}` : 'k', kind: 'integer', value: no, updatedAt: 1 }],
        deleted: [],
      })
    }
    for (let no = 1; no < 1_050; no++) await session.next('attributes')
    const last = await session.next<{ device: string; data: Record<string, number> }>('attributes')
    expect(last.device).toBe(name)
    expect(last.data).toMatchObject({ k: 1050, k1051: 1051, [`k${changes}`]: changes })
  })
})

describe('an attribute request', () => {
  it.each([
    [{ client: true, key: 'c1' }, { value: 'x' }],
    [{ client: true, keys: ['c1'] }, { value: 'x' }],
    [{ client: true, keys: 'c1,c2' }, { values: { c1: 'x', c2: 2 } }],
    [{ client: true, keys: ['c2', 'missing'] }, { values: { c2: 2 } }],
    [{ client: true, keys: ['none', 'missing'] }, { values: {} }],
    [{ client: true, key: 'missing' }, {}],
    [{ client: true, key: 's1' }, {}],
    [{ client: false, key: 's1' }, { value: true }],
    [{ client: false, keys: ['s1', 's2'] }, { values: { s1: true, s2: { j: 1 } } }],
    [{ key: 's1' }, { value: true }],
    [{ client: ['c1'], shared: ['s1'] }, { values: { c1: 'x', s1: true } }],
    [{ client: ['c1'] }, { values: { c1: 'x' } }],
    [{ shared: 's1,s2' }, { values: { s1: true, s2: { j: 1 } } }],
    [{ client: [], shared: [] }, { values: {} }],
  ])('%j gets %j [G-6]', async (question, expected) => {
    const { session, name, id } = await createChild()
    await session.publish('attributes', { [name]: { c1: 'x', c2: 2 } })
    await share(id, { s1: true, s2: { j: 1 } })
    expect(await session.publish('attributes/request', { id: 2147483647, device: name, ...question })).toMatchObject({ code: 0 })
    expect(await session.next('attributes/response')).toEqual({ id: 2147483647, device: name, ...expected })
  })

  it.each([
    [{ id: 1, client: true, key: 'k' }],
    [{ device: 'a', client: true, key: 'k' }],
    [{ id: -1, device: 'a', client: true, key: 'k' }],
    [{ id: 1.5, device: 'a', client: true, key: 'k' }],
    [{ id: 1, device: 'a', client: true }],
    [{ id: 1, device: 'a', client: true, keys: [1] }],
    ['nonsense'],
  ])('%j is refused', async (question) => {
    const gateway = await tools.createGateway()
    expect(await gateway.session.publish('attributes/request', question)).toMatchObject({ code: 0x99 })
  })

  it('of a child that is not connected connects it [G-2]', async () => {
    const gateway = await tools.createGateway()
    const name = newName()
    await gateway.session.publish('attributes/request', { id: 7, device: name, client: true, key: 'k' })
    expect(await gateway.session.next('attributes/response')).toEqual({ id: 7, device: name })
    await tools.reach(name, 'online')
  })
})

describe('a command to a child', () => {
  const twoway = (id: string, body: unknown) => platform.call('POST', `/api/rpc/twoway/${id}`, { body })

  it('goes through its gateway, and its answer is given unchanged [G-7, R-2]', async () => {
    const { session, name, id } = await createChild()
    for (const data of ['{"ok":true,"n":9007199254740993,"d":3.0}', '[1]', '"text"', '1e5', 'null']) {
      const answer = twoway(id, { method: 'm', params: { pin: 7 } })
      const command = await session.next<{ data: { id: number } }>('rpc')
      expect(command).toEqual({ device: name, data: { id: expect.any(Number), method: 'm', params: { pin: 7 } } })
      await session.publish('rpc', `{"device":"${name}","id":${command.data.id},"data": ${data} }`)
      expect(await answer).toMatchObject({ status: 200, text: data })
    }
    const relaxed = twoway(id, { method: 'm' })
    const { data } = await session.next<{ data: { id: number } }>('rpc')
    await session.publish('rpc', `{device:'${name}',id:${data.id},data:{done:'yes'}}`)
    expect(await relaxed).toMatchObject({ status: 200, text: '{"done":"yes"}' })
  })

  it('that is persistent waits for the child, goes through its states, and comes in order [G-7, R-7]', async () => {
    const { session, name, id } = await createChild()
    await session.publish('disconnect', { device: name })
    const queue = async (method: string) =>
      (await platform.call('POST', `/api/v1/devices/${id}/commands`, { body: { method, persistent: true } })).json<{
        id: string
        state: string
      }>()
    const [first, second] = [await queue('first'), await queue('second')]
    expect(first.state).toBe('QUEUED')
    const reach = (command: string, state: string) =>
      until(async () => {
        const answer = await platform.call('GET', `/api/v1/devices/${id}/commands/${command}`)
        return answer.json<{ state: string }>().state === state
      }, patienceMs)
    await session.connectChild(name)
    const one = await session.next<{ data: { id: number; method: string } }>('rpc', false)
    const two = await session.next<{ data: { id: number; method: string } }>('rpc')
    expect([one.data.method, two.data.method]).toEqual(['first', 'second'])
    await reach(second.id, 'DELIVERED')
    await reach(first.id, 'SENT')
    // The child's session ends before the acknowledgement: it is sent again.
    await session.publish('disconnect', { device: name })
    await reach(first.id, 'QUEUED')
    await session.connectChild(name)
    expect(await session.next('rpc')).toMatchObject({ data: { id: one.data.id, method: 'first' } })
    await session.publish('rpc', { device: name, id: one.data.id, data: { done: true } })
    await reach(first.id, 'SUCCESSFUL')
  })

  it('that is not acknowledged ends the session of the child alone when its product says so [R-8]', async () => {
    const gateway = await tools.createGateway()
    const [type, name, other] = [newName('type'), newName(), newName()]
    await platform.call('POST', '/api/v1/products', { body: { name: type, rpc: { ackTimeoutMs: 500, closeOnAckTimeout: true } } })
    await gateway.session.connectChild(name, type)
    await gateway.session.connectChild(other)
    const { id } = await tools.reach(name, 'online')
    await platform.call('POST', `/api/v1/devices/${id}/commands`, { body: { method: 'm', persistent: true } })
    await gateway.session.next('rpc', false)
    expect(await tools.reach(name, 'offline')).toMatchObject({ disconnectReason: 'admin' })
    await tools.reach(other, 'online')
    await gateway.session.ping()
  })

  it('waits for a child that is not connected, until its time is over [R-3]', async () => {
    const { session, name, id } = await createChild()
    await session.publish('disconnect', { device: name })
    const answer = platform.call('POST', `/api/rpc/oneway/${id}`, { body: { method: 'm' } })
    await session.connectChild(name)
    expect(await session.next('rpc')).toMatchObject({ device: name, data: { method: 'm', params: null } })
    expect(await answer).toMatchObject({ status: 200 })
  })

  it('that nobody waits for any more is acknowledged and logged at the child [R-5]', async () => {
    const { session, name, id } = await createChild()
    expect(await session.publish('rpc', { device: name, id: 77, data: {} })).toMatchObject({
      code: 0,
      text: expect.stringContaining('RPC_STALE'),
    })
    expect(await tools.rejects(id)).toMatchObject([{ code: 'RPC_STALE', transport: 'gateway', topic: 'v1/gateway/rpc' }])
    expect(await session.publish('rpc', { device: name, data: {} })).toMatchObject({ code: 0x99 })
  })
})

describe('a claim of a child', () => {
  it('is kept for whoever knows its secret, child by child, and leaves no trace in logs [CL-1, L-3]', async () => {
    const gateway = await tools.createGateway()
    const [a, b, c] = [newName(), newName(), newName()]
    const answer = await gateway.session.publish('claim', { [a]: { secretKey: 'hidden' }, [b]: {}, [c]: { secretKey: ['hidden'] } })
    expect(answer).toMatchObject({ code: 0, rejected: '1' })
    const { db, rootTenant } = platform.context
    const rows = await db.withTenant(rootTenant, (tx) =>
      tx.execute<{ name: string }>(sql`
        select d.name from device_claims c join devices d on d.tenant_id = c.tenant_id and d.id = c.device_id where d.gateway_id = ${gateway.id}`),
    )
    expect(new Set(rows.map(({ name }) => name))).toEqual(new Set([a, b]))
    expect(await tools.find(c)).toBeUndefined()
    expect(await gateway.session.publish('claim', '{"a":{"secretKey":"hidden"}')).toMatchObject({ code: 0x99 })
    const log = await platform.call('GET', `/api/v1/devices/${gateway.id}/rejects`)
    expect(log.json<{ items: { code: string }[] }>().items).toHaveLength(2)
    expect(log.text).not.toContain('hidden')
  })
})

describe('the topics of gateways', () => {
  it('are no others, and none for a plain device [§2.11, M-34]', async () => {
    const gateway = await tools.createGateway()
    expect(await gateway.session.publish('nothing', {})).toMatchObject({ code: 0x90 })
    const device = await platform.createDevice()
    const plain = await tools.connect(device.token)
    expect(await plain.publish('connect', { device: newName() })).toMatchObject({ code: 0x87 })
    const older = await tools.connect((await platform.createDevice()).token, 4)
    older.send('telemetry', { a: { t: 1 } })
    await older.client.closedWithin(patienceMs)
    expect(older.has('puback')).toBe(false)
  })
})
