// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'

/** Months made ahead, so that ingest never waits for one; as many behind, for what devices send late. */
const margin = 2
/** Months made at most for the time a server stood still; older points lie in the default partition. */
const maxBehind = 60

/**
 * Makes the monthly partitions that are missing: this one, those around it, and those that were missed
 * since the first. Points of a month without a partition are stored all the same.
 *
 * @throws when the current month cannot be made; the others are told as WARN and tried again with the next call
 */
export async function ensureMonths({ db, clock, log }: Context): Promise<void> {
  const present = await db.withRole('pms_jobs', (tx) =>
    tx.execute<{ month: string }>(sql`select replace(right(relname, 7), '_', '-') as month from pg_catalog.pg_class
      where relnamespace = 'public'::regnamespace and relkind = 'r' and relname ~ '^telemetry_[0-9]{4}_[0-9]{2}$' order by 1`),
  )
  const known = new Set(present.map((row) => row.month))
  const now = new Date(clock.now())
  const monthAt = (offset: number) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + offset, 1)).toISOString().slice(0, 7)
  const ensure = (month: string) => db.withRole('pms_jobs', (tx) => tx.execute(sql`select telemetry_ensure_month(${`${month}-01`}::date)`))

  if (!known.has(monthAt(0))) await ensure(monthAt(0))
  for (let offset = margin; offset >= -maxBehind; offset--) {
    const month = monthAt(offset)
    const isWanted = offset >= -margin || month > (present[0]?.month ?? month)
    if (offset === 0 || known.has(month) || !isWanted) continue
    await ensure(month).catch((error: unknown) => log.warn({ err: error, month }, 'a telemetry partition could not be made yet'))
  }
}
