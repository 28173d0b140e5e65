// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { maxChunkPoints } from './chunk-plan.ts'
import type { Point } from './points.ts'
import { createTally, readRows } from './series.ts'
import { endOfTime, readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
let admin: postgres.Sql
beforeAll(async () => {
  server = await startReadingServer()
  admin = postgres(server.context.database.adminUrl, { max: 1, onnotice: () => {} })
  // The damage below is meant; it would fill the output.
  server.context.log.level = 'silent'
})
afterAll(async () => {
  await admin.end()
  await server.close()
})

const start = Date.parse('2026-01-01T00:00:00Z')
const series = (n: number, from = 0, key = 'x') =>
  Array.from({ length: n }, (_, i): Point => ({ key, ts: start + (from + i) * 1000, kind: 'integer', value: from + i }))
const reads = (device: Device) => ({ store: server.store, scope: server.context.rootTenant, device })
const valuesOf = async (device: Device, options = {}, key = 'x') =>
  (await readPoints(reads(device), key, options)).map(({ value }) => value)
const range = (from: number, to: number) => ({ from: start + from * 1000, to: start + to * 1000 })
const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

/** Three full chunks of key x, one of y; one bit of the second chunk of x is not what was written. */
async function damage(device: Device): Promise<void> {
  await server.write(device, [...series(3 * maxChunkPoints), ...series(100, 0, 'y')])
  await server.store.compact()
  const changed = await admin`update telemetry_chunks set points = set_bit(points, 100, 1 - get_bit(points, 100))
    where device_no = ${device.no} and key_no = ${device.keyNos!.get('x')!} and first_ts = ${start + maxChunkPoints * 1000}`
  expect(changed.count).toBe(1)
}

const lost = { from: start + maxChunkPoints * 1000, to: start + (2 * maxChunkPoints - 1) * 1000 }
const rest = [...numbers(0, maxChunkPoints), ...numbers(2 * maxChunkPoints, 3 * maxChunkPoints)]

describe('a chunk with one changed bit', () => {
  it('takes its own points alone from readers, who hear which range it was', async () => {
    const device = await server.createDevice()
    await damage(device)
    for (const newestFirst of [false, true]) {
      const damaged: unknown[] = []
      const values = await valuesOf(device, { newestFirst, onDamaged: (one: unknown) => damaged.push(one) })
      expect(newestFirst ? values.toReversed() : values).toEqual(rest)
      expect(damaged).toEqual([lost])
    }
    const unharmed: unknown[] = []
    expect(await valuesOf(device, { ...range(0, 100), onDamaged: (one: unknown) => unharmed.push(one) })).toEqual(numbers(0, 100))
    expect(await valuesOf(device, { onDamaged: (one: unknown) => unharmed.push(one) }, 'y')).toHaveLength(100)
    expect(unharmed).toEqual([])
  })

  it('is told of by aggregations that need its points, and by no others', async () => {
    const device = await server.createDevice()
    await damage(device)
    const aggregate = async (edges: number[]) => {
      const tally = createTally()
      const source = { store: server.store, scope: server.context.rootTenant, deviceId: device.id }
      const bounds = { key: 'x', from: edges[0]!, to: edges.at(-1)!, order: 'asc' as const }
      const rows = readRows(source, bounds, { form: 'buckets', aggs: ['COUNT', 'LAST'], edges, counter: 'monotonic' }, tally)
      return { counts: (await Array.fromAsync(rows)).flat().map(({ values }) => values[0]!.value), damaged: tally.damaged }
    }
    const end = start + 3 * maxChunkPoints * 1000
    // Its statistics are whole.
    expect(await aggregate([start, end])).toEqual({ counts: [3 * maxChunkPoints], damaged: [] })
    const middle = start + 1.5 * maxChunkPoints * 1000
    expect(await aggregate([start, middle, end])).toEqual({
      counts: [maxChunkPoints, maxChunkPoints],
      damaged: [{ key: 'x', ...lost }],
    })
  })

  it('is told of in the answer to a question about the history', async () => {
    const device = await server.createDevice()
    await damage(device)
    const { from, to } = range(maxChunkPoints - 10, 2 * maxChunkPoints + 10)
    const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/history?key=x&from=${from}&to=${to}&limit=1000`)
    expect(answer.status, answer.text).toBe(200)
    expect(answer.json()).toMatchObject({ sourcePoints: 20, damaged: [{ key: 'x', ...lost }] })
  })

  it('is put aside by the next merge that meets it, which goes on with everything else', async () => {
    const device = await server.createDevice()
    await damage(device)
    const before = (await server.store.stats()).damaged
    // One late point inside it, points before and behind, and another device.
    const other = await server.createDevice()
    const late: Point = { key: 'x', ts: start + 1.5 * maxChunkPoints * 1000 + 1, kind: 'string', value: 'late' }
    await server.write(device, [late, { ...series(1)[0]!, value: -5 } as Point, ...series(10, 3 * maxChunkPoints)])
    await server.write(other, series(10))
    await server.store.compact()
    const stats = await server.store.stats()
    expect(stats).toMatchObject({ damaged: before + 1, segments: { sealed: 0 } })
    const [row] = await admin`select first_ts::float8 as from, last_ts::float8 as to, count, reason, octet_length(points) > 0 as kept
      from telemetry_damaged_chunks where device_no = ${device.no}`
    expect(row).toMatchObject({ ...lost, count: maxChunkPoints, kept: true })
    expect(row!['reason']).not.toBe('')
    const damaged: unknown[] = []
    const values = await valuesOf(device, { onDamaged: (one: unknown) => damaged.push(one) })
    expect(values).toEqual([-5, ...numbers(1, maxChunkPoints), 'late', ...numbers(2 * maxChunkPoints, 3 * maxChunkPoints + 10)])
    expect(damaged).toEqual([])
    expect(await valuesOf(other)).toEqual(numbers(0, 10))
  })

  it('is put aside by a deletion that needs its points, and gone with one that does not', async () => {
    const [first, second] = [await server.createDevice(), await server.createDevice()]
    await damage(first)
    await damage(second)
    const { rootTenant } = server.context
    const { from, to } = range(10, 1.5 * maxChunkPoints)
    expect(await server.store.delete(rootTenant, first.id, ['x'], from, to)).toBe(maxChunkPoints - 10)
    expect(await valuesOf(first)).toEqual([...numbers(0, 10), ...numbers(2 * maxChunkPoints, 3 * maxChunkPoints)])
    expect(await server.store.delete(rootTenant, second.id, undefined, 0, endOfTime)).toBe(3 * maxChunkPoints + 100)
    const rows = await admin`select device_no from telemetry_damaged_chunks where device_no in (${first.no}, ${second.no})`
    expect(rows.map((row) => row['device_no'])).toEqual([first.no])
  })

  it('does not keep the newest value of other keys, nor its own when that lies beside it', async () => {
    const device = await server.createDevice()
    const long = (i: number): Point => ({ key: 'x', ts: start + i, kind: 'string', value: `${i}`.repeat(70) })
    await server.write(device, [long(1), long(2), ...series(10, 0, 'y')])
    await server.store.compact()
    await admin`update telemetry_chunks set points = set_bit(points, 77, 1 - get_bit(points, 77))
      where device_no = ${device.no} and key_no = ${device.keyNos!.get('x')!}`
    const latest = await server.store.latest(server.context.rootTenant, [device.id])
    expect(latest.get(device.id)!.map(({ key }) => key)).toEqual(['y'])
  })
})
