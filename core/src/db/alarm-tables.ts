// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { integer, jsonb, pgTable, smallint, text, uuid } from 'drizzle-orm/pg-core'
import { instant, json, ms } from './columns.ts'

export const alarms = pgTable('alarms', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  customerId: uuid('customer_id'),
  deviceId: uuid('device_id'),
  source: text('source').notNull(),
  origin: text('origin').notNull(),
  ruleId: uuid('rule_id'),
  ruleVersion: integer('rule_version'),
  type: text('type').notNull(),
  instance: text('instance').notNull().default(''),
  severity: text('severity').notNull(),
  highestSeverity: text('highest_severity').notNull(),
  startTs: ms('start_ts').notNull(),
  confirmedTs: ms('confirmed_ts').notNull(),
  endTs: ms('end_ts'),
  clearedTs: ms('cleared_ts'),
  clearReason: text('clear_reason'),
  ackedAt: instant('acked_at'),
  ackedBy: text('acked_by'),
  assigneeId: uuid('assignee_id'),
  title: text('title').notNull(),
  labels: json<Record<string, string>>('labels'),
  trigger: json<Record<string, unknown>>('trigger'),
  episodes: integer('episodes').notNull().default(1),
  lastEventAt: instant('last_event_at').notNull(),
  rank: smallint('rank')
    .notNull()
    .generatedAlwaysAs(sql`0`),
})

export const alarmEvents = pgTable('alarm_events', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  alarmId: uuid('alarm_id').notNull(),
  customerId: uuid('customer_id'),
  at: instant('at').notNull(),
  actor: text('actor'),
  actorId: uuid('actor_id'),
  kind: text('kind').notNull(),
  data: json<Record<string, unknown>>('data'),
})

export const rules = pgTable('rules', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  kind: text('kind').notNull(),
  name: text('name').notNull(),
  mode: text('mode').notNull(),
  document: jsonb('document').$type<Record<string, unknown>>().notNull(),
  version: integer('version').notNull().default(1),
  failure: text('failure'),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  updatedBy: text('updated_by').notNull(),
  deletedAt: instant('deleted_at'),
})

export const ruleVersions = pgTable('rule_versions', {
  tenantId: uuid('tenant_id').notNull(),
  ruleId: uuid('rule_id').notNull(),
  version: integer('version').notNull(),
  document: jsonb('document').$type<Record<string, unknown>>().notNull(),
  author: text('author').notNull(),
  note: text('note').notNull().default(''),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const ruleStates = pgTable('rule_states', {
  tenantId: uuid('tenant_id').notNull(),
  ruleId: uuid('rule_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  version: integer('version').notNull(),
  state: jsonb('state').$type<Record<string, unknown>>().notNull(),
  at: ms('at').notNull(),
  activeSince: ms('active_since').notNull(),
})

export const ruleValues = pgTable('rule_values', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  slots: jsonb('slots').$type<Record<string, unknown>>().notNull(),
})

export const ruleDryRuns = pgTable('rule_dry_runs', {
  tenantId: uuid('tenant_id').notNull(),
  ruleId: uuid('rule_id').notNull(),
  id: uuid('id').notNull(),
  deviceId: uuid('device_id').notNull(),
  kind: text('kind').notNull(),
  data: json<Record<string, unknown>>('data'),
  at: instant('at').notNull(),
})

export const ruleRuns = pgTable('rule_runs', {
  tenantId: uuid('tenant_id').notNull(),
  key: text('key').notNull(),
  id: uuid('id').notNull(),
  ruleId: uuid('rule_id'),
  alarmId: uuid('alarm_id').notNull(),
  deviceId: uuid('device_id'),
  type: text('type').notNull(),
  outcome: text('outcome').notNull(),
  detail: text('detail'),
  at: instant('at').notNull(),
})
