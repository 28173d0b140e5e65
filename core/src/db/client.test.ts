// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { Db } from './client.ts'

let context: TestContext
beforeAll(async () => {
  context = await createTestContext()
})
afterAll(async () => {
  await context.close()
})

/** How often a transaction was opened, and how many statements its connection keeps prepared. */
async function countPrepared(url: string): Promise<number> {
  const db = new Db(url, 1)
  try {
    for (let i = 0; i < 3; i++) {
      const [row] = await db.withTenant(context.rootTenant, (tx) => tx.execute<{ role: string }>(sql`select current_user as role`))
      expect(row?.role).toBe('pms_app')
    }
    const [row] = await db.withTenant(context.rootTenant, (tx) =>
      tx.execute<{ count: number }>(sql`select count(*)::int4 as count from pg_prepared_statements where statement like '%set_config%'`),
    )
    return row!.count
  } finally {
    await db.stop()
  }
}

describe('transactions', () => {
  it('are opened by a statement that a connection prepares once', async () => {
    expect(await countPrepared(context.database.url)).toBe(1)
  })

  it('prepare nothing where the address says so, for poolers that cannot keep it', async () => {
    const url = new URL(context.database.url)
    url.searchParams.set('prepare', 'false')
    expect(await countPrepared(url.href)).toBe(0)
  })
})
