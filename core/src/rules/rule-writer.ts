// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'
import type { Transition } from './pair.ts'
import type { RuleInForce } from './rule-loader.ts'
import type { Severity } from './schemas.ts'

/** A transition as its alarm tells it. */
export type Told = { transition: Transition; title: string; trigger: Record<string, unknown>; isLate: boolean }

/** What is to be stored of a pair; without a state there is nothing to remember. */
export type PairChange = {
  rule: RuleInForce
  deviceId: string
  state: string | undefined
  at: number
  activeSince: number
  told: readonly Told[]
}

/** What rules knew of a device when these states came about. */
export type ValuesChange = { deviceId: string; slots: string }

/** What happened to an alarm, as its timeline has it. */
export type AlarmStep = {
  alarmId: string
  eventId: string
  kind: 'raised' | 'severity_changed' | 'cleared'
  rule: RuleInForce
  deviceId: string
  told: Told
  from: Severity | undefined
}

type Wanted = { rule: RuleInForce; deviceId: string; told: Told }

/**
 * Writes states and what came of them in one transaction. An alarm that is there already is raised no second time, and
 * one that is cleared is cleared no second time: what is judged again after a start changes nothing.
 *
 * @returns what has happened, in order
 */
export async function writeChanges(
  tx: Tx,
  tenant: Scope,
  { pairs, values }: { pairs: readonly PairChange[]; values: readonly ValuesChange[] },
  now: number,
): Promise<AlarmStep[]> {
  const steps: AlarmStep[] = []
  const most = Math.max(0, ...pairs.map(({ told }) => told.length))
  // The first transition of each pair, then the second: those of one pair depend on each other, those of many do not.
  for (let round = 0; round < most; round++) {
    const wanted = pairs.flatMap(({ rule, deviceId, told }) => {
      const one = told[round]
      return one && rule.document.mode !== 'dryRun' ? [{ rule, deviceId, told: one }] : []
    })
    for (const kind of ['cleared', 'severity', 'raised'] as const) {
      const some = wanted.filter(({ told: { transition } }) => transition.kind === kind)
      if (some.length === 0) continue
      if (kind === 'raised') steps.push(...(await raise(tx, tenant, some, now)))
      else steps.push(...(await change(tx, tenant, some, now)))
    }
  }
  await writeTrials(tx, tenant, pairs, now)
  await writeStates(tx, tenant, pairs)
  if (values.length > 0) {
    await tx.execute(sql`
      insert into rule_values (tenant_id, device_id, slots)
      select ${tenant.tenantId}, v.device_id, v.slots from jsonb_to_recordset(${asJson(
        values.map(({ deviceId, slots }) => ({ device_id: deviceId, slots: JSON.parse(slots) as unknown })),
      )}::text::jsonb) as v (device_id uuid, slots jsonb)
      where exists (select from devices d where d.id = v.device_id)
      on conflict (tenant_id, device_id) do update set slots = excluded.slots`)
  }
  return steps
}

async function raise(tx: Tx, tenant: Scope, wanted: readonly Wanted[], now: number): Promise<AlarmStep[]> {
  const byId = new Map<string, Wanted>(wanted.map((one) => [randomUUIDv7(), one]))
  const rows = [...byId].flatMap(([id, { rule, deviceId, told }]) => {
    const { transition, title, trigger } = told
    if (transition.kind !== 'raised') return []
    const { severity, startTs, confirmedTs } = transition
    return {
      id,
      device_id: deviceId,
      rule_id: rule.id,
      version: rule.version,
      type: rule.document.name,
      severity,
      start_ts: startTs,
      confirmed_ts: confirmedTs,
      title,
      labels: rule.document.labels ?? {},
      trigger,
    }
  })
  const inserted = await tx.execute<{ id: string }>(sql`
    insert into alarms (tenant_id, id, customer_id, device_id, source, origin, rule_id, rule_version, type, severity, highest_severity, start_ts, confirmed_ts,
      title, labels, trigger, last_event_at)
    select ${tenant.tenantId}, r.id, d.customer_id, d.id, 'rule', r.rule_id::text, r.rule_id, r.version, r.type, r.severity, r.severity, r.start_ts, r.confirmed_ts,
      r.title, r.labels, r.trigger, ${iso(now)}::timestamptz
    from jsonb_to_recordset(${asJson(rows)}::text::jsonb) as r (id uuid, device_id uuid, rule_id uuid, version int4, type text, severity text, start_ts int8,
      confirmed_ts int8, title text, labels jsonb, trigger jsonb)
    join devices d on d.tenant_id = ${tenant.tenantId} and d.id = r.device_id and d.deleted_at is null
    on conflict do nothing returning id`)
  const steps = [...inserted].map(({ id }) => stepOf(id, 'raised', byId.get(id)!))
  await writeEvents(tx, tenant, steps, now)
  return steps
}

/** Severity up or down, or the end, of alarms that are open. */
async function change(tx: Tx, tenant: Scope, wanted: readonly Wanted[], now: number): Promise<AlarmStep[]> {
  const rows = wanted.map(({ rule, deviceId, told: { transition } }, no) => ({
    no,
    device_id: deviceId,
    rule_id: rule.id,
    ...(transition.kind === 'cleared'
      ? { end_ts: transition.endTs, cleared_ts: transition.clearedTs, reason: transition.reason }
      : { severity: transition.kind === 'severity' ? transition.severity : undefined }),
  }))
  const changed = await tx.execute<{ id: string; no: number; before: Severity }>(sql`
    with r as (
      select r.*, a.id, a.severity as before from jsonb_to_recordset(${asJson(rows)}::text::jsonb) as r (no int4, device_id uuid, rule_id uuid, severity text,
        end_ts int8, cleared_ts int8, reason text)
      join alarms a on a.tenant_id = ${tenant.tenantId} and a.origin = r.rule_id::text and a.device_id = r.device_id and a.instance = '' and a.cleared_ts is null
      for update of a
    )
    update alarms a set severity = coalesce(r.severity, a.severity),
      highest_severity = case when array_position(array['critical', 'major', 'minor', 'warning'], r.severity)
        < array_position(array['critical', 'major', 'minor', 'warning'], a.highest_severity) then r.severity else a.highest_severity end,
      end_ts = r.end_ts, cleared_ts = r.cleared_ts, clear_reason = r.reason, last_event_at = ${iso(now)}::timestamptz
    from r where a.tenant_id = ${tenant.tenantId} and a.id = r.id and (r.cleared_ts is not null or a.severity <> r.severity)
    returning a.id, r.no, r.before`)
  const steps = [...changed].map(({ id, no, before }) => {
    const one = wanted[no]!
    return stepOf(id, one.told.transition.kind === 'cleared' ? 'cleared' : 'severity_changed', one, before)
  })
  await writeEvents(tx, tenant, steps, now)
  return steps
}

function stepOf(alarmId: string, kind: AlarmStep['kind'], { rule, deviceId, told }: Wanted, from?: Severity): AlarmStep {
  return { alarmId, eventId: nextEventId(), kind, rule, deviceId, told, from }
}

async function writeEvents(tx: Tx, { tenantId }: Scope, steps: readonly AlarmStep[], now: number): Promise<void> {
  if (steps.length === 0) return
  const rows = steps.map((step) => ({ id: step.eventId, alarm_id: step.alarmId, kind: step.kind, data: eventData(step) }))
  await tx.execute(sql`
    insert into alarm_events (tenant_id, id, alarm_id, customer_id, at, kind, data)
    select ${tenantId}, e.id, e.alarm_id, a.customer_id, ${iso(now)}::timestamptz, e.kind, e.data
    from jsonb_to_recordset(${asJson(rows)}::text::jsonb) as e (id uuid, alarm_id uuid, kind text, data jsonb)
    join alarms a on a.tenant_id = ${tenantId} and a.id = e.alarm_id`)
}

function eventData({ told: { transition, trigger, isLate }, from }: AlarmStep): Record<string, unknown> {
  const late = isLate ? { late: true } : {}
  switch (transition.kind) {
    case 'raised':
      return { severity: transition.severity, startTs: transition.startTs, confirmedTs: transition.confirmedTs, values: trigger, ...late }
    case 'severity':
      return { from, to: transition.severity, ts: transition.ts, ...late }
    case 'cleared':
      return { reason: transition.reason, endTs: transition.endTs, clearedTs: transition.clearedTs, ...late }
  }
}

/** [10] Most transitions of a rule on trial that are kept. */
const keptTrials = 1000

async function writeTrials(tx: Tx, { tenantId }: Scope, pairs: readonly PairChange[], now: number): Promise<void> {
  const rows = pairs
    .filter(({ rule }) => rule.document.mode === 'dryRun')
    .flatMap(({ rule, deviceId, told }) =>
      told.map(({ transition: { kind, ...data }, trigger }) => ({
        rule_id: rule.id,
        id: nextEventId(),
        device_id: deviceId,
        kind,
        data: { ...data, values: trigger },
      })),
    )
  if (rows.length === 0) return
  await tx.execute(sql`
    insert into rule_dry_runs (tenant_id, rule_id, id, device_id, kind, data, at)
    select ${tenantId}, t.rule_id, t.id, t.device_id, t.kind, t.data, ${iso(now)}::timestamptz
    from jsonb_to_recordset(${asJson(rows)}::text::jsonb) as t (rule_id uuid, id uuid, device_id uuid, kind text, data jsonb)
    where exists (select from devices d where d.id = t.device_id) and exists (select from rules r where r.id = t.rule_id)`)
  for (const ruleId of new Set(rows.map(({ rule_id }) => rule_id))) {
    await tx.execute(sql`
      delete from rule_dry_runs where rule_id = ${ruleId} and id <= (
        select id from rule_dry_runs where rule_id = ${ruleId} order by id desc offset ${keptTrials} limit 1)`)
  }
}

async function writeStates(tx: Tx, { tenantId }: Scope, pairs: readonly PairChange[]): Promise<void> {
  const kept = pairs.filter(({ state }) => state !== undefined)
  const gone = pairs.filter(({ state }) => state === undefined)
  if (kept.length > 0) {
    const rows = kept.map(({ rule, deviceId, state, at, activeSince }) => ({
      rule_id: rule.id,
      device_id: deviceId,
      version: rule.version,
      state: JSON.parse(state!) as unknown,
      at: Math.round(at),
      active_since: Math.round(activeSince),
    }))
    await tx.execute(sql`
      insert into rule_states (tenant_id, rule_id, device_id, version, state, at, active_since)
      select ${tenantId}, s.rule_id, s.device_id, s.version, s.state, s.at, s.active_since
      from jsonb_to_recordset(${asJson(rows)}::text::jsonb) as s (rule_id uuid, device_id uuid, version int4, state jsonb, at int8, active_since int8)
      where exists (select from devices d where d.id = s.device_id) and exists (select from rules r where r.id = s.rule_id)
      on conflict (tenant_id, rule_id, device_id) do update set version = excluded.version, state = excluded.state, at = excluded.at, active_since = excluded.active_since`)
  }
  if (gone.length > 0) {
    const rows = gone.map(({ rule, deviceId }) => ({ rule_id: rule.id, device_id: deviceId }))
    await tx.execute(sql`
      delete from rule_states s using jsonb_to_recordset(${asJson(rows)}::text::jsonb) as g (rule_id uuid, device_id uuid)
      where s.tenant_id = ${tenantId} and s.rule_id = g.rule_id and s.device_id = g.device_id`)
  }
}

const iso = (ms: number): string => new Date(ms).toISOString()

/** PostgreSQL has no place for the character NUL in its JSON. */
const asJson = (rows: unknown): string => JSON.stringify(rows).replaceAll('\\u0000', '\\ufffd')

let lastEventId = ''

/** A timeline is in the order of its ids, also of those that are made within one millisecond. */
function nextEventId(): string {
  let id = randomUUIDv7()
  while (id <= lastEventId) id = randomUUIDv7()
  return (lastEventId = id)
}
