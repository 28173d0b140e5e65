// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { defineJob } from './define.ts'
import type { JobDef } from './define.ts'
import { Jobs } from './jobs.ts'
import { holdLease } from './lease.ts'
import { decide, take } from './limiter.ts'
import { Machine, handleTimeouts, readMachine } from './machine.ts'
import { Schedules } from './schedules.ts'
import { SharedState } from './shared-state.ts'

let context: TestContext
let tenantId: string
let schedules: Schedules
const soon = { timeout: 20_000, interval: 20 }
const work = defineJob({
  name: 'test-work',
  title: { zh: '测试', en: 'Test' },
  data: Type.Object({ tenantId: Type.String(), n: Type.Optional(Type.Unknown()) }),
  batch: 10,
  perNode: 1,
  retry: { strategy: 'never' },
  expireMs: 60_000,
  deadLetter: true,
})
const seen: { n: unknown; scheduledFor: string | undefined; key: string }[] = []

beforeAll(async () => {
  context = await createTestContext()
  tenantId = context.rootTenant.tenantId
  await context.jobs.start()
  schedules = new Schedules(context)
  await context.jobs.handle(work, async (job) => {
    seen.push({ n: job.data.n, scheduledFor: job.scheduledFor?.toISOString(), key: job.key })
  })
})
afterAll(() => context.close())

describe('schedules', () => {
  it('fire shifted in the hour that is skipped, and once in the one that is repeated', () => {
    const at = (from: string) => schedules.preview('30 2 * * *', 'Europe/Berlin', 1, new Date(from))[0]!.toISOString()
    expect(at('2026-03-28T12:00:00Z')).toBe('2026-03-29T01:30:00.000Z')
    expect(at('2026-10-24T12:00:00Z')).toBe('2026-10-25T00:30:00.000Z')
    expect(schedules.preview('30 2 * * *', 'Europe/Berlin', 2, new Date('2026-10-24T12:00:00Z'))[1]!.toISOString()).toBe(
      '2026-10-26T01:30:00.000Z',
    )
  })

  it('refuse what is no expression, no zone, never fires, or fires too often', async () => {
    const codes: [string, string, string][] = [
      ['61 * * * *', 'UTC', 'CRON_INVALID'],
      ['* * * * * *', 'UTC', 'CRON_INVALID'],
      ['0 0 30 2 *', 'UTC', 'SCHEDULE_EMPTY'],
      ['0 0 * * *', 'Mars/Olympus', 'TIME_ZONE_UNKNOWN'],
    ]
    for (const [cron, zone, code] of codes) {
      expect(() => schedules.preview(cron, zone, 1), cron).toThrow(expect.objectContaining({ code }))
    }
    await expect(schedules.create(context.rootTenant, { name: 'x', queue: 'nobody', cron: '* * * * *' })).rejects.toMatchObject({
      code: 'QUEUE_UNKNOWN',
    })
  })

  it('make one job per instant in the whole cluster, and one for all that were missed', async () => {
    const schedule = await schedules.create(context.rootTenant, {
      name: 'hourly',
      queue: work.name,
      cron: '0 * * * *',
      data: { n: 'hourly' },
    })
    const hour = 3_600_000
    const newest = new Date(Math.floor(Date.now() / hour) * hour)
    await setNext(schedule.id, new Date(newest.getTime() - 200 * hour))
    const other = new Schedules(context)
    await Promise.all([schedules.run(), other.run(), schedules.run()])
    await vi.waitFor(() => expect(seen.some((one) => one.n === 'hourly')).toBe(true), soon)
    await other.run()
    expect(seen.filter((one) => one.n === 'hourly')).toEqual([
      { n: 'hourly', scheduledFor: newest.toISOString(), key: `schedule/${schedule.id}/${newest.toISOString()}` },
    ])
    const after = await schedules.get(context.rootTenant, schedule.id)
    expect(after).toMatchObject({ lastOutcome: 'sent', lastAt: newest })
    expect(after.nextAt!.getTime()).toBe(newest.getTime() + hour)
  })

  it('leave out what was missed where that is wished, and wait for the last run', async () => {
    const past = new Date(Date.now() - 7_200_000)
    const skipping = await schedules.create(context.rootTenant, {
      name: 'skipping',
      queue: work.name,
      cron: '*/5 * * * *',
      missed: 'skip',
      data: { n: 'skipping' },
    })
    const idle = defineJob({ ...work, name: 'test-nobody-works' })
    await context.jobs.declare(idle)
    const overlapping = await schedules.create(context.rootTenant, { name: 'overlapping', queue: idle.name, cron: '0 0 1 1 *' })
    await setNext(skipping.id, past)
    await setNext(overlapping.id, past)
    await schedules.run()
    const missed = await schedules.get(context.rootTenant, skipping.id)
    // Unless its newest instant was less than a minute ago, by chance.
    if (Date.now() - missed.lastAt!.getTime() > 60_000) expect(missed.lastOutcome).toBe('missed')
    expect((await schedules.get(context.rootTenant, overlapping.id)).lastOutcome).toBe('sent')
    await setNext(overlapping.id, past)
    await schedules.run()
    expect((await schedules.get(context.rootTenant, overlapping.id)).lastOutcome).toBe('overlap')
  })

  async function setNext(id: string, at: Date): Promise<void> {
    await context.db.withTenant(context.rootTenant, (tx) =>
      tx.execute(sql`update schedules set next_at = ${at.toISOString()} where id = ${id}`),
    )
  }
})

describe('the limiter', () => {
  it('never lets more than its count into any span of its length', () => {
    const windows = [
      { count: 3, perMs: 1000 },
      { count: 4, perMs: 60_000 },
    ]
    expect(decide([0, 100, 200], windows, 1, 500)).toEqual({ ok: false, waitMs: 501 })
    expect(decide([0, 100, 200], windows, 1, 1000)).toEqual({ ok: false, waitMs: 1 })
    expect(decide([0, 100, 200], windows, 1, 1001)).toEqual({ ok: true, left: 0 })
    expect(decide([0, 100, 200, 1001], windows, 1, 5000)).toEqual({ ok: false, waitMs: 55_001 })
    expect(decide([], windows, 4, 0)).toMatchObject({ ok: false })
  })

  it('counts exactly when everybody takes at once', async () => {
    const takes = await Promise.all(
      Array.from({ length: 40 }, () => take(context.db, context.rootTenant, 'robot', [{ count: 20, perMs: 600_000 }])),
    )
    expect(takes.filter((one) => one.ok)).toHaveLength(20)
    for (const one of takes) if (!one.ok) expect(one.waitMs).toBeGreaterThan(500_000)
    expect(await take(context.db, context.rootTenant, 'another', [{ count: 1, perMs: 1000 }])).toMatchObject({ ok: true, left: 0 })
  })
})

describe('shared state', () => {
  it('lets nobody write over what he has not seen', async () => {
    const state = new SharedState<{ n: number }>(context.db, context.rootTenant, { scope: 'test', key: 'k' })
    expect(await state.get()).toBeUndefined()
    expect(await state.set({ n: 1 }, 0)).toBe(1)
    await expect(state.set({ n: 2 }, 0)).rejects.toMatchObject({ code: 'STATE_CONFLICT' })
    await expect(state.set({ n: 2 }, 7)).rejects.toMatchObject({ code: 'STATE_CONFLICT' })
    await Promise.all([1, 2, 3].map(() => state.update((value) => ({ n: (value?.n ?? 0) + 1 }))))
    expect(await state.get()).toEqual({ value: { n: 4 }, version: 4 })
  })
})

describe('a lease', () => {
  it('has one holder at a time, whose epoch grows, and passes on when it is let go', async () => {
    const other = new Jobs(context)
    await other.start()
    const end = new AbortController()
    const held: { by: string; epoch: number }[] = []
    let inside = 0
    const hold = (jobs: Jobs, by: string) =>
      holdLease(jobs, 'test-lease', { ttlMs: 1500, signal: end.signal }, async (epoch) => {
        expect(++inside).toBe(1)
        held.push({ by, epoch })
        await new Promise((resolve) => setTimeout(resolve, 50))
        inside--
      })
    const both = Promise.all([hold(context.jobs, 'a'), hold(other, 'b')])
    await vi.waitFor(() => expect(new Set(held.map((one) => one.by)).size).toBe(2), soon)
    end.abort()
    await both
    const epochs = held.map((one) => one.epoch)
    expect(epochs.every((epoch, i) => i === 0 || epoch >= epochs[i - 1]!)).toBe(true)
    await other.stop(1000)
  })
})

describe('a state machine', () => {
  const effect = { def: work as unknown as JobDef, data: ({ key }: { key: string }) => ({ tenantId, n: `effect of ${key}` }) }
  const newMachine = () =>
    new Machine(context.jobs, {
      name: 'rollout',
      initial: 'draft',
      states: ['draft', 'active', 'suspended', 'closed'],
      final: ['closed'],
      events: {
        activate: {
          from: ['draft', 'suspended'],
          to: 'active',
          effects: [effect],
          guard: (_, data) => (data['blocked'] ? 'blocked' : true),
        },
        suspend: { from: ['active'], to: 'suspended' },
        close: { from: ['active', 'suspended'], to: 'closed' },
      },
      timeouts: [{ in: 'active', afterMs: 300, event: 'suspend' }],
    })
  const apply = (key: string, event: 'activate' | 'suspend' | 'close', options = {}) =>
    context.db.withTenant(context.rootTenant, (tx) => newMachine().tryApply(tx, context.rootTenant, key, event, options))

  beforeAll(() => handleTimeouts(context, [newMachine() as unknown as Machine<string, string>]))

  it('moves, sends its effects once with a stable key, and times out', async () => {
    expect(await apply('r1', 'activate', { idempotencyKey: 'once' })).toEqual({ state: 'active', version: 1, outcome: 'applied' })
    expect(await apply('r1', 'activate', { idempotencyKey: 'once' })).toEqual({ state: 'active', version: 1, outcome: 'repeated' })
    await vi.waitFor(
      () => expect(seen.filter((one) => one.n === 'effect of r1').map((one) => one.key)).toEqual(['rollout/r1/1/test-work']),
      soon,
    )
    await vi.waitFor(async () => expect(await stateOf('r1')).toBe('suspended'), soon)
  })

  it('refuses what is not possible, keeps that in its history, and changes nothing', async () => {
    expect(await apply('r2', 'close')).toMatchObject({ state: 'draft', outcome: 'rejected', reason: 'not from draft' })
    await expect(
      context.db.withTenant(context.rootTenant, (tx) => newMachine().apply(tx, context.rootTenant, 'r2', 'close')),
    ).rejects.toMatchObject({ code: 'TRANSITION_ILLEGAL' })
    await expect(apply('r2', 'activate', { expectedVersion: 9 })).rejects.toMatchObject({ code: 'VERSION_CONFLICT' })
    const { machine, events } = await context.db.withTenant(context.rootTenant, (tx) => readMachine(tx, 'rollout', 'r2'))
    expect(machine).toMatchObject({ state: 'draft', version: 0 })
    expect(events.map((one) => one.outcome)).toEqual(['rejected'])
  })

  it('lets concurrent events wait for each other, and a rollback leaves neither state nor job', async () => {
    const results = await Promise.all(Array.from({ length: 8 }, () => apply('r3', 'activate')))
    expect(results.filter((one) => one.outcome === 'applied')).toHaveLength(1)
    await expect(
      context.db.withTenant(context.rootTenant, async (tx) => {
        await newMachine().apply(tx, context.rootTenant, 'r4', 'activate')
        throw new Error('undone')
      }),
    ).rejects.toThrow('undone')
    await expect(stateOf('r4')).rejects.toMatchObject({ code: 'NOT_FOUND' })
    expect(seen.some((one) => one.n === 'effect of r4')).toBe(false)
  })

  it('ends in the state that a plain table of its transitions gives, for any order of events', async () => {
    const table: Record<string, Record<string, string>> = {
      draft: { activate: 'active' },
      active: { suspend: 'suspended', close: 'closed' },
      suspended: { activate: 'active', close: 'closed' },
      closed: {},
    }
    const quiet = new Machine(context.jobs, { ...newMachine().def, timeouts: [], name: 'quiet' })
    for (let order = 0; order < 40; order++) {
      let expected = 'draft'
      const events = Array.from({ length: 6 }, () => (['activate', 'suspend', 'close'] as const)[Math.floor(Math.random() * 3)]!)
      for (const event of events) {
        expected = table[expected]![event] ?? expected
        const { state } = await context.db.withTenant(context.rootTenant, (tx) =>
          quiet.tryApply(tx, context.rootTenant, `o${order}`, event),
        )
        expect(state, events.join()).toBe(expected)
      }
    }
  })

  async function stateOf(key: string): Promise<string> {
    return (await context.db.withTenant(context.rootTenant, (tx) => readMachine(tx, 'rollout', key))).machine.state
  }
})
