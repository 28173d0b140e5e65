// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import postgres from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { Lease } from './lease.ts'
import { inTransaction } from './transaction.ts'

let context: TestContext
let pool: pg.Pool
let admin: postgres.Sql
beforeAll(async () => {
  context = await createTestContext()
  pool = context.db.openPool({ role: 'pms_store', connections: 4 }, context.log)
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
})
beforeEach(async () => {
  await admin`delete from leases`
})
afterAll(async () => {
  await admin.end()
  await pool.end()
  await context.close()
})

const expire = () => admin`update leases set expires_at = now() - interval '1 second'`

describe('a lease', () => {
  it('is held by one at a time, renewed by its holder and taken over when it has expired', async () => {
    const [first, second] = [new Lease('work', 30), new Lease('work', 30)]
    expect(await first.acquire(pool)).toBe(true)
    expect(await second.acquire(pool)).toBe(false)
    expect(await first.acquire(pool)).toBe(true)
    await expire()
    expect(await second.acquire(pool)).toBe(true)
    expect(await first.acquire(pool)).toBe(false)
    expect(await new Lease('other work', 30).acquire(pool)).toBe(true)
  })

  it('goes to one of many who ask at once', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => new Lease('work', 30).acquire(pool)))
    expect(answers.filter(Boolean)).toHaveLength(1)
  })

  it('given back is free at once, and only its holder can give it back', async () => {
    const [first, second] = [new Lease('work', 30), new Lease('work', 30)]
    await first.acquire(pool)
    await second.release(pool)
    expect(await second.acquire(pool)).toBe(false)
    await first.release(pool)
    // The database's clock has moved on by then.
    await admin`select pg_sleep(0.01)`
    expect(await second.acquire(pool)).toBe(true)
    await expect(inTransaction(pool, (client) => first.assertHeld(client))).rejects.toThrow('taken over')
  })

  it('that was taken over stops the work of who held it, also after it is theirs again', async () => {
    const [first, second] = [new Lease('work', 30), new Lease('work', 30)]
    await first.acquire(pool)
    await inTransaction(pool, (client) => first.assertHeld(client))
    await expire()
    await second.acquire(pool)
    await expect(inTransaction(pool, (client) => first.assertHeld(client))).rejects.toThrow('taken over')
    await expect(inTransaction(pool, (client) => new Lease('work', 30).assertHeld(client))).rejects.toThrow('taken over')
  })

  it('cannot be taken while its holder commits, and nobody waits to hear that', async () => {
    const [first, second] = [new Lease('work', 30), new Lease('work', 30)]
    await first.acquire(pool)
    await inTransaction(pool, async (client) => {
      await first.assertHeld(client)
      const startedAt = performance.now()
      expect(await second.acquire(pool)).toBe(false)
      expect(performance.now() - startedAt).toBeLessThan(3000)
    })
  })

  it('that expires while its holder commits is taken over after the commit', async () => {
    const [first, second] = [new Lease('work', 30), new Lease('work', 30)]
    await first.acquire(pool)
    await expire()
    let isCommitted = false
    const work = inTransaction(pool, async (client) => {
      await first.assertHeld(client)
      await client.query('select pg_sleep(0.3)')
      isCommitted = true
    })
    await admin`select pg_sleep(0.1)`
    expect(await second.acquire(pool)).toBe(true)
    expect(isCommitted).toBe(true)
    await work
  })
})
