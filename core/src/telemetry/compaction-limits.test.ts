// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { TelemetryLog } from './telemetry-log.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

/** What keeps compaction from being stopped, starved or made endless by single devices and other servers. */

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
const valuesOf = async (store: TelemetryLog, { id }: Device) =>
  (await Array.fromAsync(store.read(server.context.rootTenant, { deviceId: id, key: 'x', from: 0, to: 8.64e15 })))
    .flat()
    .map(({ ts, value }) => [ts, value])
const countChunks = async ({ no }: Device) =>
  (await admin<{ n: number }[]>`select count(*)::int4 as n from telemetry_chunks where device_no = ${no}`)[0]!.n
/** Transaction that wrote each chunk of a device. */
const writersOf = ({ no }: Device) =>
  admin<{ first: number; xmin: string }[]>`
    select first_ts::float8 as first, xmin::text from telemetry_chunks where device_no = ${no} order by first_ts`

describe('compaction', () => {
  it('leaves all chunks between untouched when a device sends with a wrong clock for a moment', async () => {
    const device = await server.createDevice()
    const history = Array.from({ length: 40_000 }, (_, i) => number(start + i * 60_000, i))
    await server.write(device, history)
    await server.store.compact()
    const before = await writersOf(device)
    await server.write(device, [number(946_684_800_000, -1), number(start + 40_000 * 60_000, 40_000)])
    await server.store.compact()
    const after = await writersOf(device)
    const rewritten = before.filter(({ first, xmin }) => after.find((chunk) => chunk.first === first)?.xmin !== xmin)
    expect(rewritten.length).toBeLessThanOrEqual(1)
    expect(await valuesOf(server.store, device)).toHaveLength(40_002)
  })

  it('puts what arrives from the newest to the oldest into few chunks, too', async () => {
    const device = await server.createDevice()
    for (let i = 60; i > 0; i--) {
      await server.write(
        device,
        Array.from({ length: 10 }, (_, k) => number(start + (i * 10 + k) * 1000, k)),
      )
      await server.store.compact()
    }
    expect(await countChunks(device)).toBeLessThanOrEqual(8)
    expect(await valuesOf(server.store, device)).toHaveLength(600)
  })

  it('goes on beside many deletions, and they beside it', async () => {
    const devices = await Promise.all(Array.from({ length: 8 }, () => server.createDevice()))
    for (const device of devices) {
      await server.write(
        device,
        Array.from({ length: 2000 }, (_, i) => number(start + i * 1000, i)),
      )
    }
    const deleting = devices.map(async ({ id }) => {
      for (let i = 0; i < 20; i++) {
        await server.store.delete(server.context.rootTenant, id, ['x'], start + i * 10_000, start + i * 10_000 + 5000)
      }
    })
    const compacting = (async () => {
      for (let i = 0; i < 10; i++) {
        await server.write(devices[0]!, [number(start + 3_000_000 + i, i)])
        await server.store.compact()
      }
    })()
    await Promise.all([...deleting, compacting])
    expect(await valuesOf(server.store, devices[1]!)).toHaveLength(1900)
  })
})

describe('two servers', () => {
  it('give the same answer after the older one has ended and its last segment is merged', async () => {
    const device = await server.createDevice()
    const [older, newer] = [0, 1].map(() => new TelemetryLog(server.context, { graceMs: 0, compacts: false }))
    await older!.start()
    await newer!.start()
    await older!.write([{ device, points: [number(start, 1)] }])
    await older!.stop()
    await newer!.write([{ device, points: [number(start, 2)] }])
    // The newer one's segment was opened before the older one's last: it is fenced by the next start at the latest.
    const last = new TelemetryLog(server.context, { graceMs: 0, compacts: false })
    await last.start()
    await last.write([{ device, points: [number(start, 3)] }])
    await last.compact()
    expect(await valuesOf(last, device)).toEqual([[start, 3]])
    const [left] = await admin<{ n: number }[]>`
      select count(*)::int4 as n from telemetry_segments where state = 'active' and segment_no < (select max(segment_no) from telemetry_segments)`
    expect(left!.n).toBeLessThanOrEqual(1)
    await Promise.all([newer!.stop(), last.stop()])
  })
})
