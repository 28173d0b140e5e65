// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { boolean, integer, jsonb, pgTable, text, uuid } from 'drizzle-orm/pg-core'
import { bytea, instant, json, ms } from './columns.ts'

export const schedules = pgTable('schedules', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  queue: text('queue').notNull(),
  cron: text('cron').notNull(),
  zone: text('zone').notNull(),
  data: json<Record<string, unknown>>('data'),
  missed: text('missed').$type<'once' | 'skip'>().notNull().default('once'),
  overlap: text('overlap').$type<'allow' | 'skip'>().notNull().default('skip'),
  jitterMs: integer('jitter_ms').notNull().default(0),
  ownerId: uuid('owner_id'),
  enabled: boolean('enabled').notNull().default(true),
  nextAt: instant('next_at'),
  lastAt: instant('last_at'),
  lastJobId: uuid('last_job_id'),
  lastOutcome: text('last_outcome'),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const jobRates = pgTable('job_rates', {
  tenantId: uuid('tenant_id').notNull(),
  key: text('key').notNull(),
  hits: instant('hits')
    .array()
    .notNull()
    .default(sql`'{}'`),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const stateDocuments = pgTable('state_documents', {
  tenantId: uuid('tenant_id').notNull(),
  scope: text('scope').notNull(),
  key: text('key').notNull(),
  value: jsonb('value').notNull(),
  version: ms('version').notNull().default(1),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const machines = pgTable('machines', {
  tenantId: uuid('tenant_id').notNull(),
  machine: text('machine').notNull(),
  key: text('key').notNull(),
  state: text('state').notNull(),
  version: integer('version').notNull(),
  data: json<Record<string, unknown>>('data'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const machineEvents = pgTable('machine_events', {
  tenantId: uuid('tenant_id').notNull(),
  machine: text('machine').notNull(),
  key: text('key').notNull(),
  id: uuid('id').notNull(),
  version: integer('version').notNull(),
  event: text('event').notNull(),
  fromState: text('from_state').notNull(),
  toState: text('to_state').notNull(),
  actor: text('actor').notNull(),
  idempotencyKey: text('idempotency_key'),
  outcome: text('outcome').$type<'applied' | 'rejected'>().notNull(),
  at: instant('at').notNull().defaultNow(),
})

export const jobPoison = pgTable('job_poison', {
  tenantId: uuid('tenant_id').notNull(),
  queue: text('queue').notNull(),
  payloadSha256: bytea('payload_sha256').notNull(),
  failures: integer('failures').notNull().default(1),
  firstAt: instant('first_at').notNull().defaultNow(),
  lastAt: instant('last_at').notNull().defaultNow(),
  quarantinedAt: instant('quarantined_at'),
})

export type OperationState = 'queued' | 'running' | 'succeeded' | 'failed' | 'canceled'
/** One item that an operation could not do. */
export type OperationFailure = { item: string; code: string; detail: string }

export const operations = pgTable('operations', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  kind: text('kind').notNull(),
  state: text('state').$type<OperationState>().notNull(),
  input: jsonb('input').$type<Record<string, unknown>>().notNull(),
  cursor: jsonb('cursor').$type<unknown>(),
  done: integer('done').notNull().default(0),
  total: integer('total'),
  result: jsonb('result').$type<unknown>(),
  failures: jsonb('failures')
    .$type<OperationFailure[]>()
    .notNull()
    .default(sql`'[]'`),
  failureCount: integer('failure_count').notNull().default(0),
  cancels: boolean('cancels').notNull().default(false),
  createdById: uuid('created_by_id').notNull(),
  createdBy: text('created_by').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  startedAt: instant('started_at'),
  finishedAt: instant('finished_at'),
})
