// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7, timingSafeEqual } from 'node:crypto'
import { and, eq, inArray, or, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { notifyChannels, notifyDeliveries, notifyEvents } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { isUuid } from '../http/schemas.ts'
import { sha256 } from '../secrets.ts'
import { str } from './channel-type.ts'
import type { OpenChannel } from './channels.ts'
import { signTwilio } from './channels/twilio-sms.ts'
import type { NotificationHub } from './hub.ts'

/** What a provider says became of a message. */
type Receipt = { ids: string[]; kind: 'delivered' | 'failed' | 'other'; detail: string | null }
type Called = { body: string; signature: string | undefined; url: string }
/** How one provider reports, and what it wants to hear. */
type Provider = { read: (called: Called, channel: OpenChannel) => Receipt[]; answer: string }

const providers: Record<string, Provider> = {
  twilio_sms: { read: readTwilio, answer: '' },
  aliyun_sms: { read: readAliyun, answer: '{"code":0,"msg":"成功"}' },
  tencent_sms: { read: readTencent, answer: '{"result":0,"errmsg":"OK"}' },
}

/** The address that a provider is told for its reports; undefined without a public address, or for kinds that send none. */
export function callbackUrlOf(context: Context, row: { id: string; type: string; callbackToken: string }): string | undefined {
  const { publicUrl } = context.config
  if (!publicUrl || !providers[row.type]) return undefined
  return new URL(`api/v1/notifications/inbound/${row.id}/${row.callbackToken}`, publicUrl).href
}

/**
 * Takes a provider's report [notifications §9]. Repeats and the wrong order do no harm; ids that nobody knows are
 * answered like the others.
 *
 * @returns what the provider wants to hear
 * @throws {ProblemError} `NOT_FOUND` for a wrong address, `PERMISSION_DENIED` for a wrong signature, `VALIDATION_FAILED`
 */
export async function takeCallback(
  context: Context,
  hub: NotificationHub,
  path: { channelId: string; token: string },
  given: { body: string; signature: string | undefined },
): Promise<string> {
  const found = await findChannel(context, hub, path)
  const provider = found && providers[found.channel.type.type]
  if (!found || !provider) throw new ProblemError('NOT_FOUND')
  const url = callbackUrlOf(context, found.channel.row) ?? ''
  const receipts = provider.read({ ...given, url }, found.channel)
  await context.db.withTenant(found.scope, async (tx) => {
    for (const receipt of receipts) await apply(tx, context, hub, found.channel.row.id, receipt)
  })
  return provider.answer
}

async function findChannel(context: Context, hub: NotificationHub, { channelId, token }: { channelId: string; token: string }) {
  if (!isUuid(channelId)) return undefined
  const given = sha256(token)
  for (const scope of await listTenants(context.db)) {
    const [row] = await context.db.withTenant(scope, (tx) => tx.select().from(notifyChannels).where(eq(notifyChannels.id, channelId)))
    if (!row) continue
    const isRight = timingSafeEqual(given, sha256(row.callbackToken))
    return isRight ? { scope: scope as Scope, channel: hub.channels.openRow(row) } : undefined
  }
  return undefined
}

/** A state never goes back: what comes late is only written down. */
async function apply(tx: Tx, context: Context, hub: NotificationHub, channelId: string, receipt: Receipt): Promise<void> {
  const ids = receipt.ids.filter(isUuid)
  const [delivery] = await tx
    .select()
    .from(notifyDeliveries)
    .where(
      and(
        eq(notifyDeliveries.channelId, channelId),
        or(inArray(notifyDeliveries.providerMessageId, receipt.ids), ids.length > 0 ? inArray(notifyDeliveries.id, ids) : undefined),
      ),
    )
    .limit(1)
    .for('update')
  if (!delivery) return
  const { tenantId, id: deliveryId } = delivery
  const [known] = await tx
    .select({ id: notifyEvents.id })
    .from(notifyEvents)
    .where(
      and(
        eq(notifyEvents.deliveryId, deliveryId),
        eq(notifyEvents.kind, receipt.kind),
        sql`${notifyEvents.detail} is not distinct from ${receipt.detail}`,
      ),
    )
    .limit(1)
  if (known) return
  const event = { tenantId, id: randomUUIDv7(), deliveryId, kind: receipt.kind, detail: receipt.detail, at: new Date(context.clock.now()) }
  await tx.insert(notifyEvents).values(event)
  if (receipt.kind === 'other' || delivery.state !== 'sent') return
  const isGood = receipt.kind === 'delivered'
  const [moved] = await tx
    .update(notifyDeliveries)
    .set({ state: isGood ? 'delivered' : 'failed', reason: isGood ? null : 'undelivered', updatedAt: sql`now()` })
    .where(eq(notifyDeliveries.id, deliveryId))
    .returning()
  if (!isGood) await hub.messages.afterFailure(tx, moved!)
}

function readTwilio({ body, signature, url }: Called, { config }: OpenChannel): Receipt[] {
  const params = Object.fromEntries(new URLSearchParams(body))
  const wanted = Buffer.from(signTwilio(str(config, 'authToken'), url, params))
  const given = Buffer.from(signature ?? '')
  if (url === '' || given.length !== wanted.length || !timingSafeEqual(given, wanted)) throw new ProblemError('PERMISSION_DENIED')
  const status = params['MessageStatus'] ?? params['SmsStatus'] ?? ''
  const kind = status === 'delivered' ? 'delivered' : ['undelivered', 'failed'].includes(status) ? 'failed' : 'other'
  return [
    { ids: [params['MessageSid'] ?? params['SmsSid'] ?? ''], kind, detail: params['ErrorCode'] ?? (kind === 'other' ? status : null) },
  ]
}

function readAliyun({ body }: Called): Receipt[] {
  return rowsOf(body).map((row) => ({
    ids: [row['biz_id'], row['out_id']].map(textOf).filter(Boolean),
    kind: row['success'] === true ? ('delivered' as const) : ('failed' as const),
    detail: row['success'] === true ? null : textOf(row['err_code']).slice(0, 100),
  }))
}

function readTencent({ body }: Called): Receipt[] {
  return rowsOf(body).map((row) => {
    const isGood = row['report_status'] === 'SUCCESS'
    return {
      ids: [textOf(row['sid'])].filter(Boolean),
      kind: isGood ? ('delivered' as const) : ('failed' as const),
      detail: isGood ? null : textOf(row['errmsg']).slice(0, 100),
    }
  })
}

const mostRows = 1000
const textOf = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '')

function rowsOf(body: string): Record<string, unknown>[] {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch (error) {
    throw new ProblemError('VALIDATION_FAILED', { cause: error })
  }
  if (!Array.isArray(value)) throw new ProblemError('VALIDATION_FAILED')
  return value.slice(0, mostRows).filter((row): row is Record<string, unknown> => typeof row === 'object' && row !== null)
}
