// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import type { MqttClient } from 'mqtt'

export const root = join(import.meta.dirname, '../..')
export const admin = { name: 'Ada', email: 'ada@example.com', password: 'correct-horse-9-battery' }

type Ports = { http: number; mqtt: number }
const startMs = 45_000
const stopMs = 30_000
/** A server that has just taken in a week of demo data on a busy machine says that it is busy; devices come back, and so do ours. */
const busyMs = 60_000

/** A server of this checkout in a process of its own, on a data folder of its own with its own database. */
export class Server {
  readonly dataDir: string
  readonly #environment: Record<string, string>
  #child: ChildProcess | undefined
  #ports: Ports | undefined
  #accessToken = ''

  constructor(environment: Record<string, string> = {}) {
    this.dataDir = mkdtempSync(join(tmpdir(), 'iot-pms-browser-'))
    // As root, the database runs as another user and passes through.
    chmodSync(this.dataDir, 0o711)
    this.#environment = environment
    // When the suite itself fails, nothing of it is left running.
    process.once('exit', () => this.#child?.kill('SIGKILL'))
  }

  get ports(): Ports {
    return this.#ports!
  }

  get url(): string {
    return `http://127.0.0.1:${this.ports.http}`
  }

  /** Starts it, after a stop on the same ports as before. */
  async start(): Promise<void> {
    const child = spawn(process.execPath, ['core/src/main.ts', 'start'], {
      cwd: root,
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        IOT_PMS_DATA_DIR: join(this.dataDir, 'data'),
        IOT_PMS_HTTP_HOST: '127.0.0.1',
        IOT_PMS_HTTP_PORT: String(this.#ports?.http ?? 0),
        IOT_PMS_MQTT_PORT: String(this.#ports?.mqtt ?? 0),
        IOT_PMS_MQTTS_PORT: '0',
        IOT_PMS_BUILD_DASHBOARD: '0',
        ...this.#environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    this.#ports = await readPorts(child)
  }

  async stop(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child?.exitCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), stopMs)
    await ended
    clearTimeout(timer)
  }

  async remove(): Promise<void> {
    await this.stop()
    rmSync(this.dataDir, { recursive: true, force: true })
  }

  /** The one-time link as the start printed it, on the address the tests use. */
  readSetupLink(): string {
    const link = new URL(readFileSync(join(this.dataDir, 'data/setup-link.txt'), 'utf8').trim())
    return `${this.url}${link.pathname}${link.hash}`
  }

  /** Makes the administrator by the API, for tests that are about something else. */
  async setUp(change: { timeZone?: string; siteName?: string } = {}): Promise<void> {
    const token = new URL(this.readSetupLink()).hash.replace('#t=', '')
    const body = { token, ...admin, language: 'zh', timeZone: change.timeZone ?? 'Asia/Shanghai', siteName: change.siteName ?? 'IoT PMS' }
    const answer = await this.call<{ accessToken: string }>('POST', '/api/v1/setup', body)
    this.#accessToken = answer.accessToken
  }

  async login(email: string = admin.email, password: string = admin.password): Promise<void> {
    this.#accessToken = (await this.call<{ accessToken: string }>('POST', '/api/v1/auth/login', { email, password })).accessToken
  }

  /** Calls the REST API as the administrator. */
  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        ...(this.#accessToken ? { authorization: `Bearer ${this.#accessToken}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return (text === '' ? undefined : JSON.parse(text)) as T
  }

  /** A device's connection, tried again while the server is busy. */
  async connectDevice(token: string, clientId?: string): Promise<MqttClient> {
    const until = Date.now() + busyMs
    for (;;) {
      try {
        const options = { username: token, protocolVersion: 5, ...(clientId ? { clientId } : {}) } as const
        return await connectAsync(`mqtt://127.0.0.1:${this.ports.mqtt}`, options, false)
      } catch (error) {
        if (Date.now() > until) throw error
        await new Promise((resolve) => setTimeout(resolve, 500))
      }
    }
  }

  async createDevice(name: string): Promise<{ id: string; name: string; token: string }> {
    const made = await this.call<{ id: string; credentials: { token: string } }>('POST', '/api/v1/devices', { name })
    return { id: made.id, name, token: made.credentials.token }
  }
}

/** The ports stand in the log line that says the server is ready. */
function readPorts(child: ChildProcess): Promise<Ports> {
  return new Promise((resolve, reject) => {
    let output = ''
    const give = (error: Error) => {
      clearTimeout(timer)
      reject(error)
    }
    const timer = setTimeout(() => give(new Error(`the server is not ready after ${startMs} ms\n${output}`)), startMs)
    const read = (chunk: Buffer) => {
      output += chunk.toString('utf8')
      const line = output.split('\n').find((one) => one.includes('"msg":"ready"'))
      if (!line) return
      clearTimeout(timer)
      const { http, mqtt } = JSON.parse(line) as Ports
      resolve({ http, mqtt })
      output = ''
    }
    child.stdout?.on('data', read)
    child.stderr?.on('data', read)
    child.once('exit', (code) => give(new Error(`the server ended with ${code}\n${output}`)))
  })
}
