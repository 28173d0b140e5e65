// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { createTestDatabase, testAdmin } from '../testing.ts'
import type { TestAnswer, TestDatabase } from '../testing.ts'
import { rootDir } from '../version.ts'
import { commandTools } from './testing.ts'

/** The real program as a process, so that it can really be killed. */
let database: TestDatabase
let dataDir: string
let child: ChildProcess | undefined
beforeEach(async () => {
  database = await createTestDatabase()
  dataDir = mkdtempSync('/tmp/iot-pms-restart-')
})
afterEach(async () => {
  await kill()
  await database.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

async function kill(): Promise<void> {
  if (child?.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

async function start() {
  child = spawn(process.execPath, [join(rootDir, 'core/src/main.ts'), 'start'], {
    env: {
      PATH: process.env['PATH'] ?? '',
      IOT_PMS_DATA_DIR: dataDir,
      IOT_PMS_HTTP_PORT: '0',
      IOT_PMS_HTTP_HOST: '127.0.0.1',
      IOT_PMS_MQTT_PORT: '0',
      IOT_PMS_MQTTS_PORT: 'off',
      IOT_PMS_BUILD_DASHBOARD: '0',
      DATABASE_URL: database.url,
      IOT_PMS_MIGRATE_URL: database.adminUrl,
      IOT_PMS_ADMIN_EMAIL: testAdmin.email,
      IOT_PMS_ADMIN_PASSWORD: testAdmin.password,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ports = await readPorts(child)
  let token = ''
  const call = async (method: string, path: string, { body }: { body?: unknown } = {}): Promise<TestAnswer> => {
    const response = await fetch(`http://127.0.0.1:${ports.http}${path}`, {
      method,
      headers: {
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) }
  }
  token = (await call('POST', '/api/v1/auth/login', { body: testAdmin })).json<{ accessToken: string }>().accessToken
  const createDevice = async () => {
    const device = (await call('POST', '/api/v1/devices', { body: { name: 'd' } })).json<{
      id: string
      name: string
      credentials: { token: string }
    }>()
    return { id: device.id, name: device.name, token: device.credentials.token }
  }
  return { call, ports, createDevice, tools: commandTools({ call, ports, createDevice }) }
}

async function readPorts(server: ChildProcess): Promise<{ http: number; mqtt: number }> {
  let output = ''
  server.stdout!.on('data', (chunk: Buffer) => (output += chunk))
  for (let waited = 0; waited < 60_000 && server.exitCode === null; waited += 20) {
    const line = output.split('\n').find((one) => one.includes('"msg":"ready"'))
    if (line) return JSON.parse(line) as { http: number; mqtt: number }
    await sleep(20)
  }
  throw new Error(`the server did not start: ${output}`)
}

it('commands, their states and their numbers outlive a kill -9 of the server [R-1, R-6, R-9]', { timeout: 120_000 }, async () => {
  const first = await start()
  const device = await first.createDevice()
  const stored = []
  for (let count = 0; count < 5; count++) stored.push(await first.tools.queue(device.id, { params: count }))
  const session = await first.tools.listen(device)
  const packets = []
  for (let count = 0; count < 5; count++) packets.push(await session.next(false))
  expect(packets.map((packet) => packet.no)).toEqual([1, 2, 3, 4, 5])
  session.client.put({ cmd: 'puback', messageId: packets[0]!.packetId! })
  await first.tools.reach(device.id, stored[0]!.id, 'DELIVERED')
  await kill()

  const second = await start()
  const again = await second.tools.listen(device)
  for (const no of [2, 3, 4, 5]) expect(await again.next()).toMatchObject({ no, body: { method: 'm', params: no - 1 } })
  expect(await again.answer(1, '"kept"')).toBe(0)
  expect(await second.tools.reach(device.id, stored[0]!.id, 'SUCCESSFUL')).toMatchObject({ response: 'kept' })
  const sentAgain = await second.tools.reach(device.id, stored[1]!.id, 'DELIVERED')
  expect(second.tools.states(sentAgain)).toEqual(['QUEUED', 'SENT', 'QUEUED', 'SENT', 'DELIVERED'])
  const called = second.tools.post(device.id, { method: 'next', kind: 'oneway' })
  expect(await again.next(), 'numbers go on').toMatchObject({ no: 6 })
  expect((await called).status).toBe(200)
  first.tools.end()
  second.tools.end()
})

it('a command whose storing was answered is there after a kill -9 in the middle of storing [R-6]', { timeout: 120_000 }, async () => {
  const first = await start()
  const device = await first.createDevice()
  const answered: string[] = []
  const work = async () => {
    for (;;) answered.push((await first.tools.queue(device.id)).id)
  }
  const workers = Array.from({ length: 4 }, () => work().catch(() => {}))
  while (answered.length < 40) await sleep(1)
  await kill()
  await Promise.all(workers)

  const second = await start()
  for (const id of answered) expect((await second.tools.get(device.id, id)).state).toBe('QUEUED')
  const session = await second.tools.listen(device, 0)
  const numbers: number[] = []
  for (let count = 0; count < answered.length; count++) numbers.push((await session.next()).no)
  expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
  second.tools.end()
})
