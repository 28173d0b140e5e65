// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { bigint, boolean, date, doublePrecision, integer, jsonb, pgTable, smallint, text, uuid } from 'drizzle-orm/pg-core'
import { bytea, instant, json, ms } from './columns.ts'

/**
 * The core tables as code sees them. The migrations are the truth; a test compares the two.
 * Keys, indexes and policies stand in the migrations only.
 */
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

export const evidenceKeys = pgTable('evidence_keys', {
  tenantId: uuid('tenant_id').notNull(),
  id: text('id').notNull(),
  publicKey: bytea('public_key').notNull(),
  sealed: text('sealed').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
})

export const licenseState = pgTable('license_state', {
  tenantId: uuid('tenant_id').notNull(),
  installId: uuid('install_id').notNull(),
  instanceKey: text('instance_key'),
  instanceJkt: text('instance_jkt'),
  currentSub: text('current_sub'),
  highWater: ms('high_water').notNull(),
  pendingMinutes: doublePrecision('pending_minutes').notNull(),
  crl: text('crl'),
  crlSeq: ms('crl_seq').notNull(),
  notedState: text('noted_state').notNull(),
  revision: ms('revision').notNull(),
})

export type LicenseSource = 'upload' | 'file' | 'env'

export const licenseTokens = pgTable('license_tokens', {
  tenantId: uuid('tenant_id').notNull(),
  jti: uuid('jti').notNull(),
  sub: text('sub').notNull(),
  seq: ms('seq').notNull(),
  kid: text('kid').notNull(),
  token: text('token').notNull(),
  claims: jsonb('claims').$type<Record<string, unknown>>().notNull(),
  source: text('source').$type<LicenseSource>().notNull(),
  installedAt: instant('installed_at').notNull(),
  installedBy: text('installed_by').notNull(),
  removedAt: instant('removed_at'),
  removedBy: text('removed_by'),
  releasedAt: instant('released_at'),
  mismatchSince: instant('mismatch_since'),
  boundSince: instant('bound_since'),
})

export const licenseEvents = pgTable('license_events', {
  tenantId: uuid('tenant_id').notNull(),
  id: uuid('id').notNull(),
  at: instant('at').notNull(),
  actor: text('actor').notNull(),
  action: text('action').notNull(),
  outcome: text('outcome').$type<'ok' | 'refused'>().notNull(),
  code: text('code'),
  jti: text('jti'),
  seq: ms('seq'),
  kid: text('kid'),
  detail: json<Record<string, unknown>>('detail'),
  once: text('once'),
})

export const licenseUsageDays = pgTable('license_usage_days', {
  tenantId: uuid('tenant_id').notNull(),
  day: date('day').notNull(),
  jti: uuid('jti').notNull(),
  devices: ms('devices').notNull(),
  limitDevices: ms('limit_devices').notNull(),
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
