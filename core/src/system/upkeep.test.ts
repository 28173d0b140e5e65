// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { pino } from 'pino'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Devices } from '../devices/devices.ts'
import { DeviceRegistry } from '../ingest/device-registry.ts'
import { TelemetryLog } from '../telemetry/telemetry-log.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { Upkeep } from './upkeep.ts'

let context: TestContext
let admin: postgres.Sql
let devices: Devices
let store: TelemetryLog
const lines: Record<string, unknown>[] = []
const other = { tenantId: randomUUID(), tenantNo: 0 }
beforeAll(async () => {
  const made = await createTestContext()
  const log = pino({ level: 'warn' }, { write: (line: string) => lines.push(JSON.parse(line) as Record<string, unknown>) })
  context = { ...made, log }
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
  const [row] = await admin`insert into tenants (id, slug, name) values (${other.tenantId}, 'other', 'other') returning number`
  other.tenantNo = row!['number'] as number
  await admin`insert into products (tenant_id, id, name, is_default) values (${other.tenantId}, ${randomUUID()}, 'default', true)`
  store = new TelemetryLog(context)
  await store.start()
  devices = new Devices(context, new DeviceRegistry(context), store)
})
afterAll(async () => {
  await store.stop()
  await admin.end()
  await context.close()
})

/** A device that has been in the bin for longer than it keeps anything. */
async function createExpired(scope: { tenantId: string }): Promise<string> {
  const id = randomUUID()
  await admin`insert into devices (tenant_id, id, product_id, name, deleted_at)
    select ${scope.tenantId}, ${id}, id, ${id}, now() - interval '31 days' from products where tenant_id = ${scope.tenantId} and is_default`
  return id
}

const remaining = async () => (await admin`select id from devices`).map((row) => row['id'] as string)

describe('the upkeep', () => {
  it('a device that cannot be removed stops neither the others nor the other steps and tenants', async () => {
    const stuck = await createExpired(context.rootTenant)
    await createExpired(context.rootTenant)
    await createExpired(other)
    await admin.unsafe(`
      create function keep() returns trigger language plpgsql as $$ begin raise exception 'stays'; end $$;
      create trigger keep before delete on devices for each row when (old.id = '${stuck}') execute function keep()`)
    const ran: string[] = []
    const upkeep = new Upkeep(context, [
      { name: 'bin', run: (tenant) => devices.purgeExpired(tenant) },
      {
        name: 'broken',
        run: async (tenant) => {
          await context.db.withTenant(tenant, (tx) => tx.execute(sql`select 1 / 0`))
        },
      },
      { name: 'last', run: async ({ tenantId }) => void ran.push(tenantId) },
    ])
    await upkeep.run()
    expect(await remaining()).toEqual([stuck])
    expect(ran.sort()).toEqual([context.rootTenant.tenantId, other.tenantId].sort())
    expect(lines.filter((line) => line['step'] === 'broken').map((line) => [line['level'], line['tenant']])).toEqual(
      expect.arrayContaining([
        [40, context.rootTenant.tenantId],
        [40, other.tenantId],
      ]),
    )
    await admin`drop trigger keep on devices`
    await upkeep.run()
    expect(await remaining()).toEqual([])
  })

  it('does not run twice at a time, and breaks off when stopped', async () => {
    let calls = 0
    const gate = Promise.withResolvers<void>()
    const upkeep = new Upkeep(context, [
      {
        name: 'slow',
        run: async () => {
          calls++
          await gate.promise
        },
      },
    ])
    const runs = [upkeep.run(), upkeep.run()]
    await new Promise((resolve) => setTimeout(resolve, 200))
    upkeep.stop()
    gate.resolve()
    await Promise.all(runs)
    expect(calls).toBe(1)
  })
})
