// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Point } from './points.ts'
import { readPoints } from './testing-model.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const point = (key: string, value: number): Point => ({ key, ts: 1_767_225_600_000 + value, kind: 'integer', value })

describe('numbers of keys', () => {
  it('reach a device that a batch holds twice, as it was before a change and after it', async () => {
    const before = await server.createDevice()
    const after = { ...before, name: 'renamed' }
    await server.store.write([
      { device: before, points: [point('a', 1), point('b', 2)] },
      { device: after, points: [point('b', 3), point('c', 4)] },
    ])
    const again = { ...before, name: 'renamed twice' }
    delete again.keyNos
    const oldest = { ...again }
    await server.store.write([
      { device: again, points: [point('a', 5)] },
      { device: oldest, points: [point('a', 6), point('d', 7)] },
    ])
    const values = async (key: string) =>
      (await readPoints({ store: server.store, scope: server.context.rootTenant, device: before }, key)).map(({ value }) => value)
    expect(await Promise.all(['a', 'b', 'c', 'd'].map(values))).toEqual([[1, 5, 6], [2, 3], [4], [7]])
  })

  it('of several tenants for one name are their own', async () => {
    const device = await server.createDevice()
    await server.write(device, [point('shared', 1)])
    const foreign = { ...(await server.createDevice()), tenantNo: 77 }
    await server.store.write([{ device: foreign, points: [point('shared', 2)] }])
    expect(foreign.keyNos!.get('shared')).not.toBe(device.keyNos!.get('shared'))
  })
})
