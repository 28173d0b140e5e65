// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { loadSecretKey } from '../secrets.ts'
import { findInstance } from '../system/instance-lock.ts'
import { attempt, fail, ok, warn } from './finding.ts'
import type { Finding } from './finding.ts'

const dayMs = 86_400_000
/** The version of this checkout and of the image. */
const leastNode = 26
/** [DP-30] */
const certificateDays = 21
/** A backup of the configuration is made every day; two that failed are noticed. */
const backupDays = 3
/** [RE §11] A session is one file, and so are its TLS, its database connection and its logs at the worst moment. */
const filesPerSession = 4

/** What can be found out without the database. */
export async function examineHost(config: Config, now: number): Promise<Finding[]> {
  return [
    checkNode(),
    checkHooks(config),
    ...(await attempt('data directory', 'Give it to the user that runs the server.', () => [checkDataDir(config.dataDir)])),
    ...(await attempt('secret key', 'See docs/reference/config.md, IOT_PMS_SECRET_KEY.', () => [checkKey(config)])),
    ...(await checkPorts(config)),
    ...(await attempt('certificate', 'Give a certificate in PEM form.', () => checkCertificate(config, now))),
    checkBackups(config.dataDir, now),
    ...checkLimits(config),
  ]
}

function checkNode(): Finding {
  const major = Number(process.versions.node.split('.')[0])
  const found = [process.version, ...process.execArgv].join(' ')
  if (major < leastNode) return fail('node', found, `Run it with Node ${leastNode}: npx pnpm start brings one.`)
  return ok('node', found)
}

function checkHooks({ testHooks }: Config): Finding {
  if (testHooks.size === 0) return ok('test hooks', 'none')
  return fail('test hooks', [...testHooks].join(', '), 'Unset IOT_PMS_TEST_HOOKS: this server loses data on purpose.')
}

function checkDataDir(dataDir: string): Finding {
  if (!existsSync(dataDir)) return ok('data directory', `${dataDir} is made at the first start`)
  accessSync(dataDir, constants.R_OK | constants.W_OK | constants.X_OK)
  const { mode } = statSync(dataDir)
  if ((mode & 0o022) !== 0) return fail('data directory', `${dataDir} can be written by others`, `Run: chmod go-w ${dataDir}`)
  return ok('data directory', dataDir)
}

function checkKey(config: Config): Finding {
  const secrets = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir)
  if (!secrets) return ok('secret key', 'is made at the first start')
  return ok('secret key', `${secrets.keyId}, of ${config.secretKey ? 'the settings' : 'the data directory'}`)
}

/** A port is open because our own server runs, or it is free. */
async function checkPorts(config: Config): Promise<Finding[]> {
  const isRunning = findInstance(config.dataDir) !== undefined
  const wanted: [string, number | 'off', string | undefined][] = [
    ['IOT_PMS_HTTP_PORT', config.http.port, config.http.host],
    ['IOT_PMS_MQTT_PORT', config.mqtt.port, config.mqtt.host],
    ['IOT_PMS_MQTTS_PORT', config.mqtt.tlsPort, config.mqtt.host],
  ]
  const findings: Finding[] = []
  for (const [setting, port, host] of wanted) {
    if (port === 'off' || port === 0) continue
    findings.push(judgePort(`port ${port}`, setting, { isRunning, error: await tryPort(port, host) }))
  }
  return findings
}

function judgePort(name: string, setting: string, { isRunning, error }: { isRunning: boolean; error: string | undefined }): Finding {
  if (!error && isRunning) return fail(name, 'a server runs, but does not listen on it', `Look at the log of the server and at ${setting}.`)
  if (!error) return ok(name, 'is free')
  if (error !== 'EADDRINUSE') return fail(name, `cannot be opened (${error})`, `Set ${setting} to another port.`)
  if (isRunning) return ok(name, 'is open')
  return fail(name, 'is used by another program', `Stop that program, or set ${setting} to another port.`)
}

function tryPort(port: number, host: string | undefined): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    server.listen(port, host, () => server.close(() => resolve(undefined)))
  })
}

function checkCertificate({ tls }: Config, now: number): Finding[] {
  if (!tls.certFile) return []
  const { validTo, subject } = new X509Certificate(readFileSync(tls.certFile))
  const days = Math.floor((Date.parse(validTo) - now) / dayMs)
  const found = `${subject.replaceAll('\n', ', ')} is valid until ${new Date(validTo).toISOString().slice(0, 10)}, ${days} days`
  const fix = `Put a newer one into ${tls.certFile}; the server takes it without a restart.`
  if (days < 0) return [fail('certificate', found, fix)]
  return [days < certificateDays ? warn('certificate', found, fix) : ok('certificate', found)]
}

function checkBackups(dataDir: string, now: number): Finding {
  const folder = join(dataDir, 'backups')
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.tar')) : []
  const newest = Math.max(...names.map((name) => statSync(join(folder, name)).mtimeMs))
  if (names.length === 0) {
    return warn('backup', `none in ${folder}`, 'Make one with: iot-pms backup. One that is kept elsewhere is not seen here.')
  }
  const days = Math.floor((now - newest) / dayMs)
  const found = `the newest of ${names.length} is ${days} days old`
  return days > backupDays ? warn('backup', found, 'Make one with: iot-pms backup') : ok('backup', found)
}

function checkLimits({ mqtt }: Config): Finding[] {
  if (process.platform !== 'linux') return []
  const files = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 'unlimited'
  const wanted = mqtt.maxSessions * filesPerSession
  const overcommit = existsSync('/proc/sys/vm/overcommit_memory') ? readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim() : '0'
  return [
    files !== 'unlimited' && Number(files) < wanted
      ? warn(
          'open files',
          `${files} for ${mqtt.maxSessions} sessions`,
          `Allow ${wanted} (ulimit -n, LimitNOFILE=), or lower IOT_PMS_MAX_SESSIONS.`,
        )
      : ok('open files', `${files} for ${mqtt.maxSessions} sessions`),
    overcommit === '2'
      ? warn('memory', 'vm.overcommit_memory is 2', 'Set it to 0 or 1: Node reserves far more than it uses.')
      : ok('memory', `vm.overcommit_memory is ${overcommit}`),
  ]
}
