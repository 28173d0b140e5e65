// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import { compareContents } from './contents.ts'

/** What a person does with docker/compose.yaml, in order, on the engine of inside.sh; each expectation is a line. */
const context = process.argv[2]!
const base = 'http://127.0.0.1:8080'
const email = 'admin@example.com'
const password = 'granite-otter-52-lantern'
const community = ['-f', 'docker/compose.yaml']
const enterprise = [...community, '-f', 'docker/compose.enterprise.yaml']

let passed = 0
let failed = 0
function expect(sentence: string, isTrue: boolean, detail: unknown = ''): void {
  if (isTrue) passed++
  else failed++
  process.stdout.write(`${isTrue ? 'ok  ' : 'FAIL'} ${sentence}${detail === '' ? '' : `: ${String(detail)}`}\n`)
}

function docker(...args: string[]): string {
  return execFileSync('/usr/bin/docker', args, { encoding: 'utf8', cwd: context, maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'pipe'] })
}

function compose(files: readonly string[], ...args: string[]): { code: number; output: string } {
  const { status, stdout, stderr } = spawnSync('/usr/bin/docker', ['compose', ...files, ...args], { encoding: 'utf8', cwd: context })
  return { code: status ?? -1, output: stdout + stderr }
}

const idOf = (service: string) => compose(community, 'ps', '-a', '-q', service).output.trim()
const stateOf = <T>(service: string, format: string) => JSON.parse(docker('inspect', '-f', `{{json ${format}}}`, idOf(service))) as T

/** Seconds until something is so; Infinity when it is not within the limit. */
async function until(limitS: number, isSo: () => Promise<boolean> | boolean): Promise<number> {
  const start = performance.now()
  for (;;) {
    const is = await Promise.resolve()
      .then(isSo)
      .catch(() => false)
    if (is) return (performance.now() - start) / 1000
    if (performance.now() - start > limitS * 1000) return Number.POSITIVE_INFINITY
    await sleep(100)
  }
}

const isReady = async () => (await fetch(`${base}/readyz`, { signal: AbortSignal.timeout(2000) })).ok

let session = ''
async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`${base}${path}`, {
    method,
    // The server comes and goes.
    headers: {
      connection: 'close',
      ...(session ? { authorization: `Bearer ${session}` } : {}),
      ...(body ? { 'content-type': 'application/json' } : {}),
    },
    ...(body ? { body: JSON.stringify(body) } : {}),
  })
  if (!answer.ok) throw new Error(`${method} ${path} answers ${answer.status}: ${(await answer.text()).slice(0, 300)}`)
  return (await answer.json()) as T
}

async function logIn(): Promise<void> {
  session = ''
  session = (await call<{ accessToken: string }>('POST', '/api/v1/auth/login', { email, password })).accessToken
}

type Device = { id: string; credentials: { token: string } }
let device: Device
let sent = 0

/** One point with QoS 1: it comes back when it is acknowledged. */
async function publish(): Promise<void> {
  const client = await mqtt.connectAsync('mqtt://127.0.0.1:1883', {
    username: device.credentials.token,
    reconnectPeriod: 0,
    connectTimeout: 5000,
  })
  try {
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ n: sent + 1 }), { qos: 1 })
    sent++
  } finally {
    await client.endAsync(true)
  }
}

async function lastStored(): Promise<number> {
  const answer = await call<{ items: { value: number }[] }>('GET', `/api/v1/devices/${device.id}/telemetry?keys=n`)
  return answer.items[0]!.value
}

const seconds = (value: number) => `${value.toFixed(1)} s`

async function firstStart(): Promise<void> {
  const start = performance.now()
  const up = compose(community, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  const took = (performance.now() - start) / 1000
  expect(
    'docker compose up -d is healthy within 60 s, with nothing prepared',
    up.code === 0 && took <= 60,
    up.code === 0 ? seconds(took) : up.output.slice(-2000),
  )
  const log = compose(community, 'logs', '--no-log-prefix', 'server').output
  const token = /\/setup#t=([\w-]+)/.exec(log)?.[1]
  expect('the log shows the set-up link', token !== undefined)
  const person = { name: 'Admin', email, password, language: 'en', timeZone: 'UTC', siteName: 'Compose' }
  session = (await call<{ accessToken: string }>('POST', '/api/v1/setup', { token, ...person })).accessToken
  device = await call<Device>('POST', '/api/v1/devices', { name: 'one' })
  await publish()
  expect('a point over MQTT is acknowledged and read back', (await lastStored()) === sent, seconds((performance.now() - start) / 1000))
}

function rights(): void {
  const inside = (...args: string[]) => spawnSync('/usr/bin/docker', ['exec', idOf('server'), ...args], { encoding: 'utf8' })
  expect('the server runs as user 10001', inside('id', '-u').stdout.trim() === '10001')
  expect('nothing below /app can be written', inside('sh', '-c', 'echo x > /app/x').stderr.includes('Read-only'))
  expect('/data can be written', inside('sh', '-c', 'echo x > /data/x && rm /data/x').status === 0)
  expect('the server does not see the password of the administrator', inside('ls', '/database-secrets').stdout.trim() === '')
  const secrets = ['secret_key', 'database_url'].map((name) => inside('cat', `/secrets/${name}`).stdout.trim())
  const told = docker('inspect', idOf('server'), idOf('database')) + docker('history', '--no-trunc', process.env['IOT_PMS_IMAGE']!)
  const all = told + compose(community, 'logs').output
  const known = [secrets[0]!, new URL(secrets[1]!).password]
  expect(
    'no secret is in what inspect, history and the logs say',
    known.every((secret) => secret.length > 30 && !all.includes(secret)),
  )
}

async function kills(): Promise<void> {
  const restarts = () => stateOf<number>('server', '.RestartCount')
  const before = restarts()
  process.kill(stateOf<number>('server', '.State.Pid'), 'SIGKILL')
  const back = await until(30, async () => restarts() > before && (await isReady()))
  expect('a killed server is back within 15 s', back <= 15, seconds(back))
  await logIn()
  expect('the acknowledged point is still there', (await lastStored()) === sent)
  const count = restarts()
  process.kill(stateOf<number>('database', '.State.Pid'), 'SIGKILL')
  await until(30, () => stateOf<number>('database', '.RestartCount') > 0)
  const ingest = await until(60, () => publish().then(() => true))
  expect(
    'after the database was killed a point is acknowledged within 30 s, by the same server',
    ingest <= 30 && restarts() === count,
    seconds(ingest),
  )
  expect('it is stored', (await lastStored()) === sent)
}

async function daily(): Promise<void> {
  const again = compose(community, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  const made = compose(community, 'logs', 'init').output.match(/made \//g)?.length
  expect('up once more changes nothing', again.code === 0 && !/Recreate/.test(again.output) && made === 4, `${made} secrets made in all`)
  const start = performance.now()
  compose(community, 'stop', 'server')
  const took = (performance.now() - start) / 1000
  expect('the server stops by itself within 30 s', took <= 30 && stateOf<number>('server', '.State.ExitCode') === 0, seconds(took))
  compose(community, 'down')
  const up = compose(community, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  await logIn()
  expect('down and up keep everything', up.code === 0 && (await lastStored()) === sent)
}

async function otherEdition(): Promise<void> {
  const config = compose(enterprise, 'config', '-q')
  expect('the overlay file is valid, without warnings', config.code === 0 && config.output === '', config.output)
  mkdirSync(join(context, 'docker/license'), { recursive: true })
  const up = compose(enterprise, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  expect('the enterprise image starts on the same volumes', up.code === 0, up.code === 0 ? '' : up.output.slice(-2000))
  await logIn()
  const { modules } = await call<{ modules: { name: string; state: string }[] }>('GET', '/api/v1/editions')
  expect(
    'without a license its modules are there and locked',
    modules.some(({ name }) => name === 'audit'),
    JSON.stringify(modules).slice(0, 200),
  )
  const locked = await fetch(`${base}/api/v1/audit/events`, { headers: { connection: 'close', authorization: `Bearer ${session}` } })
  expect('a locked module refuses', locked.status === 403, locked.status)
  expect('the data is the same', (await lastStored()) === sent)
  const back = compose(community, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  await logIn()
  expect('and back to the community edition', back.code === 0 && (await lastStored()) === sent)
}

/** [DP-18] The file of one moment brings back what was sent before it, and only that. */
async function backup(): Promise<void> {
  const file = join(context, 'site.tar')
  const made = spawnSync('sh', ['-c', `/usr/bin/docker compose -f docker/compose.yaml run --rm -T migrate backup --out - > ${file}`], {
    encoding: 'utf8',
    cwd: context,
  })
  expect('a backup of the running stack is made', made.status === 0, made.stderr.trim().split('\n').at(-1))
  const before = sent
  await publish()
  compose(community, 'stop', 'server')
  const restored = compose(community, 'run', '--rm', '-v', `${file}:/tmp/site.tar:ro`, 'migrate', 'restore', '/tmp/site.tar', '--yes')
  expect('it is restored', restored.code === 0, restored.code === 0 ? '' : restored.output.slice(-1500))
  compose(community, 'up', '-d', '--wait', '--pull', 'never', '--no-build')
  await logIn()
  expect('what was sent before it is there, what came later is not', (await lastStored()) === before)
  sent = before
}

/** A release that knows less than the database: it must not touch it. */
function olderImage(): void {
  const file = join(context, 'older.Dockerfile')
  writeFileSync(
    file,
    `FROM ${process.env['IOT_PMS_IMAGE']}\nUSER root\nRUN rm "$(ls /app/core/migrations/*.sql | tail -1)"\nUSER 10001:10001\n`,
  )
  appendFileSync(join(context, 'docker/Dockerfile.dockerignore'), '!older.Dockerfile\n')
  docker('build', '-q', '--network', 'none', '-f', file, '-t', 'localhost/iot-pms-older:ci', join(context, 'docker'))
  const counts = () =>
    docker(
      'exec',
      idOf('database'),
      'psql',
      '-h',
      '/tmp',
      '-U',
      'iot_pms_admin',
      '-d',
      'iot_pms',
      '-Atc',
      'select count(*) from schema_version',
    )
  const before = counts()
  const network = docker('inspect', '-f', '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}', idOf('database')).trim()
  const volumes = ['-v', 'iot-pms_secrets:/secrets:ro', '-v', 'iot-pms_database-secrets:/database-secrets:ro']
  const settings = ['-e', 'IOT_PMS_MIGRATE_URL_FILE=/database-secrets/migrate_url', '-e', 'DATABASE_URL_FILE=/secrets/database_url']
  const run = spawnSync(
    '/usr/bin/docker',
    ['run', '--rm', '--network', network, ...volumes, ...settings, 'localhost/iot-pms-older:ci', 'migrate'],
    { encoding: 'utf8' },
  )
  expect(
    'an older image ends with 78 and leaves the database as it is',
    run.status === 78 && counts() === before,
    (run.stdout + run.stderr).trim().split('\n').at(-1),
  )
}

function anyUser(): void {
  const run = spawnSync(
    '/usr/bin/docker',
    [
      'run',
      '--rm',
      '--read-only',
      '--tmpfs',
      '/tmp',
      '--cap-drop',
      'ALL',
      '--user',
      '12345',
      '--network',
      'none',
      '-e',
      'DATABASE_URL=postgres://iot_pms:x@127.0.0.1:1/x',
      '-e',
      'IOT_PMS_DATABASE_WAIT_S=1',
      '-e',
      'IOT_PMS_DATA_DIR=/tmp/data',
      process.env['IOT_PMS_IMAGE']!,
    ],
    { encoding: 'utf8' },
  )
  expect(
    'as any other user the start comes as far as the database',
    run.stderr.includes('DATABASE_UNREACHABLE'),
    run.stderr.trim().split('\n').at(-1)?.slice(0, 200),
  )
}

function leavesNothing(): void {
  compose(community, 'down', '-v')
  const left = docker('ps', '-aq') + docker('volume', 'ls', '-q') + docker('network', 'ls', '-q', '--filter', 'name=iot-pms')
  expect('down -v leaves no container, volume or network', left.trim() === '', left.trim())
}

const steps: (() => void | Promise<void>)[] = [
  firstStart,
  rights,
  kills,
  daily,
  backup,
  otherEdition,
  olderImage,
  anyUser,
  leavesNothing,
  () => compareContents(docker, expect),
]
for (const step of steps) {
  try {
    await step()
  } catch (error) {
    expect(`${step.name || 'contents'} came to its end`, false, error instanceof Error ? error.stack : error)
    if (step === firstStart) {
      process.stdout.write(compose(community, 'logs', '--tail', '30').output)
      break
    }
  }
}
process.stdout.write(
  `compose: ${failed === 0 ? 'PASS' : 'FAIL'} on Docker ${readVersion()}\n${passed} passed, ${failed} failed, 0 skipped\n`,
)
process.exitCode = failed === 0 ? 0 : 1

function readVersion(): string {
  return `${docker('version', '-f', '{{.Server.Version}}').trim()}, ${readFileSync('/etc/debian_version', 'utf8').trim()}`
}
