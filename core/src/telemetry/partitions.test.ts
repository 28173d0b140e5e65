// SPDX-License-Identifier: AGPL-3.0-only
import { pino } from 'pino'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { TableStore } from './table-store.ts'

let context: TestContext
let admin: postgres.Sql
const notices: string[] = []
beforeEach(async () => {
  context = await createTestContext()
  notices.length = 0
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: (notice) => notices.push(notice['message'] ?? '') })
})
afterEach(async () => {
  await admin.end()
  await context.close()
})

const today = new Date()
/** Start of a month, counted from this one. */
const month = (offset: number) => Date.UTC(today.getUTCFullYear(), today.getUTCMonth() + offset, 1)
const nameOf = (offset: number) => `telemetry_${new Date(month(offset)).toISOString().slice(0, 7).replace('-', '_')}`

/** Starts and stops a store whose clock stands in that month; returns its warnings. */
async function startStore(offset = 0): Promise<{ msg: string; month?: string }[]> {
  const lines: { msg: string; month?: string }[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => lines.push(JSON.parse(line) as { msg: string }) })
  const now = () => month(offset) + 1000
  const store = new TableStore({ ...context, log, clock: { ...context.clock, now } })
  try {
    await store.start()
  } finally {
    await store.stop()
  }
  return lines
}

async function monthsPresent(): Promise<string[]> {
  const rows = await admin<{ name: string }[]>`select relname::text as name from pg_class where relname ~ '^telemetry_[0-9_]+$' order by 1`
  return rows.map((row) => row.name)
}

async function insert(...times: number[]): Promise<void> {
  const rows = times.map((ts) => ({ tenant_no: 1, device_no: 1, key_no: 1, ts: String(ts), kind: 0, num: 1 }))
  await admin`insert into telemetry ${admin(rows)}`
}

/** In which partition each point lies. */
async function places(): Promise<Record<string, string>> {
  const rows = await admin<{ ts: string; place: string }[]>`select ts, tableoid::regclass::text as place from telemetry order by ts`
  return Object.fromEntries(rows.map((row) => [row.ts, row.place]))
}

describe('the monthly partitions', () => {
  it('are there for two months before and after', async () => {
    expect(await startStore()).toEqual([])
    expect(await monthsPresent()).toEqual([-2, -1, 0, 1, 2].map(nameOf))
    expect(await startStore()).toEqual([])
  })

  it('take over the rows that already lie in the default one, and no others', async () => {
    await startStore()
    const times = [1, month(-14), month(3) - 1, month(3), month(4) - 1, month(4), month(40)]
    await insert(...times)
    await startStore(1)
    expect(await places()).toEqual({
      1: 'telemetry_old',
      [month(-14)]: 'telemetry_old',
      [month(3) - 1]: nameOf(2),
      [month(3)]: nameOf(3),
      [month(4) - 1]: nameOf(3),
      [month(4)]: 'telemetry_late',
      [month(40)]: 'telemetry_late',
    })
  })

  it('are made without a look at the history before the first of them', async () => {
    await startStore()
    await insert(...Array.from({ length: 1000 }, (_, i) => month(-3) - i))
    await admin`set client_min_messages = debug1`
    await admin`select telemetry_ensure_month(${new Date(month(3)).toISOString().slice(0, 10)}::date)`
    await admin`reset client_min_messages`
    // What PostgreSQL says when a constraint saves it the scan.
    expect(notices.filter((notice) => notice.includes('is implied by existing constraints'))).toEqual([
      expect.stringContaining('"telemetry_old"'),
    ])
    const plan = await admin<{ 'QUERY PLAN': string }[]>`explain delete from telemetry_other where ts >= ${month(3)} and ts < ${month(4)}`
    expect(plan.map((row) => row['QUERY PLAN']).join('\n')).not.toContain('telemetry_old')
  })

  it('are made for the months a stopped server has missed', async () => {
    await startStore()
    await startStore(9)
    expect(await monthsPresent()).toEqual(Array.from({ length: 14 }, (_, i) => nameOf(i - 2)))
  })

  it('a month that cannot be made is told and holds up nothing, unless it is the current one', async () => {
    // A name that is taken.
    await admin.unsafe(`create domain ${nameOf(1)} as int`)
    const lines = await startStore()
    expect(lines).toEqual([expect.objectContaining({ level: 40, month: nameOf(1).slice(10).replace('_', '-') })])
    expect(await monthsPresent()).toEqual([-2, -1, 0, 2].map(nameOf))
    await expect(startStore(1)).rejects.toThrow()
  })
})
