// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { deadLetter, defineJob, priorityOf, retryIn, retryLimitOf, skip, waitAfter } from './define.ts'
import type { JobDef } from './define.ts'
import type { Envelope } from './run.ts'

let context: TestContext
let tenantId: string
let number = 0
const data = Type.Object({ tenantId: Type.String(), n: Type.Optional(Type.Unknown()), group: Type.Optional(Type.String()) })
type Def = JobDef<typeof data>

beforeAll(async () => {
  context = await createTestContext()
  tenantId = context.rootTenant.tenantId
  await context.jobs.start()
})
afterAll(() => context.close())

const soon = { timeout: 20_000, interval: 20 }

function newQueue(change: Partial<Def> = {}): Def {
  return defineJob({
    name: `test-${++number}`,
    title: { zh: '测试', en: 'Test' },
    data,
    batch: 10,
    perNode: 1,
    retry: { strategy: 'never' },
    expireMs: 60_000,
    deadLetter: true,
    ...change,
  })
}

/** What a queue holds, whatever became of it. */
async function rows(
  name: string,
): Promise<{ state: string; data: Envelope; output: unknown; source_output: unknown; source_retry_count: number }[]> {
  const found = await context.jobs.boss.getDb().executeSql('select * from jobs.job where name = $1 order by created_on', [name])
  return found.rows
}

describe('the queue', () => {
  it('hands out by priority, then by age [J1]', async () => {
    const def = newQueue()
    await context.jobs.declare(def)
    for (const [n, priority] of [
      ['a', 0],
      ['b', 10],
      ['c', -5],
      ['d', 10],
      ['e', 0],
    ] as const) {
      await context.jobs.send(def, { tenantId, n }, { priority })
    }
    const seen: unknown[] = []
    await context.jobs.handle({ ...def, batch: 2 }, async (job) => seen.push(job.data.n))
    await vi.waitFor(() => expect(seen).toHaveLength(5), soon)
    expect(seen).toEqual(['b', 'd', 'a', 'e', 'c'])
  })

  it('holds one job of a key at a time where it is exclusive [J2]', async () => {
    const def = newQueue({ exclusive: true })
    await context.jobs.declare(def)
    const send = () => context.jobs.send(def, { tenantId }, { unique: { key: 'k', mode: 'exclusive' } })
    expect(await send()).toEqual(expect.any(String))
    expect(await send()).toBeNull()
    const [job] = await context.jobs.boss.fetch(def.name)
    expect(await send()).toBeNull()
    await context.jobs.boss.complete(def.name, job!.id)
    expect(await send()).toEqual(expect.any(String))
  })

  it('tries as often as its policy says, then puts payload and last error aside [J3]', async () => {
    const def = newQueue({ retry: { strategy: 'times', limit: 2 } })
    let calls = 0
    await context.jobs.handle(def, async () => {
      throw new Error(`failure ${++calls}`)
    })
    await context.jobs.send(def, { tenantId, n: { a: 1 } })
    await vi.waitFor(async () => expect(await rows(`${def.name}.dead`)).toHaveLength(1), soon)
    const [dead] = await rows(`${def.name}.dead`)
    expect(calls).toBe(3)
    expect(dead!.data.data).toEqual({ tenantId, n: { a: 1 } })
    expect(dead!.source_retry_count).toBe(2)
    expect(dead!.source_output).toMatchObject({ message: 'failure 3' })
  })

  it('holds a job sent inside a transaction exactly when that commits [J4]', async () => {
    const def = newQueue()
    await context.jobs.declare(def)
    const attempt = (fails: boolean) =>
      context.db.withTenant(context.rootTenant, async (tx) => {
        await tx.execute(sql`insert into state_documents (tenant_id, scope, key, value) values (${tenantId}, 'j4', ${String(fails)}, '{}')`)
        await context.jobs.send(def, { tenantId, n: { a: { b: 'é' } } }, { tx, priority: 7 })
        // The transaction is the tenant's again: it sees its own row.
        expect(await tx.execute(sql`select current_user as role`)).toMatchObject([{ role: 'pms_app' }])
        if (fails) throw new Error('rolled back')
      })
    await expect(attempt(true)).rejects.toThrow('rolled back')
    expect(await rows(def.name)).toHaveLength(0)
    await attempt(false)
    expect((await rows(def.name)).map((row) => row.data)).toEqual([{ data: { tenantId, n: { a: { b: 'é' } } } }])
  })

  it('gives a tenant with one job its turn beside one with a thousand [J5]', async () => {
    const def = newQueue({ group: (one) => one.group ?? '', perGroup: 5 })
    await context.jobs.declare(def)
    await context.jobs.sendMany(
      def,
      Array.from({ length: 1000 }, () => ({ data: { tenantId, group: 'A' } })),
    )
    await context.jobs.send(def, { tenantId, group: 'B' })
    const groups: string[] = []
    const release = Promise.withResolvers<void>()
    await context.jobs.handle({ ...def, batch: 10, perNode: 2 }, async (job) => {
      groups.push(job.data.group!)
      await release.promise
    })
    await vi.waitFor(() => expect(groups).toContain('B'), soon)
    expect(groups.filter((one) => one === 'A').length).toBeLessThanOrEqual(5)
    release.resolve()
  })

  it('refuses a payload of another shape, one that is too large, and a queue nobody declared', async () => {
    const def = newQueue()
    await expect(context.jobs.send(def, { tenantId })).rejects.toThrow('QUEUE_UNKNOWN')
    await context.jobs.declare(def)
    await expect(context.jobs.send(def, { tenantId: 5 } as never)).rejects.toMatchObject({ code: 'JOB_DATA_INVALID' })
    await expect(context.jobs.send(def, { tenantId, n: 'x'.repeat(70_000) })).rejects.toMatchObject({ code: 'JOB_TOO_LARGE' })
  })

  it('suppresses a second one within the window, and puts it into the next one when asked', async () => {
    const def = newQueue()
    await context.jobs.declare(def)
    const send = (mode: 'throttle' | 'debounce') =>
      context.jobs.send(def, { tenantId }, { unique: { key: mode, windowMs: 3_600_000, mode } })
    expect(await send('throttle')).not.toBeNull()
    expect(await send('throttle')).toBeNull()
    expect(await send('debounce')).not.toBeNull()
    expect(await send('debounce')).not.toBeNull()
    expect(await send('debounce')).toBeNull()
  })
})

describe('a run', () => {
  it('fails none of its neighbours, and keeps results, reasons and errors apart', async () => {
    const def = newQueue({ retry: { strategy: 'exponential', baseMs: 60_000, maxMs: 60_000, limit: 3 } })
    await context.jobs.declare(def)
    for (const n of ['good', 'throws', 'waits', 'dead', 'skip', 'big']) await context.jobs.send(def, { tenantId, n })
    const before = Date.now()
    await context.jobs.handle(def, async (job) => {
      if (job.data.n === 'throws') throw Object.assign(new Error('pmsk_0123456789abcdef is wrong'), { code: 'E_X' })
      if (job.data.n === 'waits') return retryIn(3_600_000, 'asked to')
      if (job.data.n === 'dead') return deadLetter('never')
      if (job.data.n === 'skip') return skip('done before')
      return job.data.n === 'big' ? 'x'.repeat(10_000) : { ok: true }
    })
    await vi.waitFor(
      async () => expect((await rows(def.name)).filter((row) => ['created', 'active'].includes(row.state))).toEqual([]),
      soon,
    )
    const ends = Object.fromEntries((await rows(def.name)).map((row) => [String(row.data.data['n']), row]))
    expect(ends['good']).toMatchObject({ state: 'completed', output: { ok: true } })
    expect(ends['throws']).toMatchObject({ state: 'retry', output: { code: 'E_X', message: '…cdef is wrong' } })
    expect(ends['waits']).toMatchObject({ state: 'retry', output: { reason: 'asked to' } })
    expect(ends['dead']).toMatchObject({ state: 'failed', output: { reason: 'never' } })
    expect(ends['skip']).toMatchObject({ state: 'completed', output: { reason: 'done before' } })
    expect(ends['big']).toMatchObject({ state: 'completed', output: { value: '[truncated]' } })
    const [waiting] = (await context.jobs.boss.findJobs<Envelope>(def.name)).filter((job) => job.data.data['n'] === 'waits')
    expect(waiting!.startAfter.getTime()).toBeGreaterThan(before + 3_590_000)
    expect(waiting!.startAfter.getTime()).toBeLessThan(Date.now() + 3_610_000)
  })

  it('has the same key in every attempt and after a redrive', async () => {
    const def = newQueue({ retry: { strategy: 'times', limit: 1 } })
    const keys: string[] = []
    let fails = true
    await context.jobs.handle(def, async (job) => {
      keys.push(job.key)
      if (fails) throw new Error('not yet')
    })
    const id = await context.jobs.send(def, { tenantId, n: 'redriven' })
    await vi.waitFor(async () => expect(await rows(`${def.name}.dead`)).toHaveLength(1), soon)
    fails = false
    await context.jobs.boss.redrive(`${def.name}.dead`)
    await vi.waitFor(() => expect(keys).toHaveLength(3), soon)
    expect(new Set(keys)).toEqual(new Set([id]))
  })

  it('puts a payload that keeps failing for good into quarantine until it is released [jobs 7.4]', async () => {
    const def = newQueue()
    let calls = 0
    await context.jobs.handle(def, async () => {
      calls++
      throw new Error('always')
    })
    for (let i = 1; i <= 3; i++) {
      await context.jobs.send(def, { tenantId, n: 'poison' })
      await vi.waitFor(async () => expect(await rows(`${def.name}.dead`)).toHaveLength(i), soon)
    }
    await context.jobs.send(def, { tenantId, n: 'poison' })
    await vi.waitFor(async () => expect(await rows(`${def.name}.dead`)).toHaveLength(4), soon)
    expect(calls).toBe(3)
    expect((await rows(`${def.name}.dead`)).at(-1)!.source_output).toMatchObject({ code: 'QUARANTINED' })
    const [entry] = await context.jobs.poison.list(context.rootTenant)
    expect(entry).toMatchObject({ queue: def.name })
    expect(await context.jobs.poison.release(context.rootTenant, def.name, entry!.hash)).toBe(true)
    await context.jobs.send(def, { tenantId, n: 'poison' })
    await vi.waitFor(() => expect(calls).toBe(4), soon)
  })

  it('is dead at once when the payload has another shape than the code expects by now', async () => {
    const def = newQueue({ retry: { strategy: 'times', limit: 5 } })
    await context.jobs.declare(def)
    await context.jobs.send(def, { tenantId, n: 1 })
    let calls = 0
    const narrower = { ...def, data: Type.Object({ tenantId: Type.String(), n: Type.String() }) }
    await context.jobs.handle(narrower, async () => calls++)
    await vi.waitFor(async () => expect(await rows(`${def.name}.dead`)).toHaveLength(1), soon)
    expect((await rows(`${def.name}.dead`))[0]!.source_output).toMatchObject({ code: 'DATA_INVALID' })
    expect(calls).toBe(0)
  })
})

describe('waits after a failure', () => {
  const draws = (retry: Parameters<typeof waitAfter>[0], attempt: number) => [
    waitAfter(retry, attempt, 0) / 1000,
    waitAfter(retry, attempt, 1) / 1000,
  ]

  it('double from base to the cap, each drawn from its upper half [J6]', () => {
    const retry = { strategy: 'exponential', baseMs: 10_000, maxMs: 60_000, limit: 5 } as const
    expect([0, 1, 2, 3, 4].map((n) => draws(retry, n))).toEqual([
      [10, 20],
      [20, 40],
      [40, 60],
      [60, 60],
      [60, 60],
    ])
  })

  it('follow a list with jitter, and count as the policy says', () => {
    const retry = { strategy: 'delays', delaysMs: [5000, 30_000], jitter: 0.2 } as const
    expect(draws(retry, 0)).toEqual([4, 6])
    expect(draws(retry, 7)).toEqual([24, 36])
    expect(
      [{ strategy: 'never' }, { strategy: 'once' }, { strategy: 'times', limit: 4 }, retry].map((one) => retryLimitOf(one as typeof retry)),
    ).toEqual([0, 1, 4, 2])
    expect([1, 2, 3, 4, 5].map((one) => priorityOf(one as 1))).toEqual([40, 30, 20, 10, 0])
  })
})

describe('flows and topics', () => {
  it('run what waits after what it waits for, and refuse a circle', async () => {
    const def = newQueue()
    const seen: unknown[] = []
    await context.jobs.handle(def, async (job) => seen.push(job.data.n))
    const node = (ref: string, ...dependsOn: string[]) => ({ ref, def: def as unknown as JobDef, data: { tenantId, n: ref }, dependsOn })
    await expect(context.jobs.flow([node('a', 'b'), node('b', 'a')])).rejects.toMatchObject({ code: 'FLOW_CYCLE' })
    await expect(context.jobs.flow([node('a', 'nobody')])).rejects.toMatchObject({ code: 'FLOW_CYCLE' })
    expect(Object.keys(await context.jobs.flow([node('last', 'first'), node('first')])).sort()).toEqual(['first', 'last'])
    await vi.waitFor(() => expect(seen).toContain('last'), soon)
    expect(seen).toEqual(['first', 'last'])
  })

  it('bring what is published to every queue that subscribed', async () => {
    const defs = [newQueue(), newQueue()]
    for (const def of defs) await context.jobs.subscribe('device.created', def as unknown as JobDef)
    await context.jobs.publish('device.created', { tenantId, n: 1 })
    for (const def of defs) expect(await rows(def.name)).toHaveLength(1)
  })
})

describe('a stop', () => {
  it('takes no more, lets what runs finish, and hands what does not finish back', async () => {
    const other = await createTestContext()
    const def = newQueue({ batch: 2, perNode: 2, retry: { strategy: 'times', limit: 3 } })
    await other.jobs.start()
    const started: unknown[] = []
    const finish = Promise.withResolvers<void>()
    const scope = other.rootTenant
    await other.jobs.handle(def, async (job, signal) => {
      started.push(job.data.n)
      if (job.data.n === 'quick') return finish.promise
      await sleep(60_000, undefined, { signal })
    })
    await other.jobs.send(def, { tenantId: scope.tenantId, n: 'quick' })
    await vi.waitFor(() => expect(started).toContain('quick'), soon)
    await other.jobs.send(def, { tenantId: scope.tenantId, n: 'hangs' })
    await vi.waitFor(() => expect(started).toContain('hangs'), soon)
    const stopped = other.jobs.stop(1500)
    finish.resolve()
    await stopped
    const left = await other.db.withRole('pms_jobs', (tx) =>
      tx.execute<{ n: string; state: string }>(
        sql`select data->'data'->>'n' as n, state::text as state from jobs.job where name = ${def.name}`,
      ),
    )
    expect(Object.fromEntries(left.map((row) => [row.n, row.state]))).toEqual({ quick: 'completed', hangs: 'retry' })
    await other.close()
  })
})
