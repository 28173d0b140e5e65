// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { Model, endOfTime, randomNumbers, randomValue, readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const start = Date.parse('2026-01-01T00:00:00Z')
const dayMs = 86_400_000
const reads = (device: Device) => ({ store: server.store, scope: server.context.rootTenant, device })
const series = (n: number, key = 'x', from = start, stepMs = 1000) =>
  Array.from({ length: n }, (_, i): Point => ({ key, ts: from + i * stepMs, kind: 'integer', value: i }))

/** Points in chunks, in a sealed segment or more, and in the active one; some in several. */
async function fill(device: Device, model: Model, random: () => number, keys: readonly string[]): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const points = Array.from({ length: 400 }, (): Point => ({
      key: keys[Math.floor(random() * keys.length)]!,
      ts: start + Math.floor(random() * 1000) * 60_000,
      ...randomValue(random),
    }))
    model.write(points)
    await server.write(device, points)
    if (round === 0 || round === 2) await server.store.compact()
  }
}

async function expectAsModel(device: Device, model: Model, keys: readonly string[]): Promise<void> {
  const latest = (await server.store.latest(server.context.rootTenant, [device.id])).get(device.id)!
  for (const key of keys) {
    const expected = model.points(key)
    expect(await readPoints(reads(device), key)).toEqual(expected)
    expect(await server.store.count(server.context.rootTenant, device.id, [key], 0, endOfTime)).toBe(expected.length)
    const newest = latest.find((point) => point.key === key)
    expect(newest).toEqual(expected.length > 0 ? { ...expected.at(-1), key } : undefined)
  }
}

describe('a deletion', () => {
  it('of any range and keys removes these points wherever they lie, and says how many', async () => {
    const random = randomNumbers(3)
    const keys = ['a', 'b', 'c', '键']
    const [device, other] = [await server.createDevice(), await server.createDevice()]
    const [model, untouched] = [new Model(), new Model()]
    await fill(other, untouched, random, keys)
    for (let round = 0; round < 6; round++) {
      await fill(device, model, random, keys)
      for (let i = 0; i < 4; i++) {
        const from = start + Math.floor(random() * 1000) * 60_000
        const to = from + Math.floor(random() * 300) * 60_000
        const some = i === 3 ? undefined : keys.filter(() => random() < 0.6)
        const removed = await server.store.delete(server.context.rootTenant, device.id, some, from, to)
        expect(removed).toBe(model.delete(some ?? keys, from, to))
        await expectAsModel(device, model, keys)
      }
      await server.store.compact()
      await expectAsModel(device, model, keys)
    }
    await expectAsModel(other, untouched, keys)
    await server.store.deleteDevice(server.context.rootTenant, device.id)
    await expectAsModel(device, new Model(), keys)
    await expectAsModel(other, untouched, keys)
  })

  it('cuts both ends off and a piece out of one chunk, and can be written over afterwards', async () => {
    const device = await server.createDevice()
    const model = new Model()
    const points = series(1000)
    model.write(points)
    await server.write(device, points)
    await server.store.compact()
    for (const [from, to] of [
      [400, 600],
      [0, 10],
      [990, 2000],
      [600, 600],
      [300, 301],
    ] as const) {
      const removed = await server.store.delete(server.context.rootTenant, device.id, ['x'], start + from * 1000, start + to * 1000)
      expect(removed).toBe(model.delete(['x'], start + from * 1000, start + to * 1000))
      await expectAsModel(device, model, ['x'])
    }
    const again = points.slice(450, 550)
    model.write(again)
    await server.write(device, again)
    await expectAsModel(device, model, ['x'])
    await server.store.compact()
    await expectAsModel(device, model, ['x'])
  })

  it('counts a point once that chunks and segments hold, also among more chunks than one transaction takes', async () => {
    const device = await server.createDevice()
    // One point per chunk: further apart than a chunk is long.
    const points = series(1100, 'x', 1, 8 * dayMs)
    await server.write(device, points)
    await server.store.compact()
    await server.write(device, [points[0]!, points[500]!, points.at(-1)!])
    expect(await server.store.delete(server.context.rootTenant, device.id, undefined, 0, endOfTime)).toBe(1100)
    expect(await readPoints(reads(device), 'x')).toEqual([])
  })

  it('of keys nobody sent, of nothing and of a device nobody knows removes nothing', async () => {
    const device = await server.createDevice()
    await server.write(device, series(10))
    const scope = server.context.rootTenant
    expect(await server.store.delete(scope, device.id, ['never'], 0, endOfTime)).toBe(0)
    expect(await server.store.delete(scope, device.id, [], 0, endOfTime)).toBe(0)
    expect(await server.store.delete(scope, device.id, ['x'], start, start)).toBe(0)
    expect(await server.store.delete(scope, '018f0000-0000-7000-8000-00000000dead', undefined, 0, endOfTime)).toBe(0)
    expect(await readPoints(reads(device), 'x')).toHaveLength(10)
  })

  it('while the device sends and chunks are written removes what was there, and nothing that came later', async () => {
    const device = await server.createDevice()
    const old = series(5000)
    await server.write(device, old)
    let i = 0
    const work = { isDone: false }
    const sending = (async () => {
      while (!work.isDone) await server.write(device, series(50, 'x', start + 10_000_000 + i++ * 50_000))
    })()
    const compacting = (async () => {
      while (!work.isDone) await server.store.compact()
    })()
    for (let n = 0; n < 10; n++) {
      const removed = await server.store.delete(server.context.rootTenant, device.id, ['x'], start + n * 500_000, start + (n + 1) * 500_000)
      expect(removed).toBe(500)
    }
    work.isDone = true
    await Promise.all([sending, compacting])
    expect(await readPoints(reads(device), 'x')).toHaveLength(i * 50)
  })
})

describe('retention', () => {
  it('removes whole chunks past the bound: never earlier than asked, at most one chunk later', async () => {
    const [device, other] = [await server.createDevice(), await server.createDevice()]
    const points = ['a', 'b'].flatMap((key) => series(2000, key, start, 3_600_000))
    for (const one of [device, other]) await server.write(one, points)
    await server.store.compact()
    const { tenantNo } = server.context.rootTenant
    const keyNo = device.keyNos!.get('a')!
    const before = start + 40.5 * dayMs
    const batch = { deviceNos: [device.no], keyNos: [keyNo], before }
    // Others' are not counted: another tenant's devices have other numbers there.
    expect(await server.store.previewRetention(tenantNo + 1, batch)).toMatchObject({ chunks: 0, points: 0, oldestTs: null })
    const preview = await server.store.previewRetention(tenantNo, batch)
    expect(preview).toMatchObject({ oldestTs: start })
    expect(preview.bytes).toBeGreaterThan(0)
    expect(await server.store.latest(server.context.rootTenant, [device.id])).toBeDefined()
    expect(await server.store.applyRetention(tenantNo, batch)).toEqual(preview)
    expect(await server.store.applyRetention(tenantNo, batch)).toMatchObject({ chunks: 0, points: 0 })
    const left = await readPoints(reads(device), 'a')
    expect(left).toHaveLength(2000 - preview.points)
    expect(left[0]!.ts).toBeGreaterThan(before - 7 * dayMs)
    expect(left.filter(({ ts }) => ts >= before)).toHaveLength(2000 - Math.ceil((before - start) / 3_600_000))
    expect(await readPoints(reads(device), 'b')).toHaveLength(2000)
    for (const key of ['a', 'b']) expect(await readPoints(reads(other), key)).toHaveLength(2000)
  })

  it('of all keys takes all of them, and the newest value with the last chunk', async () => {
    const device = await server.createDevice()
    await server.write(device, [...series(100, 'a'), ...series(100, 'b')])
    await server.store.compact()
    const scope = server.context.rootTenant
    expect((await server.store.latest(scope, [device.id])).get(device.id)).toHaveLength(2)
    const freed = await server.store.applyRetention(scope.tenantNo, { deviceNos: [device.no], keyNos: undefined, before: start + dayMs })
    expect(freed).toMatchObject({ chunks: 2, points: 200, oldestTs: start })
    expect((await server.store.latest(scope, [device.id])).get(device.id)).toEqual([])
  })
})
