// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import { toStored } from '../attributes/columns.ts'
import { attributeColumns } from '../attributes/columns.ts'
import type { ValueColumns } from '../attributes/columns.ts'
import type { Scope, Tx } from '../db/client.ts'
import { stateSql } from '../devices/states.ts'
import { compileDocument } from './compile-rule.ts'
import type { CompiledRule } from './compile-rule.ts'
import type { DeviceCard } from './live-scene.ts'
import type { PairState } from './pair.ts'
import { targetSql } from './rule-targets.ts'
import type { AlarmRule } from './schemas.ts'
import { toRuleValue } from './values.ts'
import type { RuleValue } from './values.ts'

/** A rule in force. */
export type RuleInForce = {
  id: string
  tenant: Scope
  version: number
  document: AlarmRule
  compiled: CompiledRule
  /** Since when this version runs, ms since 1970. */
  activeSince: number
}

export type StoredState = {
  ruleId: string
  deviceId: string
  version: number
  state: PairState
  at: number
  activeSince: number
  /** Whether its alarm was cleared by somebody else, which the state does not know. */
  isCleared: boolean
}

type RuleRow = { id: string; version: number; document: unknown; activeSince: number }

const ruleColumns = sql`r.id, r.version, r.document, floor(extract(epoch from r.updated_at) * 1000)::float8 as "activeSince"`

/** Rules that are to run: not off, not in the bin, not failing. */
export async function loadRules(tx: Tx, tenant: Scope, only: SQL = sql``): Promise<RuleInForce[]> {
  const rows = await tx.execute<RuleRow>(
    sql`select ${ruleColumns} from rules r where r.deleted_at is null and r.mode <> 'off' and r.failure is null ${only}`,
  )
  return rows.flatMap((row) => {
    const result = compileDocument(row.document)
    // What an older release took and this one does not: it rests until somebody saves it again.
    return 'compiled' in result ? [{ ...row, tenant, document: result.document, compiled: result.compiled }] : []
  })
}

/** What an earlier version of a rule was, for states that still belong to it. */
export async function loadVersion(tx: Tx, ruleId: string, version: number): Promise<CompiledRule | undefined> {
  const [row] = await tx.execute<{ document: unknown }>(
    sql`select document from rule_versions where rule_id = ${ruleId} and version = ${version}`,
  )
  const result = row && compileDocument(row.document)
  return result && 'compiled' in result ? result.compiled : undefined
}

type CardRow = Omit<DeviceCard, 'tenantId' | 'tenantNo' | 'connection'> & { state: string; since: number | null }

/** Devices that are there: these, or those that a rule is for. */
export async function loadCards(
  tx: Tx,
  { tenantId, tenantNo }: Scope,
  of: { ids: readonly string[] } | { ruleId: string },
): Promise<DeviceCard[]> {
  const only = 'ids' in of ? sql`d.id = any(${sql.param(of.ids)}::uuid[])` : sql`r.id = ${of.ruleId} and ${targetSql}`
  const rows = await tx.execute<CardRow>(sql`
    select d.id, d.number as no, d.name, d.label, d.tags, d.product_id as "productId", p.name as product,
      floor(extract(epoch from d.created_at) * 1000)::float8 as "createdAt", ${stateSql} as state,
      floor(extract(epoch from case when d.link = 'session' then d.last_connect_at when d.link = 'closed' then d.last_disconnect_at else d.last_activity_at end) * 1000)::float8 as since
    from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id ${'ids' in of ? sql`` : sql`cross join rules r`}
    where d.deleted_at is null and ${only}`)
  return rows.map(({ state, since, ...card }) => ({
    ...card,
    tenantId,
    tenantNo,
    connection: state === 'never' ? undefined : { isOnline: state === 'online', since: since ?? card.createdAt },
  }))
}

/** Attributes (`scope/name`) of devices. */
export async function loadAttributes(
  tx: Tx,
  deviceIds: readonly string[],
  names: ReadonlySet<string>,
): Promise<{ deviceId: string; name: string; value: RuleValue }[]> {
  if (names.size === 0 || deviceIds.length === 0) return []
  const rows = await tx.execute<ValueColumns & { deviceId: string; scope: string; key: string; updatedAt: number }>(sql`
    select a.device_id as "deviceId", a.scope, ${attributeColumns} from device_attributes a
    where a.device_id = any(${sql.param(deviceIds)}::uuid[]) and a.scope || '/' || a.key = any(${sql.param([...names])}::text[])`)
  return rows.map((row) => ({ deviceId: row.deviceId, name: `${row.scope}/${row.key}`, value: toRuleValue(toStored(row)) }))
}

/** States of pairs; a person may have cleared the alarm of one in the moment before the server ended. */
export async function loadStates(tx: Tx): Promise<StoredState[]> {
  const rows = await tx.execute<StoredState>(sql`
    select s.rule_id as "ruleId", s.device_id as "deviceId", s.version, s.state, s.at::float8 as at, s.active_since::float8 as "activeSince",
      s.state ? 'open' and exists (select from alarms a where a.rule_id = s.rule_id and a.device_id = s.device_id and a.cleared_ts is not null
        and a.start_ts = (s.state #>> '{open,startTs}')::float8::int8) as "isCleared"
    from rule_states s`)
  return [...rows]
}

export async function loadValues(tx: Tx): Promise<{ deviceId: string; slots: unknown }[]> {
  return [...(await tx.execute<{ deviceId: string; slots: unknown }>(sql`select device_id as "deviceId", slots from rule_values`))]
}
