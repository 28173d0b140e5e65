// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, pageQuery } from '../http/schemas.ts'

const Text = Type.Object({ zh: Type.String(), en: Type.String() })
const Name = Type.String({ pattern: '\\S', minLength: 1, maxLength: 100 })
const Config = Type.Record(Type.String({ maxLength: 50 }), Type.Unknown(), { maxProperties: 30 })
const Rate = Type.Array(
  Type.Object(
    { count: Type.Integer({ minimum: 1, maximum: 100_000 }), perMs: Type.Integer({ minimum: 100, maximum: 86_400_000 }) },
    { additionalProperties: false },
  ),
  { maxItems: 5 },
)

export const ChannelTypeView = Type.Object({
  type: Type.String(),
  title: Text,
  /** JSON Schema of the configuration. */
  schema: Type.Unknown(),
  secrets: Type.Array(Type.String()),
  rates: Type.Array(Type.Object({ count: Type.Integer(), perMs: Type.Integer() })),
  limit: Type.Object({ unit: Type.String(), markdown: Type.Integer(), text: Type.Integer() }),
  dialect: Type.String(),
  digests: Type.Boolean(),
  acceptsUrl: Type.Boolean(),
})

export const ChannelView = Type.Object({
  id: Id,
  name: Type.String(),
  type: Type.String(),
  config: Config,
  secretsSet: Type.Array(Type.String()),
  /** The last four characters of each secret that is long enough. */
  secretTails: Type.Record(Type.String(), Type.String()),
  rate: Nullable(Rate),
  digest: Nullable(Type.Boolean()),
  enabled: Type.Boolean(),
  state: Type.Union([Type.Literal('ready'), Type.Literal('failing'), Type.Literal('disabled')]),
  reason: Nullable(Type.String()),
  stateSince: Instant,
  lastSentAt: Nullable(Instant),
  lastError: Nullable(Type.String()),
  createdAt: Instant,
  updatedAt: Instant,
  /** A signing secret that was just made: shown this once. */
  signingSecret: Type.Optional(Type.String()),
  /** Of an asymmetric signing secret that was just made: for receivers. */
  publicKey: Type.Optional(Type.String()),
  /** Where the provider reports what became of messages; only for who may edit the channel. */
  callbackUrl: Type.Optional(Type.String()),
})
export type ChannelView = Static<typeof ChannelView>

const settings = {
  enabled: Type.Optional(Type.Boolean()),
  digest: Type.Optional(Nullable(Type.Boolean())),
  rate: Type.Optional(Nullable(Rate)),
}
export const ChannelCreate = Type.Object(
  { name: Name, type: Type.String({ maxLength: 50 }), config: Config, ...settings },
  { additionalProperties: false },
)
export const ChannelPatch = Type.Object(
  { name: Type.Optional(Name), config: Type.Optional(Config), ...settings },
  { additionalProperties: false, minProperties: 1 },
)

const test = {
  to: Type.Optional(Type.String({ maxLength: 300 })),
  title: Type.Optional(Type.String({ maxLength: 200 })),
  text: Type.Optional(Type.String({ maxLength: 20_000 })),
  format: Type.Optional(Type.Union([Type.Literal('markdown'), Type.Literal('text')])),
}
export const ChannelTest = Type.Object(test, { additionalProperties: false })
export type ChannelTest = Static<typeof ChannelTest>
export const DraftTest = Type.Object({ ...test, type: Type.String({ maxLength: 50 }), config: Config }, { additionalProperties: false })
export const TestResult = Type.Object({
  outcome: Type.String(),
  reason: Nullable(Type.String()),
  httpStatus: Nullable(Type.Integer()),
  providerCode: Nullable(Type.String()),
  providerMessage: Nullable(Type.String()),
  providerMessageId: Nullable(Type.String()),
  retryAfterMs: Nullable(Type.Integer()),
  latencyMs: Type.Integer(),
  detail: Nullable(Type.String()),
})
export type TestResult = Static<typeof TestResult>

const Wanted = Type.Object(
  {
    receiver: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    userId: Type.Optional(Id),
    channelId: Type.Optional(Id),
    address: Type.Optional(Type.String({ minLength: 1, maxLength: 300 })),
    email: Type.Optional(Type.String({ minLength: 3, maxLength: 300 })),
    phone: Type.Optional(Type.String({ minLength: 5, maxLength: 30 })),
  },
  { additionalProperties: false, minProperties: 1 },
)
const priorityNames = ['urgent', 'high', 'normal', 'low', 'info'] as const
const PriorityGiven = Type.Union([Type.Integer({ minimum: 1, maximum: 5 }), ...priorityNames.map((name) => Type.Literal(name))])

export const MessageCreate = Type.Object(
  {
    to: Type.Union([Wanted, Type.Array(Wanted, { minItems: 1, maxItems: 100 })]),
    title: Type.Optional(Type.String({ maxLength: 200, pattern: '^[^\\r\\n]*$' })),
    text: Type.Optional(Type.String({ minLength: 1, maxLength: 20_000 })),
    /** Name of a stored template, in place of title and text. */
    template: Type.Optional(Type.String({ maxLength: 64 })),
    locale: Type.Optional(Type.String({ maxLength: 20 })),
    format: Type.Optional(Type.Union([Type.Literal('markdown'), Type.Literal('text')])),
    priority: Type.Optional(PriorityGiven),
    topic: Type.Optional(Type.String({ pattern: '^[a-z][a-z0-9_.-]{0,49}$' })),
    data: Type.Optional(Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 200 })),
    dedupKey: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    dedupWindowMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 7 * 86_400_000 })),
    groupKey: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    scheduledAt: Type.Optional(Instant),
    ttlMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 30 * 86_400_000 })),
  },
  { additionalProperties: false },
)
export type MessageCreate = Static<typeof MessageCreate>
export const priorityNumber = (given: MessageCreate['priority']): 1 | 2 | 3 | 4 | 5 => {
  const index = typeof given === 'string' ? priorityNames.indexOf(given) + 1 : (given ?? 3)
  return index as 1 | 2 | 3 | 4 | 5
}

const DeliveryRef = Type.Object({ id: Id, type: Type.String(), state: Type.String() })
export const Accepted = Type.Object({
  id: Id,
  status: Type.Literal('accepted'),
  deduplicated: Type.Boolean(),
  deliveries: Type.Array(DeliveryRef),
})
export const Batch = Type.Object({ messages: Type.Array(Type.Unknown(), { minItems: 1, maxItems: 1000 }) }, { additionalProperties: false })
export const BatchAnswer = Type.Object({
  items: Type.Array(
    Type.Object({
      index: Type.Integer(),
      id: Type.Optional(Id),
      error: Type.Optional(Type.Object({ code: Type.String(), detail: Type.String() })),
    }),
  ),
})

export const MessageView = Type.Object({
  id: Id,
  source: Type.String(),
  topic: Type.String(),
  event: Type.String(),
  priority: Type.Integer(),
  title: Type.String(),
  text: Type.String(),
  format: Type.String(),
  resolved: Type.Boolean(),
  createdBy: Type.String(),
  createdAt: Instant,
  scheduledAt: Nullable(Instant),
  expiresAt: Instant,
})

export const AttemptView = Type.Object({
  no: Type.Integer(),
  at: Instant,
  outcome: Type.String(),
  reason: Nullable(Type.String()),
  httpStatus: Nullable(Type.Integer()),
  providerCode: Nullable(Type.String()),
  providerMessage: Nullable(Type.String()),
  latencyMs: Type.Integer(),
  retryAfterMs: Nullable(Type.Integer()),
})
/** What came after it was sent: receipts, reading, acknowledging. */
export const EventView = Type.Object({ kind: Type.String(), detail: Nullable(Type.String()), at: Instant })
export const DeliveryView = Type.Object({
  id: Id,
  messageId: Id,
  step: Type.Integer(),
  channelId: Id,
  type: Type.String(),
  userId: Nullable(Id),
  /** Masked. */
  address: Nullable(Type.String()),
  priority: Type.Integer(),
  state: Type.String(),
  reason: Nullable(Type.String()),
  isWaiting: Type.Boolean(),
  attempts: Type.Integer(),
  providerMessageId: Nullable(Type.String()),
  providerCode: Nullable(Type.String()),
  nextAt: Nullable(Instant),
  /** Quiet hours, or too many messages in an hour, hold it back until then. */
  heldUntil: Nullable(Instant),
  createdAt: Instant,
  sentAt: Nullable(Instant),
})
export type DeliveryView = Static<typeof DeliveryView>
/** A row of the log: with the title of its message. */
export const DeliveryEntry = Type.Object({ ...DeliveryView.properties, title: Type.String() })
export const MessageDetail = Type.Object({
  ...MessageView.properties,
  deliveries: Type.Array(Type.Object({ ...DeliveryView.properties, log: Type.Array(AttemptView), events: Type.Array(EventView) })),
})

const deliveryFilter = {
  state: Type.Optional(Type.String({ maxLength: 20 })),
  channelId: Type.Optional(Id),
  type: Type.Optional(Type.String({ maxLength: 50 })),
  providerCode: Type.Optional(Type.String({ maxLength: 100 })),
  /** The whole address, or the id of a user. */
  recipient: Type.Optional(Type.String({ maxLength: 300 })),
  from: Type.Optional(Instant),
  to: Type.Optional(Instant),
}
export const DeliveriesQuery = Type.Object({ ...pageQuery, ...deliveryFilter }, { additionalProperties: false })
export const DeliveriesExport = Type.Object(
  { ...deliveryFilter, format: Type.Optional(Type.Literal('csv')) },
  { additionalProperties: false },
)
export const BulkRetry = Type.Object(
  {
    ids: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 1000 })),
    /** Failed ones, and expired ones too when nothing is said. */
    state: Type.Optional(Type.Union([Type.Literal('failed'), Type.Literal('expired')])),
    channelId: Type.Optional(Id),
    from: Type.Optional(Instant),
    to: Type.Optional(Instant),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
  },
  { additionalProperties: false, minProperties: 1 },
)
export type BulkRetry = Static<typeof BulkRetry>

export const InboxEntry = Type.Object({
  id: Id,
  title: Type.String(),
  text: Type.String(),
  priority: Type.Integer(),
  links: Type.Array(Type.Object({ label: Type.String(), url: Type.String() })),
  createdAt: Instant,
  readAt: Nullable(Instant),
})
export const InboxPage = Type.Object({ items: Type.Array(InboxEntry), nextCursor: Nullable(Type.String()), unread: Type.Integer() })
export const InboxRead = Type.Object(
  { ids: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 500 })) },
  { additionalProperties: false },
)

export const StatsQuery = Type.Object(
  { from: Instant, to: Instant, by: Type.Optional(Type.Union([Type.Literal('channel'), Type.Literal('type'), Type.Literal('template')])) },
  { additionalProperties: false },
)
export const Stats = Type.Object({
  items: Type.Array(
    Type.Object({
      key: Type.String(),
      accepted: Type.Integer(),
      sent: Type.Integer(),
      /** Of those sent, what a provider or a reader confirmed. */
      delivered: Type.Integer(),
      failed: Type.Integer(),
      expired: Type.Integer(),
      suppressed: Type.Integer(),
      open: Type.Integer(),
      successRate: Nullable(Type.Number()),
      p50Ms: Nullable(Type.Number()),
      p95Ms: Nullable(Type.Number()),
      suppressedBy: Type.Record(Type.String(), Type.Integer()),
      topCodes: Type.Array(Type.Object({ code: Type.String(), count: Type.Integer() })),
    }),
  ),
})
