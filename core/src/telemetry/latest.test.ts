// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { FirstStore } from './first-store.ts'
import { LatestValues } from './latest.ts'
import type { Point } from './points.ts'
import type { LatestOptions, LatestPoint } from './store.ts'
import { Model, randomNumbers, randomValue } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
let first: FirstStore
beforeAll(async () => {
  server = await startReadingServer()
  first = new FirstStore(server.context)
  await first.start()
})
afterAll(() => server.close())

const start = Date.parse('2026-01-01T00:00:00Z')
const point = (ts: number, value: number, key = 'x'): Point => ({ key, ts: start + ts, kind: 'integer', value })
type Answer = Map<string, LatestPoint[]>

const ask = (devices: readonly Device[], options?: LatestOptions): Promise<Answer> =>
  server.store.latest(
    server.context.rootTenant,
    devices.map(({ id }) => id),
    options,
  )
/** As a server that has just started finds it: from chunks and segments. */
const askAnew = (devices: readonly Device[]): Promise<Answer> =>
  new LatestValues(server.context, first).read(
    server.context.rootTenant,
    devices.map(({ id }) => id),
    {},
  )

async function expectBoth(device: Device, expected: unknown[]): Promise<void> {
  expect((await ask([device])).get(device.id)).toEqual(expected)
  expect((await askAnew([device])).get(device.id)).toEqual(expected)
}

const plain = ({ key, ...rest }: Point) => ({ ...rest, key })

describe('newest values', () => {
  it('follow newer, older and equal times, new keys, deletions and merges, and are the same after a start', async () => {
    const device = await server.createDevice()
    await expectBoth(device, [])
    const steps: { write?: Point[]; remove?: [number, number]; expected: Point[] }[] = [
      { write: [point(10, 1)], expected: [point(10, 1)] },
      { write: [point(20, 2)], expected: [point(20, 2)] },
      { write: [point(15, 3)], expected: [point(20, 2)] },
      { write: [point(20, 4)], expected: [point(20, 4)] },
      { write: [point(30, 5), point(25, 6), point(30, 7)], expected: [point(30, 7)] },
      {
        write: [{ key: 'x', ts: start + 30, kind: 'string', value: 'now text' }],
        expected: [{ key: 'x', ts: start + 30, kind: 'string', value: 'now text' }],
      },
      { write: [point(5, 8, 'a'), point(31, 9)], expected: [point(5, 8, 'a'), point(31, 9)] },
      { remove: [31, 40], expected: [point(5, 8, 'a'), { key: 'x', ts: start + 30, kind: 'string', value: 'now text' }] },
      { remove: [0, 16], expected: [{ key: 'x', ts: start + 30, kind: 'string', value: 'now text' }] },
      { remove: [0, 100], expected: [] },
      { write: [point(1, 10)], expected: [point(1, 10)] },
    ]
    for (const merges of [false, true]) {
      for (const { write, remove, expected } of steps) {
        if (write) await server.write(device, write)
        if (remove) await server.store.delete(server.context.rootTenant, device.id, undefined, start + remove[0], start + remove[1])
        if (merges) await server.store.compact()
        await expectBoth(device, expected.map(plain))
      }
      await server.store.delete(server.context.rootTenant, device.id, undefined, 0, 8e15)
    }
  })

  it('are those of the model whatever is written, merged and deleted in whatever order', async () => {
    const random = randomNumbers(17)
    const devices = await Promise.all(Array.from({ length: 5 }, () => server.createDevice()))
    const models = devices.map(() => new Model())
    const keys = ['a', 'b', 'c']
    for (let step = 0; step < 60; step++) {
      const i = Math.floor(random() * devices.length)
      const points = Array.from({ length: 1 + Math.floor(random() * 4) }, (): Point => {
        return { key: keys[Math.floor(random() * 3)]!, ts: start + Math.floor(random() * 50), ...randomValue(random) }
      })
      await server.write(devices[i]!, points)
      models[i]!.write(points)
      if (step % 7 === 3) await server.store.compact()
      if (step % 5 === 4) {
        const from = start + Math.floor(random() * 50)
        await server.store.delete(server.context.rootTenant, devices[i]!.id, ['a', 'b'], from, from + 15)
        models[i]!.delete(['a', 'b'], from, from + 15)
      }
      const [known, anew] = [await ask(devices), await askAnew(devices)]
      for (const [no, device] of devices.entries()) {
        const expected = keys.flatMap((key) =>
          models[no]!.points(key)
            .slice(-1)
            .map((one) => ({ ...one, key })),
        )
        expect(known.get(device.id), `step ${step}`).toEqual(expected)
        expect(anew.get(device.id), `step ${step}`).toEqual(expected)
      }
    }
  })

  it('of a thousand devices come in one answer, by name, by the first keys sent, or all', async () => {
    const devices = await Promise.all(Array.from({ length: 1000 }, () => server.createDevice()))
    const keys = ['z', 'm', 'b', 'a']
    await server.store.write(devices.map((device, i) => ({ device, points: keys.map((key, k) => point(i, k, key)) })))
    await server.store.compact()
    await server.store.write(devices.slice(0, 500).map((device, i) => ({ device, points: [point(i + 1, 9, 'm')] })))
    for (const answer of [await askAnew(devices), await ask(devices), await ask(devices)]) {
      expect(answer.size).toBe(1000)
      for (const [i, { id }] of devices.entries()) {
        const m = i < 500 ? point(i + 1, 9, 'm') : point(i, 1, 'm')
        expect(answer.get(id)).toEqual([point(i, 3, 'a'), point(i, 2, 'b'), m, point(i, 0, 'z')].map(plain))
      }
    }
    const named = await ask(devices, { keys: ['a', 'never', 'z'] })
    expect(named.get(devices[999]!.id)!.map(({ key }) => key)).toEqual(['a', 'z'])
    // The numbers of keys grow in the order in which the installation met them.
    const few = await ask(devices, { maxKeys: 2 })
    for (const { id } of devices) expect(few.get(id)).toHaveLength(2)
  })

  it('miss nothing that is committed while they are being loaded', async () => {
    const device = await server.createDevice()
    await server.write(device, [point(0, 0)])
    for (let i = 1; i <= 40; i++) {
      const fresh = new LatestValues(server.context, first)
      const loading = fresh.read(server.context.rootTenant, [device.id], {})
      // As the store does it: the commit first, then what follows it.
      const points = [point(i, i)]
      await server.write(device, points)
      fresh.follow(device, points)
      await loading
      const answer = await fresh.read(server.context.rootTenant, [device.id], {})
      expect(answer.get(device.id)).toEqual([plain(point(i, i))])
    }
  })

  it('are whole in an answer while deletions make them forgotten', async () => {
    const devices = await Promise.all(Array.from({ length: 50 }, () => server.createDevice()))
    await server.store.write(devices.map((device) => ({ device, points: [point(1, 1), point(1, 2, 'y')] })))
    for (let round = 0; round < 15; round++) {
      const [answer] = await Promise.all([
        ask(devices),
        ...devices.slice(40).map(({ id }) => server.store.delete(server.context.rootTenant, id, ['gone'], 0, 8e15)),
      ])
      for (const { id } of devices) expect(answer.get(id)).toHaveLength(2)
    }
  })

  it('are kept up to a bound: those asked for longest ago go, and are read again when they are asked for', async () => {
    const devices = await Promise.all(Array.from({ length: 30 }, () => server.createDevice()))
    await server.store.write(devices.map((device) => ({ device, points: [point(1, 1), point(1, 2, 'y')] })))
    // 100 bytes for each number.
    const few = new LatestValues(server.context, first, 2000)
    const read = (some: Device[]) =>
      few.read(
        server.context.rootTenant,
        some.map(({ id }) => id),
        {},
      )
    expect([...(await read(devices)).values()].every((values) => values.length === 2)).toBe(true)
    for (const device of devices) expect((await read([device])).get(device.id)).toHaveLength(2)
    // What was dropped is not followed, and what is kept is: a write that only one of them hears of shows which.
    for (const device of devices) few.follow(device, [point(9, 9)])
    const kept: boolean[] = []
    for (const device of devices.toReversed()) kept.push((await read([device])).get(device.id)![0]!.value === 9)
    expect(kept).toEqual(devices.map((_, i) => i < 10))
  })

  it('of unknown, foreign and deleted devices are none', async () => {
    const device = await server.createDevice()
    await server.write(device, [point(1, 1)])
    const unknown = '018f0000-0000-7000-8000-00000000dead'
    const answer = await server.store.latest(server.context.rootTenant, [device.id, unknown, device.id])
    expect([...answer]).toEqual([
      [device.id, [plain(point(1, 1))]],
      [unknown, []],
    ])
    expect((await server.store.latest({ tenantId: unknown, tenantNo: 99 }, [device.id])).get(device.id)).toEqual([])
    await server.store.deleteDevice(server.context.rootTenant, device.id)
    await expectBoth(device, [])
  })
})
