// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../faults/ports.ts'

const program = '/usr/sbin/mosquitto'

/** The anchor of the ingest benches: a broker that acknowledges from memory, without a subscriber. */
export type Mosquitto = { pid: number; port: number; stop(): Promise<void> }

export const hasMosquitto = existsSync(program)

export async function startMosquitto(): Promise<Mosquitto> {
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-mosquitto-'))
  const port = await freePort()
  const config = join(folder, 'mosquitto.conf')
  const settings = [`listener ${port} 127.0.0.1`, 'allow_anonymous true', 'persistence false', 'set_tcp_nodelay true', 'log_dest none']
  writeFileSync(config, `${settings.join('\n')}\n`)
  // As root it becomes an unprivileged user before it reads on.
  chmodSync(folder, 0o755)
  const child = spawn(program, ['-c', config], { stdio: 'ignore' })
  for (let waited = 0; !(await answers(port)); waited += 20) {
    if (waited > 5000 || child.exitCode !== null) throw new Error('Mosquitto does not start')
    await sleep(20)
  }
  return { pid: child.pid!, port, stop: () => stop(child, folder) }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

async function stop(child: ChildProcess, folder: string): Promise<void> {
  const exited = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  await exited
  rmSync(folder, { recursive: true, force: true })
}
