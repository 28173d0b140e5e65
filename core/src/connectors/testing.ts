// SPDX-License-Identifier: AGPL-3.0-only
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect as connectTcp, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectAsync } from 'mqtt'
import type { IClientOptions, MqttClient } from 'mqtt'

const program = '/usr/sbin/mosquitto'
const passwordProgram = '/usr/bin/mosquitto_passwd'
/** Tests on a real broker run where Mosquitto is installed, and always in CI, where its absence fails them. */
export const hasBroker = existsSync(program) || process.env['CI'] === 'true'
if (!hasBroker) process.stderr.write('skipped: tests of connectors on a real broker (apt-get install mosquitto)\n')

export type BrokerSettings = { users?: Readonly<Record<string, string>>; tls?: { cert: string; key: string }; ws?: boolean }

/** Mosquitto on a port and a folder of its own, with persistence written at every change. */
export class TestBroker {
  readonly folder = mkdtempSync('/tmp/iot-pms-broker-')
  port = 0
  #child: ChildProcess | undefined
  readonly #clients: MqttClient[] = []

  async start(settings: BrokerSettings = {}): Promise<this> {
    this.port = await freePort()
    // As root it would become an unprivileged user, who could not write here.
    chmodSync(this.folder, 0o755)
    const { users, tls, ws } = settings
    const lines = [
      // One that speaks WebSocket alone does not start.
      ...(ws ? [`listener ${await freePort()} 127.0.0.1`] : []),
      `listener ${this.port} 127.0.0.1`,
      ...(ws ? ['protocol websockets'] : []),
      ...(tls ? [`certfile ${tls.cert}`, `keyfile ${tls.key}`] : []),
      ...(process.getuid?.() === 0 ? ['user root'] : []),
      'persistence true',
      `persistence_location ${this.folder}/`,
      // After every change, so that what it acknowledged survives a kill.
      'autosave_on_changes true',
      'autosave_interval 1',
      'max_queued_messages 100000',
      'log_dest none',
      ...(users ? ['allow_anonymous false', `password_file ${join(this.folder, 'passwords')}`] : ['allow_anonymous true']),
    ]
    writeFileSync(join(this.folder, 'mosquitto.conf'), `${lines.join('\n')}\n`)
    if (users) this.#writePasswords(users)
    await this.resume()
    return this
  }

  get url(): string {
    return `mqtt://127.0.0.1:${this.port}`
  }

  /** Starts it again on the same port and folder. */
  async resume(): Promise<void> {
    const child = spawn(program, ['-c', join(this.folder, 'mosquitto.conf')], { stdio: 'ignore' })
    this.#child = child
    const failed = once(child, 'error').then(([error]) => {
      throw error
    })
    failed.catch(() => {})
    for (let waited = 0; !(await Promise.race([isOpen(this.port), failed])); waited += 20) {
      if (waited > 15_000 || child.exitCode !== null) throw new Error('Mosquitto does not start')
      await sleep(20)
    }
  }

  /** Ends it without a word, as a crash does. */
  async kill(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#child
    if (child?.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  /** Has it write what it holds to its disk, and waits until that is done. */
  async save(): Promise<void> {
    const file = join(this.folder, 'mosquitto.db')
    const written = () => (existsSync(file) ? statSync(file).mtimeMs : 0)
    const before = written()
    // The time of a file may be that of the last tick of the kernel's clock.
    await sleep(20)
    this.#child?.kill('SIGUSR1')
    for (let waited = 0; written() <= before; waited += 20) {
      if (waited > 15_000) throw new Error('Mosquitto does not save')
      await sleep(20)
    }
  }

  /** A client of the broker, ended with it. */
  async connect(options: IClientOptions = {}, url = this.url): Promise<MqttClient> {
    const client = await connectAsync(url, options)
    client.on('error', () => {})
    this.#clients.push(client)
    return client
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.endAsync(true)))
    await this.kill('SIGTERM')
    rmSync(this.folder, { recursive: true, force: true })
  }

  #writePasswords(users: Readonly<Record<string, string>>): void {
    const file = join(this.folder, 'passwords')
    writeFileSync(
      file,
      Object.entries(users)
        .map(([user, password]) => `${user}:${password}\n`)
        .join(''),
      { mode: 0o600 },
    )
    const { status, stderr } = spawnSync(passwordProgram, ['-U', file])
    if (status !== 0) throw new Error(`no passwords: ${String(stderr)}`)
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
