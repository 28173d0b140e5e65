// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import { pino } from 'pino'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { readConfig } from '../config.ts'
import { EventBus } from '../events.ts'
import type { ProblemError } from '../errors.ts'
import { createTestContext, createTestDatabase, startTestPlatform, testAdmin } from '../testing.ts'
import type { TestDatabase, TestPlatform } from '../testing.ts'
import { DiskGuard, databaseSpace, defaultDiskLimits, levelOf, volumeSpace } from './disk-guard.ts'
import type { DiskLevel, Space } from './disk-guard.ts'
import { DiskTrend } from './disk-trend.ts'

const gib = 2 ** 30
const space = (freeGib: number, totalGib = 1000): Space => ({ freeBytes: freeGib * gib, totalBytes: totalGib * gib })

describe('the level of the disk guard', () => {
  it.each<[string, Space, DiskLevel]>([
    ['ok at 15 % and 10 GiB', space(150), 'ok'],
    ['warn below 15 %', space(149), 'warn'],
    ['warn below 10 GiB of a small volume', space(9.9, 20), 'warn'],
    ['high below 8 %', space(79), 'high'],
    ['high below 4 GiB', space(3.9, 20), 'high'],
    ['critical below 3 %', space(29), 'critical'],
    ['critical below 1 GiB', space(0.9, 5), 'critical'],
  ])('is %s', (_, measured, level) => {
    expect(levelOf(measured, 'ok', defaultDiskLimits)).toBe(level)
  })

  it('is left only two points and half a GiB above its bound [RE-80]', () => {
    expect(levelOf(space(49), 'critical', defaultDiskLimits)).toBe('critical')
    expect(levelOf(space(50), 'critical', defaultDiskLimits)).toBe('high')
    expect(levelOf(space(99), 'critical', defaultDiskLimits)).toBe('high')
    expect(levelOf(space(100), 'high', defaultDiskLimits)).toBe('warn')
    expect(levelOf(space(169), 'warn', defaultDiskLimits)).toBe('warn')
    expect(levelOf(space(170), 'warn', defaultDiskLimits)).toBe('ok')
    expect(levelOf(space(1.4, 10), 'critical', defaultDiskLimits)).toBe('critical')
    expect(levelOf(space(1.6, 10), 'critical', defaultDiskLimits)).toBe('high')
  })
})

describe('the forecast of the disk guard', () => {
  const minuteMs = 60_000
  it('is unknown for half an hour, then follows the rate of the measurements', () => {
    const trend = new DiskTrend()
    for (let minute = 0; minute < 30; minute++) trend.add(minute * minuteMs, { freeBytes: 1e9 - minute * 1e6, totalBytes: 2e9 })
    expect(trend.forecastDays(0.97e9)).toBeUndefined()
    trend.add(30 * minuteMs, { freeBytes: 0.97e9, totalBytes: 2e9 })
    expect(trend.bytesPerDay).toBeCloseTo(1440 * 1e6, -3)
    expect(trend.forecastDays(0.97e9)).toBeCloseTo(970 / 1440, 3)
  })

  it('is unknown while space is freed, and starts anew when the volume changes its size', () => {
    const trend = new DiskTrend()
    for (let minute = 0; minute < 60; minute++) trend.add(minute * minuteMs, { freeBytes: 1e9 + minute * 1e6, totalBytes: 2e9 })
    expect(trend.bytesPerDay).toBeLessThan(0)
    expect(trend.forecastDays(1e9)).toBeUndefined()
    trend.add(60 * minuteMs, { freeBytes: 2e9, totalBytes: 3e9 })
    expect(trend.bytesPerDay).toBeUndefined()
  })
})

/** A guard whose time and space a test owns. */
function createGuard(read: () => Promise<Space | undefined>) {
  const lines: { level: number; msg: string }[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line) as { level: number; msg: string }) })
  const events = new EventBus(log)
  const changes: string[] = []
  events.on('disk.level', ({ before, level }) => changes.push(`${before} → ${level}`))
  const time = { ms: 0 }
  const clock = { now: () => time.ms, monotonic: () => time.ms, after: () => () => {} }
  return { guard: new DiskGuard({ clock, log, events }, read), changes, lines, time }
}

describe('the disk guard', () => {
  it('tells each change once, refuses by level and opens again by itself', async () => {
    let measured = space(500)
    const { guard, changes, lines } = createGuard(async () => measured)
    let opened = 0
    guard.onOpen(() => opened++)
    await guard.start()
    for (const free of [100, 60, 60, 10, 200]) {
      measured = space(free)
      await guard.check()
      const code = (act: () => void) => {
        try {
          act()
          return undefined
        } catch (error) {
          return (error as ProblemError).code
        }
      }
      expect([code(() => guard.assertDiskHasRoom()), code(() => guard.assertTakesTelemetry())], `${free}`).toEqual([
        free < 80 ? 'DISK_LOW' : undefined,
        free < 30 ? 'STORAGE_FULL' : undefined,
      ])
    }
    expect(changes).toEqual(['ok → warn', 'warn → high', 'high → critical', 'critical → ok'])
    expect(lines.map((line) => line.level)).toEqual([40, 40, 50, 30])
    expect(opened).toBe(1)
    guard.stop()
  })

  it('reminds once a day while there is little room', async () => {
    const { guard, lines, time } = createGuard(async () => space(100))
    for (let hour = 0; hour <= 49; hour++) {
      time.ms = hour * 3_600_000
      await guard.check()
    }
    expect(lines.map((line) => line.msg)).toEqual(Array(2).fill('the disk of the database is filling up'))
  })

  it('keeps the last known level when the space cannot be read, and says so once', async () => {
    let isBroken = false
    const { guard, lines } = createGuard(async () => {
      if (isBroken) throw new Error('gone')
      return space(60)
    })
    await guard.check()
    isBroken = true
    await guard.check()
    await guard.check()
    expect(guard.level).toBe('high')
    expect(lines.filter((line) => line.msg.includes('could not be read'))).toHaveLength(1)
  })

  it('knows nothing of an external database without a quota', async () => {
    const context = await createTestContext()
    const guard = new DiskGuard(context, databaseSpace(context))
    await guard.check()
    expect(guard.status).toEqual({ level: 'ok', freeBytes: null, totalBytes: null, growthBytesPerDay: null, forecastDays: null })
    await context.close()
  })
})

describe('a server without room for more data', { timeout: 30_000 }, () => {
  let platform: TestPlatform
  const setQuota = async (bytes: number) => {
    platform.context.config.database.quotaBytes = bytes
    await platform.ingest.disk.check()
  }
  beforeAll(async () => {
    platform = await startTestPlatform()
  })
  afterAll(() => platform.close())

  it('refuses telemetry with STORAGE_FULL, serves everything else, and recovers by itself', async () => {
    const device = await platform.createDevice()
    const send = () => platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: '{"a":1}', token: null })
    await setQuota(gib / 2)
    for (const answer of [
      await send(),
      await platform.call('POST', `/api/v1/${device.token}/attributes`, { body: '{"a":1}', token: null }),
      await platform.call('POST', `/api/v1/devices/${device.id}/telemetry`, { body: { a: 1 } }),
    ]) {
      expect([answer.status, answer.json()['code'], answer.headers.get('retry-after')]).toEqual([503, 'STORAGE_FULL', '60'])
    }
    const works = [
      ['POST', '/api/v1/auth/login', { email: testAdmin.email, password: testAdmin.password }],
      ['GET', `/api/v1/devices/${device.id}/telemetry`],
      ['PATCH', '/api/v1/settings/site', { name: 'full' }],
      ['POST', '/api/v1/devices', { name: 'new although full' }],
    ] as const
    for (const [method, path, body] of works) {
      const answer = await platform.call(method, path, body === undefined ? {} : { body })
      expect(answer.status, `${method} ${path} ${answer.text}`).toBeLessThan(300)
    }
    const ready = await platform.call('GET', '/readyz')
    expect(ready.status).toBe(200)
    expect(ready.json<{ checks: unknown[] }>().checks).toContainEqual({
      name: 'disk',
      ok: false,
      detail: 'critical: 0.5 GiB of 0.5 GiB free',
    })
    expect((await platform.call('GET', '/api/v1/system/disk')).json()).toEqual({ level: 'critical', forecastDays: null })
    await setQuota(100 * gib)
    expect((await send()).status).toBe(200)
  })

  it('refuses exports and demo data with DISK_LOW from level high on, and nothing else', async () => {
    const device = await platform.createDevice()
    const question = { deviceIds: [device.id], keys: ['a'], from: 0, to: 1000, format: 'csv' }
    const path = `/api/v1/devices/${device.id}/telemetry/export?format=csv&keys=a&from=0&to=1000`
    await setQuota(3 * gib)
    for (const answer of [
      await platform.call('GET', path),
      await platform.call('POST', '/api/v1/telemetry/export', { body: question }),
      await platform.call('POST', '/api/v1/demo'),
    ]) {
      expect([answer.status, answer.json()['code']]).toEqual([507, 'DISK_LOW'])
    }
    expect((await platform.call('GET', path, { token: null })).status).toBe(401)
    expect((await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: '{"a":1}', token: null })).status).toBe(200)
    expect((await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)).status).toBe(200)
    await setQuota(100 * gib)
    expect((await platform.call('GET', path)).status).toBe(200)
  })

  it('refuses new MQTT sessions with 0x97 and 3', async () => {
    const device = await platform.createDevice()
    await setQuota(gib / 2)
    for (const [protocolVersion, code] of [
      [5, 0x97],
      [4, 3],
    ] as const) {
      const client = mqtt.connect({ port: platform.ports.mqtt!, username: device.token, protocolVersion, reconnectPeriod: 0 })
      const refused = await new Promise<{ code?: unknown }>((resolve) =>
        client.once('error', (error) => resolve({ code: 'code' in error ? error.code : error })),
      )
      expect(refused.code).toBe(code)
      await client.endAsync(true)
    }
    await setQuota(100 * gib)
  })

  it('leaves what open sessions send unread, and takes it in order once there is room', async () => {
    const device = await platform.createDevice()
    const client = mqtt.connect({ port: platform.ports.mqtt!, username: device.token, protocolVersion: 5, reconnectPeriod: 0 })
    await new Promise((resolve) => client.once('connect', resolve))
    await setQuota(gib / 2)
    const answered: number[] = []
    const all = Promise.all(
      [1, 2, 3].map(async (n) => {
        await client.publishAsync('v1/devices/me/telemetry', `{"n":${n}}`, { qos: 1 })
        answered.push(n)
      }),
    )
    await sleep(300)
    expect(answered).toEqual([])
    expect(client.connected).toBe(true)
    await setQuota(100 * gib)
    await all
    expect(answered).toEqual([1, 2, 3])
    const latest = await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)
    expect(latest.json<{ items: { value: number }[] }>().items[0]).toMatchObject({ key: 'n', value: 3 })
    await client.endAsync()
  })

  it('shows administrators what takes the room, and everybody the level', async () => {
    await setQuota(20 * gib)
    const storage = await platform.call('GET', '/api/v1/system/storage')
    expect(storage.json()).toMatchObject({
      level: 'ok',
      totalBytes: 20 * gib,
      growthBytesPerDay: null,
      forecastDays: null,
      database: { bytes: expect.any(Number) },
      telemetry: { segments: { active: expect.any(Number) }, bytes: { segments: expect.any(Number) } },
    })
    const viewer = await platform.login('viewer')
    expect((await platform.call('GET', '/api/v1/system/storage', { token: viewer })).status).toBe(403)
    expect((await platform.call('GET', '/api/v1/system/disk', { token: viewer })).json()).toMatchObject({ level: 'ok' })
    const metrics = await platform.ingest.disk.check().then(() => platform.call('GET', '/metrics'))
    expect(metrics.text).toContain('iot_pms_disk_level 0')
    expect(metrics.text).toContain(`iot_pms_disk_total_bytes ${20 * gib}`)
    await setQuota(100 * gib)
  })
})

/** Puts all files of a database into a folder; @returns what takes the folder back once the database is gone. */
async function moveDatabase(database: TestDatabase, folder: string): Promise<{ drop(): Promise<void> }> {
  const admin = postgres(inject('adminUrl'), { max: 1, onnotice: () => {} })
  const [row] = await admin`select current_setting('data_directory') as folder`
  const { uid, gid } = statSync(row!['folder'] as string)
  chownSync(folder, uid, gid)
  await admin.unsafe(`create tablespace small location '${folder}'`)
  await admin.unsafe(`alter database ${new URL(database.url).pathname.slice(1)} set tablespace small`)
  return {
    async drop() {
      await admin`drop tablespace small`
      await admin.end()
    },
  }
}

/** Texts that PostgreSQL cannot make smaller. */
function randomTexts(): Record<string, string> {
  return Object.fromEntries(['a', 'b', 'c', 'd'].map((key) => [key, randomBytes(30_000).toString('base64')]))
}

/** A small file system of our own, or the reason why there is none. */
function mountSmall(megabytes: number): { path: string; resize(megabytes: number): void; unmount(): void } | string {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'skipped: only root on Linux can mount a small file system'
  const path = mkdtempSync('/tmp/iot-pms-small-')
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'pipe' })
  try {
    run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', path)
  } catch (error) {
    rmSync(path, { recursive: true })
    return `skipped: a tmpfs cannot be mounted here (${(error as Error).message.split('\n')[0]})`
  }
  return {
    path,
    resize: (size) => run('mount', '-o', `remount,size=${size}m`, path),
    unmount: () => {
      run('umount', path)
      rmSync(path, { recursive: true })
    },
  }
}

describe('on a volume that really fills up', { timeout: 120_000 }, () => {
  it('the level follows what is written and removed', async (test) => {
    const small = mountSmall(64)
    if (typeof small === 'string') return test.skip(small)
    try {
      const mib = 2 ** 20
      const limits = {
        bounds: {
          warn: { share: 0.15, bytes: 20 * mib },
          high: { share: 0.08, bytes: 8 * mib },
          critical: { share: 0.03, bytes: 4 * mib },
        },
        marginShare: 0.02,
        marginBytes: mib,
      }
      const context = await createTestContext()
      const guard = new DiskGuard(context, () => volumeSpace(small.path), limits)
      const levels: DiskLevel[] = []
      for (const fill of [0, 50, 58, 62, 10]) {
        writeFileSync(join(small.path, 'fill'), Buffer.alloc(fill * mib))
        await guard.check()
        levels.push(guard.level)
      }
      expect(levels).toEqual(['ok', 'warn', 'high', 'critical', 'ok'])
      await context.close()
    } finally {
      small.unmount()
    }
  })

  it('a write the database has no room for closes the door at once; with room again all that was promised is there', async (test) => {
    const small = mountSmall(80)
    if (typeof small === 'string') return test.skip(small)
    const database = await createTestDatabase()
    const place = await moveDatabase(database, small.path)
    const platform = await startTestPlatform({
      database: readConfig({ DATABASE_URL: database.url, IOT_PMS_MIGRATE_URL: database.adminUrl }).database,
    })
    try {
      const device = await platform.createDevice()
      const send = (n: number) =>
        platform.call('POST', `/api/v1/${device.token}/telemetry`, {
          body: JSON.stringify({ ts: 1_700_000_000_000 + n, values: { n, ...randomTexts() } }),
          token: null,
        })
      const stored: number[] = []
      let n = 0
      let last = 0
      for (; n < 1000 && last !== 503; n++) {
        const pending = send(n)
        // The one that meets the full disk waits for room; the door is closed for those after it. Merging may find
        // that room within the wait: then this one is acknowledged and the next one finds the door closed.
        const answer = await Promise.race([pending, sleep(3000)])
        if (!answer) break
        last = answer.status
        if (answer.status === 200) stored.push(n)
      }
      expect(platform.ingest.disk.level, `${n} messages, the last answered ${last}`).toBe('critical')
      expect((await send(n + 1)).json()['code']).toBe('STORAGE_FULL')
      small.resize(400)
      for (let waited = 0; platform.ingest.disk.level !== 'ok' && waited < 60_000; waited += 500) {
        await sleep(500)
        if (waited % 5000 === 0) await platform.ingest.disk.check()
      }
      expect(platform.ingest.disk.level).toBe('ok')
      expect((await send(n + 2)).status).toBe(200)
      const history = await platform.call(
        'GET',
        `/api/v1/devices/${device.id}/telemetry/history?keys=n&from=0&to=2000000000000&limit=10000`,
      )
      const found = new Set(history.json<{ series: { points: [number, number][] }[] }>().series[0]!.points.map(([, value]) => value))
      expect(stored.filter((one) => !found.has(one))).toEqual([])
      expect(stored.length).toBeGreaterThan(0)
    } finally {
      await platform.close()
      await database.drop()
      await place.drop()
      small.unmount()
    }
  })
})
