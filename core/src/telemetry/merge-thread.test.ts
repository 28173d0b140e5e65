// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import { classifyDbError } from '../db/errors.ts'
import { Lease } from '../db/lease.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { MergeThread, mergeConnections } from './merge-thread.ts'

const patience = { timeout: 20_000 }

let context: TestContext
let keeper: pg.Pool
let admin: postgres.Sql
let thread: MergeThread
/** Ends the thread as if nothing had been merged for a while. */
let passIdleTime = () => {}
beforeAll(async () => {
  context = await createTestContext()
  keeper = context.db.openPool({ role: 'pms_store', connections: 1 }, context.log)
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
})
afterEach(() => thread.stop())
afterAll(async () => {
  await Promise.all([admin.end(), keeper.end()])
  await context.close()
})

function createThread(pool = context.db.poolOptions({ role: 'pms_store', connections: mergeConnections })): MergeThread {
  const clock = { ...systemClock, after: (_ms: number, callback: () => void) => ((passIdleTime = callback), () => {}) }
  return (thread = new MergeThread({ ...pool, application_name: 'merge thread' }, { clock, log: context.log }))
}

async function takeLease(): Promise<Lease> {
  await admin`delete from leases`
  const lease = new Lease('work', 30)
  await lease.acquire(keeper)
  return lease
}

async function countConnections(): Promise<number> {
  const rows = await admin<
    { count: number }[]
  >`select count(*)::int4 as count from pg_stat_activity where application_name = 'merge thread'`
  return rows[0]!.count
}

describe('the thread that merges', () => {
  it('tells what went wrong as if it had happened here, and takes the next task', async () => {
    const lease = await takeLease()
    createThread()
    await expect(thread.merge({ segments: [], lease: { ...lease.proof, epoch: '99' } })).rejects.toThrow('was taken over by another server')
    const denied = await thread.merge({ segments: [4711], lease: lease.proof }).catch((error: unknown) => error)
    expect(String(denied)).toContain('4711')
  })

  it('says that a database that is away is away', async () => {
    const lease = await takeLease()
    createThread({ host: '127.0.0.1', port: 1 })
    const error = await thread.merge({ segments: [1], lease: lease.proof }).catch((failure: unknown) => failure)
    expect(classifyDbError(error), String(error)).toBe('unavailable')
  })

  it('is there while there is something to merge, and comes back', async () => {
    const lease = await takeLease()
    createThread()
    const fail = () => expect(thread.merge({ segments: [4711], lease: lease.proof })).rejects.toThrow()
    await fail()
    expect(await countConnections()).toBeGreaterThan(0)
    passIdleTime()
    await expect.poll(countConnections, patience).toBe(0)
    await fail()
    expect(await countConnections()).toBeGreaterThan(0)
    await thread.stop()
    await expect.poll(countConnections, patience).toBe(0)
    await expect(thread.merge({ segments: [4711], lease: lease.proof })).rejects.toThrow('stopping')
  })
})
