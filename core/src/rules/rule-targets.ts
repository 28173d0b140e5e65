// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { readRouting } from '../notifications/routing-document.ts'
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

/** Receivers, channels and devices of actions that are not there. */
export async function findUnknownAddresses(tx: Tx, actions: readonly Readonly<Record<string, unknown>>[]): Promise<RuleProblem[]> {
  const problems: RuleProblem[] = []
  const miss = (pointer: string, name: string) => problems.push({ pointer, code: 'reference_unknown', detail: `there is no ${name}` })
  for (const [index, { receivers, channelId, type, target }] of actions.entries()) {
    const pointer = `/actions/${index}`
    if (Array.isArray(receivers)) {
      const { routing } = await readRouting(tx)
      const known = new Set(routing.receivers.map(({ name }) => name))
      for (const [at, name] of receivers.entries()) if (!known.has(String(name))) miss(`${pointer}/receivers/${at}`, String(name))
    }
    if (typeof channelId === 'string') {
      const found = await tx.execute(sql`select 1 from notify_channels where id = ${channelId} and type = 'webhook'`)
      if (found.length === 0) miss(`${pointer}/channelId`, channelId)
    }
    if (type === 'command' && typeof target === 'string' && target !== 'self') {
      const found = await tx.execute(sql`select 1 from devices where id = ${target} and deleted_at is null`)
      if (found.length === 0) miss(`${pointer}/target`, target)
    }
  }
  return problems
}
