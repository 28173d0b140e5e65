// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { StartError, exitCodes } from './errors.ts'
import { parseAllowEntry } from './outbound-addresses.ts'
import type { OutboundPolicy } from './outbound-addresses.ts'

type Key = {
  type: 'text' | 'port' | 'integer' | 'flag' | 'list' | 'secret'
  default: string
  min?: number
  max?: number
  help: string
}

/**
 * Every setting exists once, here. docs/reference/config.md is generated from this table.
 * A `secret` may also come from the file named by `<KEY>_FILE`.
 */
export const configKeys = {
  IOT_PMS_DATA_DIR: { type: 'text', default: './data', help: 'Folder of everything this installation keeps: database, keys, set-up link.' },
  IOT_PMS_HTTP_PORT: {
    type: 'port',
    default: '8080',
    help: 'Port of dashboard, REST API and HTTP device API. 0 takes a free one, `off` opens none.',
  },
  IOT_PMS_HTTP_HOST: { type: 'text', default: '', help: 'Address the HTTP port listens on; empty means all.' },
  IOT_PMS_MQTT_PORT: { type: 'port', default: '1883', help: 'Port of the MQTT endpoint. 0 takes a free one, `off` opens none.' },
  IOT_PMS_MQTT_HOST: { type: 'text', default: '', help: 'Address the MQTT port listens on; empty means all.' },
  IOT_PMS_MQTTS_PORT: {
    type: 'port',
    default: '8883',
    help: 'Port of the MQTT endpoint over TLS, on the same address as the MQTT port. 0 takes a free one, `off` opens none.',
  },
  IOT_PMS_TLS_CERT_FILE: {
    type: 'text',
    default: '',
    help: 'PEM file of the certificate for MQTT over TLS, with its chain. Read again when it changes. Empty: tls/server.crt of the data folder, made at the first start.',
  },
  IOT_PMS_TLS_KEY_FILE: {
    type: 'text',
    default: '',
    help: 'PEM file of the private key to IOT_PMS_TLS_CERT_FILE. Empty: tls/server.key of the data folder.',
  },
  IOT_PMS_PUBLIC_URL: {
    type: 'text',
    default: '',
    help: 'Address people use, such as https://iot.example.com/iot. Links are made from it, never from the Host header.',
  },
  IOT_PMS_ADMIN_EMAIL: { type: 'text', default: '', help: 'First start only: e-mail of the first administrator.' },
  IOT_PMS_ADMIN_PASSWORD: {
    type: 'secret',
    default: '',
    help: 'First start only: creates the first administrator without the set-up wizard.',
  },
  IOT_PMS_SECRET_KEY: {
    type: 'secret',
    default: '',
    help: '32 random bytes (base64, base64url or hex) that seal stored secrets. Made at the first start when absent.',
  },
  IOT_PMS_SECRET_KEY_OLD: { type: 'secret', default: '', help: 'Comma list of former secret keys that may still open sealed values.' },
  DATABASE_URL: {
    type: 'secret',
    default: '',
    help: 'External PostgreSQL 15–18, login with rights of the application only. Empty: the embedded PostgreSQL.',
  },
  IOT_PMS_MIGRATE_URL: {
    type: 'secret',
    default: '',
    help: 'Login that may create roles and tables in the external database. Empty: DATABASE_URL.',
  },
  IOT_PMS_DATABASE_USER: { type: 'text', default: '', help: 'System user of the embedded PostgreSQL when the server runs as root.' },
  IOT_PMS_DATABASE_WAIT_S: { type: 'integer', default: '120', min: 1, max: 3600, help: 'Seconds to wait for the database at the start.' },
  IOT_PMS_STORAGE_QUOTA_GB: {
    type: 'integer',
    default: '0',
    min: 0,
    max: 1_000_000,
    help: 'GiB an external database may grow to; the disk guard warns and stops in time by it. 0: unknown. The embedded one goes by its volume.',
  },
  IOT_PMS_ALLOW_STRONG_DATABASE_ROLE: {
    type: 'flag',
    default: '',
    help: 'Accept a database login that could see past tenant isolation. Warns every hour.',
  },
  IOT_PMS_ALLOW_UNSAFE_DATABASE: {
    type: 'flag',
    default: '',
    help: 'Accept a database with fsync or full_page_writes off. Acknowledged data may be lost in a crash.',
  },
  IOT_PMS_TRUSTED_PROXIES: { type: 'list', default: '', help: 'Comma list of addresses or networks whose X-Forwarded-* headers count.' },
  IOT_PMS_REQUIRE_HTTPS: { type: 'flag', default: '', help: 'Redirect pages to https and refuse plain API calls.' },
  IOT_PMS_LOG_LEVEL: { type: 'text', default: 'info', help: 'debug, info, warn or error.' },
  IOT_PMS_COMMIT_WINDOW_MS: {
    type: 'integer',
    default: '5',
    min: 0,
    max: 20,
    help: 'How long a point may wait for others to share its commit.',
  },
  IOT_PMS_WRITER_CONNECTIONS: { type: 'integer', default: '2', min: 1, max: 4, help: 'Database connections of the telemetry writer.' },
  IOT_PMS_MAX_SESSIONS: { type: 'integer', default: '20000', min: 1, max: 1_000_000, help: 'MQTT sessions at a time.' },
  IOT_PMS_CONNECT_RATE: {
    type: 'integer',
    default: '500',
    min: 1,
    max: 100_000,
    help: 'New MQTT connections per second; twice as many in a burst.',
  },
  IOT_PMS_JOBS_LISTEN: {
    type: 'flag',
    default: '1',
    help: 'Wake job workers by LISTEN/NOTIFY. 0: poll once a second, for a pooler in transaction mode between server and database.',
  },
  IOT_PMS_OUTBOUND_POLICY: {
    type: 'text',
    default: 'lan',
    help: 'Where connectors and other calls to configured addresses may go: `lan` takes private networks in, `public` does not.',
  },
  IOT_PMS_OUTBOUND_ALLOW: {
    type: 'list',
    default: '',
    help: 'Comma list of host[:port] or CIDR[:port] that may be reached whatever else is blocked, such as 127.0.0.1:1883.',
  },
  IOT_PMS_METRICS_TOKEN: {
    type: 'secret',
    default: '',
    help: 'Bearer token that may read /metrics. Empty: an API key with scope metrics.read is needed.',
  },
  IOT_PMS_ALARM_RETENTION_DAYS: {
    type: 'integer',
    default: '365',
    min: 7,
    max: 3650,
    help: 'Days that cleared alarms are kept. Open ones are never deleted.',
  },
  IOT_PMS_COMPAT_THINGSBOARD: {
    type: 'flag',
    default: '1',
    help: 'Answer the ThingsBoard-style user REST and WebSocket. 0: 404 on every path of them; the device API stays.',
  },
  IOT_PMS_BUILD_DASHBOARD: {
    type: 'flag',
    default: '1',
    help: 'Build the dashboard at the start from a checkout when it is missing or older than its sources. 0: never.',
  },
  IOT_PMS_PRODUCTION: { type: 'flag', default: '', help: 'Set by images and units: refuses test hooks.' },
  IOT_PMS_TEST_HOOKS: { type: 'list', default: '', help: 'Comma list of faults the fault tests switch on. Never in production.' },
} as const satisfies Record<string, Key>

export type ConfigKey = keyof typeof configKeys

/** Faults that tests switch on to prove that a check would notice them. */
export const testHookNames = ['ack-early', 'eager-compaction', 'no-bisect', 'sync-commit-off'] as const
export type TestHook = (typeof testHookNames)[number]

export type Config = {
  dataDir: string
  http: { port: number | 'off'; host: string | undefined }
  mqtt: { port: number | 'off'; tlsPort: number | 'off'; host: string | undefined; maxSessions: number; connectRate: number }
  /** Certificate and key of the MQTT port over TLS; both or neither. */
  tls: { certFile: string | undefined; keyFile: string | undefined }
  publicUrl: URL | undefined
  admin: { email: string | undefined; password: string | undefined }
  secretKey: string | undefined
  oldSecretKeys: string[]
  database: {
    url: string | undefined
    migrateUrl: string | undefined
    user: string | undefined
    waitS: number
    /** 0: unknown. */
    quotaBytes: number
    allowStrongRole: boolean
    allowUnsafe: boolean
  }
  trustedProxies: string[]
  requireHttps: boolean
  logLevel: string
  writer: { commitWindowMs: number; connections: number }
  jobs: { listens: boolean }
  outbound: { policy: OutboundPolicy; allow: string[] }
  metricsToken: string | undefined
  /** Days that cleared alarms are kept. */
  alarmRetentionDays: number
  compat: { thingsboard: boolean }
  buildsDashboard: boolean
  testHooks: ReadonlySet<TestHook>
}

type Environment = Record<string, string | undefined>

/**
 * Reads the settings from the environment and takes the secrets out of it, so that no child
 * process inherits them.
 *
 * @throws {StartError} `CONFIG_INVALID` with every problem at once, exit code 78.
 */
export function readConfig(environment: Environment = process.env): Config {
  const problems: string[] = []
  const values = new Map<ConfigKey, string>()
  for (const name of Object.keys(configKeys) as ConfigKey[]) values.set(name, readValue(name, environment, problems))
  findUnknown(environment, problems)

  const text = (name: ConfigKey) => values.get(name) || undefined
  const flag = (name: ConfigKey) => values.get(name) === '1'
  const list = (name: ConfigKey) =>
    (values.get(name) ?? '')
      .split(',')
      .map((one) => one.trim())
      .filter(Boolean)
  const integer = (name: ConfigKey) => Number(values.get(name))
  const port = (name: ConfigKey): number | 'off' => (['', 'off'].includes(values.get(name) ?? '') ? 'off' : integer(name))

  const config: Config = {
    dataDir: resolve(values.get('IOT_PMS_DATA_DIR') || './data'),
    http: { port: port('IOT_PMS_HTTP_PORT'), host: text('IOT_PMS_HTTP_HOST') },
    mqtt: {
      port: port('IOT_PMS_MQTT_PORT'),
      tlsPort: port('IOT_PMS_MQTTS_PORT'),
      host: text('IOT_PMS_MQTT_HOST'),
      maxSessions: integer('IOT_PMS_MAX_SESSIONS'),
      connectRate: integer('IOT_PMS_CONNECT_RATE'),
    },
    tls: { certFile: text('IOT_PMS_TLS_CERT_FILE'), keyFile: text('IOT_PMS_TLS_KEY_FILE') },
    publicUrl: parsePublicUrl(text('IOT_PMS_PUBLIC_URL'), problems),
    admin: { email: text('IOT_PMS_ADMIN_EMAIL'), password: text('IOT_PMS_ADMIN_PASSWORD') },
    secretKey: text('IOT_PMS_SECRET_KEY'),
    oldSecretKeys: list('IOT_PMS_SECRET_KEY_OLD'),
    database: {
      url: text('DATABASE_URL'),
      migrateUrl: text('IOT_PMS_MIGRATE_URL'),
      user: text('IOT_PMS_DATABASE_USER'),
      waitS: integer('IOT_PMS_DATABASE_WAIT_S'),
      quotaBytes: integer('IOT_PMS_STORAGE_QUOTA_GB') * 2 ** 30,
      allowStrongRole: flag('IOT_PMS_ALLOW_STRONG_DATABASE_ROLE'),
      allowUnsafe: flag('IOT_PMS_ALLOW_UNSAFE_DATABASE'),
    },
    trustedProxies: list('IOT_PMS_TRUSTED_PROXIES'),
    requireHttps: flag('IOT_PMS_REQUIRE_HTTPS'),
    logLevel: values.get('IOT_PMS_LOG_LEVEL') || 'info',
    writer: { commitWindowMs: integer('IOT_PMS_COMMIT_WINDOW_MS'), connections: integer('IOT_PMS_WRITER_CONNECTIONS') },
    jobs: { listens: flag('IOT_PMS_JOBS_LISTEN') },
    outbound: { policy: values.get('IOT_PMS_OUTBOUND_POLICY') as OutboundPolicy, allow: list('IOT_PMS_OUTBOUND_ALLOW') },
    metricsToken: text('IOT_PMS_METRICS_TOKEN'),
    alarmRetentionDays: integer('IOT_PMS_ALARM_RETENTION_DAYS'),
    compat: { thingsboard: flag('IOT_PMS_COMPAT_THINGSBOARD') },
    buildsDashboard: flag('IOT_PMS_BUILD_DASHBOARD'),
    testHooks: new Set(list('IOT_PMS_TEST_HOOKS') as TestHook[]),
  }
  checkMeaning(config, flag('IOT_PMS_PRODUCTION'), problems)
  if (problems.length > 0) throw configError(problems)
  return config
}

/** The error that names all problems of a configuration at once. */
export function configError(problems: readonly string[], code = 'CONFIG_INVALID'): StartError {
  const message = problems.length === 1 ? problems[0]! : `${problems.length} problems:\n${problems.map((one) => `  - ${one}`).join('\n')}`
  return new StartError(
    code,
    exitCodes.config,
    message,
    'Mend the settings named above and start again. All settings: docs/reference/config.md.',
  )
}

function readValue(name: ConfigKey, environment: Environment, problems: string[]): string {
  const key: Key = configKeys[name]
  let value = environment[name]
  if (key.type === 'secret') {
    value = readSecret(name, environment, problems)
    delete environment[name]
  }
  // An empty variable counts as unset (compose passes `${NAME:-}`), but an empty port closes it.
  if (value === undefined || (value === '' && key.type !== 'port')) return key.default
  value = value.trim()
  if (key.type === 'port' && value !== '' && value !== 'off' && !isInteger(value, 0, 65_535)) {
    problems.push(`${name}=${value} is not a port: give 0 … 65535 or off.`)
  }
  if (key.type === 'integer' && !isInteger(value, key.min ?? 0, key.max ?? Number.MAX_SAFE_INTEGER)) {
    problems.push(`${name}=${value} is not a whole number from ${key.min} to ${key.max}.`)
  }
  if (key.type === 'flag' && !['0', '1', ''].includes(value)) problems.push(`${name}=${value} must be 1 or 0.`)
  return value
}

function readSecret(name: ConfigKey, environment: Environment, problems: string[]): string | undefined {
  const file = environment[`${name}_FILE`]
  if (!file) return environment[name]
  if (environment[name]) problems.push(`${name} and ${name}_FILE are both set: keep one of them.`)
  if (!existsSync(file)) {
    problems.push(`${name}_FILE names ${file}, which does not exist.`)
    return undefined
  }
  checkSecretMode(file, problems)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    problems.push(`${name}_FILE names ${file}, which this user may not read.`)
    return undefined
  }
}

/** [SC-3] A key file that others may read or write is not secret; tmpfs mounts of orchestrators are let through. */
export function checkSecretMode(file: string, problems: string[]): void {
  const stat = statSync(file)
  const isTmpfs = file.startsWith('/run/') || file.startsWith('/dev/shm/')
  if (process.platform !== 'win32' && (stat.mode & 0o007) !== 0 && !isTmpfs) {
    problems.push(`SECRET_FILE_MODE: ${file} can be read or written by others. Run: chmod 600 ${file}`)
  }
}

function isInteger(text: string, min: number, max: number): boolean {
  return /^\d+$/.test(text) && Number(text) >= min && Number(text) <= max
}

function findUnknown(environment: Environment, problems: string[]): void {
  const names = Object.entries(configKeys).flatMap(([name, key]) => (key.type === 'secret' ? [name, `${name}_FILE`] : [name]))
  for (const name of Object.keys(environment)) {
    if (!name.startsWith('IOT_PMS_') || names.includes(name)) continue
    const nearest = names.map((one) => ({ one, distance: editDistance(name, one) })).sort((a, b) => a.distance - b.distance)[0]
    problems.push(`${name} is not a setting.${nearest && nearest.distance <= 8 ? ` Did you mean ${nearest.one}?` : ''}`)
  }
}

function parsePublicUrl(value: string | undefined, problems: string[]): URL | undefined {
  if (!value) return undefined
  const url = URL.parse(value)
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.search || url.hash || url.username) {
    problems.push(`IOT_PMS_PUBLIC_URL=${value} must be an http or https address, with an optional path and nothing else.`)
    return undefined
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  return url
}

function checkMeaning(config: Config, isProduction: boolean, problems: string[]): void {
  for (const proxy of config.trustedProxies) {
    if (['*', 'true', '0.0.0.0/0', '::/0'].includes(proxy)) {
      problems.push(`IOT_PMS_TRUSTED_PROXIES=${proxy} would let anybody forge addresses: list your proxies.`)
    }
  }
  if ((config.tls.certFile === undefined) !== (config.tls.keyFile === undefined)) {
    problems.push('IOT_PMS_TLS_CERT_FILE and IOT_PMS_TLS_KEY_FILE belong together: set both or neither.')
  }
  for (const hook of config.testHooks) {
    if (!testHookNames.includes(hook)) problems.push(`IOT_PMS_TEST_HOOKS: ${hook} is not a hook (${testHookNames.join(', ')}).`)
  }
  if (isProduction && config.testHooks.size > 0) {
    problems.push('TEST_HOOKS_IN_PRODUCTION: IOT_PMS_TEST_HOOKS must be empty when IOT_PMS_PRODUCTION=1.')
  }
  if (!['lan', 'public'].includes(config.outbound.policy)) {
    problems.push(`IOT_PMS_OUTBOUND_POLICY=${config.outbound.policy} must be lan or public.`)
  }
  for (const entry of config.outbound.allow) {
    if (!parseAllowEntry(entry)) problems.push(`IOT_PMS_OUTBOUND_ALLOW: ${entry} is not host[:port] or CIDR[:port].`)
  }
  if (!['debug', 'info', 'warn', 'error'].includes(config.logLevel)) {
    problems.push(`IOT_PMS_LOG_LEVEL=${config.logLevel} must be debug, info, warn or error.`)
  }
  if (config.database.url && !/^postgres(ql)?:\/\//.test(config.database.url)) {
    problems.push('DATABASE_URL must begin with postgres:// or postgresql://.')
  }
  if (config.database.migrateUrl && !config.database.url) {
    problems.push('IOT_PMS_MIGRATE_URL is set without DATABASE_URL.')
  }
  if (config.admin.email && !/^[^\s@]+@[^\s@]+$/.test(config.admin.email)) {
    problems.push(`IOT_PMS_ADMIN_EMAIL=${config.admin.email} is not an e-mail address.`)
  }
  if (config.admin.password && !config.admin.email) problems.push('IOT_PMS_ADMIN_PASSWORD is set without IOT_PMS_ADMIN_EMAIL.')
}

/** Levenshtein distance, for "did you mean". */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}
