// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from './ports.ts'
import { isAlive, listTree, monotonicMs } from './processes.ts'

const root = join(import.meta.dirname, '../..')
const email = 'faults@example.com'
const password = 'pelican-marble-47-tundra'

export type InstallationOptions = {
  /** Part of the folder's name. */
  name: string
  /** Settings besides those every installation of ours has. */
  environment?: Record<string, string>
  /** `-r`, `--cpu-prof` and the like. */
  nodeArgs?: readonly string[]
}

export type LoadedDevice = { id: string; token: string }

/** Time a start may take before we stop waiting; the promises are checked by who starts it. */
const startTimeoutMs = 60_000

/** Devices being created side by side. */
const callsAtATime = 8

/** The flags of `pnpm start`: what is tested and measured runs as users run it. */
const startFlags = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { start: string } }).scripts.start
  .split(' ')
  .filter((word) => word.startsWith('--'))

/** A server of this checkout in a process of its own, on a data folder of its own. */
export class Installation {
  readonly folder: string
  readonly dataDir: string
  readonly logFile: string
  readonly #options: InstallationOptions
  #child: ChildProcess | undefined
  #exited: Promise<{ code: number | null; signal: string | null }> | undefined
  #ports: { http: number; mqtt: number } | undefined
  #apiKey = ''

  constructor(options: InstallationOptions) {
    this.#options = options
    this.folder = mkdtempSync(join(tmpdir(), `iot-pms-${options.name}-`))
    // The database runs as another user when we are root, and passes through.
    chmodSync(this.folder, 0o711)
    this.dataDir = join(this.folder, 'data')
    this.logFile = join(this.folder, 'server.log')
    // When we ourselves fail, nothing of ours is left running.
    process.once('exit', () => this.#endAll())
  }

  get pid(): number {
    return this.#child!.pid!
  }

  get ports(): { http: number; mqtt: number } {
    return this.#ports!
  }

  get isRunning(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null
  }

  get log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : ''
  }

  /**
   * Starts the server and waits until /readyz answers 200. Its ports stay the same.
   *
   * @returns when it was spawned and when it was ready, in monotonic ms
   */
  async start(): Promise<{ spawnedAt: number; readyAt: number }> {
    this.#ports ??= { http: await freePort(), mqtt: await freePort() }
    const logStart = this.log.length
    const output = openSync(this.logFile, 'a')
    const spawnedAt = monotonicMs()
    const child = spawn(process.execPath, [...startFlags, ...(this.#options.nodeArgs ?? []), join(root, 'core/src/main.ts'), 'start'], {
      cwd: this.folder,
      stdio: ['ignore', output, output],
      env: { ...cleanEnvironment(), ...this.#settings(), ...this.#options.environment },
    })
    closeSync(output)
    this.#child = child
    this.#exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })))
    const deadline = monotonicMs() + startTimeoutMs
    while (monotonicMs() < deadline && this.isRunning) {
      if (await this.#isReady()) return { spawnedAt, readyAt: monotonicMs() }
      await sleep(15)
    }
    throw new Error(`the server did not become ready:\n${this.log.slice(logStart).slice(-3000)}`)
  }

  /** The end of the running server. */
  exited(): Promise<{ code: number | null; signal: string | null }> {
    return this.#exited!
  }

  /** Ends the server as an operator would. */
  async stop(): Promise<{ code: number | null; signal: string | null }> {
    if (this.isRunning) this.#child!.kill('SIGTERM')
    return this.#exited ?? { code: 0, signal: null }
  }

  /** First process of the embedded database, by its lock file. */
  get postmaster(): number | undefined {
    const file = join(this.dataDir, 'postgres/postmaster.pid')
    const pid = existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n', 1)[0]) : 0
    return pid > 0 && isAlive(pid) ? pid : undefined
  }

  /** Ends everything that may still run and removes the folder, unless it is to be looked at. */
  async dispose(keep: boolean): Promise<void> {
    if (this.isRunning) await this.stop()
    const orphan = this.postmaster
    if (orphan) {
      const pids = listTree(orphan)
      process.kill(orphan, 'SIGQUIT')
      for (let waited = 0; pids.some(isAlive) && waited < 10_000; waited += 20) await sleep(20)
    }
    if (!keep) rmSync(this.folder, { recursive: true, force: true })
  }

  /** Calls the REST API with an API key of the administrator. */
  async call(method: string, path: string, body?: unknown, authorization = `ApiKey ${this.#apiKey}`): Promise<unknown> {
    const answer = await fetch(`http://127.0.0.1:${this.ports.http}${path}`, {
      method,
      headers: { authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path} answers ${answer.status}: ${text.slice(0, 500)}`)
    return answer.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text
  }

  /** Logs in once and makes the key for {@link call}. */
  async openApi(): Promise<void> {
    const made = (await this.call(
      'POST',
      '/api/v1/api-keys',
      { name: 'faults', scopes: ['device.read', 'device.write', 'telemetry.read', 'telemetry.write', 'system.read'], expiresInDays: 1 },
      await this.login(),
    )) as { key: string }
    this.#apiKey = made.key
  }

  /** A new session of the administrator, as the authorization of {@link call}. */
  async login(): Promise<string> {
    const session = (await this.call('POST', '/api/v1/auth/login', { email, password }, '')) as { accessToken: string }
    return `Bearer ${session.accessToken}`
  }

  async createDevices(count: number, name = 'load', more: Record<string, unknown> = {}): Promise<LoadedDevice[]> {
    const devices: LoadedDevice[] = []
    let next = 0
    const worker = async () => {
      while (next < count) {
        const index = next++
        const made = (await this.call('POST', '/api/v1/devices', { name: `${name}-${index}`, ...more })) as {
          id: string
          credentials: { token: string }
        }
        devices[index] = { id: made.id, token: made.credentials.token }
      }
    }
    await Promise.all(Array.from({ length: callsAtATime }, worker))
    return devices
  }

  #endAll(): void {
    if (this.isRunning) this.#child!.kill('SIGTERM')
    else if (this.postmaster) process.kill(this.postmaster, 'SIGQUIT')
  }

  #settings(): Record<string, string> {
    return {
      IOT_PMS_DATA_DIR: this.dataDir,
      IOT_PMS_HTTP_PORT: String(this.ports.http),
      IOT_PMS_HTTP_HOST: '127.0.0.1',
      IOT_PMS_MQTT_PORT: String(this.ports.mqtt),
      IOT_PMS_MQTTS_PORT: 'off',
      IOT_PMS_MQTT_HOST: '127.0.0.1',
      IOT_PMS_BUILD_DASHBOARD: '0',
      IOT_PMS_ADMIN_EMAIL: email,
      IOT_PMS_ADMIN_PASSWORD: password,
    }
  }

  async #isReady(): Promise<boolean> {
    try {
      const answer = await fetch(`http://127.0.0.1:${this.ports.http}/readyz`, { signal: AbortSignal.timeout(2000) })
      await answer.arrayBuffer()
      return answer.status === 200
    } catch {
      return false
    }
  }
}

/** The environment without settings of another installation. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('IOT_PMS_') && name !== 'DATABASE_URL'))
}
