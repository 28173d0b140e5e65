// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectDevice } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { AttributeStore } from './attribute-store.ts'

let platform: TestPlatform
let admin: postgres.Sql
beforeAll(async () => {
  platform = await startTestPlatform()
  admin = postgres(platform.context.config.database.migrateUrl!, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await admin.end()
  await platform.close()
})

const stored = (deviceId: string) =>
  platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
    tx.execute<{ key: string; txt: string }>(sql`select key, txt from device_attributes where device_id = ${deviceId} order by key`),
  )

describe('client attributes', () => {
  it(
    'are acknowledged only when stored, also after a lock held the table longer than a statement may wait [M-27]',
    { timeout: 30_000 },
    async () => {
      const device = await platform.createDevice()
      const client = await connectDevice(platform.ports.mqtt, device.token)
      let isAcknowledged = false
      let acknowledged: Promise<unknown> = Promise.resolve()
      await admin.begin(async (tx) => {
        await tx`lock table device_attributes in access exclusive mode`
        // The words are what a careless look at the error's text would take for a lost connection.
        acknowledged = client
          .publishAsync('v1/devices/me/attributes', '{"connected":"timeout ended"}', { qos: 1 })
          .then(() => (isAcknowledged = true))
        await new Promise((resolve) => setTimeout(resolve, 7000))
        expect(isAcknowledged).toBe(false)
      })
      await acknowledged
      expect([...(await stored(device.id))]).toEqual([{ key: 'connected', txt: 'timeout ended' }])
      expect((await platform.call('GET', `/api/v1/devices/${device.id}/rejects`)).json()).toMatchObject({ items: [] })
      await client.endAsync()
    },
  )

  it('can be tried without being stored', async () => {
    const device = await platform.createDevice()
    const known = platform.ingest.registry.get(device.id)!
    const store = new AttributeStore(platform.context)
    await store.probe([{ device: known, points: [{ key: 'a', ts: 1, kind: 'string', value: 'x' }] }])
    await expect(store.probe([{ device: known, points: [{ key: 'a', ts: 1, kind: 'string', value: 'nul\u0000' }] }])).rejects.toThrow()
    expect(await stored(device.id)).toHaveLength(0)
  })
})
