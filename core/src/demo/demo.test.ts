// SPDX-License-Identifier: AGPL-3.0-only
import { countStoredPoints } from '../testing.ts'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startDeviceServer } from '../products/testing.ts'
import type { DeviceServer } from '../products/testing.ts'
import { Demo } from './demo.ts'
import { registerDemoRoutes } from './routes.ts'

let server: DeviceServer
let demo: Demo
beforeAll(async () => {
  server = await startDeviceServer((app, parts) => {
    demo = createDemo(parts)
    registerDemoRoutes(app, { demo, audit: parts.context.audit })
  })
  await demo.start()
})
afterEach(() => demo.remove())
afterAll(async () => {
  await demo.stop()
  await server.close()
})

type Parts = Pick<DeviceServer, 'context' | 'ingest' | 'devices' | 'store' | 'mqttPort'>
const createDemo = ({ context, ingest, devices, store, mqttPort }: Parts) =>
  new Demo(context, { devices, registry: ingest.registry, store, mqttPort })

type Listed = {
  id: string
  name: string
  state: string
  tags: string[]
  isDemo: boolean
  productId: string
  productName: string
  primary: { key: string; ts: number } | null
}
const listDevices = async (query = '') =>
  (await server.call('GET', `/api/v1/devices?limit=500&sort=name${query}`)).body['items'] as Listed[]

/** Rows of every table that knows devices or products, and of the telemetry. */
async function countRows(): Promise<Record<string, number>> {
  const { db, rootTenant } = server.context
  const counts: Record<string, number> = {}
  for (const table of ['products', 'devices', 'device_credentials', 'device_log', 'device_rejects', 'device_attributes']) {
    const [row] = await db.withTenant(rootTenant, (tx) => tx.execute<{ count: number }>(`select count(*)::int4 as count from ${table}`))
    counts[table] = row!.count
  }
  const [row] = await db.withRole('pms_store', (tx) =>
    tx.execute<{ count: number }>('select count(*)::int4 as count from telemetry_device_keys'),
  )
  counts['telemetry_device_keys'] = row!.count
  counts['telemetry'] = await countStoredPoints(server.context)
  return counts
}

async function setState(state: string): Promise<void> {
  const { db, rootTenant } = server.context
  await db.withTenant(rootTenant, (tx) =>
    tx.execute(`update products set settings = jsonb_set(settings, '{demo}', '"${state}"') where settings ? 'demo'`),
  )
}

describe('demo data', () => {
  it('is a product and twelve devices with a week of history, within ten seconds', async () => {
    const startedAt = performance.now()
    const answer = await server.call('POST', '/api/v1/demo')
    expect(performance.now() - startedAt).toBeLessThan(10_000)
    expect(answer).toMatchObject({ status: 200, body: { loaded: true, devices: 12 } })
    expect((await server.call('GET', '/api/v1/demo', { as: server.viewer })).body).toEqual({ loaded: true, devices: 12 })

    const devices = await listDevices()
    expect(devices).toHaveLength(12)
    const expected = {
      isDemo: true,
      productName: '冷库示例',
      primary: { key: 'temperature' },
      tags: expect.arrayContaining(['demo']) as string[],
    }
    for (const device of devices) expect(device).toMatchObject(expected)
    const to = Date.now() + 60_000
    for (const { id } of [devices[0]!, devices[11]!]) {
      const keys = ['temperature', 'humidity', 'doorOpen', 'compressor', 'battery']
      expect(await server.store.count(server.context.rootTenant, id, keys, to - 8 * 86_400_000, to - 120_000)).toBeGreaterThan(
        5 * (10_080 - 3),
      )
    }
    expect((await countRows())['telemetry']).toBeGreaterThanOrEqual(12 * 5 * 10_080)
    const product = (await server.call('GET', `/api/v1/products/${devices[0]!.productId}`)).body
    expect(product).toMatchObject({
      deviceCount: 12,
      model: { primaryKey: 'temperature', keys: { temperature: { unit: '°C', decimals: 1, title: { zh: '温度', en: 'Temperature' } } } },
    })
    expect(product).not.toHaveProperty('demo')
  })

  it('goes on over real MQTT', async () => {
    await demo.load()
    await expect.poll(() => server.ingest.sessions.count, { timeout: 5000 }).toBe(12)
    const loadedAt = Date.now()
    const freshest = async () =>
      (await listDevices()).filter((device) => device.state === 'online' && (device.primary?.ts ?? 0) >= loadedAt - 100).length
    await expect.poll(freshest, { timeout: 9000, interval: 500 }).toBe(12)
  })

  it('leaves no trace of itself when it is removed, within ten seconds, and touches nothing else', async () => {
    const { body } = await server.call('POST', '/api/v1/devices', { body: { name: '冷库-01' } })
    const own = String(body['id'])
    const device = server.registry.get(own)!
    await server.store.write([{ device, points: [{ key: 'temperature', ts: Date.now(), kind: 'double', value: 1.5 }] }])
    const before = await countRows()
    await demo.load()
    expect((await listDevices()).map((one) => one.name)).toContain('冷库-01 (2)')
    await expect.poll(() => server.ingest.sessions.count, { timeout: 5000 }).toBe(12)
    const [second] = await listDevices('&tag=demo')
    await server.call('DELETE', `/api/v1/devices/${second!.id}`)

    const startedAt = performance.now()
    expect((await server.call('DELETE', '/api/v1/demo')).status).toBe(204)
    expect(performance.now() - startedAt).toBeLessThan(10_000)
    expect((await server.call('GET', '/api/v1/demo')).body).toEqual({ loaded: false, devices: 0 })
    await expect.poll(() => server.ingest.sessions.count).toBe(0)
    await Promise.all([server.ingest.log.flush(), server.ingest.states.flush()])
    expect(await countRows()).toEqual(before)
    expect((await server.call('GET', '/api/v1/bin')).body['items']).toEqual([])
    expect((await listDevices()).map((one) => one.id)).toEqual([own])
    await server.call('DELETE', `/api/v1/devices/${own}`)
    await server.call('DELETE', '/api/v1/bin', { body: { ids: [own] } })
  })

  it('is loaded once however often and by however many it is asked for', async () => {
    const before = await countRows()
    const answers = await Promise.all([demo.load(), demo.load(), demo.load()])
    expect(answers).toEqual([1, 2, 3].map(() => ({ loaded: true, devices: 12 })))
    const after = await countRows()
    expect(after['devices']).toBe(before['devices']! + 12)
    expect(after['products']).toBe(before['products']! + 1)
  })

  it('is removed twice without complaint', async () => {
    await demo.remove()
    expect((await server.call('DELETE', '/api/v1/demo')).status).toBe(204)
  })

  it('goes on after a restart', async () => {
    await demo.load()
    await demo.stop()
    await expect.poll(() => server.ingest.sessions.count).toBe(0)
    const next = createDemo(server)
    await next.start()
    await expect.poll(() => server.ingest.sessions.count, { timeout: 5000 }).toBe(12)
    await next.stop()
    expect(server.ingest.sessions.count).toBe(0)
    await demo.start()
  })

  it.each(['loading', 'removing'])('is cleaned up at the start after a server was killed while %s', async (state) => {
    const before = await countRows()
    await demo.load()
    await demo.stop()
    await setState(state)
    expect((await demo.status()).loaded).toBe(false)
    const next = createDemo(server)
    await next.start()
    expect(await next.status()).toEqual({ loaded: false, devices: 0 })
    expect(await countRows()).toEqual(before)
    await next.stop()
    await demo.start()
  })

  it('does not hold up a server that stops while it is loaded', async () => {
    const before = await countRows()
    const loading = demo.load().catch((error: unknown) => error)
    await new Promise((resolve) => setTimeout(resolve, 300))
    const startedAt = performance.now()
    await demo.stop()
    expect(performance.now() - startedAt).toBeLessThan(1000)
    expect(await loading).toMatchObject({ code: 'OVERLOADED' })
    await demo.start()
    expect(await countRows()).toEqual(before)
  })

  it('stops sending for a device that is disabled or deleted, and sends with new credentials', async () => {
    await demo.load()
    await expect.poll(() => server.ingest.sessions.count, { timeout: 5000 }).toBe(12)
    const [first, second, third] = await listDevices()
    await server.call('PATCH', `/api/v1/devices/${first!.id}`, { body: { disabled: true } })
    await server.call('DELETE', `/api/v1/devices/${second!.id}`)
    await server.call('POST', `/api/v1/devices/${third!.id}/credentials/rotate`, { body: {} })
    const refusedBefore = server.ingest.refused.list().length
    await expect
      .poll(() => [server.ingest.sessions.count, server.ingest.sessions.get(third!.id) !== undefined], { timeout: 8000 })
      .toEqual([10, true])
    expect(server.ingest.refused.list().length - refusedBefore, 'no endless knocking').toBeLessThan(3)
    await server.call('PATCH', `/api/v1/devices/${first!.id}`, { body: { disabled: false } })
    await expect.poll(() => server.ingest.sessions.count, { timeout: 8000 }).toBe(11)
  })

  it('leaves the product to real devices that use it by now', async () => {
    await demo.load()
    const { productId } = (await listDevices())[0]!
    const { body } = await server.call('POST', '/api/v1/devices', { body: { name: 'real', productId } })
    await demo.remove()
    expect((await listDevices()).map((one) => one.name)).toEqual(['real'])
    expect((await server.call('GET', `/api/v1/products/${productId}`)).body).toMatchObject({ name: '冷库示例', deviceCount: 1 })
    expect(await demo.status()).toEqual({ loaded: false, devices: 0 })
    expect((await demo.load()).loaded).toBe(true)
    expect((await listDevices('&tag=demo'))[0]!.productName).toBe('冷库示例 (2)')
    await demo.remove()
    await server.call('DELETE', `/api/v1/devices/${String(body['id'])}`)
    await server.call('DELETE', '/api/v1/bin', { body: { ids: [body['id']] } })
    expect((await server.call('DELETE', `/api/v1/products/${productId}`)).status).toBe(204)
  })

  it('leaves nothing behind when loading fails', async () => {
    const before = await countRows()
    let writes = 0
    const store = Object.create(server.store) as typeof server.store
    store.write = async (batch) => {
      if (++writes > 3) throw new Error('the database went away')
      return server.store.write(batch)
    }
    await expect(createDemo({ ...server, store }).load()).rejects.toThrow('the database went away')
    expect(await countRows()).toEqual(before)
  })

  it('can be loaded by those who may change settings only', async () => {
    for (const method of ['POST', 'DELETE'] as const) {
      expect((await server.call(method, '/api/v1/demo', { as: server.viewer })).status).toBe(403)
      expect((await server.call(method, '/api/v1/demo', { as: null })).status).toBe(401)
    }
    expect((await server.call('GET', '/api/v1/demo', { as: null })).status).toBe(401)
  })
})
