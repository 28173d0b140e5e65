// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import * as alarmTables from './alarm-tables.ts'
import * as jobTables from './job-tables.ts'
import * as notifyTables from './notify-tables.ts'
import * as tables from './tables.ts'
import { findOpenTables } from './tenancy.ts'
import { getTableConfig } from 'drizzle-orm/pg-core'
import type { PgTable } from 'drizzle-orm/pg-core'

let context: TestContext
let admin: postgres.Sql
beforeAll(async () => {
  context = await createTestContext()
  admin = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await admin.end()
  await context.close()
})

const openTables = (connection: postgres.Sql | postgres.TransactionSql) =>
  findOpenTables((text) => connection.unsafe<{ name: string }[]>(text))

describe('tenant isolation in the database', () => {
  it('forces row level security with exactly two policies on every table with tenant_id [SC-80]', async () => {
    expect(await openTables(admin)).toEqual([])
  })

  it('notices a dropped policy: negative control of the check above', async () => {
    await admin
      .begin(async (tx) => {
        await tx`drop policy tenant on products`
        expect(await openTables(tx)).toEqual(['products'])
        throw new Error('undo')
      })
      .catch((error: unknown) => expect(error).toMatchObject({ message: 'undo' }))
  })

  it('has the tenant first in every primary key and foreign key', async () => {
    const rows = await admin`
      select conrelid::regclass::text as table, contype, (select attname from pg_attribute where attrelid = conrelid and attnum = conkey[1])::text as first
      from pg_constraint where connamespace = 'public'::regnamespace and contype in ('p', 'f', 'u')
        and conrelid::regclass::text not in ('leases', 'rule_checkpoints', 'telemetry_segments', 'tenants', 'installation', 'schema_version', 'module_migrations')`
    for (const row of rows) expect(['tenant_id', 'tenant_no'], `${row['table']} ${row['contype']}`).toContain(row['first'])
  })

  it('shows and takes nothing without a tenant in the transaction', async () => {
    await expect(
      admin.begin(async (tx) => {
        await tx`set local role pms_app`
        expect(await tx`select * from products`).toHaveLength(0)
        await tx`insert into products (tenant_id, id, name) select gen_random_uuid(), gen_random_uuid(), 'x'`
      }),
    ).rejects.toMatchObject({ code: '42501' })
  })

  it('refuses the login any query outside a role', async () => {
    const login = postgres(context.database.url, { max: 1 })
    await expect(login`select * from public.devices`).rejects.toMatchObject({ code: '42501' })
    await login.end()
  })

  it('keeps pms_app out of telemetry tables [SC-82, SC-83]', async () => {
    const scope = context.rootTenant
    for (const table of [
      'telemetry_chunks',
      'telemetry_damaged_chunks',
      'telemetry_segments',
      'telemetry_keys',
      'telemetry_device_keys',
      'telemetry_hourly',
    ]) {
      await expect(context.db.withTenant(scope, (tx) => tx.execute(sql`select * from ${sql.identifier(table)}`))).rejects.toMatchObject({
        cause: { code: '42501' },
      })
    }
  })

  it('lists every SECURITY DEFINER function with a pinned search path and without PUBLIC', async () => {
    const rows = await admin`
      select proname::text as name, proconfig, has_function_privilege('public', oid, 'execute') as open
      from pg_proc where prosecdef and pronamespace = 'public'::regnamespace order by proname`
    expect(rows.map((row) => row['name'])).toEqual([
      'analyze_device_tables',
      'license_counts',
      'license_device_count',
      'license_note_usage',
      'telemetry_chunks_of',
      'telemetry_has_few_keys',
      'telemetry_key_no',
      'telemetry_last_chunks',
      'telemetry_load_keys',
      'telemetry_register_keys',
      'telemetry_tail',
    ])
    for (const row of rows) expect(row).toMatchObject({ proconfig: ['search_path=pg_catalog'], open: false })
  })
})

describe('drizzle tables', () => {
  it('match the migrated columns by name, type and nullability', async () => {
    for (const table of [
      ...Object.values(tables),
      ...Object.values(alarmTables),
      ...Object.values(jobTables),
      ...Object.values(notifyTables),
    ] as PgTable[]) {
      const config = getTableConfig(table)
      const rows = await admin`select attname::text as name, format_type(atttypid, atttypmod) as type, attnotnull as required
        from pg_attribute where attrelid = ${config.name}::regclass and attnum > 0 and not attisdropped`
      const actual = Object.fromEntries(rows.map((row) => [row['name'], `${row['type']}${row['required'] ? ' not null' : ''}`]))
      const declared = Object.fromEntries(
        config.columns.map((column) => [column.name, `${column.getSQLType()}${column.notNull ? ' not null' : ''}`]),
      )
      expect(declared, config.name).toEqual(actual)
    }
  })
})
