// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Db, Scope, Tx } from '../db/client.ts'

/** No more than `count` takes in any span of `perMs`. */
export type Window = { count: number; perMs: number }
export type Taken = { ok: true; left: number } | { ok: false; waitMs: number }

/**
 * Takes `n` from sliding windows that all servers share, on the database's clock, exactly: never more than `count`
 * takes in any span of `perMs` [jobs 7.1]. All windows have room, or nothing is taken.
 */
export function take(db: Db, scope: Scope, key: string, windows: readonly Window[], n = 1): Promise<Taken> {
  return db.withTenant(scope, (tx) => takeInside(tx, scope, key, windows, n))
}

/** The same as part of a transaction, whose rollback gives back what was taken. Others wait for its end. */
export async function takeInside(tx: Tx, scope: Scope, key: string, windows: readonly Window[], n = 1): Promise<Taken> {
  const [row] = await tx.execute<{ hits: number[]; now: number }>(sql`
    insert into job_rates as r (tenant_id, key) values (${scope.tenantId}, ${key})
    on conflict (tenant_id, key) do update set updated_at = now()
    returning (select coalesce(array_agg(extract(epoch from hit)::float8 * 1000 order by hit), '{}') from unnest(r.hits) hit) as hits,
      extract(epoch from clock_timestamp())::float8 * 1000 as now`)
  const { hits, now } = row!
  const decided = decide(hits, windows, n, now)
  if (!decided.ok) return decided
  const longest = Math.max(...windows.map((window) => window.perMs))
  await tx.execute(sql`update job_rates set
      hits = array(select hit from unnest(hits) hit where hit > clock_timestamp() - ${longest} * interval '1 ms' order by hit)
        || array_fill(to_timestamp(${now / 1000}), array[${n}::int])
    where key = ${key}`)
  return decided
}

/**
 * Whether `n` more fit at `now`, and if not, how long to wait until they do.
 *
 * @param hits instants of earlier takes in ms, ascending
 */
export function decide(hits: readonly number[], windows: readonly Window[], n: number, now: number): Taken {
  let waitMs = 0
  let left = Infinity
  for (const { count, perMs } of windows) {
    // A take exactly `perMs` ago is still inside: a span of that length holds both ends.
    const inside = hits.filter((hit) => hit >= now - perMs)
    left = Math.min(left, count - inside.length - n)
    const excess = inside.length + n - count
    if (excess > 0) waitMs = Math.max(waitMs, excess > inside.length ? perMs : inside[excess - 1]! + perMs - now + 1)
  }
  return waitMs > 0 ? { ok: false, waitMs: Math.ceil(waitMs) } : { ok: true, left }
}

/** Rows of keys that nobody used for a month. */
export async function removeOldRates(db: Db, scope: Scope): Promise<void> {
  await db.withTenant(scope, (tx) => tx.execute(sql`delete from job_rates where updated_at < now() - interval '31 days'`))
}
