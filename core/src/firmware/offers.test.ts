// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDeviceServer } from '../products/testing.ts'
import type { DeviceServer } from '../products/testing.ts'
import { HeldClock } from '../testing-clock.ts'
import { OtaOffers } from './offers.ts'
import { createPackage } from './packages.ts'
import { getDeviceOta } from './rollouts.ts'
import { OtaDevice, eventually, unique } from './testing.ts'

let server: DeviceServer
let clock: HeldClock
let offers: OtaOffers
/** What the next writes of telemetry do. */
let writeTelemetry: (deviceId: string, values: Record<string, string | number>) => Promise<void> = async () => {}
beforeAll(async () => {
  server = await startDeviceServer()
  await startOffers()
})
afterAll(async () => {
  await offers.stop()
  await server.close()
})

async function startOffers(): Promise<void> {
  const { context, ingest, store } = server
  clock = new HeldClock()
  offers = new OtaOffers(
    { ...context, clock },
    {
      targets: ingest.ota.targets,
      attributes: ingest.attributes,
      sessions: ingest.sessions,
      childSessions: ingest.childSessions,
      store,
      writeTelemetry: (deviceId, values) => writeTelemetry(deviceId, values),
    },
  )
  await offers.start()
}

async function prepare() {
  const { context, ingest } = server
  const scope = context.rootTenant
  const product = await server.call('POST', '/api/v1/products', { body: { name: unique('product') } })
  const productId = String(product.body['id'])
  const created = await server.call('POST', '/api/v1/devices', { body: { name: unique('device'), productId } })
  const id = String(created.body['id'])
  const { token } = created.body['credentials'] as { token: string }
  const pack = await createPackage(context, scope, { productId, title: 'Boiler', version: unique('v'), kind: 'firmware' })
  const facts = { fileName: 'a.bin', contentType: 'application/octet-stream' }
  await ingest.ota.contents.upload(scope, pack.id, Readable.from([randomBytes(1000)]), facts)
  const connect = async () => {
    const device = await OtaDevice.connect(server.mqttPort(), token)
    await device.subscribeToAttributes()
    return device
  }
  const show = () => getDeviceOta(context, { targets: ingest.ota.targets, store: server.store }, scope, id, 'firmware')
  return { scope, id, productId, pack, connect, show }
}

const attributes = 'v1/devices/me/attributes'

describe('offers', () => {
  it('are made again 60 s after a device came back with another version [O-6]', async () => {
    const { scope, id, pack, connect, show } = await prepare()
    await offers.assign(scope, id, 'firmware', pack.id, 'somebody')
    const device = await connect()
    await device.send({ current_fw_title: 'Boiler', current_fw_version: 'old' })
    clock.pass(60_000)
    expect(await device.nextJson(attributes)).toMatchObject({ fw_title: 'Boiler', fw_version: pack.version, fw_size: 1000 })
    await eventually(async () => expect((await show()).trace[0]).toMatchObject({ event: 'offered_again' }))
    await device.end()
  })

  it('are made again to a child 60 s after its gateway has brought it back [O-6]', async () => {
    const { scope, productId, pack } = await prepare()
    const created = await server.call('POST', '/api/v1/devices', { body: { name: unique('gateway'), gateway: true } })
    const { token } = created.body['credentials'] as { token: string }
    const name = unique('child')
    const child = await server.call('POST', '/api/v1/devices', { body: { name, productId } })
    const id = String(child.body['id'])
    await offers.assign(scope, id, 'firmware', pack.id, 'somebody')
    const gateway = await OtaDevice.connect(server.mqttPort(), token)
    const publish = (topic: string, payload: unknown) =>
      gateway.client.publishAsync(`v1/gateway/${topic}`, JSON.stringify(payload), { qos: 1 })
    await publish('connect', { device: name })
    await publish('telemetry', { [name]: [{ current_fw_title: 'Boiler', current_fw_version: 'old' }] })
    clock.pass(60_000)
    expect(await gateway.nextJson('v1/gateway/attributes')).toMatchObject({
      device: name,
      data: { fw_title: 'Boiler', fw_version: pack.version },
    })
    // A session that has ended meanwhile is offered nothing.
    await publish('disconnect', { device: name })
    await publish('connect', { device: name })
    await publish('disconnect', { device: name })
    clock.pass(60_000)
    await publish('connect', { device: name })
    await server.ingest.attributes.change(scope, id, 'shared', { values: [{ key: 'mark', kind: 'integer', value: 1 }] })
    expect(await gateway.nextJson('v1/gateway/attributes')).toEqual({ device: name, data: { mark: 1 } })
    await gateway.end()
  })

  it('are not made again to one who runs it, says nothing, or is downloading [O-6]', async () => {
    const cases = [
      (device: OtaDevice, version: string) => device.send({ current_fw_title: 'Boiler', current_fw_version: version }),
      async () => {},
      async (device: OtaDevice) => {
        await device.send({ current_fw_title: 'Boiler', current_fw_version: 'old' })
        await device.chunk(1, 0, 500)
      },
    ]
    for (const report of cases) {
      const { scope, id, pack, connect, show } = await prepare()
      await offers.assign(scope, id, 'firmware', pack.id, 'somebody')
      const device = await connect()
      await report(device, pack.version)
      clock.pass(60_000)
      // A change that comes after it would follow it, so it is the first that comes.
      await server.ingest.attributes.change(scope, id, 'shared', { values: [{ key: 'mark', kind: 'integer', value: 1 }] })
      expect(await device.nextJson(attributes)).toEqual({ mark: 1 })
      expect((await show()).trace.map(({ event }) => event)).not.toContain('offered_again')
      await device.end()
    }
  })

  it('that could not be made are made later, also by the next server', async () => {
    const { scope, id, pack, show } = await prepare()
    writeTelemetry = () => Promise.reject(new Error('the disk is full'))
    await offers.assign(scope, id, 'firmware', pack.id, 'somebody')
    expect(await show()).toMatchObject({ state: 'QUEUED', offeredAt: null })
    writeTelemetry = async () => {}
    clock.pass(10_000)
    await eventually(async () => expect(await show()).toMatchObject({ state: 'INITIATED', offeredAt: expect.any(String) as string }))

    const other = await prepare()
    writeTelemetry = () => Promise.reject(new Error('the server is stopping'))
    await offers.assign(other.scope, other.id, 'firmware', other.pack.id, 'somebody')
    await offers.stop()
    writeTelemetry = async () => {}
    await startOffers()
    await eventually(async () => expect(await other.show()).toMatchObject({ state: 'INITIATED', offeredAt: expect.any(String) as string }))
  })

  it('of the one assigned last win when several are assigned at once', async () => {
    const { scope, id, productId, pack, show } = await prepare()
    const { context, ingest } = server
    const other = await createPackage(context, scope, {
      productId,
      title: 'Boiler',
      version: unique('v'),
      kind: 'firmware',
      url: 'http://a/b',
    })
    await Promise.all([
      offers.assign(scope, id, 'firmware', pack.id, 'one'),
      offers.assign(scope, id, 'firmware', other.id, 'two'),
      offers.assign(scope, id, 'firmware', null, 'three'),
    ])
    await offers.assign(scope, id, 'firmware', other.id, 'two')
    expect(await show()).toMatchObject({ target: { packageId: other.id } })
    const stored = await ingest.attributes.list(scope, id, 'shared', { limit: 100 })
    expect(stored.map(({ key }) => key)).toEqual(['fw_title', 'fw_url', 'fw_version'])
  })

  it('know after a restart what was reported before it', async () => {
    const { scope, id, pack, show } = await prepare()
    const { ingest, store, registry } = server
    await offers.assign(scope, id, 'firmware', pack.id, 'somebody')
    // As after a crash: the point is committed, and nobody has looked at it.
    const points = [{ key: 'fw_state', ts: Date.now() + 5000, kind: 'string' as const, value: 'DOWNLOADED' }]
    await store.write([{ device: registry.get(id)!, points }])
    expect(await show()).toMatchObject({ state: 'INITIATED' })
    await offers.stop()
    await ingest.ota.targets.flush()
    await startOffers()
    await eventually(async () => expect(await show()).toMatchObject({ state: 'DOWNLOADED', progress: 100 }))
  })
})
