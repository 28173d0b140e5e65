// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes, randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, isNull, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { notifyAckTokens, notifyAlerts, notifyDeliveries, notifyEvents, notifyGroups, notifyMessages } from '../db/notify-tables.ts'
import { sha256 } from '../secrets.ts'
import type { Group } from './groups.ts'
import type { NotificationHub } from './hub.ts'
import type { DeliveryRow } from './messages.ts'

/** Hears within the transaction which alerts were acknowledged, and by whom. */
export type Acknowledged = (tx: Tx, scope: Scope, acked: { ids: string[]; by: string }) => Promise<void>

const keptMs = 7 * 86_400_000
const tokenBytes = 16

/** @returns those that fired and were not acknowledged before */
export async function acknowledge(tx: Tx, ids: readonly string[], by: string): Promise<string[]> {
  if (ids.length === 0) return []
  const rows = await tx
    .update(notifyAlerts)
    .set({ ackedAt: sql`now()`, ackedBy: by, updatedAt: sql`now()` })
    .where(and(inArray(notifyAlerts.id, [...ids]), eq(notifyAlerts.status, 'firing'), isNull(notifyAlerts.ackedAt)))
    .returning({ id: notifyAlerts.id })
  return rows.map((row) => row.id)
}

/**
 * The end of an address at which whoever got this delivery acknowledges its alerts: the tenant's id and 128 random
 * bits. Only their hash is kept, so that each attempt has one of its own.
 */
export async function createAckToken(tx: Tx, delivery: DeliveryRow, groupId: string, now: number): Promise<string> {
  const token = `${Buffer.from(delivery.tenantId.replaceAll('-', ''), 'hex').toString('base64url')}.${randomBytes(tokenBytes).toString('base64url')}`
  await tx.insert(notifyAckTokens).values({
    tenantId: delivery.tenantId,
    tokenSha256: sha256(token),
    deliveryId: delivery.id,
    groupId,
    recipient: delivery.userId === null ? `channel:${delivery.channelId}` : `user:${delivery.userId}`,
    expiresAt: new Date(now + keptMs),
  })
  return token
}

export type AckTarget = { scope: Scope; groupId: string; deliveryId: string; recipient: string; title: string }

/** What the token is for; undefined for one that is unknown or too old. */
export async function findAck(context: Context, token: string): Promise<AckTarget | undefined> {
  const tenantHex = Buffer.from(token.split('.')[0] ?? '', 'base64url').toString('hex')
  const scope = (await listTenants(context.db)).find((one) => one.tenantId.replaceAll('-', '') === tenantHex)
  if (!scope) return undefined
  return context.db.withTenant(scope, async (tx) => {
    const [row] = await tx
      .select({ token: notifyAckTokens, title: notifyMessages.title })
      .from(notifyAckTokens)
      .innerJoin(notifyDeliveries, eq(notifyDeliveries.id, notifyAckTokens.deliveryId))
      .innerJoin(notifyMessages, eq(notifyMessages.id, notifyDeliveries.messageId))
      .where(eq(notifyAckTokens.tokenSha256, sha256(token)))
    if (!row || row.token.expiresAt.getTime() <= context.clock.now()) return undefined
    const { groupId, deliveryId, recipient } = row.token
    return { scope, groupId, deliveryId, recipient, title: row.title }
  })
}

/** Acknowledges what fires in the group now; doing it twice changes nothing. */
export async function useAck(context: Context, hub: NotificationHub, target: AckTarget): Promise<void> {
  const { scope, groupId, deliveryId, recipient } = target
  await context.db.withTenant(scope, async (tx) => {
    const [row] = await tx.select().from(notifyGroups).where(eq(notifyGroups.id, groupId))
    const { members = {} } = (row?.state as unknown as Group | undefined) ?? {}
    const acked = await hub.acknowledge(tx, scope, Object.keys(members), recipient)
    recordAudit(tx, {
      type: 'notification.ack',
      subject: `delivery:${deliveryId}`,
      changes: { from: null, to: { alerts: acked.length, by: recipient } },
    })
    const [moved] = await tx
      .update(notifyDeliveries)
      .set({ state: 'acked', updatedAt: sql`now()` })
      .where(and(eq(notifyDeliveries.id, deliveryId), inArray(notifyDeliveries.state, ['sent', 'delivered', 'read'])))
      .returning({ id: notifyDeliveries.id })
    if (!moved) return
    await tx
      .insert(notifyEvents)
      .values({ tenantId: scope.tenantId, id: randomUUIDv7(), deliveryId, kind: 'acked', at: new Date(context.clock.now()) })
  })
}
