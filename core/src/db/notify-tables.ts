// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { boolean, integer, jsonb, pgTable, smallint, text, uuid } from 'drizzle-orm/pg-core'
import { bytea, instant, json, ms } from './columns.ts'

export const notifyChannels = pgTable('notify_channels', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  type: text('type').notNull(),
  config: json<Record<string, unknown>>('config'),
  sealedSecrets: text('sealed_secrets'),
  secretTails: json<Record<string, string>>('secret_tails'),
  rate: jsonb('rate').$type<{ count: number; perMs: number }[]>(),
  digest: boolean('digest'),
  enabled: boolean('enabled').notNull().default(true),
  state: text('state').$type<'ready' | 'failing' | 'disabled'>().notNull().default('ready'),
  reason: text('reason'),
  stateSince: instant('state_since').notNull().defaultNow(),
  failures: integer('failures').notNull().default(0),
  failingSince: instant('failing_since'),
  pausedUntil: instant('paused_until'),
  pauseMs: integer('pause_ms').notNull().default(0),
  lastSentAt: instant('last_sent_at'),
  lastError: text('last_error'),
  callbackToken: text('callback_token').notNull(),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyRouting = pgTable('notify_routing', {
  tenantId: uuid('tenant_id').notNull(),
  document: jsonb('document').$type<Record<string, unknown>>().notNull(),
  version: integer('version').notNull().default(1),
  updatedBy: text('updated_by').notNull().default('system'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifySilences = pgTable('notify_silences', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  matchers: jsonb('matchers').$type<string[]>().notNull(),
  startsAt: instant('starts_at').notNull(),
  endsAt: instant('ends_at').notNull(),
  comment: text('comment').notNull(),
  authorId: uuid('author_id').notNull(),
  author: text('author').notNull(),
  history: jsonb('history')
    .$type<Record<string, unknown>[]>()
    .notNull()
    .default(sql`'[]'`),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyGroups = pgTable('notify_groups', {
  tenantId: uuid('tenant_id').notNull(),
  id: text('id').notNull(),
  state: jsonb('state').$type<Record<string, unknown>>().notNull(),
  nextTickAt: instant('next_tick_at'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyAlerts = pgTable('notify_alerts', {
  tenantId: uuid('tenant_id').notNull(),
  id: text('id').notNull(),
  status: text('status').$type<'firing' | 'resolved'>().notNull(),
  labels: jsonb('labels').$type<Record<string, string>>().notNull(),
  data: json<Record<string, unknown>>('data'),
  startsAt: instant('starts_at').notNull(),
  endsAt: instant('ends_at'),
  ackedAt: instant('acked_at'),
  ackedBy: text('acked_by'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export type MessageSource = 'api' | 'alert' | 'system' | 'digest'
/** One address of a message's plan; `suppressed` says why nothing goes there, `heldUntil` (ISO) until when it waits. */
export type PlannedTarget = {
  channelId: string
  type: string
  address?: string
  userId?: string
  suppressed?: string
  heldUntil?: string
}

export const notifyMessages = pgTable('notify_messages', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  source: text('source').$type<MessageSource>().notNull(),
  topic: text('topic').notNull(),
  event: text('event').notNull(),
  priority: smallint('priority').$type<1 | 2 | 3 | 4 | 5>().notNull(),
  title: text('title').notNull(),
  text: text('text').notNull(),
  format: text('format').$type<'markdown' | 'text'>().notNull(),
  resolved: boolean('resolved').notNull().default(false),
  links: jsonb('links')
    .$type<{ label: string; url: string }[]>()
    .notNull()
    .default(sql`'[]'`),
  data: json<Record<string, unknown>>('data'),
  plan: jsonb('plan')
    .$type<PlannedTarget[][]>()
    .notNull()
    .default(sql`'[]'`),
  fallbackAfterMs: ms('fallback_after_ms').notNull(),
  step: integer('step').notNull().default(0),
  dedupKey: text('dedup_key'),
  groupKey: text('group_key'),
  template: text('template'),
  scheduledAt: instant('scheduled_at'),
  expiresAt: instant('expires_at').notNull(),
  createdBy: text('created_by').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export type DeliveryState =
  | 'accepted'
  | 'queued'
  | 'sending'
  | 'sent'
  | 'delivered'
  | 'read'
  | 'acked'
  | 'failed'
  | 'expired'
  | 'suppressed'
  | 'canceled'

export const notifyDeliveries = pgTable('notify_deliveries', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  messageId: uuid('message_id').notNull(),
  step: integer('step').notNull().default(0),
  channelId: uuid('channel_id').notNull(),
  type: text('type').notNull(),
  userId: uuid('user_id'),
  address: text('address'),
  priority: smallint('priority').$type<1 | 2 | 3 | 4 | 5>().notNull(),
  state: text('state').$type<DeliveryState>().notNull(),
  reason: text('reason'),
  isWaiting: boolean('is_waiting').notNull().default(false),
  attempts: integer('attempts').notNull().default(0),
  unknowns: integer('unknowns').notNull().default(0),
  providerMessageId: text('provider_message_id'),
  providerCode: text('provider_code'),
  nextAt: instant('next_at'),
  heldUntil: instant('held_until'),
  expiresAt: instant('expires_at').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  sentAt: instant('sent_at'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyAttempts = pgTable('notify_attempts', {
  tenantId: uuid('tenant_id').notNull(),
  deliveryId: uuid('delivery_id').notNull(),
  no: integer('no').notNull(),
  at: instant('at').notNull(),
  outcome: text('outcome').notNull(),
  reason: text('reason'),
  httpStatus: integer('http_status'),
  providerCode: text('provider_code'),
  providerMessage: text('provider_message'),
  latencyMs: integer('latency_ms').notNull(),
  retryAfterMs: ms('retry_after_ms'),
})

export const notifyInbox = pgTable('notify_inbox', {
  tenantId: uuid('tenant_id').notNull(),
  userId: uuid('user_id').notNull(),
  id: uuid('id').notNull(),
  title: text('title').notNull(),
  text: text('text').notNull(),
  priority: smallint('priority').notNull(),
  links: jsonb('links')
    .$type<{ label: string; url: string }[]>()
    .notNull()
    .default(sql`'[]'`),
  createdAt: instant('created_at').notNull().defaultNow(),
  readAt: instant('read_at'),
})

/** Title and body of a template in one language. */
export type TemplateText = { title?: string; body: string }

export const notifyTemplates = pgTable('notify_templates', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  topic: text('topic').notNull().default('message'),
  locales: jsonb('locales').$type<Record<string, TemplateText>>().notNull(),
  example: json<Record<string, unknown>>('example'),
  version: integer('version').notNull().default(1),
  updatedBy: text('updated_by').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyTemplateVersions = pgTable('notify_template_versions', {
  tenantId: uuid('tenant_id').notNull(),
  templateId: uuid('template_id').notNull(),
  version: integer('version').notNull(),
  locales: jsonb('locales').$type<Record<string, TemplateText>>().notNull(),
  example: jsonb('example').$type<Record<string, unknown>>().notNull(),
  updatedBy: text('updated_by').notNull(),
  at: instant('at').notNull().defaultNow(),
})

/** Kinds of addresses that people may give. */
export type ContactType = 'email' | 'sms' | 'telegram'

export const notifyContactPoints = pgTable('notify_contact_points', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  userId: uuid('user_id').notNull(),
  type: text('type').$type<ContactType>().notNull(),
  address: text('address').notNull(),
  verifiedAt: instant('verified_at'),
  codeHash: text('code_hash'),
  codeExpiresAt: instant('code_expires_at'),
  codeTries: integer('code_tries').notNull().default(0),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const notifyPreferences = pgTable('notify_preferences', {
  tenantId: uuid('tenant_id').notNull(),
  userId: uuid('user_id').notNull(),
  document: jsonb('document').$type<Record<string, unknown>>().notNull(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyEscalations = pgTable('notify_escalations', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  steps: jsonb('steps').$type<unknown[]>().notNull(),
  repeat: integer('repeat').notNull().default(0),
  version: integer('version').notNull().default(1),
  updatedBy: text('updated_by').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const notifyAckTokens = pgTable('notify_ack_tokens', {
  tenantId: uuid('tenant_id').notNull(),
  tokenSha256: bytea('token_sha256').notNull(),
  deliveryId: uuid('delivery_id').notNull(),
  groupId: text('group_id').notNull(),
  recipient: text('recipient').notNull(),
  expiresAt: instant('expires_at').notNull(),
})

export const notifyEvents = pgTable('notify_events', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  deliveryId: uuid('delivery_id').notNull(),
  kind: text('kind').notNull(),
  detail: text('detail'),
  at: instant('at').notNull(),
})

export const notifySuppressions = pgTable('notify_suppressions', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  type: text('type').notNull(),
  address: text('address').notNull(),
  reason: text('reason').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const notifySendKeys = pgTable('notify_send_keys', {
  tenantId: uuid('tenant_id').notNull(),
  apiKeyId: uuid('api_key_id').notNull(),
  receiver: text('receiver').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
})
