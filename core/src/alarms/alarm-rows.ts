// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import type { Alarm, AlarmEvent, AlarmFilter, AlarmListQuery, AlarmSummary } from './schemas.ts'

const isoText = (column: SQL): SQL => sql`to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

/** An alarm with the customer it is for, who is no part of what callers see. */
export type StoredAlarm = Alarm & { customerId: string | null }

const columns = sql`a.id, a.customer_id as "customerId", a.device_id as "deviceId", d.name as "deviceName", a.source, a.rule_id as "ruleId", a.rule_version as "ruleVersion",
  a.type, a.instance, a.severity, a.highest_severity as "highestSeverity", case when a.cleared_ts is null then 'active' else 'cleared' end as status,
  a.start_ts::float8 as "startTs", a.confirmed_ts::float8 as "confirmedTs", a.end_ts::float8 as "endTs", a.cleared_ts::float8 as "clearedTs",
  a.clear_reason as "clearReason", a.acked_at is not null as acked, ${isoText(sql`a.acked_at`)} as "ackedAt", a.acked_by as "ackedBy",
  a.assignee_id as "assigneeId", u.name as "assigneeName", a.title, a.labels, a.trigger, a.episodes, ${isoText(sql`a.last_event_at`)} as "lastEventAt"`
const tables = sql`alarms a left join devices d on d.tenant_id = a.tenant_id and d.id = a.device_id
  left join users u on u.tenant_id = a.tenant_id and u.id = a.assignee_id`
/** Alarms of a device in the bin are in the bin with it. */
const shown = sql`(a.device_id is null or d.deleted_at is null and d.id is not null)`

/** @throws {ProblemError} `NOT_FOUND` */
export async function readAlarm(tx: Tx, id: string): Promise<StoredAlarm> {
  const [alarm] = await tx.execute<StoredAlarm>(sql`select ${columns} from ${tables} where a.id = ${id} and ${shown}`)
  if (!alarm) throw new ProblemError('NOT_FOUND')
  return alarm
}

/** Those of these ids that are shown, in no order. */
export async function readAlarms(tx: Tx, ids: readonly string[]): Promise<StoredAlarm[]> {
  if (ids.length === 0) return []
  return [
    ...(await tx.execute<StoredAlarm>(sql`select ${columns} from ${tables} where a.id = any(${sql.param(ids)}::uuid[]) and ${shown}`)),
  ]
}

export type AlarmPage = { items: Alarm[]; nextCursor: string | null; total?: number }

/** One page of alarms: those that wait for somebody first, or the latest first. */
export async function listAlarmRows(tx: Tx, query: AlarmListQuery): Promise<AlarmPage> {
  const { limit = 50, sort = 'desk' } = query
  const where = filterSql(query)
  const order = sort === 'desk' ? sql`a.rank, a.start_ts desc, a.id desc` : sql`a.start_ts desc, a.id desc`
  const after = query.cursor === undefined ? sql`` : sql`and ${cursorSql(query.cursor, sort)}`
  const rows = await tx.execute<StoredAlarm & { rank: number }>(
    sql`select ${columns}, a.rank from ${tables} where ${where} ${after} order by ${order} limit ${limit + 1}`,
  )
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const total = query.count && (await tx.execute<{ count: string }>(sql`select count(*) as count from ${tables} where ${where}`))
  return {
    nextCursor: rows.length > limit && last ? formatCursor([sort, last.rank, last.startTs, last.id]) : null,
    // What the schema of the answer does not name stays here: rank and customer.
    items: page,
    ...(total && { total: Number(total[0]?.count ?? 0) }),
  }
}

function cursorSql(cursor: string, sort: 'desk' | '-startTs'): SQL {
  const [cursorSort, rank, startTs, id] = parseCursor(cursor, 4)
  if (cursorSort !== sort || !Number.isInteger(rank) || !Number.isSafeInteger(startTs) || !isUuid(id)) {
    throw new ProblemError('CURSOR_INVALID')
  }
  const older = sql`(a.start_ts, a.id) < (${startTs}::int8, ${id}::uuid)`
  return sort === 'desk' ? sql`(a.rank > ${rank}::int2 or a.rank = ${rank}::int2 and ${older})` : older
}

function filterSql(filter: AlarmFilter): SQL {
  const parts = [shown]
  if (filter.status) parts.push(filter.status === 'active' ? sql`a.cleared_ts is null` : sql`a.cleared_ts is not null`)
  if (filter.acked !== undefined) parts.push(sql`(a.acked_at is not null) = ${filter.acked}`)
  if (filter.severity) parts.push(sql`a.severity = ${filter.severity}`)
  if (filter.deviceId) parts.push(sql`a.device_id = ${filter.deviceId}`)
  if (filter.ruleId) parts.push(sql`a.rule_id = ${filter.ruleId}`)
  if (filter.assigneeId) parts.push(sql`a.assignee_id = ${filter.assigneeId}`)
  if (filter.type) parts.push(sql`a.type = ${filter.type}`)
  if (filter.from !== undefined) parts.push(sql`a.start_ts >= ${filter.from}::int8`)
  if (filter.to !== undefined) parts.push(sql`a.start_ts < ${filter.to}::int8`)
  if (filter.q) {
    const pattern = `%${filter.q.replace(/[\\%_]/g, '\\$&')}%`
    parts.push(sql`(a.title ilike ${pattern} or a.type ilike ${pattern} or d.name ilike ${pattern})`)
  }
  return sql.join(parts, sql` and `)
}

/** The timeline of an alarm, the oldest first, after the event `after`. */
export async function listEventRows(tx: Tx, alarmId: string, limit: number, after: string | undefined): Promise<AlarmEvent[]> {
  const from = after === undefined ? sql`` : sql`and e.id > ${after}`
  const rows = await tx.execute<AlarmEvent>(sql`
    select e.id, ${isoText(sql`e.at`)} as at, e.actor, e.kind, e.data from alarm_events e where e.alarm_id = ${alarmId} ${from} order by e.id limit ${limit}`)
  return [...rows]
}

export type AlarmEventKind =
  | 'raised'
  | 'severity_changed'
  | 'acked'
  | 'unacked'
  | 'assigned'
  | 'unassigned'
  | 'comment'
  | 'cleared'
  | 'reopened'
  | 'notified'
  | 'action_done'
  | 'action_failed'
  | 'action_suppressed'

/** Appends to the timeline; every change of an alarm does, in its own transaction. */
export async function addAlarmEvent(
  tx: Tx,
  scope: Scope,
  alarmId: string,
  event: { kind: AlarmEventKind; at: Date; actor?: { name: string; userId: string }; data?: Record<string, unknown> },
): Promise<string> {
  const id = randomUUIDv7()
  const { kind, at, actor, data = {} } = event
  await tx.execute(sql`
    with touched as (
      update alarms set last_event_at = ${at.toISOString()}::timestamptz where tenant_id = ${scope.tenantId} and id = ${alarmId} returning customer_id
    )
    insert into alarm_events (tenant_id, id, alarm_id, customer_id, at, actor, actor_id, kind, data)
    select ${scope.tenantId}, ${id}, ${alarmId}, customer_id, ${at.toISOString()}::timestamptz, ${actor?.name ?? null}, ${actor?.userId ?? null}::uuid, ${kind}, ${JSON.stringify(data)}::text::jsonb
    from touched`)
  return id
}

type CountRow = { severity: Alarm['severity']; isActive: boolean; isAcked: boolean; count: string }

/** Counts by severity and status, and the highest severity that is active at each of these devices. */
export async function summarizeAlarms(tx: Tx, deviceIds: readonly string[]): Promise<AlarmSummary> {
  const rows = await tx.execute<CountRow>(sql`
    select a.severity, a.cleared_ts is null as "isActive", a.acked_at is not null as "isAcked", count(*) as count
    from ${tables} where ${shown} group by 1, 2, 3`)
  const none = () => ({ active: 0, activeUnacked: 0, cleared: 0, clearedUnacked: 0 })
  const bySeverity = { critical: none(), major: none(), minor: none(), warning: none() }
  for (const { severity, isActive, isAcked, count } of rows) {
    const counts = bySeverity[severity]
    counts[isActive ? 'active' : 'cleared'] += Number(count)
    if (!isAcked) counts[isActive ? 'activeUnacked' : 'clearedUnacked'] += Number(count)
  }
  if (deviceIds.length === 0) return { bySeverity, devices: {} }
  const highest = await tx.execute<{ deviceId: string; severity: Alarm['severity'] }>(sql`
    select distinct on (a.device_id) a.device_id as "deviceId", a.severity from ${tables}
    where ${shown} and a.cleared_ts is null and a.device_id = any(${sql.param(deviceIds)}::uuid[])
    order by a.device_id, array_position(array['critical', 'major', 'minor', 'warning'], a.severity)`)
  return { bySeverity, devices: Object.fromEntries(highest.map(({ deviceId, severity }) => [deviceId, severity])) }
}
