// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
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

/** Lets what gateways ask the database for their children wait. */
function holdLookups() {
  const { db } = platform.context
  const real = db.withTenant.bind(db)
  const { promise, resolve } = Promise.withResolvers<void>()
  let isHolding = true
  const held = {
    count: 0,
    letOthersPass: () => (isHolding = false),
    release: resolve,
    end: () => {
      resolve()
      db.withTenant = real
    },
  }
  db.withTenant = async (scope, work) => {
    if (isHolding && new Error('who asks').stack!.includes('child-devices.ts')) {
      held.count++
      await promise
    }
    return real(scope, work)
  }
  return held
}

describe('v1/gateway/connect', () => {
  it('creates the child in the product it names, and links it to the gateway [G-1]', async () => {
    const gateway = await tools.createGateway()
    const [name, type] = [newName(), newName('type')]
    await gateway.session.connectChild(`  ${name} `, type)
    expect(await tools.reach(name, 'online')).toMatchObject({ productName: type, gatewayId: gateway.id, gatewayName: gateway.name })
    expect(await tools.find(name)).toMatchObject({ type, additionalInfo: { gateway: false, lastConnectedGateway: gateway.id } })
    const other = newName()
    await gateway.session.connectChild(other)
    expect(await tools.get(other)).toMatchObject({ productName: 'default' })
    const list = await platform.call('GET', `/api/v1/devices?gatewayId=${gateway.id}&sort=name`)
    expect(list.json<{ items: { name: string }[] }>().items.map((one) => one.name)).toEqual([name, other])
    const { id } = await tools.get(name)
    const credentials = await platform.call('GET', `/api/v1/devices/${id}/credentials`)
    expect(credentials.json()).toMatchObject({ type: 'access_token', token: expect.stringMatching(/^pmsd_/) })
  })

  it('opens a session that v1/gateway/disconnect ends, and that the next message opens again [G-1, G-2, S-2]', async () => {
    const gateway = await tools.createGateway({}, 4)
    const name = newName()
    await gateway.session.connectChild(name)
    await tools.reach(name, 'online')
    await gateway.session.publish('disconnect', { device: name })
    expect(await tools.reach(name, 'offline')).toMatchObject({ disconnectReason: 'client' })
    await gateway.session.publish('telemetry', { [name]: [{ t: 1 }] })
    await tools.reach(name, 'online')
    // Whoever is not connected is not connected by saying goodbye.
    const stranger = newName()
    expect(await gateway.session.publish('disconnect', { device: stranger })).toMatchObject({ code: 0 })
    expect(await tools.find(stranger)).toBeUndefined()
  })

  it.each([
    ['{"device":""}'],
    ['{"device":"  "}'],
    ['{"device":5}'],
    ['{"type":"meter"}'],
    ['{"device":"a","type":5}'],
    [`{"device":"${'x'.repeat(256)}"}`],
    ['["a"]'],
  ])('refuses %s', async (payload) => {
    const gateway = await tools.createGateway()
    expect(await gateway.session.publish('connect', payload)).toMatchObject({ code: 0x99 })
    expect(await tools.rejects(gateway.id)).toMatchObject([{ code: 'SHAPE_INVALID', topic: 'v1/gateway/connect' }])
  })

  it('creates nothing when the product of the gateway says so [G-1]', async () => {
    const gateway = await tools.createGateway({ gateway: { autoCreate: false } })
    const [name, known] = [newName(), newName()]
    await platform.createDevice({ name: known })
    expect(await gateway.session.publish('connect', { device: name })).toMatchObject({ code: 0x87 })
    expect(await gateway.session.publish('telemetry', { [name]: [{ t: 1 }], [known]: [{ t: 2 }] })).toMatchObject({
      code: 0,
      rejected: '1',
    })
    expect(await tools.find(name)).toBeUndefined()
    expect(await tools.latest(known)).toEqual({ t: 2 })
    const rejects = await tools.rejects(gateway.id)
    expect(rejects).toContainEqual(expect.objectContaining({ code: 'CHILD_FORBIDDEN', key: name, transport: 'gateway' }))
  })

  it('creates a child once, however many messages of however many gateways name it at the same time [G-2]', async () => {
    const gateways = await Promise.all([tools.createGateway(), tools.createGateway(), tools.createGateway()])
    const names = Array.from({ length: 8 }, () => newName())
    await Promise.all(
      gateways.flatMap(({ session }, no) =>
        Array.from({ length: 6 }, (_, turn) =>
          session.publish('telemetry', Object.fromEntries(names.map((name) => [name, [{ [`g${no}t${turn}`]: turn }]]))),
        ),
      ),
    )
    const rows = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute<{ name: string }>(sql`select name from devices where name = any(${sql.param(names)}::text[])`),
    )
    expect(rows.map(({ name }) => name).toSorted()).toEqual(names.toSorted())
    expect(Object.keys(await tools.latest(names[0]!))).toHaveLength(18)
  })
})

describe('adoption', () => {
  it('takes a device that has no gateway, and one of another gateway [G-3]', async () => {
    const [first, second] = [await tools.createGateway(), await tools.createGateway()]
    const device = await platform.createDevice()
    await first.session.connectChild(device.name)
    expect(await tools.reach(device.name, 'online')).toMatchObject({ id: device.id, gatewayId: first.id })
    await second.session.connectChild(device.name)
    expect(await tools.get(device.name)).toMatchObject({ gatewayId: second.id })
    // The first one's session is over, so that its end changes nothing.
    first.session.disconnect()
    await until(() => platform.ingest.sessions.get(first.id) === undefined, patienceMs)
    await second.session.publish('telemetry', { [device.name]: { t: 1 } })
    expect(await tools.reach(device.name, 'online')).toMatchObject({ gatewayId: second.id })
  })

  it('refuses a device that connected with its own credentials lately [G-3]', async () => {
    const gateway = await tools.createGateway()
    const device = await platform.createDevice()
    const own = await tools.connect(device.token)
    expect(await gateway.session.publish('connect', { device: device.name })).toMatchObject({ code: 0x87 })
    own.disconnect()
    await tools.reach(device.name, 'offline')
    expect(await gateway.session.publish('telemetry', { [device.name]: [{ t: 1 }] })).toMatchObject({ code: 0x87 })
    expect(await tools.get(device.name)).toMatchObject({ gatewayId: null })
    expect(await tools.rejects(gateway.id)).toContainEqual(expect.objectContaining({ code: 'CHILD_FORBIDDEN', key: device.name }))
    const overHttp = await platform.createDevice()
    await platform.call('POST', `/api/v1/${overHttp.token}/telemetry`, { token: null, body: { t: 1 } })
    expect(await gateway.session.publish('connect', { device: overHttp.name })).toMatchObject({ code: 0x87 })
    // Thirty days later it may be taken; this server knows of no later time.
    const old = await platform.createDevice()
    const set = (days: number) =>
      platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
        tx.execute(sql`update devices set own_connect_at = now() - ${days} * interval '1 day' where id = ${old.id}`),
      )
    await set(29)
    expect(await gateway.session.publish('connect', { device: old.name })).toMatchObject({ code: 0x87 })
    await set(31)
    await gateway.session.connectChild(old.name)
  })

  it('refuses the gateway itself, and a device that is disabled', async () => {
    const gateway = await tools.createGateway()
    expect(await gateway.session.publish('connect', { device: gateway.name })).toMatchObject({ code: 0x87 })
    const name = newName()
    await gateway.session.connectChild(name)
    const { id } = await tools.get(name)
    await platform.call('PATCH', `/api/v1/devices/${id}`, { body: { disabled: true } })
    expect(await gateway.session.next('disconnect')).toEqual({ device: name, reason: 152 })
    expect(await gateway.session.publish('telemetry', { [name]: { t: 1 } })).toMatchObject({ code: 0x87 })
    await tools.reach(name, 'offline')
  })

  it('leaves a device with its customer, who owns what his gateway creates', async () => {
    const gateway = await tools.createGateway()
    const device = await platform.createDevice()
    const { db, rootTenant } = platform.context
    const [mine, other] = [randomUUID(), randomUUID()]
    await db.withTenant(rootTenant, async (tx) => {
      for (const id of [mine, other]) {
        await tx.execute(
          sql`insert into customers (tenant_id, id, path, name) values (${rootTenant.tenantId}, ${id}, array[${id}::uuid], ${id})`,
        )
      }
      await tx.execute(sql`update devices set customer_id = ${mine} where id = ${gateway.id}`)
      await tx.execute(sql`update devices set customer_id = ${other} where id = ${device.id}`)
    })
    expect(await gateway.session.publish('connect', { device: device.name })).toMatchObject({ code: 0x87 })
    const name = newName()
    await gateway.session.connectChild(name)
    expect(await tools.find(name)).toMatchObject({ customerId: { id: mine } })
  })

  it('ends the session of a child that connects by itself', async () => {
    const gateway = await tools.createGateway()
    const device = await platform.createDevice()
    await gateway.session.connectChild(device.name)
    const own = await tools.connect(device.token)
    expect(await gateway.session.publish('telemetry', { [device.name]: { t: 1 } })).toMatchObject({ code: 0x87 })
    await tools.reach(device.name, 'online')
    own.disconnect()
    await tools.reach(device.name, 'offline')
  })
})

describe('the session of a child', () => {
  type View = { session: unknown; gateway: { id: string; name: string; connectedAt: string; lastActivityAt: string } | null }
  const view = async (id: string) => (await platform.call('GET', `/api/v1/devices/${id}/session`)).json<View>()

  it('is shown with its gateway, since when it is open, and when the last message named it [S-6]', async () => {
    const gateway = await tools.createGateway()
    await gateway.session.connectChild('shown-child')
    const { id } = await tools.get('shown-child')
    const first = await view(id)
    expect(first).toMatchObject({ session: null, gateway: { id: gateway.id, name: gateway.name } })
    expect(Date.parse(first.gateway!.connectedAt)).toBeLessThanOrEqual(Date.now())
    await gateway.session.publish('telemetry', { 'shown-child': [{ a: 1 }] })
    const second = (await view(id)).gateway!
    expect(second.connectedAt).toBe(first.gateway!.connectedAt)
    expect(Date.parse(second.lastActivityAt)).toBeGreaterThanOrEqual(Date.parse(first.gateway!.lastActivityAt))
    await gateway.session.publish('disconnect', { device: 'shown-child' })
    expect(await view(id)).toMatchObject({ session: null, gateway: null })
  })

  it('is closed by a user, and opened again by the next message that names it [S-6]', async () => {
    const gateway = await tools.createGateway()
    await gateway.session.connectChild('closed-child')
    const { id } = await tools.reach('closed-child', 'online')
    expect((await platform.call('DELETE', `/api/v1/devices/${id}/session`)).status).toBe(204)
    expect(await view(id)).toMatchObject({ gateway: null })
    expect(await tools.reach('closed-child', 'offline')).toMatchObject({ disconnectReason: 'admin' })
    await gateway.session.publish('telemetry', { 'closed-child': [{ a: 1 }] })
    expect(await view(id)).toMatchObject({ gateway: { id: gateway.id } })
    await gateway.session.ping()
  })
})

describe('the end of a child', () => {
  it('that a user deletes is told to the gateway, and the next message makes it anew [G-8, G-9]', async () => {
    const gateway = await tools.createGateway()
    const name = newName()
    await gateway.session.connectChild(name)
    const before = await tools.get(name)
    expect((await platform.call('DELETE', `/api/v1/devices/${before.id}`)).status).toBe(204)
    expect(await gateway.session.next('disconnect')).toEqual({ device: name, reason: 152 })
    expect(await gateway.session.publish('telemetry', { [name]: [{ t: 7 }] })).toMatchObject({ code: 0 })
    const after = await tools.reach(name, 'online')
    expect(after.id).not.toBe(before.id)
    expect(await tools.latest(name)).toEqual({ t: 7 })
  })

  it('comes with that of the session of its gateway [G-10, S-2]', async () => {
    const gateway = await tools.createGateway()
    const names = [newName(), newName()]
    for (const name of names) await gateway.session.connectChild(name)
    for (const name of names) await tools.reach(name, 'online')
    gateway.session.disconnect()
    for (const name of names) expect(await tools.reach(name, 'offline')).toMatchObject({ disconnectReason: 'client' })
    // They come back with the next session, when it names them.
    const again = await tools.connect(gateway.token)
    await again.publish('attributes', { [names[0]!]: { a: 1 } })
    await tools.reach(names[0]!, 'online')
    expect(await tools.get(names[1]!)).toMatchObject({ state: 'offline' })
  })

  it('does not come with what its gateway sent before it connected anew [G-10]', async () => {
    const gateway = await tools.createGateway()
    const name = newName()
    await gateway.session.connectChild(name)
    const { id } = await tools.get(name)
    const middle = await tools.connect(gateway.token)
    const held = holdLookups()
    try {
      middle.send('telemetry', { [name]: [{ late: 1 }] })
      await until(() => held.count === 1, patienceMs)
      held.letOthersPass()
      const last = await tools.connect(gateway.token)
      await last.connectChild(name)
      held.release()
      await until(async () => (await tools.latest(name))['late'] === 1, patienceMs)
      await platform.call('PATCH', `/api/v1/devices/${id}/attributes/shared`, { body: { a: 1 } })
      expect(await last.next('attributes')).toEqual({ device: name, data: { a: 1 } })
      await tools.reach(name, 'online')
    } finally {
      held.end()
    }
  })

  it('comes when its gateway is no gateway any more, which may use none of the topics', async () => {
    const gateway = await tools.createGateway()
    const name = newName()
    await gateway.session.connectChild(name)
    const device = await platform.call('GET', `/api/device/${gateway.id}`)
    await platform.call('POST', '/api/device', { body: { ...device.json<object>(), additionalInfo: { gateway: false } } })
    await tools.reach(name, 'offline')
    expect(await gateway.session.publish('telemetry', { [name]: { t: 1 } })).toMatchObject({ code: 0x87 })
  })
})

describe('the number of children', () => {
  it('is limited by the product; those there are go on [M-26]', async () => {
    const gateway = await tools.createGateway({ limits: { maxChildDevices: 2 } })
    const names = [newName(), newName(), newName()]
    const message = Object.fromEntries(names.map((name) => [name, [{ t: 1 }]]))
    expect(await gateway.session.publish('telemetry', message)).toMatchObject({ code: 0, rejected: '1' })
    expect(await gateway.session.publish('connect', { device: newName() })).toMatchObject({ code: 0x97 })
    const device = await platform.createDevice()
    expect(await gateway.session.publish('attributes', { [device.name]: { a: 1 } })).toMatchObject({ code: 0x97 })
    expect(await gateway.session.publish('telemetry', { [names[0]!]: { t: 2 } })).toMatchObject({ code: 0 })
    expect(await tools.rejects(gateway.id)).toContainEqual(expect.objectContaining({ code: 'DEVICE_LIMIT', key: device.name }))
    await until(async () => {
      const log = await platform.call('GET', `/api/v1/devices/${gateway.id}/log`)
      return log.json<{ items: { event: string }[] }>().items.some(({ event }) => event === 'child_limit')
    }, patienceMs)
    // One that is deleted makes room.
    await platform.call('DELETE', `/api/v1/devices/${(await tools.get(names[0]!)).id}`)
    await gateway.session.connectChild(device.name)
  })

  it('answers a gateway of MQTT 3.1.1 with a plain PUBACK [§2.11]', async () => {
    const gateway = await tools.createGateway({ limits: { maxChildDevices: 0 } }, 4)
    expect(await gateway.session.publish('connect', { device: newName() })).toMatchObject({ code: 0 })
    await gateway.session.ping()
  })
})

it('a gateway speaks for itself on the plain topics [G-11]', async () => {
  const gateway = await tools.createGateway()
  gateway.session.client.publish('v1/devices/me/telemetry', '{"own":1}', { messageId: 900 })
  await until(async () => (await tools.latest(gateway.name))['own'] !== undefined, patienceMs)
  expect(await tools.latest(gateway.name)).toEqual({ own: 1 })
})
