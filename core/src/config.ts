// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { configKeys } from './config-keys.ts'
import type { ConfigKey, SettingKey } from './config-keys.ts'
import { StartError, exitCodes } from './errors.ts'
import { listModuleNames, settingPrefix } from './modules/discovery.ts'
import { parseAllowEntry } from './outbound-addresses.ts'
import type { OutboundPolicy } from './outbound-addresses.ts'

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
  license: { file: string | undefined; text: string | undefined; env: 'production' | 'staging' }
  /** Whether the process runs in a pod. */
  isInKubernetes: boolean
  /** Settings of the modules of this build by the module's name; each module reads its own. */
  modules: ReadonlyMap<string, Readonly<Record<string, string>>>
  outbound: { policy: OutboundPolicy; allow: string[] }
  jobs: { listens: boolean }
  notify: { endpoints: Readonly<Record<string, string>>; testsPerMinute: number }
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
export function readConfig(environment: Environment = process.env, moduleNames: readonly string[] = listModuleNames()): Config {
  const problems: string[] = []
  const values = new Map<ConfigKey, string>()
  for (const name of Object.keys(configKeys) as ConfigKey[]) values.set(name, readValue(name, environment, problems))
  const modules = new Map(moduleNames.map((name) => [name, takeModuleSettings(environment, name)]))
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
    license: {
      file: text('IOT_PMS_LICENSE_FILE'),
      text: text('IOT_PMS_LICENSE_TEXT'),
      env: text('IOT_PMS_LICENSE_ENV') === 'staging' ? 'staging' : 'production',
    },
    modules,
    isInKubernetes: Boolean(environment['KUBERNETES_SERVICE_HOST']),
    outbound: { policy: values.get('IOT_PMS_OUTBOUND_POLICY') as OutboundPolicy, allow: list('IOT_PMS_OUTBOUND_ALLOW') },
    jobs: { listens: flag('IOT_PMS_JOBS_LISTEN') },
    notify: {
      endpoints: parseEndpoints(text('IOT_PMS_NOTIFY_ENDPOINTS'), problems),
      testsPerMinute: integer('IOT_PMS_NOTIFY_TESTS_PER_MINUTE'),
    },
    metricsToken: text('IOT_PMS_METRICS_TOKEN'),
    alarmRetentionDays: integer('IOT_PMS_ALARM_RETENTION_DAYS'),
    compat: { thingsboard: flag('IOT_PMS_COMPAT_THINGSBOARD') },
    buildsDashboard: flag('IOT_PMS_BUILD_DASHBOARD'),
    testHooks: new Set(list('IOT_PMS_TEST_HOOKS') as TestHook[]),
  }
  checkMeaning(config, flag('IOT_PMS_PRODUCTION'), problems)
  const licenseEnv = text('IOT_PMS_LICENSE_ENV') ?? ''
  if (!['production', 'staging'].includes(licenseEnv)) problems.push(`IOT_PMS_LICENSE_ENV=${licenseEnv} must be production or staging.`)
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
  const key: SettingKey = configKeys[name]
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

/** Taken out like secrets: nobody here knows which of them are. */
function takeModuleSettings(environment: Environment, module: string): Record<string, string> {
  const taken: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith(settingPrefix(module)) || name in configKeys || name.replace(/_FILE$/, '') in configKeys) continue
    if (value !== undefined) taken[name] = value
    delete environment[name]
  }
  return taken
}

function findUnknown(environment: Environment, problems: string[]): void {
  const names = Object.entries(configKeys).flatMap(([name, key]) => (key.type === 'secret' ? [name, `${name}_FILE`] : [name]))
  for (const name of Object.keys(environment)) {
    if (!name.startsWith('IOT_PMS_') || names.includes(name)) continue
    const nearest = names.map((one) => ({ one, distance: editDistance(name, one) })).sort((a, b) => a.distance - b.distance)[0]
    problems.push(`${name} is not a setting.${nearest && nearest.distance <= 8 ? ` Did you mean ${nearest.one}?` : ''}`)
  }
}

function parseEndpoints(value: string | undefined, problems: string[]): Record<string, string> {
  if (!value) return {}
  try {
    const parsed: unknown = JSON.parse(value)
    const entries = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? Object.entries(parsed) : undefined
    if (entries?.every(([, url]) => typeof url === 'string' && /^https?:\/\//.test(url) && URL.canParse(url))) {
      return Object.fromEntries(entries.map(([type, url]) => [type, String(url).replace(/\/+$/, '')]))
    }
  } catch {
    // Said below.
  }
  problems.push('IOT_PMS_NOTIFY_ENDPOINTS must be a JSON object of channel types and http or https addresses.')
  return {}
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
