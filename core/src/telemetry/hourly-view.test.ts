// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Point } from './points.ts'
import type { StoredPoint } from './store.ts'
import { Model, randomNumbers } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
let admin: postgres.Sql
beforeAll(async () => {
  server = await startReadingServer()
  admin = postgres(server.context.database.adminUrl, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await admin.end()
  await server.close()
})

const start = Date.parse('2026-01-01T00:00:00Z')
const hourMs = 3_600_000

type HourRow = { hour: Date; count: number; min: number | null; max: number | null; avg: number | null }

const isCounted = ({ kind }: StoredPoint) => kind === 'double' || kind === 'integer' || kind === 'boolean'

function recompute(points: readonly StoredPoint[]): HourRow[] {
  return [...Map.groupBy(points, ({ ts }) => Math.floor(ts / hourMs))].map(([hour, some]) => {
    const numbers = some.filter(isCounted).map(({ value }) => Number(value))
    return {
      hour: new Date(hour * hourMs),
      count: some.length,
      min: numbers.length > 0 ? Math.min(...numbers) : null,
      max: numbers.length > 0 ? Math.max(...numbers) : null,
      avg: numbers.length > 0 ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null,
    }
  })
}

describe('the view telemetry_hourly', () => {
  it('says of each whole hour UTC what its points say, over several chunks and merges', async () => {
    const random = randomNumbers(23)
    const device = await server.createDevice({ name: 'metered' })
    const model = new Model()
    const kinds: Record<string, (n: number) => Point> = {
      double: (n) => ({ key: 'double', ts: 0, kind: 'double', value: n / 4 }),
      integer: (n) => ({ key: 'integer', ts: 0, kind: 'integer', value: n }),
      switch: (n) => ({ key: 'switch', ts: 0, kind: 'boolean', value: n % 2 === 0 }),
      both: (n) => (n % 2 === 0 ? { key: 'both', ts: 0, kind: 'double', value: n / 2 } : { key: 'both', ts: 0, kind: 'integer', value: n }),
      text: (n) => ({ key: 'text', ts: 0, kind: 'string', value: `${n}` }),
    }
    for (let round = 0; round < 6; round++) {
      const points = Object.values(kinds).flatMap((make) =>
        Array.from({ length: 300 }, () => ({ ...make(Math.floor(random() * 1000)), ts: start + Math.floor(random() * 300 * 60) * 60_000 })),
      )
      model.write(points)
      await server.write(device, points)
      await server.store.compact()
    }
    for (const key of Object.keys(kinds)) {
      const rows = await admin<HourRow[]>`select hour, count::int4 as count, min, max, avg from telemetry_hourly
        where device = 'metered' and device_id = ${device.id} and tenant_id = ${device.tenantId} and key = ${key} order by hour`
      expect([...rows], key).toEqual(recompute(model.points(key)))
    }
  })

  it('leaves out devices in the bin', async () => {
    const device = await server.createDevice()
    await server.write(device, [{ key: 'x', ts: start, kind: 'integer', value: 1 }])
    await server.store.compact()
    const count = async () => (await admin`select from telemetry_hourly where device_id = ${device.id}`).length
    expect(await count()).toBe(1)
    await admin`update devices set deleted_at = now() where id = ${device.id}`
    expect(await count()).toBe(0)
  })

  it('is all that a role with nothing but the view can read', async () => {
    const device = await server.createDevice()
    await server.write(device, [{ key: 'x', ts: start, kind: 'double', value: 2.5 }])
    await server.store.compact()
    const role = `reader_${randomBytes(4).toString('hex')}`
    const password = randomBytes(8).toString('hex')
    await admin.unsafe(
      `create role ${role} login password '${password}'; grant usage on schema public to ${role}; grant select on telemetry_hourly to ${role}`,
    )
    const url = new URL(server.context.database.adminUrl)
    url.username = role
    url.password = password
    const reader = postgres(url.href, { max: 1, onnotice: () => {} })
    try {
      const rows = await reader`select avg, count::int4 as count from telemetry_hourly where device_id = ${device.id}`
      expect([...rows]).toEqual([{ avg: 2.5, count: 1 }])
      for (const table of [
        'telemetry_chunks',
        'telemetry_keys',
        'telemetry_segments',
        'telemetry_damaged_chunks',
        'devices',
        'tenants',
        'leases',
      ]) {
        await expect(reader.unsafe(`select from ${table}`), table).rejects.toMatchObject({ code: '42501' })
      }
      const [active] = await admin`select 'telemetry_segment_' || segment_no as name from telemetry_segments where state = 'active'`
      await expect(reader.unsafe(`select from ${active!['name']}`)).rejects.toMatchObject({ code: '42501' })
      for (const change of ['delete from telemetry_hourly', 'insert into telemetry_hourly (key) values (1)']) {
        await expect(reader.unsafe(change), change).rejects.toMatchObject({ code: expect.stringMatching(/^(42501|55000)$/) })
      }
      await expect(reader`select * from telemetry_tail(array[1], 0, 1)`).rejects.toMatchObject({ code: '42501' })
    } finally {
      await reader.end()
      await admin.unsafe(`drop owned by ${role}; drop role ${role}`)
    }
  })
})
