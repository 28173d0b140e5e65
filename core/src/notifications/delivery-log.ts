// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, getTableColumns, inArray, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { notifyAttempts, notifyDeliveries, notifyInbox, notifyMessages } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { priorityOf } from '../jobs/define.ts'
import type { DeliveryRow, MessageRow } from './messages.ts'
import { notifySend } from './queues.ts'
import type { DeliveryView } from './schemas.ts'

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
    return { message, deliveries: deliveries.map((delivery) => ({ delivery, log: log.filter((one) => one.deliveryId === delivery.id) })) }
  })
}

export type DeliveryFilter = { state?: string; channelId?: string; type?: string; from?: string; to?: string }

/** With the title of what was sent. */
export async function listDeliveries(context: Context, scope: Scope, filter: DeliveryFilter, limit: number, cursor?: string) {
  const after = afterCursor(cursor)
  const wanted = and(
    after === undefined ? undefined : sql`${notifyDeliveries.id} < ${after}`,
    filter.state === undefined ? undefined : sql`${notifyDeliveries.state} = ${filter.state}`,
    filter.channelId === undefined ? undefined : eq(notifyDeliveries.channelId, filter.channelId),
    filter.type === undefined ? undefined : eq(notifyDeliveries.type, filter.type),
    filter.from === undefined ? undefined : sql`${notifyDeliveries.createdAt} >= ${filter.from}`,
    filter.to === undefined ? undefined : sql`${notifyDeliveries.createdAt} < ${filter.to}`,
  )
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

/** A failed or expired delivery from the beginning, with a fresh time to live. @throws {ProblemError} `NOT_FOUND`, `JOB_STATE` */
export async function retryDelivery(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const [delivery] = await tx.select().from(notifyDeliveries).where(eq(notifyDeliveries.id, id)).for('update')
    if (!delivery) throw new ProblemError('NOT_FOUND')
    if (!['failed', 'expired'].includes(delivery.state)) throw new ProblemError('JOB_STATE', { params: { state: delivery.state } })
    recordAudit(tx, { type: 'notification.retry', subject: `delivery:${id}` })
    const [last] = await tx.execute<{ no: number }>(
      sql`select coalesce(max(no), 0)::int as no from notify_attempts where delivery_id = ${id}`,
    )
    await tx
      .update(notifyDeliveries)
      .set({
        state: 'queued',
        reason: null,
        unknowns: 0,
        attempts: last!.no,
        expiresAt: new Date(context.clock.now() + 24 * hourMs),
        updatedAt: sql`now()`,
      })
      .where(eq(notifyDeliveries.id, id))
    await context.jobs.send(
      notifySend,
      { tenantId: scope.tenantId, deliveryId: id },
      { tx, key: id, priority: priorityOf(delivery.priority) },
    )
  })
}

export type StatsRow = {
  key: string
  accepted: number
  sent: number
  failed: number
  expired: number
  suppressed: number
  open: number
  p50Ms: number | null
  p95Ms: number | null
}

/** What became of the deliveries accepted in a span; the success rate leaves out what was suppressed or is open. */
export async function readStats(context: Context, scope: Scope, from: string, to: string, by: 'channel' | 'type') {
  const key = by === 'type' ? sql`type` : sql`channel_id::text`
  const ms = sql`extract(epoch from sent_at - created_at)::float8 * 1000`
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<StatsRow>(sql`select ${key} as key, count(*)::int as accepted,
        count(*) filter (where state in ('sent', 'delivered', 'read', 'acked'))::int as sent, count(*) filter (where state = 'failed')::int as failed,
        count(*) filter (where state = 'expired')::int as expired, count(*) filter (where state = 'suppressed')::int as suppressed,
        count(*) filter (where state in ('accepted', 'queued', 'sending'))::int as open,
        percentile_cont(0.5) within group (order by ${ms}) filter (where sent_at is not null) as "p50Ms",
        percentile_cont(0.95) within group (order by ${ms}) filter (where sent_at is not null) as "p95Ms"
      from notify_deliveries where created_at >= ${from} and created_at < ${to} group by 1 order by 1`),
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
  await context.db.withTenant(scope, (tx) =>
    tx
      .update(notifyInbox)
      .set({ readAt: sql`now()` })
      .where(and(eq(notifyInbox.userId, userId), sql`${notifyInbox.readAt} is null`, ids ? inArray(notifyInbox.id, [...ids]) : undefined)),
  )
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
    text: row.text,
    format: row.format,
    resolved: row.resolved,
    createdBy: row.createdBy,
    createdAt: row.createdAt.toISOString(),
    scheduledAt: row.scheduledAt?.toISOString() ?? null,
    expiresAt: row.expiresAt.toISOString(),
  }
}
