// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Device } from '../ingest/registry.ts'
import { defaultSettings } from '../products/settings.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import type { Point } from './points.ts'
import type { StoredPoint } from './store.ts'
import { maxKeysPerDevice } from './keys.ts'
import { TelemetryLog } from './telemetry-log.ts'

let context: TestContext
let store: TelemetryLog
beforeAll(async () => {
  context = await createTestContext()
  store = new TelemetryLog(context)
  await store.start()
})
afterAll(async () => {
  await store.stop()
  await context.close()
})

async function createDevice(): Promise<Device> {
  const { tenantId, tenantNo } = context.rootTenant
  const id = randomUUID()
  const rows = await context.db.withTenant(context.rootTenant, (tx) =>
    tx.execute<{ number: number }>(sql`insert into devices (tenant_id, id, product_id, name)
      select ${tenantId}, ${id}, id, ${id} from products where is_default returning number`),
  )
  return {
    tenantId,
    tenantNo,
    id,
    no: rows[0]!.number,
    name: id,
    isDisabled: false,
    isGateway: false,
    settings: defaultSettings,
    rules: defaultPayloadRules,
    inactivityTimeoutMs: 600_000,
    lastServerTs: 0,
  }
}

async function readAll(deviceId: string, key: string, options?: { newestFirst?: boolean; limit?: number }): Promise<StoredPoint[]> {
  const points: StoredPoint[] = []
  for await (const block of store.read(context.rootTenant, { deviceId, key, from: 0, to: 8.64e15 }, options)) points.push(...block)
  return points
}

/** Lets the database refuse a text while `work` runs. */
async function refuse(text: string, work: () => Promise<void>): Promise<void> {
  const admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
  const [active] = await admin`select 'telemetry_segment_' || segment_no as name from telemetry_segments where state = 'active'`
  await admin.unsafe(`alter table ${active!['name']} add constraint refused check (position('${text}'::bytea in points) = 0)`)
  try {
    await work()
  } finally {
    await admin.unsafe(`alter table ${active!['name']} drop constraint refused`)
    await admin.end()
  }
}

const now = Date.now()

describe('the telemetry store', () => {
  it('gives back every kind of value exactly', async () => {
    const device = await createDevice()
    const points: Point[] = [
      { key: 'd', ts: now, kind: 'double', value: 42 },
      { key: 'tiny', ts: now, kind: 'double', value: 5e-324 },
      { key: 'minusZero', ts: now, kind: 'double', value: -0 },
      { key: 'i', ts: now, kind: 'integer', value: -7 },
      { key: 'safe', ts: now, kind: 'integer', value: -9007199254740991 },
      { key: 'max', ts: now, kind: 'integer', value: 9223372036854775807n },
      { key: 'min', ts: now, kind: 'integer', value: -9223372036854775808n },
      { key: 'b', ts: now, kind: 'boolean', value: false },
      { key: 's', ts: now, kind: 'string', value: '温度 “\\" 😀\n' },
      { key: 'j', ts: now, kind: 'json', value: '{"b":[1.0,9007199254740993],"a":null}' },
      { key: '__proto__', ts: now, kind: 'boolean', value: true },
    ]
    await store.write([{ device, points }])
    for (const { key, ...point } of points) expect(await readAll(device.id, key)).toEqual([point])
    const latest = (await store.latest(context.rootTenant, [device.id])).get(device.id)!
    expect(latest).toHaveLength(points.length)
    expect((await store.latest(context.rootTenant, [device.id], { keys: ['d'] })).get(device.id)).toEqual([
      { key: 'd', ts: now, kind: 'double', value: 42 },
    ])
  })

  it('lets the last write win per device, key and ts, also inside one batch [V-7]', async () => {
    const device = await createDevice()
    const point = (value: number): Point => ({ key: 'x', ts: now, kind: 'double', value })
    await store.write([{ device, points: [point(1), point(2)] }])
    expect(await readAll(device.id, 'x')).toEqual([{ ts: now, kind: 'double', value: 2 }])
    await store.write([
      { device, points: [point(3)] },
      { device, points: [{ ...point(4), ts: now + 1 }] },
    ])
    expect(await readAll(device.id, 'x')).toEqual([
      { ts: now, kind: 'double', value: 3 },
      { ts: now + 1, kind: 'double', value: 4 },
    ])
    await store.write([{ device, points: [{ key: 'x', ts: now, kind: 'string', value: 'now text' }] }])
    expect((await readAll(device.id, 'x'))[0]).toEqual({ ts: now, kind: 'string', value: 'now text' })
  })

  it('takes points of any age and reads them in order', async () => {
    const device = await createDevice()
    const times = [
      1,
      946_684_799_000,
      now - 400 * 86_400_000,
      now - 40 * 86_400_000,
      now,
      now + 40 * 86_400_000,
      now + 3 * 365 * 86_400_000,
    ]
    await store.write([{ device, points: times.toReversed().map((ts) => ({ key: 'x', ts, kind: 'integer' as const, value: 1 })) }])
    expect((await readAll(device.id, 'x')).map((point) => point.ts)).toEqual(times)
    expect((await readAll(device.id, 'x', { newestFirst: true, limit: 2 })).map((point) => point.ts)).toEqual(
      times.toReversed().slice(0, 2),
    )
    expect((await store.latest(context.rootTenant, [device.id])).get(device.id)![0]!.ts).toBe(times.at(-1))
  })

  it('reads long series in blocks without a gap or a repeat', async () => {
    const device = await createDevice()
    const points = Array.from({ length: 45_001 }, (_, i): Point => ({ key: 'x', ts: now + i, kind: 'integer', value: i }))
    await store.write([{ device, points }])
    const read = await readAll(device.id, 'x')
    expect(read.length).toBe(45_001)
    expect(read.every((point, i) => point.value === i)).toBe(true)
    expect(await store.count(context.rootTenant, device.id, ['x'], now, now + 45_001)).toBe(45_001)
    expect(await store.delete(context.rootTenant, device.id, ['x'], now, now + 45_000)).toBe(45_000)
    expect(await readAll(device.id, 'x')).toHaveLength(1)
  })

  it('stores nothing of a batch that the database refuses', async () => {
    const device = await createDevice()
    const good: Point = { key: 'good', ts: now, kind: 'integer', value: 1 }
    await refuse('666', async () => {
      await expect(
        store.write([
          { device, points: [good] },
          { device, points: [{ key: 'bad', ts: now, kind: 'string', value: '666' }] },
        ]),
      ).rejects.toMatchObject({ code: '23514' })
      expect(await readAll(device.id, 'good')).toEqual([])
      await store.write([{ device, points: [good] }])
    })
    expect(await readAll(device.id, 'good')).toHaveLength(1)
  })

  it('can try a batch, repeats included, and store nothing of it', async () => {
    const device = await createDevice()
    const good: Point = { key: 'x', ts: now, kind: 'integer', value: 1 }
    await store.write([{ device, points: [good] }])
    await refuse('667', async () => {
      await store.probe([
        {
          device,
          points: [
            { ...good, value: 2 },
            { ...good, ts: now + 1 },
          ],
        },
      ])
      await expect(store.probe([{ device, points: [{ key: 'x', ts: now, kind: 'string', value: '667' }] }])).rejects.toMatchObject({
        code: '23514',
      })
    })
    expect(await readAll(device.id, 'x')).toEqual([{ ts: now, kind: 'integer', value: 1 }])
  })

  it('refuses the keys beyond the limit of a device and keeps the others', async () => {
    const device = await createDevice()
    const points = Array.from({ length: maxKeysPerDevice + 2 }, (_, i): Point => ({ key: `k${i}`, ts: now, kind: 'integer', value: i }))
    const refusals = await store.write([{ device, points }])
    expect(refusals.get(0)?.map((reject) => [reject.code, reject.key])).toEqual([
      ['TOO_MANY_KEYS', 'k10000'],
      ['TOO_MANY_KEYS', 'k10001'],
    ])
    delete device.keyNos
    const again = await store.write([{ device, points: [points[5]!, points.at(-1)!] }])
    expect(again.get(0)).toHaveLength(1)
  })

  it('shows nothing to another tenant, nor of an unknown or deleted device', async () => {
    const device = await createDevice()
    await store.write([{ device, points: [{ key: 'x', ts: now, kind: 'integer', value: 1 }] }])
    const other = { tenantId: randomUUID(), tenantNo: 4711 }
    for await (const _ of store.read(other, { deviceId: device.id, key: 'x', from: 0, to: 8e15 })) expect.unreachable()
    expect((await store.latest(other, [device.id])).get(device.id)).toEqual([])
    expect(await store.delete(other, device.id, undefined, 0, 8e15)).toBe(0)
    await context.db.withTenant(context.rootTenant, (tx) => tx.execute(sql`update devices set deleted_at = now() where id = ${device.id}`))
    expect(await readAll(device.id, 'x')).toEqual([])
  })

  it('registers one new key for many devices at once without losing a point', async () => {
    const devices = await Promise.all(Array.from({ length: 20 }, createDevice))
    await Promise.all(
      devices.map((device) => store.write([{ device, points: [{ key: `fresh-${now}`, ts: now, kind: 'integer', value: device.no }] }])),
    )
    for (const device of devices) expect((await readAll(device.id, `fresh-${now}`))[0]?.value).toBe(device.no)
  })
})
