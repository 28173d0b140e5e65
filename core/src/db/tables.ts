// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { bigint, boolean, customType, doublePrecision, integer, jsonb, pgTable, smallint, text, timestamp, uuid } from 'drizzle-orm/pg-core'

/**
 * The core tables as code sees them. The migrations are the truth; a test compares the two.
 * Keys, indexes and policies stand in the migrations only.
 */
const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' })
const instant = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' })
const ms = (name: string) => bigint(name, { mode: 'number' })
const json = <T>(name: string) =>
  jsonb(name)
    .$type<T>()
    .notNull()
    .default(sql`'{}'`)

export const tenants = pgTable('tenants', {
  id: uuid('id').notNull(),
  number: integer('number').notNull(),
  slug: text('slug').notNull(),
  name: text('name').notNull(),
  root: boolean('root').notNull().default(false),
  status: text('status').notNull().default('active'),
  timeZone: text('time_zone').notNull().default('UTC'),
  locale: text('locale').notNull().default('zh'),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export type UserRole = 'viewer' | 'operator' | 'admin'

export const users = pgTable('users', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  customerId: uuid('customer_id'),
  email: text('email').notNull(),
  name: text('name').notNull(),
  role: text('role').$type<UserRole>().notNull(),
  passwordHash: text('password_hash'),
  language: text('language').$type<'zh' | 'en'>(),
  prefs: json<Record<string, unknown>>('prefs'),
  sessionVersion: integer('session_version').notNull().default(1),
  disabledAt: instant('disabled_at'),
  lastLoginAt: instant('last_login_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const userSessions = pgTable('user_sessions', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  userId: uuid('user_id').notNull(),
  method: text('method').notNull(),
  address: text('address').notNull(),
  userAgent: text('user_agent').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  lastUsedAt: instant('last_used_at').notNull().defaultNow(),
  authenticatedAt: instant('authenticated_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
})

export const refreshTokens = pgTable('refresh_tokens', {
  tenantId: uuid('tenant_id').notNull(),
  tokenSha256: bytea('token_sha256').notNull(),
  sessionId: uuid('session_id').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  usedAt: instant('used_at'),
  usedAddress: text('used_address'),
  usedAgent: text('used_agent'),
})

export const apiKeys = pgTable('api_keys', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  userId: uuid('user_id').notNull(),
  name: text('name').notNull(),
  keySha256: bytea('key_sha256').notNull(),
  last4: text('last4').notNull(),
  scopes: text('scopes').array().notNull(),
  addresses: text('addresses')
    .array()
    .notNull()
    .default(sql`'{}'`),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
  lastUsedAt: instant('last_used_at'),
})

export const oneTimeLinks = pgTable('one_time_links', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  kind: text('kind').$type<'setup' | 'reset'>().notNull(),
  userId: uuid('user_id'),
  email: text('email'),
  tokenSha256: bytea('token_sha256').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
})

export const securityEvents = pgTable('security_events', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  at: instant('at').notNull().defaultNow(),
  actor: text('actor').notNull(),
  action: text('action').notNull(),
  target: text('target').notNull(),
  outcome: text('outcome').notNull(),
  address: text('address').notNull(),
  requestId: text('request_id').notNull(),
  detail: json<Record<string, unknown>>('detail'),
})

export const products = pgTable('products', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  description: text('description').notNull().default(''),
  isDefault: boolean('is_default').notNull().default(false),
  settings: json<Record<string, unknown>>('settings'),
  inactivityTimeoutMs: ms('inactivity_timeout_ms').notNull().default(600_000),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  provisioningSha256: bytea('provisioning_sha256'),
})

export const devices = pgTable('devices', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  number: integer('number').notNull().generatedAlwaysAsIdentity(),
  customerId: uuid('customer_id'),
  productId: uuid('product_id').notNull(),
  name: text('name').notNull(),
  label: text('label'),
  description: text('description'),
  tags: text('tags')
    .array()
    .notNull()
    .default(sql`'{}'`),
  isGateway: boolean('is_gateway').notNull().default(false),
  isDemo: boolean('is_demo').notNull().default(false),
  timeZone: text('time_zone'),
  inactivityTimeoutMs: ms('inactivity_timeout_ms'),
  additionalInfo: json<Record<string, unknown>>('additional_info'),
  disabledAt: instant('disabled_at'),
  link: text('link').$type<'none' | 'session' | 'closed' | 'http'>().notNull().default('none'),
  lastConnectAt: instant('last_connect_at'),
  lastDisconnectAt: instant('last_disconnect_at'),
  disconnectReason: text('disconnect_reason'),
  lastActivityAt: instant('last_activity_at'),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  deletedAt: instant('deleted_at'),
  deletedBy: text('deleted_by'),
  purgingAt: instant('purging_at'),
  provisionedAt: instant('provisioned_at'),
  gatewayId: uuid('gateway_id'),
  ownConnectAt: instant('own_connect_at'),
})

export const deviceCredentials = pgTable('device_credentials', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  id: uuid('id').notNull(),
  kind: text('kind').$type<'access_token' | 'mqtt_basic' | 'x509'>().notNull(),
  lookupSha256: bytea('lookup_sha256').notNull(),
  passwordHmac: bytea('password_hmac'),
  sealed: text('sealed').notNull(),
  isActive: boolean('is_active').notNull().default(true),
  expiresAt: instant('expires_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const deviceClaims = pgTable('device_claims', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  secretHmac: bytea('secret_hmac').notNull(),
  createdAt: instant('created_at').notNull(),
  expiresAt: instant('expires_at').notNull(),
  failures: integer('failures').notNull().default(0),
  failingSince: instant('failing_since'),
})

export const deviceRejects = pgTable('device_rejects', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  id: uuid('id').notNull(),
  code: text('code').notNull(),
  detail: text('detail').notNull(),
  transport: text('transport').notNull(),
  topic: text('topic').notNull(),
  key: text('key'),
  ts: ms('ts'),
  sample: text('sample').notNull(),
  packetId: integer('packet_id'),
  clientId: text('client_id'),
  address: text('address').notNull(),
  count: integer('count').notNull(),
  firstAt: instant('first_at').notNull(),
  lastAt: instant('last_at').notNull(),
})

export const deviceLog = pgTable('device_log', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  id: uuid('id').notNull(),
  at: instant('at').notNull().defaultNow(),
  event: text('event').notNull(),
  detail: json<Record<string, unknown>>('detail'),
})

export const deviceAttributes = pgTable('device_attributes', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  scope: text('scope').$type<'client' | 'shared' | 'server'>().notNull(),
  key: text('key').notNull(),
  kind: smallint('kind').notNull(),
  num: doublePrecision('num'),
  big: bigint('big', { mode: 'bigint' }),
  txt: text('txt'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const commandCounters = pgTable('command_counters', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  lastNo: integer('last_no').notNull(),
})

export const commands = pgTable('commands', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  deviceId: uuid('device_id').notNull(),
  no: integer('no').notNull(),
  method: text('method').notNull(),
  params: text('params').notNull(),
  oneway: boolean('oneway').notNull(),
  state: text('state').notNull(),
  retries: integer('retries').notNull(),
  attempts: integer('attempts').notNull().default(0),
  response: text('response'),
  additionalInfo: text('additional_info'),
  createdBy: text('created_by').notNull(),
  createdAt: instant('created_at').notNull(),
  expiresAt: instant('expires_at').notNull(),
  updatedAt: instant('updated_at').notNull(),
})

export const commandMoves = pgTable('command_moves', {
  tenantId: uuid('tenant_id').notNull(),
  commandId: uuid('command_id').notNull(),
  no: integer('no').notNull(),
  at: instant('at').notNull(),
  state: text('state').notNull(),
  detail: text('detail'),
})

export const idempotencyKeys = pgTable('idempotency_keys', {
  tenantId: uuid('tenant_id').notNull(),
  userId: uuid('user_id').notNull(),
  key: text('key').notNull(),
  requestSha256: bytea('request_sha256').notNull(),
  status: integer('status'),
  sealedBody: text('sealed_body'),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const retentionRules = pgTable('retention_rules', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  productId: uuid('product_id'),
  keyPattern: text('key_pattern'),
  keepDays: integer('keep_days'),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const ingestMinutes = pgTable('ingest_minutes', {
  tenantId: uuid('tenant_id').notNull(),
  minute: instant('minute').notNull(),
  messages: ms('messages').notNull(),
  points: ms('points').notNull(),
  rejects: ms('rejects').notNull(),
})

export type OtaKind = 'firmware' | 'software'

export const otaPackages = pgTable('ota_packages', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  productId: uuid('product_id').notNull(),
  kind: text('kind').$type<OtaKind>().notNull(),
  title: text('title').notNull(),
  version: text('version').notNull(),
  tag: text('tag'),
  url: text('url'),
  checksumAlgorithm: text('checksum_algorithm').notNull(),
  checksum: text('checksum'),
  sizeBytes: bigint('size_bytes', { mode: 'number' }),
  fileName: text('file_name'),
  contentType: text('content_type'),
  contentId: uuid('content_id'),
  uploadId: uuid('upload_id'),
  uploadAt: instant('upload_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

export const otaParts = pgTable('ota_parts', {
  tenantId: uuid('tenant_id').notNull(),
  packageId: uuid('package_id').notNull(),
  contentId: uuid('content_id').notNull(),
  no: integer('no').notNull(),
  bytes: bytea('bytes').notNull(),
})

export const otaDevices = pgTable('ota_devices', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  kind: text('kind').$type<OtaKind>().notNull(),
  ownPackageId: uuid('own_package_id'),
  packageId: uuid('package_id'),
  offeredAt: instant('offered_at'),
  state: text('state').notNull().default('QUEUED'),
  stateAt: instant('state_at').notNull().defaultNow(),
  error: text('error'),
  bytesSent: bigint('bytes_sent', { mode: 'number' }).notNull().default(0),
  currentTitle: text('current_title'),
  currentVersion: text('current_version'),
})

export const otaEvents = pgTable('ota_events', {
  tenantId: uuid('tenant_id').notNull(),
  deviceId: uuid('device_id').notNull(),
  id: uuid('id').notNull(),
  kind: text('kind').$type<OtaKind>().notNull(),
  at: instant('at').notNull(),
  packageId: uuid('package_id'),
  event: text('event').notNull(),
  detail: json<Record<string, unknown>>('detail'),
})

export const connectors = pgTable('connectors', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  name: text('name').notNull(),
  isEnabled: boolean('is_enabled').notNull().default(false),
  settings: json<Record<string, unknown>>('settings'),
  sealedPassword: text('sealed_password'),
  deviceId: uuid('device_id'),
  version: integer('version').notNull().default(1),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
})

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
