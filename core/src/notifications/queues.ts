// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { Id } from '../http/schemas.ts'
import { defineJob } from '../jobs/define.ts'

/** Of a crash or a database that is away: what providers answer has a schedule of its own. */
const retry = { strategy: 'exponential', baseMs: 1000, maxMs: 60_000, limit: 10 } as const

/** One attempt at one delivery. */
export const notifySend = defineJob({
  name: 'notify-send',
  title: { zh: '发送通知', en: 'Send notifications' },
  // `reserved`: a slot of the channel was taken for it already.
  data: Type.Object({ tenantId: Id, deliveryId: Id, reserved: Type.Optional(Type.Boolean()) }),
  group: (data) => data.deliveryId,
  perGroup: 1,
  batch: 50,
  perNode: 2,
  retry,
  expireMs: 120_000,
  heartbeatMs: 15_000,
  deadLetter: true,
})

/** Gives free slots of a channel to what waits for one. */
export const notifyDrain = defineJob({
  name: 'notify-drain',
  title: { zh: '按限速放行通知', en: 'Release notifications at their rate' },
  data: Type.Object({ tenantId: Id, channelId: Id }),
  batch: 20,
  perNode: 1,
  retry,
  expireMs: 30_000,
  deadLetter: true,
  exclusive: true,
})

/** The first step of a message had its time. */
export const notifyFallback = defineJob({
  name: 'notify-fallback',
  title: { zh: '通知降级', en: 'Fall back to other channels' },
  data: Type.Object({ tenantId: Id, messageId: Id, step: Type.Integer() }),
  batch: 50,
  perNode: 1,
  retry,
  expireMs: 30_000,
  deadLetter: true,
})

/** A tick of a group of alerts. */
export const notifyFlush = defineJob({
  name: 'notify-flush',
  title: { zh: '告警分组', en: 'Groups of alerts' },
  data: Type.Object({ tenantId: Id, group: Type.String() }),
  group: (data) => data.group,
  perGroup: 1,
  batch: 50,
  perNode: 1,
  retry,
  expireMs: 30_000,
  deadLetter: true,
})

/** Quiet hours of a person are over, or the span after too many messages. */
export const notifyRelease = defineJob({
  name: 'notify-release',
  title: { zh: '放行暂缓的通知', en: 'Release held notifications' },
  data: Type.Object({ tenantId: Id, userId: Id }),
  batch: 20,
  perNode: 1,
  retry,
  expireMs: 30_000,
  deadLetter: true,
  exclusive: true,
})

/** A step of an escalation is due. `startedAt` tells one run from the next. */
export const notifyEscalate = defineJob({
  name: 'notify-escalate',
  title: { zh: '告警升级', en: 'Escalations' },
  data: Type.Object({ tenantId: Id, group: Type.String(), startedAt: Type.Number(), step: Type.Integer(), round: Type.Integer() }),
  group: (data) => data.group,
  perGroup: 1,
  batch: 50,
  perNode: 1,
  retry,
  expireMs: 30_000,
  deadLetter: true,
})
