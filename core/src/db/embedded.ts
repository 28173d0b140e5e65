// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { choosePlace } from './place.ts'
import type { Place } from './place.ts'

const adminLogin = 'iot_pms_admin'
const appLogin = 'iot_pms'
const databaseName = 'iot_pms'

type Secrets = { adminPassword: string; appPassword: string; port: number }

export type EmbeddedOptions = {
  dataDir: string
  /** System user to run as when we are root. */
  user: string | undefined
  log: Log
  /** Extra `-c name=value` settings, for tests. */
  settings?: Record<string, string>
}

/** The PostgreSQL that comes from npm: made, started, watched and stopped by us. */
export class EmbeddedPostgres {
  readonly #options: EmbeddedOptions
  #place: Place | undefined
  #secrets: Secrets | undefined
  #child: ChildProcess | undefined
  #isStopping = false

  constructor(options: EmbeddedOptions) {
    this.#options = options
  }

  /** Login with all rights, for migrations and backups. */
  get adminUrl(): string {
    return formatUrl(adminLogin, this.#known.adminPassword, this.#known.port)
  }

  /** Login of the application: no rights of its own, it takes on a role per transaction. */
  get appUrl(): string {
    return formatUrl(appLogin, this.#known.appPassword, this.#known.port)
  }

  /**
   * Starts PostgreSQL and waits until it answers; makes the cluster first when there is none.
   *
   * @throws {StartError} when the folder cannot be used, belongs to a newer PostgreSQL, or the start fails.
   */
  async start(): Promise<void> {
    if (this.#child) return
    this.#isStopping = false
    this.#place = await choosePlace(this.#options.dataDir, this.#options.user, this.#options.log)
    this.#secrets = this.#readSecrets()
    await this.#ensureCluster()
    await this.#stopOrphan()
    await this.#startUntilReady()
    await this.#ensureDatabase()
  }

  /** Stops PostgreSQL after its running transactions have been cut (fast shutdown). */
  async stop(): Promise<void> {
    this.#isStopping = true
    const child = this.#child
    this.#child = undefined
    if (child?.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child.kill('SIGINT')
    await Promise.race([ended, sleep(30_000, undefined, { ref: false })])
  }

  get #known(): Secrets {
    if (!this.#secrets) throw new Error('The embedded PostgreSQL has not been started.')
    return this.#secrets
  }

  get #cluster(): string {
    return this.#place!.clusterDir
  }

  #readSecrets(): Secrets {
    const file = join(this.#options.dataDir, 'database.json')
    if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Secrets
    const secrets = { adminPassword: randomBytes(24).toString('base64url'), appPassword: randomBytes(24).toString('base64url'), port: 0 }
    writeSecret(file, secrets)
    return secrets
  }

  async #ensureCluster(): Promise<void> {
    // Under one name, so that whatever a start that was killed here has left is removed by the next.
    const passwordFile = `${this.#cluster}.pw`
    rmSync(passwordFile, { force: true })
    const versionFile = join(this.#cluster, 'PG_VERSION')
    if (existsSync(versionFile)) {
      const found = Number(readFileSync(versionFile, 'utf8'))
      if (found === this.#place!.major) return
      throw new StartError(
        'DATABASE_VERSION',
        exitCodes.config,
        `The database in ${this.#cluster} was written by PostgreSQL ${found}; this version brings PostgreSQL ${this.#place!.major}.`,
        found > this.#place!.major
          ? 'Start it with the newer IoT PMS that wrote it.'
          : 'Restore a backup made by the older version into an empty data folder.',
      )
    }
    this.#options.log.info({ folder: this.#cluster }, 'creating the database')
    // Made beside its place and renamed when whole, so that a kill in the middle leaves nothing half done.
    const draft = `${this.#cluster}.new`
    rmSync(draft, { recursive: true, force: true })
    mkdirSync(draft, { mode: 0o700 })
    this.#place!.give(draft)
    writeFileSync(passwordFile, this.#known.adminPassword, { mode: 0o600 })
    this.#place!.give(passwordFile)
    try {
      const args = ['-D', draft, '-U', adminLogin, '--pwfile', passwordFile, '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C']
      const result = await run(this.#place!.initdb, args, this.#place!)
      if (result.code !== 0) throw startFailed(`initdb failed: ${result.output}`)
    } finally {
      rmSync(passwordFile, { force: true })
    }
    renameSync(draft, this.#cluster)
  }

  /** [RE-73] A postmaster left by a killed server still owns the cluster: it is asked to stop, its lock is never deleted. */
  async #stopOrphan(): Promise<void> {
    const pid = this.#runningPostmaster()
    if (!pid) return
    this.#options.log.info({ pid }, 'stopping the database of a killed server')
    process.kill(pid, 'SIGINT')
    for (let waited = 0; waited < 20_000; waited += 50) {
      if (this.#runningPostmaster() !== pid) return
      await sleep(50)
    }
    throw new StartError(
      'DATABASE_BUSY',
      exitCodes.otherInstance,
      `Process ${pid} still holds the database in ${this.#cluster}.`,
      `Stop it (kill -INT ${pid}) and start again.`,
    )
  }

  #runningPostmaster(): number | undefined {
    const lock = join(this.#cluster, 'postmaster.pid')
    if (!existsSync(lock)) return undefined
    const pid = Number(readFileSync(lock, 'utf8').split('\n', 1)[0])
    return pid > 0 && isPostgres(pid) ? pid : undefined
  }

  async #startUntilReady(): Promise<void> {
    this.#secrets = { ...this.#known, port: await usablePort(this.#known.port) }
    writeSecret(join(this.#options.dataDir, 'database.json'), this.#secrets)
    const deadline = performance.now() + 60_000
    for (;;) {
      const failure = await this.#tryStart(deadline)
      if (!failure) return
      // Right after a kill the old backends may still be going away.
      const isPassing = /shared memory block|lock file|being shut down/.test(failure)
      if (!isPassing || performance.now() > deadline - 40_000) throw startFailed(failure)
      await sleep(200)
    }
  }

  async #tryStart(deadline: number): Promise<string | undefined> {
    const logFile = join(this.#options.dataDir, 'postgres.log')
    if (existsSync(logFile) && statSync(logFile).size > 10_000_000) truncateSync(logFile)
    const logStart = existsSync(logFile) ? statSync(logFile).size : 0
    const output = openSync(logFile, 'a', 0o600)
    const settings = {
      listen_addresses: '127.0.0.1',
      port: String(this.#known.port),
      unix_socket_directories: '',
      max_connections: '60',
      shared_buffers: '128MB',
      max_wal_size: '1GB',
      wal_compression: 'on',
      log_timezone: 'UTC',
      timezone: 'UTC',
      ...this.#options.settings,
    }
    const args = ['-D', this.#cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
    // A group of its own: Ctrl-C in a terminal must reach us first, so that we can drain before the database stops.
    const child = spawn(this.#place!.postgres, args, { stdio: ['ignore', output, output], detached: true, ...this.#place!.identity })
    closeSync(output)
    this.#child = child
    const ended = new Promise<void>((resolve) => {
      child.once('exit', () => resolve())
      child.once('error', () => resolve())
    })
    const isReady = await Promise.race([this.#answers(deadline), ended.then(() => false)])
    if (isReady) {
      void ended.then(() => this.#restart(child))
      return undefined
    }
    this.#child = undefined
    child.kill('SIGQUIT')
    return readFileSync(logFile, 'utf8').slice(logStart).trim().split('\n').slice(-5).join('\n') || 'PostgreSQL did not start.'
  }

  async #answers(deadline: number): Promise<boolean> {
    while (performance.now() < deadline) {
      const sql = postgres(this.adminUrl.replace(/\/iot_pms$/, '/postgres'), { max: 1, connect_timeout: 5, onnotice: () => {} })
      try {
        await sql`select 1`
        return true
      } catch {
        await sleep(25)
      } finally {
        await sql.end({ timeout: 1 })
      }
    }
    return false
  }

  /** A database that died by itself is started again; the pools reconnect to the same port. */
  async #restart(child: ChildProcess): Promise<void> {
    if (this.#isStopping || this.#child !== child) return
    this.#options.log.error({ code: child.exitCode, signal: child.signalCode }, 'the database has ended, starting it again')
    for (let waitMs = 200; !this.#isStopping; waitMs = Math.min(waitMs * 2, 5000)) {
      await sleep(waitMs)
      if (this.#isStopping) return
      try {
        await this.#stopOrphan()
        if (!(await this.#tryStart(performance.now() + 60_000))) return
      } catch (error) {
        this.#options.log.error({ err: error }, 'the database does not start')
      }
    }
  }

  async #ensureDatabase(): Promise<void> {
    const sql = postgres(this.adminUrl.replace(/\/iot_pms$/, '/postgres'), { max: 1, onnotice: () => {} })
    try {
      const rows = await sql`select 1 from pg_database where datname = ${databaseName}`
      if (rows.length === 0) await sql`create database ${sql(databaseName)}`
    } finally {
      await sql.end()
    }
  }
}

/** The logins of the embedded PostgreSQL that a running server of this data folder has started. */
export async function findRunningDatabase(dataDir: string): Promise<{ adminUrl: string; appUrl: string } | undefined> {
  const file = join(dataDir, 'database.json')
  if (!existsSync(file)) return undefined
  const secrets = JSON.parse(readFileSync(file, 'utf8')) as Secrets
  const urls = {
    adminUrl: formatUrl(adminLogin, secrets.adminPassword, secrets.port),
    appUrl: formatUrl(appLogin, secrets.appPassword, secrets.port),
  }
  const sql = postgres(urls.adminUrl, { max: 1, connect_timeout: 2, onnotice: () => {} })
  try {
    await sql`select 1`
    return urls
  } catch {
    return undefined
  } finally {
    await sql.end({ timeout: 1 })
  }
}

function formatUrl(login: string, password: string, port: number): string {
  return `postgres://${login}:${password}@127.0.0.1:${port}/${databaseName}`
}

function startFailed(reason: string): StartError {
  return new StartError(
    'DATABASE_START',
    exitCodes.unavailable,
    `The embedded PostgreSQL does not start: ${reason}`,
    'The data folder holds postgres.log with the details.',
  )
}

function writeSecret(file: string, value: unknown): void {
  const draft = `${file}.new`
  writeFileSync(draft, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(draft, file)
}

/** True when `pid` lives and is a PostgreSQL; a foreign program that got the number counts as dead. */
function isPostgres(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  if (process.platform !== 'linux') return true
  try {
    // A zombie keeps its entry but has no command line any more.
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8') === '') return false
    return readlinkSync(`/proc/${pid}/exe`).includes('postgres')
  } catch {
    return readCommand(pid).includes('postgres')
  }
}

function readCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8')
  } catch {
    return ''
  }
}

/** The port used before when it is free, so that a tool pointed at it keeps working; else a free one. */
async function usablePort(wanted: number): Promise<number> {
  const tryPort = (port: number) =>
    new Promise<number>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(0))
      server.listen(port, '127.0.0.1', () => {
        const address = server.address()
        server.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
      })
    })
  return (wanted && (await tryPort(wanted))) || tryPort(0)
}

async function run(command: string, args: string[], place: Place): Promise<{ code: number | null; output: string }> {
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: place.clusterDir.replace(/[^/\\]+$/, ''),
    ...place.identity,
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk))
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: null, output: error.message }))
    child.once('close', (code) => resolve({ code, output: output.trim().split('\n').slice(-5).join('\n') }))
  })
}
