// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { severities } from '../rules/schemas.ts'
import { addAlarmEvent, listAlarmRows, listEventRows, readAlarm, summarizeAlarms } from './alarm-rows.ts'
import type { AlarmEventKind, AlarmPage, StoredAlarm } from './alarm-rows.ts'
import type { Alarm, AlarmBulk, AlarmBulkResult, AlarmCreate, AlarmEvent, AlarmListQuery, AlarmSummary } from './schemas.ts'

/** An author may mend a comment for so long [6.2]. */
const commentEditMs = 900_000
const dayMs = 86_400_000
/** Rows that one statement removes [6.7]. */
const mostRemoved = 5000

type Who = Pick<Actor, 'scope' | 'name' | 'userId'>
/** What is done about an alarm beside its rule: by people, and by callers of the API. */
export type AlarmChange = { alarm: StoredAlarm; eventId: string; kind: AlarmEventKind; from?: Alarm['severity'] }
type Follow = (tx: Tx, scope: Scope, change: AlarmChange) => Promise<void>
type Change = { kind: AlarmEventKind; set?: ReturnType<typeof sql>; data?: Record<string, unknown> }

/** Records of what went wrong at devices, and what people did about it (alarms and rules §6). */
export class Alarms {
  readonly #context: Context
  readonly #follow: Follow

  /** @param follow what follows from a change, in its transaction */
  constructor(context: Context, follow: Follow = async () => {}) {
    this.#context = context
    this.#follow = follow
  }

  list(scope: Scope, query: AlarmListQuery): Promise<AlarmPage> {
    return this.#context.db.withTenant(scope, (tx) => listAlarmRows(tx, query))
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  get(scope: Scope, id: string): Promise<Alarm> {
    return this.#context.db.withTenant(scope, (tx) => readAlarm(tx, id))
  }

  /** The timeline, the oldest first. @throws {ProblemError} `NOT_FOUND`, `CURSOR_INVALID` */
  async listEvents(scope: Scope, id: string, limit: number, cursor?: string): Promise<{ items: AlarmEvent[]; nextCursor: string | null }> {
    const [, after] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
    const found = await this.#context.db.withTenant(scope, async (tx) => {
      await readAlarm(tx, id)
      return listEventRows(tx, id, limit + 1, isUuid(after) ? after : undefined)
    })
    const items = found.slice(0, limit)
    return { items, nextCursor: found.length > limit ? formatCursor(['events', items.at(-1)!.id]) : null }
  }

  summarize(scope: Scope, deviceIds: readonly string[]): Promise<AlarmSummary> {
    return this.#context.db.withTenant(scope, (tx) => summarizeAlarms(tx, deviceIds))
  }

  /**
   * Raises an alarm by hand or by another system. One that is open for the same device, type and instance is
   * brought up to date instead [6.6].
   *
   * @throws {ProblemError} `NOT_FOUND` for a device the caller does not see
   */
  async create(who: Who, wanted: AlarmCreate): Promise<{ alarm: StoredAlarm; isNew: boolean }> {
    const { scope } = who
    const now = this.#context.clock.now()
    const { deviceId, type, severity, title, instance = '', labels = {}, startTs = now } = wanted
    const result = await this.#context.db.withTenant(scope, async (tx) => {
      const [device] = await tx.execute<{ customerId: string | null }>(
        sql`select customer_id as "customerId" from devices where id = ${deviceId} and deleted_at is null`,
      )
      if (!device) throw new ProblemError('NOT_FOUND')
      const id = randomUUIDv7()
      const at = new Date(now).toISOString()
      const inserted = await tx.execute(sql`
        insert into alarms (tenant_id, id, customer_id, device_id, source, origin, type, instance, severity, highest_severity, start_ts, confirmed_ts, title, labels, last_event_at)
        values (${scope.tenantId}, ${id}, ${device.customerId}, ${deviceId}, 'api', ${`api:${type}`}, ${type}, ${instance}, ${severity}, ${severity}, ${startTs}::int8, ${startTs}::int8,
          ${title}, ${JSON.stringify(labels)}::text::jsonb, ${at}::timestamptz)
        on conflict do nothing returning id`)
      if (inserted.length > 0) {
        const eventId = await addAlarmEvent(tx, scope, id, { kind: 'raised', at: new Date(now), actor: who, data: { severity } })
        recordAudit(tx, { type: 'alarm.create', subject: `alarm:${id}`, targetName: title, changes: { from: null, to: wanted } })
        const alarm = await readAlarm(tx, id)
        await this.#follow(tx, scope, { alarm, eventId, kind: 'raised' })
        return { alarm, isNew: true }
      }
      return { alarm: await this.#renew(tx, who, wanted), isNew: false }
    })
    this.#tell(scope, result.alarm, result.isNew ? 'raised' : 'severity_changed')
    return result
  }

  async #renew(tx: Tx, who: Who, { deviceId, type, severity, title, instance = '' }: AlarmCreate): Promise<StoredAlarm> {
    const [open] = await tx.execute<{ id: string; severity: Alarm['severity']; highest: Alarm['severity'] }>(sql`
      select id, severity, highest_severity as highest from alarms
      where origin = ${`api:${type}`} and device_id = ${deviceId} and instance = ${instance} and cleared_ts is null for update`)
    // It was cleared in this very moment: the caller's next try makes a new one.
    if (!open) throw new ProblemError('VERSION_CONFLICT')
    await tx.execute(sql`
      update alarms set severity = ${severity}, highest_severity = ${higherOf(open.highest, severity)}, title = ${title} where id = ${open.id}`)
    recordAudit(tx, {
      type: 'alarm.update',
      subject: `alarm:${open.id}`,
      targetName: title,
      changes: { from: null, to: { severity, title } },
    })
    if (open.severity === severity) return readAlarm(tx, open.id)
    const data = { from: open.severity, to: severity }
    const at = new Date(this.#context.clock.now())
    const eventId = await addAlarmEvent(tx, who.scope, open.id, { kind: 'severity_changed', at, actor: who, data })
    const alarm = await readAlarm(tx, open.id)
    await this.#follow(tx, who.scope, { alarm, eventId, kind: 'severity_changed', from: open.severity })
    return alarm
  }

  /** Acknowledges; the first one counts, and a second finds what the first did. */
  acknowledge(who: Who, id: string, comment?: string): Promise<Alarm> {
    return this.#change(who, id, comment, (alarm, now) =>
      alarm.acked ? undefined : { kind: 'acked', set: sql`acked_at = ${now}::timestamptz, acked_by = ${who.name}` },
    )
  }

  unacknowledge(who: Who, id: string, comment?: string): Promise<Alarm> {
    return this.#change(who, id, comment, (alarm) =>
      alarm.acked ? { kind: 'unacked', set: sql`acked_at = null, acked_by = null` } : undefined,
    )
  }

  /** Clears by hand; one that is cleared stays as it is. */
  clear(who: Who, id: string, comment?: string): Promise<Alarm> {
    return this.#change(who, id, comment, (alarm) => {
      if (alarm.status === 'cleared') return undefined
      const ts = Math.max(this.#context.clock.now(), alarm.confirmedTs)
      return {
        kind: 'cleared',
        set: sql`end_ts = ${ts}::int8, cleared_ts = ${ts}::int8, clear_reason = 'manual'`,
        data: { reason: 'manual' },
      }
    })
  }

  /** @throws {ProblemError} `NOT_FOUND`, `ASSIGNEE_NO_ACCESS` for a user who does not see the device */
  assign(who: Who, id: string, assigneeId: string | null, comment?: string): Promise<Alarm> {
    return this.#change(who, id, comment, async (alarm, _, tx) => {
      if (alarm.assigneeId === assigneeId) return undefined
      if (assigneeId === null) return { kind: 'unassigned', set: sql`assignee_id = null` }
      const [assignee] = await tx.execute<{ name: string }>(sql`
        select u.name from users u, alarms a
        where a.id = ${id} and u.id = ${assigneeId} and u.disabled_at is null
          and (u.customer_id is null or exists (select 1 from customers c where c.id = a.customer_id and u.customer_id = any(c.path)))`)
      if (!assignee) throw new ProblemError('ASSIGNEE_NO_ACCESS')
      return { kind: 'assigned', set: sql`assignee_id = ${assigneeId}`, data: { assigneeId, assignee: assignee.name } }
    })
  }

  comment(who: Who, id: string, comment: string): Promise<Alarm> {
    return this.#change(who, id, undefined, () => ({ kind: 'comment', data: { comment } }))
  }

  /** @throws {ProblemError} `NOT_FOUND` for what is not the caller's own comment, `COMMENT_CLOSED` when it is older than 15 min */
  async editComment(who: Who, id: string, eventId: string, comment: string): Promise<Alarm> {
    const now = this.#context.clock.now()
    const alarm = await this.#context.db.withTenant(who.scope, async (tx) => {
      await readAlarm(tx, id)
      const [event] = await tx.execute<{ isClosed: boolean }>(sql`
        select at < ${new Date(now - commentEditMs).toISOString()}::timestamptz as "isClosed" from alarm_events
        where id = ${eventId} and alarm_id = ${id} and kind = 'comment' and actor_id = ${who.userId} for update`)
      if (!event) throw new ProblemError('NOT_FOUND')
      if (event.isClosed) throw new ProblemError('COMMENT_CLOSED')
      const data = JSON.stringify({ comment, editedAt: new Date(now).toISOString() })
      await tx.execute(sql`update alarm_events set data = ${data}::text::jsonb where id = ${eventId}`)
      recordAudit(tx, { type: 'alarm.comment', subject: `alarm:${id}`, changes: { from: null, to: { comment } } })
      return readAlarm(tx, id)
    })
    this.#tell(who.scope, alarm, 'comment')
    return alarm
  }

  /** @throws {ProblemError} `NOT_FOUND`, `ALARM_OPEN` */
  async delete(scope: Scope, id: string): Promise<void> {
    const gone = await this.#context.db.withTenant(scope, async (tx) => {
      const alarm = await readAlarm(tx, id)
      // Judged by the deletion itself too: it may be raised again meanwhile.
      const deleted = await tx.execute(sql`delete from alarms where id = ${alarm.id} and cleared_ts is not null returning id`)
      if (deleted.length === 0) throw new ProblemError('ALARM_OPEN')
      recordAudit(tx, { type: 'alarm.delete', subject: `alarm:${id}`, targetName: alarm.title })
      return alarm
    })
    this.#tell(scope, gone, 'deleted')
  }

  /** The same action on many alarms, each for itself. */
  async changeMany(who: Who, { ids, action, comment }: AlarmBulk): Promise<AlarmBulkResult> {
    const run = (id: string): Promise<unknown> => {
      if (action === 'delete') return this.delete(who.scope, id)
      if (action === 'clear') return this.clear(who, id, comment)
      return action === 'ack' ? this.acknowledge(who, id, comment) : this.unacknowledge(who, id, comment)
    }
    const items: AlarmBulkResult['items'] = []
    for (const id of ids) {
      try {
        await run(id)
        items.push({ id, ok: true, code: null })
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        items.push({ id, ok: false, code: error.code })
      }
    }
    return { items }
  }

  /** Removes what was cleared longer ago than alarms are kept [6.7]; open ones stay for ever. */
  async removeOld(scope: Scope): Promise<void> {
    const before = this.#context.clock.now() - this.#context.config.alarmRetentionDays * dayMs
    for (;;) {
      const removed = await this.#context.db.withTenant(scope, (tx) =>
        tx.execute(sql`
          delete from alarms where (tenant_id, id) in (
            select tenant_id, id from alarms where cleared_ts < ${before}::int8 limit ${mostRemoved}
          ) returning id`),
      )
      if (removed.length < mostRemoved) return
    }
  }

  /** Changes one alarm and its timeline in one transaction; `decide` answers undefined when there is nothing to do. */
  async #change(
    who: Who,
    id: string,
    comment: string | undefined,
    decide: (alarm: Alarm, now: string, tx: Tx) => Change | undefined | Promise<Change | undefined>,
  ): Promise<Alarm> {
    const { scope } = who
    const at = new Date(this.#context.clock.now())
    const { alarm, kind } = await this.#context.db.withTenant(scope, async (tx) => {
      // Whoever comes second waits here, and then sees what the first did.
      await tx.execute(sql`select 1 from alarms where id = ${id} for update`)
      const before = await readAlarm(tx, id)
      const change = await decide(before, at.toISOString(), tx)
      if (!change) return { alarm: before, kind: undefined }
      if (change.set) await tx.execute(sql`update alarms set ${change.set} where id = ${id}`)
      const data = { ...change.data, ...(comment ? { comment } : {}) }
      const eventId = await addAlarmEvent(tx, scope, id, { kind: change.kind, at, actor: who, data })
      recordAudit(tx, { type: `alarm.${change.kind}`, subject: `alarm:${id}`, targetName: before.title, changes: { from: null, to: data } })
      const after = await readAlarm(tx, id)
      await this.#follow(tx, scope, { alarm: after, eventId, kind: change.kind })
      return { alarm: after, kind: change.kind }
    })
    if (kind) this.#tell(scope, alarm, kind)
    return alarm
  }

  #tell({ tenantId }: Scope, { customerId, ...alarm }: StoredAlarm, kind: AlarmEventKind | 'deleted'): void {
    this.#context.events.emit('alarm.changed', { tenantId, customerId, kind, alarm })
  }
}

function higherOf(one: Alarm['severity'], other: Alarm['severity']): Alarm['severity'] {
  return severities.indexOf(one) <= severities.indexOf(other) ? one : other
}
