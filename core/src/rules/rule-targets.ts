// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import type { RuleProblem } from './problems.ts'
import type { RuleTarget } from './schemas.ts'

/** What of a device decides whether a rule is for it. */
export type Targetable = { id: string; productId: string; tags: readonly string[] }

/** Whether the rule is for the device: the union of the lists without what is excluded [2]. */
export function isTargeted({ all, productIds, deviceIds, tags, exclude }: RuleTarget, device: Targetable): boolean {
  const has = (list: readonly string[] | undefined, one: string) => list?.includes(one) === true
  const isTagged = (list: readonly string[] | undefined) => list?.some((tag) => device.tags.includes(tag)) === true
  if (has(exclude?.deviceIds, device.id) || isTagged(exclude?.tags)) return false
  return all === true || has(productIds, device.productId) || has(deviceIds, device.id) || isTagged(tags)
}

/** The same in SQL; needs `rules r` and a device in `d`. */
export const targetSql: SQL = sql`(
  not coalesce(r.document #> '{target,exclude,deviceIds}' ? d.id::text, false)
  and not coalesce(r.document #> '{target,exclude,tags}' ?| d.tags, false)
  and (coalesce((r.document #> '{target,all}')::bool, false)
    or coalesce(r.document #> '{target,productIds}' ? d.product_id::text, false)
    or coalesce(r.document #> '{target,deviceIds}' ? d.id::text, false)
    or coalesce(r.document #> '{target,tags}' ?| d.tags, false)))`

/** Ids in the target that are of nothing the tenant has; there are no groups yet, so that every one of those is unknown. */
export async function findUnknownReferences(tx: Tx, { productIds, deviceIds, groupIds, exclude }: RuleTarget): Promise<RuleProblem[]> {
  const lists: [string, readonly string[] | undefined, SQL | undefined][] = [
    ['/target/productIds', productIds, sql`products`],
    ['/target/deviceIds', deviceIds, sql`devices where deleted_at is null`],
    ['/target/exclude/deviceIds', exclude?.deviceIds, sql`devices where deleted_at is null`],
    ['/target/groupIds', groupIds, undefined],
    ['/target/exclude/groupIds', exclude?.groupIds, undefined],
  ]
  const problems: RuleProblem[] = []
  for (const [pointer, ids, table] of lists) {
    if (!ids || ids.length === 0) continue
    const known = table
      ? await tx.execute<{ id: string }>(sql`select id from (select * from ${table}) t where id = any(${sql.param(ids)}::uuid[])`)
      : []
    const found = new Set([...known].map(({ id }) => id))
    for (const [index, id] of ids.entries()) {
      if (found.has(id.toLowerCase())) continue
      problems.push({ pointer: `${pointer}/${index}`, code: 'reference_unknown', detail: `there is no ${id}` })
    }
  }
  return problems
}
