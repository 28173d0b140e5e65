// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import { testAdmin } from '../testing.ts'
import type { Point } from './points.ts'
import { startReadingServer } from './testing.ts'
import type { ReadingServer } from './testing.ts'

/**
 * How much memory a server takes for answers about a million points, seen from outside: resident, with all
 * the garbage there is, and with its heap held so tight that it would fall over if it kept an answer.
 */
const t0 = 1_760_000_000_000
const narrow = Array.from({ length: 10 }, (_, i) => `n${i}`)
const wide = Array.from({ length: 50 }, (_, i) => `w${i}`)

let folder: string
let child: ChildProcess
let url: string
let token: string
let devices: Device[]
let filled: ReadingServer

beforeAll(async () => {
  filled = await startReadingServer()
  folder = mkdtempSync('/tmp/iot-pms-memory-')
  const fill = async (keys: string[], count: number) => {
    const device = await filled.createDevice()
    for (const key of keys) {
      for (let at = 0; at < count; at += 20_000) {
        const points = Array.from({ length: 20_000 }, (_, i): Point => ({
          key,
          ts: t0 + (at + i) * 1000,
          kind: 'double',
          value: Math.sin(i),
        }))
        await filled.write(device, points)
      }
    }
    return device
  }
  devices = [await fill(narrow, 100_000), await fill(wide, 20_000)]
  await filled.store.compact()
  await filled.store.stop()
  const port = await findFreePort()
  url = `http://127.0.0.1:${port}`
  child = spawn(
    process.execPath,
    ['--max-semi-space-size=8', '--max-old-space-size=128', fileURLToPath(new URL('../main.ts', import.meta.url)), 'start'],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        PATH: process.env['PATH'],
        IOT_PMS_DATA_DIR: join(folder, 'data'),
        IOT_PMS_HTTP_PORT: String(port),
        IOT_PMS_HTTP_HOST: '127.0.0.1',
        IOT_PMS_MQTT_PORT: 'off',
        IOT_PMS_MQTTS_PORT: 'off',
        IOT_PMS_BUILD_DASHBOARD: '0',
        IOT_PMS_LOG_LEVEL: 'error',
        IOT_PMS_ADMIN_EMAIL: testAdmin.email,
        IOT_PMS_ADMIN_PASSWORD: testAdmin.password,
        DATABASE_URL: filled.context.database.url,
        IOT_PMS_MIGRATE_URL: filled.context.database.adminUrl,
      },
    },
  )
  token = await login()
  // The first answers load code and grow the heap to its usual size.
  for (let i = 0; i < 3; i++) await read('GET', exportPath('csv', narrow.slice(0, 2), 0))
}, 120_000)

afterAll(async () => {
  if (child.exitCode === null && child.kill('SIGTERM')) await once(child, 'exit')
  await filled.close()
  rmSync(folder, { recursive: true, force: true })
})

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

async function login(): Promise<string> {
  for (;;) {
    try {
      const answer = await fetch(`${url}/api/v1/auth/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(testAdmin),
      })
      if (answer.ok) return ((await answer.json()) as { accessToken: string }).accessToken
    } catch {
      // Not listening yet.
    }
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`)
    await sleep(100)
  }
}

function statusOf(name: 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024
}

async function read(method: string, path: string, body?: object): Promise<number> {
  const answer = await fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  })
  expect(answer.status).toBe(200)
  let bytes = 0
  for await (const chunk of answer.body!) bytes += chunk.length
  return bytes
}

const range = `from=${t0}&to=${t0 + 100_000_000}`
const exportPath = (format: string, keys: string[], device: number) =>
  `/api/v1/devices/${devices[device]!.id}/telemetry/export?format=${format}&${range}&keys=${keys.join(',')}`
const historyPath = (query: string) => `/api/v1/devices/${devices[0]!.id}/telemetry/history?${range}&keys=${narrow.join(',')}&${query}`
const many = () => ({ deviceIds: devices.map(({ id }) => id), from: t0, to: t0 + 100_000_000 })

describe.skipIf(process.platform !== 'linux')('a million points in at most 64 MiB more', () => {
  it.each<[string, () => Promise<number>, number]>([
    ['as CSV', () => read('GET', exportPath('csv', narrow, 0)), 50e6],
    ['as a workbook', () => read('GET', exportPath('xlsx', narrow, 0)), 10e6],
    ['as lines of JSON', () => read('GET', exportPath('ndjson', narrow, 0)), 50e6],
    ['as CSV of 50 keys side by side', () => read('GET', `${exportPath('csv', wide, 1)}&layout=wide`), 10e6],
    ['as a workbook of 50 keys side by side', () => read('GET', `${exportPath('xlsx', wide, 1)}&layout=wide`), 3e6],
    ['as raw history', () => read('GET', historyPath('limit=100000')), 20e6],
    ['downsampled', () => read('GET', historyPath('downsample=lttb&points=10000')), 2e6],
    ['aggregated', () => read('GET', historyPath('agg=AVG,MIN,MAX,FIRST,DELTA&interval=10000')), 10e6],
    ['of several devices as history', () => read('POST', '/api/v1/telemetry/history', { ...many(), keys: narrow, limit: 100_000 }), 20e6],
    [
      'of several devices as lines of JSON',
      () => read('POST', '/api/v1/telemetry/export', { ...many(), keys: [...narrow, ...wide.slice(10)], format: 'ndjson' }),
      100e6,
    ],
  ])(
    '%s',
    async (_, ask, bytes) => {
      // Sets the peak back to what is in use now.
      writeFileSync(`/proc/${child.pid}/clear_refs`, '5')
      const before = statusOf('VmRSS')
      expect(await ask()).toBeGreaterThan(bytes)
      expect(statusOf('VmHWM') - before).toBeLessThan(64)
    },
    60_000,
  )
})
