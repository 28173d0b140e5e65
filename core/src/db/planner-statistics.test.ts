// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import { PlannerStatistics } from './planner-statistics.ts'

it('tells the planner of devices when there are twice as many as it knows of', async () => {
  const context = await createTestContext()
  let count = 99
  const statistics = new PlannerStatistics(context, () => count)
  const known = async () => {
    const [row] = await context.db.withRole('pms_jobs', (tx) =>
      tx.execute<{ rows: number }>(sql`select reltuples as rows from pg_class where oid = 'devices'::regclass`),
    )
    return row!.rows
  }
  const create = (devices: number) =>
    context.db.withTenant(context.rootTenant, (tx) =>
      tx.execute(sql`insert into devices (tenant_id, id, product_id, name)
        select tenant_id, gen_random_uuid(), id, gen_random_uuid() from products, generate_series(1, ${devices}) where is_default`),
    )
  await create(99)
  await statistics.refresh()
  const before = await known()
  count = 100
  await statistics.refresh()
  const first = await known()
  await create(101)
  count = 199
  await statistics.refresh()
  const same = await known()
  count = 200
  await statistics.refresh()
  // Autovacuum may have come first; what we asked for is there in any case.
  expect([before <= 99, first >= 99, same >= 99, await known()]).toEqual([true, true, true, 200])
  await context.close()
})
