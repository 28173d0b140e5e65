// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../ingest/mqtt/testing.ts'
import { countStoredPoints, startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { HeldClock } from '../testing-clock.ts'
import { Gateways } from './gateways.ts'
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

describe('telemetry of children', () => {
  it('in one message is acknowledged once, after all of it is committed [G-4]', async () => {
    const gateway = await tools.createGateway()
    const [a, b, c] = [newName(), newName(), newName('子设备 "c"')]
    const answer = await gateway.session.publish('telemetry', {
      [a]: [{ ts: 1_000, values: { t: 1 } }, { t: 2 }],
      [b]: { t: '21.5', on: true },
      [c]: [],
    })
    expect(answer).toEqual({ code: 0, text: undefined, rejected: undefined })
    expect(await tools.latest(a)).toEqual({ t: 2 })
    expect(await tools.latest(b)).toEqual({ t: 21.5, on: true })
    expect(await tools.latest(c)).toEqual({})
    const { id } = await tools.get(a)
    const history = await platform.call('GET', `/api/v1/devices/${id}/telemetry/history?keys=t&from=0&to=2000`)
    expect(history.json<{ series: { points: unknown }[] }>().series[0]!.points).toEqual([[1000, 1]])
    await tools.reach(c, 'online')
    await gateway.session.ping()
    expect(gateway.session.has('puback')).toBe(false)
    expect(platform.ingest.sessions.get(gateway.id)).toMatchObject({ pointsIn: 4 })
  })

  it('is refused child by child when it has the wrong shape [G-4]', async () => {
    const gateway = await tools.createGateway()
    const [good, known, unknown] = [newName(), newName(), newName()]
    await gateway.session.connectChild(known)
    const answer = await gateway.session.publish('telemetry', { [known]: [5], [unknown]: 'x', [good]: [{ t: 1 }] })
    expect(answer).toMatchObject({ code: 0, rejected: '2', text: expect.stringContaining('SHAPE_INVALID') })
    expect(await tools.latest(good)).toEqual({ t: 1 })
    expect(await tools.find(unknown)).toBeUndefined()
    const rejects = await tools.rejects(gateway.id)
    expect(new Set(rejects.map(({ code, key }) => `${code} ${key}`))).toEqual(
      new Set([`SHAPE_INVALID ${known}`, `SHAPE_INVALID ${unknown}`]),
    )
    expect(await tools.rejects((await tools.get(known)).id)).toMatchObject([{ code: 'SHAPE_INVALID', transport: 'gateway' }])
    expect(await gateway.session.publish('telemetry', { [known]: 5 })).toMatchObject({ code: 0x99 })
  })

  it('is refused point by point like that of any device, each in the log of its child', async () => {
    const gateway = await tools.createGateway()
    const [a, b] = [newName(), newName()]
    const answer = await gateway.session.publish('telemetry', { [a]: [{ ts: 'x', values: { t: 1 } }, { t: 2 }], [b]: [{ 'k\u0001': 1 }] })
    expect(answer).toMatchObject({ code: 0, rejected: '2' })
    expect(await tools.latest(a)).toEqual({ t: 2 })
    expect(await tools.rejects((await tools.get(a)).id)).toMatchObject([
      { code: 'TS_INVALID', transport: 'gateway', topic: 'v1/gateway/telemetry' },
    ])
    expect(await tools.rejects((await tools.get(b)).id)).toMatchObject([{ code: 'KEY_INVALID' }])
    expect(await gateway.session.publish('telemetry', { [b]: [{ 'k\u0001': 1 }] })).toMatchObject({ code: 0x99 })
  })

  it('follows the rules of the product of each child', async () => {
    const gateway = await tools.createGateway()
    const [type, name] = [newName('type'), newName()]
    await platform.call('POST', '/api/v1/products', { body: { name: type, payload: { timestampUnit: 's', castNumericStrings: false } } })
    await gateway.session.connectChild(name, type)
    await gateway.session.publish('telemetry', { [name]: [{ ts: 1_700_000_000, values: { t: '7' } }] })
    expect(await tools.latest(name)).toEqual({ t: '7' })
  })

  it.each([['{"a":[{"t":1}]'], ['{"a":[{"t":1}],"b":[{"t":nope}]}'], ['[{"t":1}]'], ['5'], ['']])(
    'is refused as a whole when it is no object of children: %s',
    async (payload) => {
      const [newer, older] = [await tools.createGateway(), await tools.createGateway({}, 4)]
      expect(await newer.session.publish('telemetry', payload)).toMatchObject({ code: 0x99 })
      await newer.session.ping()
      older.session.send('telemetry', payload)
      await older.session.client.closedWithin(patienceMs)
      expect(older.session.has('puback')).toBe(false)
      const list = await platform.call('GET', `/api/v1/devices?gatewayId=${newer.id}`)
      expect(list.json()).toMatchObject({ items: [] })
    },
  )

  it('of more than 10,000 points in all is refused [M-26]', async () => {
    const gateway = await tools.createGateway()
    const [a, b] = [newName(), newName()]
    const points = (count: number) => `[${Array.from({ length: count }, () => '{a:1}').join()}]`
    expect(await gateway.session.publish('telemetry', `{"${a}":${points(5_000)},"${b}":${points(5_001)}}`)).toMatchObject({ code: 0x97 })
    expect(await tools.rejects(gateway.id)).toMatchObject([{ code: 'TOO_MANY_POINTS' }])
    expect(await tools.latest(a)).toEqual({})
  })

  it('is stored in the order in which it came, also while a child is looked for [M-23]', async () => {
    const gateway = await tools.createGateway()
    const [slow, known] = [newName(), newName()]
    await gateway.session.connectChild(known)
    for (let no = 1; no <= 20; no++) gateway.session.send('telemetry', { [known]: [{ ts: 5_000, values: { no } }], [slow + no]: [{ no }] })
    await gateway.session.publish('telemetry', { [known]: [{ ts: 5_000, values: { no: 21 } }] })
    expect(await tools.latest(known)).toEqual({ no: 21 })
  })
})

describe('metadata of elements', () => {
  it('is summed up into gatewayMetrics of the gateway, and not stored [G-4]', async () => {
    const gateway = await tools.createGateway()
    const name = newName()
    const now = Date.now()
    const metadata = (received: number, published: number) => ({
      connector: 'modbus',
      receivedTs: now + received,
      publishedTs: now + published,
    })
    await gateway.session.publish('telemetry', {
      [name]: [
        { ts: 1_000, values: { t: 1 }, metadata: metadata(-50, -40) },
        { t: 2, metadata: metadata(-90, -60) },
        { metadata: { unlike: 1 } },
      ],
    })
    expect(await tools.latest(name)).toEqual({ t: 2, metadata: { unlike: 1 } })
    gateway.session.disconnect()
    let metrics: Record<string, Record<string, number>> = {}
    await until(async () => {
      metrics = (await tools.latest(gateway.name))['gatewayMetrics'] as typeof metrics
      return metrics !== undefined
    }, patienceMs)
    expect(metrics['modbus']).toMatchObject({ avgGwLatency: 20, minGwLatency: 10, maxGwLatency: 30 })
    const { avgTransportLatency, minTransportLatency, maxTransportLatency } = metrics['modbus']!
    expect(minTransportLatency).toBeGreaterThanOrEqual(40)
    expect(maxTransportLatency! - minTransportLatency!).toBe(20)
    expect(avgTransportLatency).toBe((minTransportLatency! + maxTransportLatency!) / 2)
  })
})

describe('gatewayMetrics', () => {
  it('are written once a minute, each time for what came since, and at the end of the session [G-4]', async () => {
    const device = await tools.createGateway()
    const session = platform.ingest.sessions.get(device.id)!
    const { children, ...ingest } = platform.ingest
    const clock = new HeldClock()
    const gateways = new Gateways({ ...platform.context, clock }, { ...ingest, devices: children })
    const name = newName()
    const send = async (gatewayMs: number) => {
      const receivedAt = Date.now()
      const metadata = { connector: 'opcua', receivedTs: receivedAt - gatewayMs, publishedTs: receivedAt }
      const payload = Buffer.from(JSON.stringify({ [name]: [{ t: gatewayMs, metadata }] }))
      const source = { transport: 'mqtt', topic: 'v1/gateway/telemetry', address: '' } as const
      const request = {
        device: session.device,
        session,
        kind: 'gateway',
        topic: source.topic,
        payload,
        receivedAt,
        source,
        form: 'v1',
        id: 0,
        chunk: 0,
      } as const
      expect(await gateways.serve(request)).toMatchObject({ status: 'stored' })
    }
    const written = async () => {
      const path = `/api/v1/devices/${device.id}/telemetry/history?keys=gatewayMetrics&from=0&to=${Date.now() + 60_000}`
      const { series } = (await platform.call('GET', path)).json<{ series: { points: [number, { opcua: unknown }][] }[] }>()
      return (series[0]?.points ?? []).map(([, value]) => value.opcua)
    }
    const span = (ms: number, min = ms, max = ms) => ({ avgGwLatency: ms, minGwLatency: min, maxGwLatency: max })
    await send(10)
    await send(30)
    expect(clock.timers.map(({ ms }) => ms)).toEqual([60_000])
    expect(await written()).toEqual([])
    clock.pass(60_000)
    await expect.poll(written, { timeout: patienceMs }).toMatchObject([span(20, 10, 30)])
    // A minute without messages writes nothing, and the next message begins the next minute.
    expect(clock.timers).toEqual([])
    await send(50)
    clock.pass(60_000)
    await expect.poll(written, { timeout: patienceMs }).toMatchObject([span(20, 10, 30), span(50)])
    await send(70)
    device.session.disconnect()
    await expect.poll(written, { timeout: patienceMs }).toMatchObject([span(20, 10, 30), span(50), span(70)])
    expect(clock.timers).toEqual([])
  })
})

describe('limits of a child', () => {
  it('refuse that child only; the gateway is neither closed nor slowed, and told so in MQTT 5 [G-8, Q-5]', async () => {
    const gateway = await tools.createGateway({ limits: { gatewayDevice: { telemetryMessages: '2:3600' } } })
    const [fast, slow] = [newName(), newName()]
    for (let no = 1; no <= 2; no++) expect(await gateway.session.publish('telemetry', { [fast]: { no } })).toMatchObject({ code: 0 })
    const both = await gateway.session.publish('telemetry', { [fast]: { no: 3 }, [slow]: { no: 3 } })
    expect(both).toMatchObject({ code: 0, rejected: '1', text: expect.stringContaining('gatewayDevice.telemetryMessages 2:3600') })
    expect(await gateway.session.next('disconnect')).toEqual({ device: fast, reason: 150 })
    expect(await gateway.session.publish('telemetry', { [fast]: { no: 4 } })).toMatchObject({ code: 0x97 })
    expect(await tools.latest(fast)).toEqual({ no: 2 })
    expect(await tools.latest(slow)).toEqual({ no: 3 })
    // Attributes have no such limit, and the child stays connected.
    expect(await gateway.session.publish('attributes', { [fast]: { a: 1 } })).toMatchObject({ code: 0 })
    const { id, state } = await tools.reach(fast, 'online')
    expect(state).toBe('online')
    expect(await tools.rejects(id)).toMatchObject([{ code: 'RATE_LIMITED', transport: 'gateway' }])
    expect(await tools.rejects(gateway.id)).toEqual([])
    await until(async () => {
      const log = await platform.call('GET', `/api/v1/devices/${id}/log`)
      return log.json<{ items: { event: string }[] }>().items.some(({ event }) => event === 'rate_limited')
    }, patienceMs)
  })

  it('are paid off by points, and count every message that names the child [Q-2, §15.2]', async () => {
    const points = await tools.createGateway({ limits: { gatewayDevice: { telemetryDataPoints: '3:3600' } } })
    const name = newName()
    expect(await points.session.publish('telemetry', { [name]: [{ a: 1, b: 2, c: 3, d: 4 }] })).toMatchObject({ code: 0 })
    expect(await points.session.publish('telemetry', { [name]: [{ a: 2 }] })).toMatchObject({ code: 0x97 })
    const messages = await tools.createGateway({ limits: { gatewayDevice: { messages: '2:3600' } } })
    const other = newName()
    await messages.session.connectChild(other)
    expect(await messages.session.publish('attributes', { [other]: { a: 1 } })).toMatchObject({ code: 0 })
    expect(await messages.session.publish('attributes/request', { id: 1, device: other, client: true, key: 'a' })).toMatchObject({
      code: 0x97,
    })
    expect(await messages.session.publish('connect', { device: other })).toMatchObject({ code: 0x97 })
  })

  it('get a plain PUBACK in MQTT 3.1.1 [G-8]', async () => {
    const gateway = await tools.createGateway({ limits: { gatewayDevice: { messages: '1:3600' } } }, 4)
    const name = newName()
    for (let no = 1; no <= 3; no++) await gateway.session.publish('telemetry', { [name]: { no } })
    await gateway.session.ping()
    expect(gateway.session.has('publish')).toBe(false)
    expect(await tools.latest(name)).toEqual({ no: 1 })
  })
})

it('a message of QoS 0 gets no answer of any kind, whatever becomes of it [G-10, M-41]', async () => {
  for (const version of [4, 5] as const) {
    const gateway = await tools.createGateway({}, version)
    const name = newName()
    gateway.session.send('telemetry', { [name]: { t: 1 } }, 0)
    gateway.session.send('telemetry', '{"broken":', 0)
    gateway.session.send('connect', { device: '' }, 0)
    gateway.session.send('attributes', { [name]: { a: 1 } }, 0)
    await until(async () => (await tools.find(name)) !== undefined && (await tools.latest(name))['t'] === 1, patienceMs)
    await gateway.session.ping()
    expect(gateway.session.client.packets).toEqual([])
  }
})

it('a gateway with 500 children sends for each of them, and no message of a known child asks the database', async () => {
  const gateway = await tools.createGateway()
  const names = Array.from({ length: 500 }, (_, no) => newName(`many-${no}`))
  await gateway.session.publish('telemetry', Object.fromEntries(names.map((name) => [name, [{ ts: 1_000, values: { no: 0 } }]])))
  const before = await countStoredPoints(platform.context)
  const { db } = platform.context
  const real = db.withTenant.bind(db)
  let transactions = 0
  db.withTenant = (scope, work) => {
    transactions++
    return real(scope, work)
  }
  const rounds = 4
  let sent = 0
  try {
    for (let round = 1; round <= rounds; round++) {
      // One message per child in one round, a few messages for all children in the other.
      const size = round % 2 === 0 ? 1 : 125
      for (let at = 0; at < names.length; at += 100 * size) {
        const window = names.slice(at, at + 100 * size)
        const groups = window.flatMap((_, no) => (no % size === 0 ? [window.slice(no, no + size)] : []))
        const answers = groups.map((group) => {
          sent += group.length
          const elements = group.map((name) => [name, [{ ts: 1_000 + round, values: { no: round } }]])
          return gateway.session.publish('telemetry', Object.fromEntries(elements))
        })
        for (const answer of await Promise.all(answers)) expect(answer.code).toBe(0)
      }
    }
  } finally {
    db.withTenant = real
  }
  expect(sent).toBe(rounds * names.length)
  expect((await countStoredPoints(platform.context)) - before).toBe(sent)
  // States and logs are written twice a second at most, whatever comes in: far less than one per message.
  expect(transactions).toBeLessThan(rounds * 100)
  const counted = await real(platform.context.rootTenant, (tx) =>
    tx.execute<{ count: number }>(sql`select count(*)::int as count from devices where gateway_id = ${gateway.id}`),
  )
  expect(counted[0]!.count).toBe(names.length)
})
