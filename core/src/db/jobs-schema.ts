// SPDX-License-Identifier: AGPL-3.0-only
import { getConstructionPlans, getMigrationPlans } from 'pg-boss'
import type postgres from 'postgres'

/** Schema of the queues' own tables, outside row level security: only the role `pms_jobs` may touch it. */
export const jobsSchema = 'jobs'

/**
 * Installs the queues' tables or raises them to this version. Called inside the lock of the migration run, so that no
 * server does it at its start [jobs §1].
 */
export async function ensureJobsSchema(sql: postgres.Sql): Promise<void> {
  const [known] = await sql<{ exists: boolean }[]>`select to_regclass(${`${jobsSchema}.version`}) is not null as exists`
  if (!known?.exists) {
    await sql.unsafe(`create schema if not exists ${jobsSchema} authorization pms_jobs`)
    await asOwner(sql, getConstructionPlans(jobsSchema, { createSchema: false }))
    return
  }
  const [row] = await sql.unsafe<{ version: number }[]>(`select version from ${jobsSchema}.version`)
  const plan = planFrom(row?.version ?? 0)
  if (plan) await asOwner(sql, plan)
}

/** Undefined when there is nothing to do: the library has no plan from its newest version on. */
function planFrom(version: number): string | undefined {
  try {
    return getMigrationPlans(jobsSchema, version) || undefined
  } catch {
    return undefined
  }
}

async function asOwner(sql: postgres.Sql, plan: string): Promise<void> {
  await sql`set role pms_jobs`
  try {
    await sql.unsafe(plan)
  } finally {
    await sql`reset role`
  }
}
