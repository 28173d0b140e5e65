// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, getTableColumns, inArray, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyAttempts, notifyDeliveries, notifyEvents, notifyInbox, notifyMessages } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { priorityOf } from '../jobs/define.ts'
import { byteOrderMark, csvRow, textCell } from '../telemetry/csv.ts'
import type { DeliveryRow, MessageRow } from './messages.ts'
import { notifySend } from './queues.ts'
import type { BulkRetry, DeliveryView } from './schemas.ts'

const hourMs = 3_600_000
/** [notifications 10.5] */
const keptDays = 90

/** Newest first by id, which is a UUIDv7. */
function afterCursor(cursor: string | undefined): string | undefined {
  const [id] = cursor ? parseCursor(cursor, 1) : []
  if (cursor && !isUuid(id)) throw new ProblemError('CURSOR_INVALID')
  return cursor ? String(id) : undefined
}

function toPage<T extends { id: string }>(rows: readonly T[], limit: number): { items: T[]; nextCursor: string | null } {
  const items = rows.slice(0, limit)
  return { items, nextCursor: rows.length > limit ? formatCursor([items.at(-1)!.id]) : null }
}

export async function listMessages(context: Context, scope: Scope, limit: number, cursor?: string) {
  const after = afterCursor(cursor)
  const rows = await context.db.withTenant(scope, (tx) =>
    tx
      .select()
      .from(notifyMessages)
      .where(after === undefined ? undefined : sql`${notifyMessages.id} < ${after}`)
      .orderBy(sql`${notifyMessages.id} desc`)
      .limit(limit + 1),
  )
  return toPage(rows, limit)
}

/** The message with its deliveries and every attempt. @throws {ProblemError} `NOT_FOUND` */
export async function getMessage(context: Context, scope: Scope, id: string) {
  return context.db.withTenant(scope, async (tx) => {
    const [message] = await tx.select().from(notifyMessages).where(eq(notifyMessages.id, id))
    if (!message) throw new ProblemError('NOT_FOUND')
    const deliveries = await tx
      .select()
      .from(notifyDeliveries)
      .where(eq(notifyDeliveries.messageId, id))
      .orderBy(notifyDeliveries.step, notifyDeliveries.id)
    const ids = deliveries.map((one) => one.id)
    const log =
      ids.length === 0
        ? []
        : await tx.select().from(notifyAttempts).where(inArray(notifyAttempts.deliveryId, ids)).orderBy(notifyAttempts.no)
    const events =
      ids.length === 0 ? [] : await tx.select().from(notifyEvents).where(inArray(notifyEvents.deliveryId, ids)).orderBy(notifyEvents.at)
    return {
      message,
      deliveries: deliveries.map((delivery) => ({
        delivery,
        log: log.filter((one) => one.deliveryId === delivery.id),
        events: events.filter((one) => one.deliveryId === delivery.id),
      })),
    }
  })
}

export type DeliveryFilter = {
  state?: string
  channelId?: string
  type?: string
  providerCode?: string
  recipient?: string
  from?: string
  to?: string
}

const matching = (filter: DeliveryFilter) =>
  and(
    filter.state === undefined ? undefined : sql`${notifyDeliveries.state} = ${filter.state}`,
    filter.channelId === undefined ? undefined : eq(notifyDeliveries.channelId, filter.channelId),
    filter.type === undefined ? undefined : eq(notifyDeliveries.type, filter.type),
    filter.providerCode === undefined ? undefined : eq(notifyDeliveries.providerCode, filter.providerCode),
    filter.recipient === undefined
      ? undefined
      : sql`(${notifyDeliveries.address} = ${filter.recipient} or ${notifyDeliveries.userId}::text = ${filter.recipient})`,
    filter.from === undefined ? undefined : sql`${notifyDeliveries.createdAt} >= ${filter.from}`,
    filter.to === undefined ? undefined : sql`${notifyDeliveries.createdAt} < ${filter.to}`,
  )

/** With the title of what was sent. */
export async function listDeliveries(context: Context, scope: Scope, filter: DeliveryFilter, limit: number, cursor?: string) {
  const after = afterCursor(cursor)
  const wanted = and(after === undefined ? undefined : sql`${notifyDeliveries.id} < ${after}`, matching(filter))
  const rows = await context.db.withTenant(scope, (tx) =>
    tx
      .select({ ...getTableColumns(notifyDeliveries), title: notifyMessages.title })
      .from(notifyDeliveries)
      .innerJoin(notifyMessages, eq(notifyMessages.id, notifyDeliveries.messageId))
      .where(wanted)
      .orderBy(sql`${notifyDeliveries.id} desc`)
      .limit(limit + 1),
  )
  return toPage(rows, limit)
}

const exportPage = 500
const exportRows = 100_000
const exported = [
  'createdAt',
  'id',
  'messageId',
  'type',
  'channelId',
  'address',
  'priority',
  'state',
  'reason',
  'attempts',
  'providerCode',
  'sentAt',
  'title',
] as const

/** The log as CSV, newest first, addresses masked. */
export async function* exportDeliveries(context: Context, scope: Scope, filter: DeliveryFilter): AsyncGenerator<string> {
  yield byteOrderMark + csvRow(exported.map(textCell))
  let cursor: string | undefined
  for (let rows = 0; rows < exportRows; rows += exportPage) {
    const { items, nextCursor } = await listDeliveries(context, scope, filter, exportPage, cursor)
    yield items
      .map(({ title, ...row }) => {
        const shown: Record<string, unknown> = { ...deliveryView(row), title }
        return csvRow(exported.map((name) => textCell(String(shown[name] ?? ''))))
      })
      .join('')
    if (nextCursor === null) return
    cursor = nextCursor
  }
}

/** A failed or expired delivery from the beginning, with a fresh time to live. @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` */
export async function retryDelivery(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const [delivery] = await tx.select().from(notifyDeliveries).where(eq(notifyDeliveries.id, id)).for('update')
    if (!delivery) throw new ProblemError('NOT_FOUND')
    if (!['failed', 'expired'].includes(delivery.state)) throw new ProblemError('JOB_STATE', { params: { state: delivery.state } })
    recordAudit(tx, { type: 'notification.retry', subject: `delivery:${id}` })
    await beginAgain(context, tx, scope, [delivery])
  })
}

/** The same for many, the oldest first; those in another state stay as they are. @returns how many begin again */
export async function retryDeliveries(context: Context, scope: Scope, { ids, state, limit = 1000, ...filter }: BulkRetry): Promise<number> {
  return context.db.withTenant(scope, async (tx) => {
    const found = await tx
      .select()
      .from(notifyDeliveries)
      .where(
        and(
          inArray(notifyDeliveries.state, state === undefined ? ['failed', 'expired'] : [state]),
          ids === undefined ? undefined : inArray(notifyDeliveries.id, ids),
          matching(filter),
        ),
      )
      .orderBy(notifyDeliveries.id)
      .limit(limit)
      .for('update')
    recordAudit(tx, { type: 'notification.bulk_retry', subject: '-', changes: { from: null, to: { retried: found.length } } })
    if (found.length > 0) await beginAgain(context, tx, scope, found)
    return found.length
  })
}

/** From the first attempt of the schedule, with a day to live. */
export async function beginAgain(context: Context, tx: Tx, scope: Scope, deliveries: readonly DeliveryRow[]): Promise<void> {
  await tx
    .update(notifyDeliveries)
    .set({
      state: 'queued',
      reason: null,
      heldUntil: null,
      unknowns: 0,
      // Numbers of attempts go on where they ended.
      attempts: sql`(select coalesce(max(no), 0) from notify_attempts a where a.delivery_id = ${notifyDeliveries.id})`,
      expiresAt: new Date(context.clock.now() + 24 * hourMs),
      updatedAt: sql`now()`,
    })
    .where(
      inArray(
        notifyDeliveries.id,
        deliveries.map((one) => one.id),
      ),
    )
  const many = deliveries.map((one) => ({
    data: { tenantId: scope.tenantId, deliveryId: one.id },
    key: one.id,
    priority: priorityOf(one.priority),
  }))
  await context.jobs.sendMany(notifySend, many, { tx })
}

export type StatsRow = {
  key: string
  accepted: number
  sent: number
  delivered: number
  failed: number
  expired: number
  suppressed: number
  open: number
  p50Ms: number | null
  p95Ms: number | null
  suppressedBy: Record<string, number>
  topCodes: { code: string; count: number }[]
}

/** What became of the deliveries accepted in a span; the success rate leaves out what was suppressed or is open. */
export async function readStats(context: Context, scope: Scope, from: string, to: string, by: 'channel' | 'type' | 'template') {
  const key = { type: sql`d.type`, channel: sql`d.channel_id::text`, template: sql`coalesce(m.template, '')` }[by]
  const ms = sql`extract(epoch from d.sent_at - d.created_at)::float8 * 1000`
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<StatsRow>(sql`with found as (
        select ${key} as key, d.state, split_part(d.reason, ' ', 1) as reason, d.provider_code as code, d.sent_at, ${ms} as ms
        from notify_deliveries d join notify_messages m on m.tenant_id = d.tenant_id and m.id = d.message_id
        where d.created_at >= ${from} and d.created_at < ${to})
      select key, count(*)::int as accepted,
        count(*) filter (where state in ('sent', 'delivered', 'read', 'acked'))::int as sent,
        count(*) filter (where state in ('delivered', 'read', 'acked'))::int as delivered,
        count(*) filter (where state = 'failed')::int as failed, count(*) filter (where state = 'expired')::int as expired,
        count(*) filter (where state = 'suppressed')::int as suppressed,
        count(*) filter (where state in ('accepted', 'queued', 'sending'))::int as open,
        percentile_cont(0.5) within group (order by ms) filter (where sent_at is not null) as "p50Ms",
        percentile_cont(0.95) within group (order by ms) filter (where sent_at is not null) as "p95Ms",
        (select coalesce(jsonb_object_agg(r.reason, r.n), '{}') from (
          select coalesce(s.reason, '') as reason, count(*)::int as n from found s
          where s.key = found.key and s.state = 'suppressed' group by 1) r) as "suppressedBy",
        (select coalesce(jsonb_agg(jsonb_build_object('code', c.code, 'count', c.n)), '[]') from (
          select s.code, count(*)::int as n from found s where s.key = found.key and s.code is not null and s.state <> 'sent'
          group by 1 order by 2 desc, 1 limit 5) c) as "topCodes"
      from found group by key order by key`),
  )
  return rows.map((row) => {
    const ended = row.sent + row.failed + row.expired
    return { ...row, successRate: ended === 0 ? null : row.sent / ended }
  })
}

export async function listInbox(context: Context, scope: Scope, userId: string, limit: number, cursor?: string) {
  const after = afterCursor(cursor)
  return context.db.withTenant(scope, async (tx) => {
    const rows = await tx
      .select()
      .from(notifyInbox)
      .where(and(eq(notifyInbox.userId, userId), after === undefined ? undefined : sql`${notifyInbox.id} < ${after}`))
      .orderBy(sql`${notifyInbox.id} desc`)
      .limit(limit + 1)
    const [count] = await tx.execute<{ unread: number }>(
      sql`select count(*)::int as unread from notify_inbox where user_id = ${userId} and read_at is null`,
    )
    return { ...toPage(rows, limit), unread: count!.unread }
  })
}

/** All of them when none are named. */
export async function markRead(context: Context, scope: Scope, userId: string, ids?: readonly string[]): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const read = await tx
      .update(notifyInbox)
      .set({ readAt: sql`now()` })
      .where(and(eq(notifyInbox.userId, userId), sql`${notifyInbox.readAt} is null`, ids ? inArray(notifyInbox.id, [...ids]) : undefined))
      .returning({ id: notifyInbox.id })
    if (read.length === 0) return
    // An entry has the id of its delivery.
    const own = inArray(
      notifyDeliveries.id,
      read.map((one) => one.id),
    )
    await tx
      .update(notifyDeliveries)
      .set({ state: 'read', updatedAt: sql`now()` })
      .where(and(own, inArray(notifyDeliveries.state, ['sent', 'delivered'])))
  })
}

export async function removeOldNotifications(context: Context, scope: Scope): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    await tx.execute(sql`delete from notify_messages where created_at < now() - ${keptDays} * interval '1 day'`)
    await tx.execute(sql`delete from notify_inbox where created_at < now() - ${keptDays} * interval '1 day'`)
    await tx.execute(sql`delete from notify_silences where ends_at < now() - ${keptDays} * interval '1 day'`)
  })
}

/** `138****0000`, `z***@example.com`: who may not see an address can still tell them apart. */
export function maskAddress(address: string | null): string | null {
  if (address === null) return null
  const [name = '', domain] = address.split('@')
  if (domain !== undefined) return `${name.slice(0, 1)}***@${domain}`
  return address.length > 7 ? `${address.slice(0, -8)}****${address.slice(-4)}` : '****'
}

export function deliveryView(row: DeliveryRow): DeliveryView {
  const { tenantId: _, unknowns: __, expiresAt: ___, updatedAt: ____, ...rest } = row
  return {
    ...rest,
    address: maskAddress(row.address),
    nextAt: row.nextAt?.toISOString() ?? null,
    heldUntil: row.heldUntil?.toISOString() ?? null,
    createdAt: row.createdAt.toISOString(),
    sentAt: row.sentAt?.toISOString() ?? null,
  }
}

export function messageView(row: MessageRow) {
  return {
    id: row.id,
    source: row.source,
    topic: row.topic,
    event: row.event,
    priority: row.priority,
    title: row.title,
    // Codes are for the one who got them.
    text: row.topic === 'verify' ? '***' : row.text,
    format: row.format,
    resolved: row.resolved,
    createdBy: row.createdBy,
    createdAt: row.createdAt.toISOString(),
    scheduledAt: row.scheduledAt?.toISOString() ?? null,
    expiresAt: row.expiresAt.toISOString(),
  }
}
