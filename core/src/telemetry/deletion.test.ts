// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { TableStore } from './table-store.ts'

let context: TestContext
let store: TableStore
let admin: postgres.Sql
beforeAll(async () => {
  context = await createTestContext()
  store = new TableStore(context)
  await store.start()
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
  // Notes how many points each transaction deletes.
  await admin.unsafe(`
    create table deletions (txid xid8 not null, points int8 not null);
    create function note_deletion() returns trigger language plpgsql security definer as $$ begin
      insert into public.deletions select pg_current_xact_id(), count(*) from gone; return null; end $$;
    create trigger note after delete on telemetry referencing old table as gone for each statement execute function note_deletion()`)
})
afterAll(async () => {
  await admin.end()
  await store.stop()
  await context.close()
})

const hour = 3_600_000
const now = Date.now()

/** A device with so many points per key, one an hour into the past. */
async function createDevice(keys: Record<string, number>): Promise<string> {
  const { tenantId, tenantNo } = context.rootTenant
  const id = randomUUID()
  const [device] = await context.db.withTenant(context.rootTenant, (tx) =>
    tx.execute<{ number: number }>(sql`insert into devices (tenant_id, id, product_id, name)
      select ${tenantId}, ${id}, id, ${id} from products where is_default returning number`),
  )
  for (const [key, count] of Object.entries(keys)) {
    await admin`insert into telemetry_keys (tenant_no, key) values (${tenantNo}, ${key}) on conflict do nothing`
    await admin`insert into telemetry_device_keys select tenant_no, ${device!.number}, key_no from telemetry_keys where key = ${key}`
    await admin`insert into telemetry (tenant_no, device_no, key_no, ts, kind, num)
      select tenant_no, ${device!.number}, key_no, ${now}::int8 - i * ${hour}::int8, 0, i from telemetry_keys, generate_series(1, ${count}::int) i where key = ${key}`
  }
  return id
}

async function transactions(): Promise<number[]> {
  const rows = await admin<{ points: string }[]>`with taken as (delete from deletions returning *)
    select sum(points) as points from taken group by txid having sum(points) > 0 order by txid::text::int8`
  return rows.map((row) => Number(row.points))
}

const countOf = (id: string, keys: string[]) => store.count(context.rootTenant, id, keys, 0, now)

describe('deleting many points', () => {
  it('goes in transactions of at most 50,000 points, across keys and partitions', async () => {
    const id = await createDevice({ a: 60_000, b: 10, c: 70_000 })
    const other = await createDevice({ a: 10 })
    expect(await store.delete(context.rootTenant, id, undefined, 0, now)).toBe(130_010)
    expect(await transactions()).toEqual([50_000, 50_000, 30_010])
    expect([await countOf(id, ['a', 'b', 'c']), await countOf(other, ['a'])]).toEqual([0, 10])
  })

  it('keeps to the named keys and the range', async () => {
    const id = await createDevice({ a: 100, b: 100_001, c: 100 })
    expect(await store.delete(context.rootTenant, id, ['b', 'c', 'unknown'], now - 90_000 * hour, now - 10 * hour)).toBe(90_080)
    expect(await Promise.all(['a', 'b', 'c'].map((key) => countOf(id, [key])))).toEqual([100, 10_011, 10])
    expect(await transactions()).toEqual([50_000, 40_080])
    expect(await store.delete(context.rootTenant, id, ['unknown'], 0, now)).toBe(0)
  })

  it('takes few keys at a time, since each costs a look at every partition', async () => {
    const id = await createDevice({})
    const keys = Array.from({ length: 2500 }, (_, i) => `many-${i}`)
    await admin`with d as (select number from devices where id = ${id}),
      added as (insert into telemetry_keys (tenant_no, key) select ${context.rootTenant.tenantNo}, unnest(${keys}::text[]) returning *),
      known as (insert into telemetry_device_keys select tenant_no, d.number, key_no from added, d)
      insert into telemetry (tenant_no, device_no, key_no, ts, kind, num) select tenant_no, d.number, key_no, ${now - 1}, 0, 1 from added, d`
    await store.deleteDevice(context.rootTenant, id)
    expect(await transactions()).toEqual([1000, 1000, 500])
    const [left] =
      await admin`select count(*)::int as keys from telemetry_device_keys where device_no = (select number from devices where id = ${id})`
    expect(left).toEqual({ keys: 0 })
  })
})
