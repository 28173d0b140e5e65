// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Alarm } from '../alarms/schemas.ts'
import { json, startProvider } from '../notifications/testing.ts'
import { createTestDatabase } from '../testing.ts'
import type { TestDatabase } from '../testing.ts'
import { preview } from './testing.ts'
import type { TestPoint } from './testing.ts'
import { environmentOf, killAdmin } from './testing-kill.ts'

let database: TestDatabase
let dataDir: string
let provider: Awaited<ReturnType<typeof startProvider>>
const children: ChildProcess[] = []
beforeAll(async () => {
  database = await createTestDatabase()
  dataDir = mkdtempSync(join('/tmp', 'iot-pms-data-'))
  provider = await startProvider()
  provider.answer('hook', json(200, {}))
})
afterAll(async () => {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) await kill(child)
  await provider.close()
  await database.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

type Server = { child: ChildProcess; call: (method: string, path: string, body?: unknown) => Promise<unknown> }

async function start(mode: 'live' | 'hold'): Promise<Server> {
  const env = environmentOf(database, dataDir)
  const script = join(import.meta.dirname, 'testing-kill.ts')
  const child = spawn(process.execPath, [script, mode], { stdio: ['ignore', 'pipe', 'inherit'], env })
  children.push(child)
  const [port] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  const request = async (method: string, path: string, body: unknown, token?: string): Promise<string> => {
    const authorization: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {}
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers: { ...authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text
  }
  const { accessToken } = JSON.parse(await request('POST', '/api/v1/auth/login', killAdmin)) as { accessToken: string }
  const call = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const text = await request(method, path, body, accessToken)
    return text === '' ? undefined : JSON.parse(text)
  }
  return { child, call }
}

const logic = {
  levels: [
    { severity: 'critical', when: { left: { key: 't' }, op: 'gt', right: 90 }, forMs: 3000 },
    { severity: 'warning', when: { left: { key: 't' }, op: 'gt', right: 80, hysteresis: 4 }, forMs: 5000 },
  ],
  clear: { forMs: 2000 },
}
const count = 300
const kills = 6

/** Values with stretches above both levels, of different lengths, and with dips. */
function valueAt(i: number): number {
  if (i >= count - 10) return 70
  return 75 + 20 * Math.sin(i / 7) + 6 * Math.sin(i * 1.7)
}

it('no alarm and no notification is lost, and none doubled, when the server is killed between commit and judgement, again and again [5.5]', async () => {
  let server = await start('live')
  const device = (await server.call('POST', '/api/v1/devices', { name: 'cold store' })) as { id: string; credentials: { token: string } }
  const channel = { name: 'hook', type: 'webhook', config: { url: `${provider.url}/hook` } }
  const { id: channelId } = (await server.call('POST', '/api/v1/notifications/channels', channel)) as { id: string }
  const receivers = [{ name: 'ops', targets: [{ channelId }] }]
  await server.call('PUT', '/api/v1/notifications/routing', { route: { receiver: 'ops' }, receivers })
  const actions = [{ type: 'notify', on: ['raised', 'cleared'], receivers: ['ops'] }]
  await server.call('POST', '/api/v1/rules', { kind: 'alarm', name: 'hot', target: { deviceIds: [device.id] }, ...logic, actions })
  const begin = Date.now() - count * 1000
  const points: TestPoint[] = Array.from({ length: count }, (_, i) => ['t', begin + i * 1000, valueAt(i)])
  const send = (i: number) =>
    server.call('POST', `/api/v1/${device.credentials.token}/telemetry`, { ts: points[i]![1], values: { t: points[i]![2] } })
  for (let i = 0; i < count; i++) {
    await send(i)
    const isKill = i % Math.floor(count / kills) === 20 + (i % 7)
    if (!isKill) continue
    await kill(server.child)
    // In turns: one that judges until it is killed, one that only commits.
    server = await start(i % 2 === 0 ? 'live' : 'hold')
    // What was on its way is sent again by whoever got no answer.
    await send(i)
  }
  await kill(server.child)
  server = await start('live')
  const end = begin + count * 1000
  const expected = preview(logic, points, end).map(({ startTs, confirmedTs, endTs, clearedTs, severities }) => ({
    startTs,
    confirmedTs,
    endTs,
    clearedTs,
    steps: ['raised', ...severities.slice(1).map(() => 'severity_changed'), 'cleared'],
  }))
  expect(expected.length).toBeGreaterThan(4)
  const found = async () => {
    const { items } = (await server.call('GET', `/api/v1/alarms?deviceId=${device.id}&sort=-startTs&limit=500`)) as { items: Alarm[] }
    const all = items.toReversed().map(async ({ id, startTs, confirmedTs, endTs, clearedTs }) => {
      const timeline = (await server.call('GET', `/api/v1/alarms/${id}/events`)) as { items: { kind: string }[] }
      const steps = timeline.items.map(({ kind }) => kind).filter((kind) => kind !== 'notified')
      return { startTs, confirmedTs, endTs, clearedTs, steps }
    })
    return Promise.all(all)
  }
  await expect.poll(found, { timeout: 60_000, interval: 500 }).toEqual(expected)
  // Each event is told once: a receiver may see a call twice when its answer was lost, by the same id.
  const told = () => {
    const calls = new Map(provider.of('hook').map(({ headers, body }) => [headers['webhook-id'], body]))
    return [...calls.values()].map((body) => (JSON.parse(body) as { type: string }).type).toSorted()
  }
  const wanted = expected.flatMap(() => ['alarm.cleared', 'alarm.raised']).toSorted()
  await expect.poll(told, { timeout: 120_000, interval: 500 }).toEqual(wanted)
}, 400_000)
