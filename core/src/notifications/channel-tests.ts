// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { eq } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { notifyChannels } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { take } from '../jobs/limiter.ts'
import { ready } from './channels.ts'
import type { OpenChannel } from './channels.ts'
import { toE164 } from './channels/sms.ts'
import type { NotificationHub } from './hub.ts'
import type { ChannelTest, TestResult } from './schemas.ts'

const minuteMs = 60_000

/**
 * Sends one real message at once and says what the provider said. A stored channel that works again is ready again;
 * nothing else of it changes.
 *
 * @throws {ProblemError} `RATE_LIMITED` after too many tests of one person
 */
export async function testChannel(
  context: Context,
  hub: NotificationHub,
  scope: Scope,
  channel: Pick<OpenChannel, 'type' | 'config'> & { id?: string },
  wanted: ChannelTest & { userId: string; language: Language },
): Promise<TestResult> {
  const allowed = await take(context.db, scope, `notify/test/${wanted.userId}`, [
    { count: context.config.notify.testsPerMinute, perMs: minuteMs },
  ])
  if (!allowed.ok) throw new ProblemError('RATE_LIMITED', { retryAfterS: Math.ceil(allowed.waitMs / 1000) })
  await context.audit.note(scope, {
    type: 'notify_channel.test',
    subject: channel.id ? `notify_channel:${channel.id}` : '-',
    targetName: channel.type.type,
  })
  const isZh = wanted.language === 'zh'
  const id = randomUUIDv7()
  const number = wanted.to === undefined ? undefined : (toE164(wanted.to) ?? wanted.to)
  const said = {
    deliveryId: id,
    messageId: id,
    title: wanted.title ?? (isZh ? 'IoT PMS 测试消息' : 'Test message of IoT PMS'),
    text: wanted.text ?? (isZh ? '收到本消息说明渠道可用。' : 'The channel works.'),
    format: wanted.format ?? ('markdown' as const),
    priority: 3 as const,
    resolved: false,
    links: [],
    event: 'message',
    at: new Date(context.clock.now()),
    data: { test: true },
    ...(channel.type.isOnce && number ? { address: number } : wanted.to === undefined ? {} : { address: wanted.to }),
  }
  if ('own' in channel.type && channel.type.own === 'inapp') {
    await context.db.withTenant(scope, (tx) => hub.sender.putIntoInbox(tx, said, scope.tenantId, wanted.userId))
    return toResult({ outcome: { outcome: 'sent' }, httpStatus: null, latencyMs: 0 })
  }
  const attempt = await hub.sender.send({ row: undefined as never, ...channel }, said)
  if (attempt.outcome.outcome === 'sent' && channel.id !== undefined) {
    const { id: channelId } = channel
    await context.db.withTenant(scope, (tx) => tx.update(notifyChannels).set(ready).where(eq(notifyChannels.id, channelId)))
  }
  return toResult(attempt)
}

function toResult({ outcome, httpStatus, latencyMs }: Awaited<ReturnType<NotificationHub['sender']['send']>>): TestResult {
  return {
    outcome: outcome.outcome,
    reason: 'reason' in outcome ? outcome.reason : null,
    httpStatus,
    providerCode: outcome.providerCode ?? null,
    providerMessage: outcome.providerMessage ?? null,
    providerMessageId: outcome.outcome === 'sent' ? (outcome.providerMessageId ?? null) : null,
    retryAfterMs: outcome.outcome === 'retry' ? (outcome.afterMs ?? null) : null,
    latencyMs,
    detail: outcome.detail ?? null,
  }
}
