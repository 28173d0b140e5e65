// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import type { StoredPoint } from './store.ts'
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
const number = (ts: number, value: number): Point => ({ key: 'x', ts, kind: 'double', value })

async function readAll({ id }: Device, key = 'x'): Promise<StoredPoint[]> {
  const range = { deviceId: id, key, from: 0, to: 8.64e15 }
  return (await Array.fromAsync(server.store.read(server.context.rootTenant, range))).flat()
}

const chunksOf = (device: Device) =>
  admin<{ count: number; first: number; last: number }[]>`
    select count, first_ts::float8 as first, last_ts::float8 as last from telemetry_chunks where device_no = ${device.no} order by first_ts`

describe('compaction', () => {
  it('brings points from segments into chunks and leaves no table behind', async () => {
    const device = await server.createDevice()
    const points = Array.from({ length: 20_000 }, (_, i) => number(start + i * 1000, i / 10))
    await server.write(device, points)
    await server.store.compact()
    expect((await chunksOf(device)).map(({ count }) => count)).toEqual([8192, 8192, 3616])
    expect(await readAll(device)).toEqual(points.map(({ ts, kind, value }) => ({ ts, kind, value })))
    const stats = await server.store.stats()
    expect(stats).toMatchObject({ segments: { sealed: 0 }, points: 20_000, damaged: 0 })
  })

  it('fills the last chunk with what follows, and keeps few of them', async () => {
    const device = await server.createDevice()
    for (let round = 0; round < 30; round++) {
      await server.write(
        device,
        Array.from({ length: 10 }, (_, i) => number(start + (round * 10 + i) * 60_000, round)),
      )
      await server.store.compact()
    }
    const chunks = await chunksOf(device)
    expect(chunks.reduce((sum, { count }) => sum + count, 0)).toBe(300)
    expect(chunks.length).toBeLessThanOrEqual(6)
    expect(await readAll(device)).toHaveLength(300)
  })
})
