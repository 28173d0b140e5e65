// SPDX-License-Identifier: AGPL-3.0-only
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { freePort } from './ports.ts'

/** A database that does not belong to the server: its process outlives the server's. */
export type ExternalDatabase = { version: string; adminUrl: string; appUrl: string; stop(): Promise<void> }

const folderOfDebian = '/usr/lib/postgresql'
const appPassword = randomBytes(12).toString('hex')

/** The newest PostgreSQL of Debian's packages, 15 or later. */
export function findPostgres(): string | undefined {
  if (!existsSync(folderOfDebian)) return undefined
  const versions = readdirSync(folderOfDebian)
    .map(Number)
    .filter((version) => version >= 15)
  const folder = join(folderOfDebian, String(Math.max(...versions)), 'bin')
  return versions.length > 0 && existsSync(join(folder, 'initdb')) ? folder : undefined
}

/** Makes a cluster in a temporary folder and runs it as an unprivileged user. */
export async function startPostgres(binaries: string): Promise<ExternalDatabase> {
  const folder = mkdtempSync(join(tmpdir(), 'iot-pms-external-'))
  chmodSync(folder, 0o711)
  const identity = findIdentity()
  const home = join(folder, 'home')
  mkdirSync(home, { mode: 0o700 })
  if (identity) chownSync(home, identity.uid, identity.gid)
  const cluster = join(home, 'data')
  const made = spawnSync(join(binaries, 'initdb'), ['-D', cluster, '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--locale=C'], {
    ...identity,
    cwd: home,
  })
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr.toString()}`)
  const port = await freePort()
  const output = openSync(join(folder, 'postgres.log'), 'a')
  const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=', 'shared_buffers=128MB', 'max_wal_size=1GB']
  const child = spawn(join(binaries, 'postgres'), ['-D', cluster, ...settings.flatMap((setting) => ['-c', setting])], {
    ...identity,
    cwd: home,
    stdio: ['ignore', output, output],
  })
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  try {
    await waitUntilReady(url, child)
    return {
      ...(await createDatabase(url)),
      stop: async () => {
        const exited = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGINT')
        await exited
        rmSync(folder, { recursive: true, force: true })
      },
    }
  } catch (error) {
    child.kill('SIGQUIT')
    throw error
  }
}

/** A fresh database on a server that somebody else runs; dropped in the end. The login has to be a superuser. */
export async function createDatabase(url: string): Promise<ExternalDatabase> {
  const name = `iot_pms_faults_${randomBytes(4).toString('hex')}`
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  const [row] = await sql<{ version: string }[]>`select current_setting('server_version') as version`
  await sql`create database ${sql(name)}`
  await sql.end()
  const adminUrl = new URL(url)
  adminUrl.pathname = `/${name}`
  const appUrl = new URL(adminUrl)
  appUrl.username = 'iot_pms'
  appUrl.password = appPassword
  return {
    version: row!.version,
    adminUrl: adminUrl.href,
    appUrl: appUrl.href,
    stop: async () => {
      const admin = postgres(url, { max: 1, onnotice: () => {} })
      await admin`drop database ${admin(name)} with (force)`
      await admin.end()
    },
  }
}

async function waitUntilReady(url: string, child: ChildProcess): Promise<void> {
  for (let waited = 0; waited < 20_000 && child.exitCode === null; waited += 50) {
    const sql = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {} })
    try {
      await sql`select 1`
      return
    } catch {
      await sleep(50)
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
  throw new Error('the external PostgreSQL does not start')
}

/** PostgreSQL refuses to run as root. */
function findIdentity(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  const user = users.find(([name]) => name === 'postgres') ?? users.find(([name]) => name === 'nobody')
  if (!user) throw new Error('there is no unprivileged user to run PostgreSQL as')
  return { uid: Number(user[2]), gid: Number(user[3]) }
}
