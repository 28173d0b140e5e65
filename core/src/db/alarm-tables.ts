// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { integer, pgTable, smallint, text, uuid } from 'drizzle-orm/pg-core'
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
