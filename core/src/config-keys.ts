// SPDX-License-Identifier: AGPL-3.0-only

export type SettingKey = {
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
    help: 'External PostgreSQL 15–18, login with rights of the application only; with `?prepare=false` behind PgBouncer before 1.21. Empty: the embedded PostgreSQL.',
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
  IOT_PMS_LICENSE_FILE: {
    type: 'text',
    default: '',
    help: 'License file, or a folder in which every *.lic is a license and every *.crl a revocation list. Read at the start, on changes and every minute.',
  },
  IOT_PMS_LICENSE_TEXT: {
    type: 'secret',
    default: '',
    help: 'The text of a license itself, for places that can mount no file; taken at the start as from a file.',
  },
  IOT_PMS_LICENSE_ENV: { type: 'text', default: 'production', help: 'production or staging: which licenses this installation takes.' },
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
  IOT_PMS_JOBS_LISTEN: {
    type: 'flag',
    default: '1',
    help: 'Wake job workers by LISTEN/NOTIFY. 0: poll once a second, for a pooler in transaction mode between server and database.',
  },
  IOT_PMS_NOTIFY_ENDPOINTS: {
    type: 'text',
    default: '',
    help: 'JSON object that sends a channel type to another address than its provider, such as {"feishu":"http://10.0.0.5:9000/feishu"}: for private deployments and relays.',
  },
  IOT_PMS_NOTIFY_TESTS_PER_MINUTE: { type: 'integer', default: '10', min: 1, max: 1000, help: 'Test messages of one user per minute.' },
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
} as const satisfies Record<string, SettingKey>

export type ConfigKey = keyof typeof configKeys
