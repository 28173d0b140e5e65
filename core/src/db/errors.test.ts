// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { classifyDbError, isUniqueViolation, needsAdministrator, sqlStateOf } from './errors.ts'

let context: TestContext
beforeAll(async () => {
  context = await createTestContext()
})
afterAll(() => context.close())

const failed = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => expect.unreachable(),
    (error: unknown) => error,
  )
const throwState = (state: string) =>
  failed(
    context.db.withTenant(context.rootTenant, (tx) =>
      tx.execute(sql.raw(`do $$ begin raise exception 'x' using errcode = '${state}'; end $$`)),
    ),
  )

describe('errors of the database', () => {
  it('are sorted by the SQLSTATE that PostgreSQL gave, through drizzle', async () => {
    for (const state of ['22021', '23514']) expect(classifyDbError(await throwState(state)), state).toBe('data')
    for (const state of ['08006', '53100', '57P01', '57014', '25006', '40001', '40P01', '55P03', '42501', '28P01', '3D000']) {
      expect(classifyDbError(await throwState(state)), state).toBe('unavailable')
    }
    for (const state of ['XX000', '42P01']) expect(classifyDbError(await throwState(state)), state).toBe('unknown')
  })

  it('are not judged by the parameters of the statement', async () => {
    const error = await failed(
      context.db.withTenant(context.rootTenant, (tx) => tx.execute(sql`select ${'connection terminated timeout'}::text::int`)),
    )
    expect(classifyDbError(error)).toBe('data')
    expect(sqlStateOf(error)).toBe('22P02')
  })

  it('of a refused login are unavailable, and a person must act', async () => {
    const pool = new pg.Pool({ connectionString: context.database.url.replace(/:[^:@]+@/, ':wrong@') })
    const error = await failed(pool.query('select 1'))
    expect([classifyDbError(error), needsAdministrator(error)]).toEqual(['unavailable', true])
    await pool.end()
  })

  it('of a lost or refused connection are unavailable', async () => {
    const pool = new pg.Pool({ connectionString: 'postgres://x:y@127.0.0.1:1/x' })
    expect(classifyDbError(await failed(pool.query('select 1')))).toBe('unavailable')
    await pool.end()
    const client = new pg.Client(context.database.adminUrl)
    client.on('error', () => {})
    await client.connect()
    expect(classifyDbError(await failed(client.query('select pg_terminate_backend(pg_backend_pid())')))).toBe('unavailable')
    expect(classifyDbError(await failed(client.query('select 1')))).toBe('unavailable')
  })

  it('of a database that takes no connections for a while are unavailable', async () => {
    const name = new URL(context.database.url).pathname.slice(1)
    const admin = new pg.Client(inject('adminUrl'))
    await admin.connect()
    await admin.query(`alter database ${name} with allow_connections false`)
    try {
      const pool = new pg.Pool({ connectionString: context.database.url })
      const error = await failed(pool.query('select 1'))
      expect(classifyDbError(error), String(error)).toBe('unavailable')
      await pool.end()
    } finally {
      await admin.query(`alter database ${name} with allow_connections true`)
      await admin.end()
    }
  })

  it('of connections that died in the pool are not seen by the next transaction', async () => {
    const read = () => context.db.withTenant(context.rootTenant, (tx) => tx.execute(sql`select pg_sleep(0.05)`))
    const admin = new pg.Client(context.database.adminUrl)
    await admin.connect()
    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 8 }, read))
      await admin.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'iot-pms' and datname = current_database()",
      )
      await expect(Promise.all(Array.from({ length: 8 }, read))).resolves.toHaveLength(8)
    }
    await admin.end()
  })

  it('that are no errors of the database are unknown', () => {
    expect(classifyDbError(new TypeError('x is undefined'))).toBe('unknown')
    expect(classifyDbError(Object.assign(new RangeError('timeout'), { code: 'ERR_OUT_OF_RANGE' }))).toBe('unknown')
    expect(isUniqueViolation(new Error('23505'))).toBe(false)
  })
})
