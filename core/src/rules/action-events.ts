// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import type { Alarm } from '../alarms/schemas.ts'
import { readAlarms } from '../alarms/alarm-rows.ts'
import type { RuleAction } from './action-schemas.ts'
import { isObject } from './problems.ts'

/** What an action works with. */
export type ActionEvent = {
  action: RuleAction
  alarm: Alarm
  device: { id: string; name: string; label: string | null; product: string } | undefined
  ruleName: string
  /** Of notifications [7.2]. */
  labels: Record<string, string>
  /** What templates may name: alarm, device, rule, values, moment, now. */
  data: Record<string, unknown>
  isDone: boolean
}

export type ActionPointer = {
  alarmId: string
  eventId: string
  moment: string
  ruleId: string | null
  version: number | null
  index: number
}

/** What an alarm of no rule does: it goes through the routing tree. */
export const usualAction: RuleAction = { type: 'notify', on: ['raised', 'severityUp', 'severityDown', 'cleared'] }

type DeviceRow = { id: string; name: string; label: string | null; product: string; productId: string; tags: string[] }

/** @returns undefined when the alarm or the action is gone */
export async function loadEvent(tx: Tx, pointer: ActionPointer): Promise<ActionEvent | undefined> {
  const { alarmId, eventId, ruleId, version, index, moment } = pointer
  const [found] = await readAlarms(tx, [alarmId])
  if (!found) return undefined
  const { customerId: _, ...alarm } = found
  const action = ruleId === null ? usualAction : await loadAction(tx, ruleId, version ?? 0, index)
  if (!action) return undefined
  const [device] = alarm.deviceId
    ? await tx.execute<DeviceRow>(sql`
        select d.id, d.name, d.label, d.product_id as "productId", p.name as product, d.tags from devices d
        join products p on p.tenant_id = d.tenant_id and p.id = d.product_id where d.id = ${alarm.deviceId}`)
    : []
  const [event] = await tx.execute<{ data: Record<string, unknown> }>(
    sql`select data from alarm_events where id = ${eventId} and alarm_id = ${alarmId}`,
  )
  const [run] = await tx.execute(sql`select 1 from rule_runs where key = ${`${eventId}:${index}`}`)
  const shown = device && { id: device.id, name: device.name, label: device.label, product: device.product }
  const values = isObject(event?.data['values']) ? event.data['values'] : alarm.trigger
  return {
    action,
    alarm,
    device: shown,
    ruleName: alarm.type,
    labels: labelsOf(alarm, device),
    data: { moment, alarm, device: shown ?? null, rule: { id: ruleId, name: alarm.type }, values, now: Date.now() },
    isDone: run !== undefined,
  }
}

async function loadAction(tx: Tx, ruleId: string, version: number, index: number): Promise<RuleAction | undefined> {
  const [row] = await tx.execute<{ action: RuleAction | null }>(
    sql`select document -> 'actions' -> ${index}::int as action from rule_versions where rule_id = ${ruleId} and version = ${version}`,
  )
  return row?.action ?? undefined
}

/** [7.2] What a rule or a caller says cannot stand in the way of what is so. */
function labelsOf(alarm: Alarm, device: DeviceRow | undefined): Record<string, string> {
  return {
    ...alarm.labels,
    source: 'alarm',
    rule: alarm.type,
    ...(alarm.ruleId ? { rule_id: alarm.ruleId } : {}),
    alarm_id: alarm.id,
    severity: alarm.severity,
    ...(device ? { device: device.name, device_id: device.id, product: device.product } : {}),
    ...Object.fromEntries((device?.tags ?? []).map((tag) => [`tag_${tag.replaceAll(/[^A-Za-z0-9_]/g, '_')}`, 'true'])),
  }
}

/** The actions of a rule as it is now. */
export async function readActions(tx: Tx, ruleId: string): Promise<{ version: number; actions: unknown[] } | undefined> {
  const [row] = await tx.execute<{ version: number; actions: unknown[] }>(
    sql`select version, coalesce(document -> 'actions', '[]') as actions from rules where id = ${ruleId} and deleted_at is null`,
  )
  return row
}
