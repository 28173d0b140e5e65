// SPDX-License-Identifier: AGPL-3.0-only
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Context } from '../context.ts'
import { Db } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { Point } from '../telemetry/points.ts'
import { TelemetryLog } from '../telemetry/telemetry-log.ts'
import { startReadingServer } from '../telemetry/testing.ts'
import type { ReadingServer } from '../telemetry/testing.ts'
import { openBackup } from './archive.ts'
import { Databases, withDatabaseName } from './databases.ts'
import { loadBackup } from './load.ts'
import { writeBackup } from './write.ts'

const folder = mkdtempSync(join(tmpdir(), 'iot-pms-telemetry-backup-'))
/** More than one part of an archive holds. */
const pointsOfA = 700_000

let server: ReadingServer
let device: Device
beforeAll(async () => {
  server = await startReadingServer()
  device = await server.createDevice()
})
afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

/** Values that hardly compress, one a second from this number on. */
function makePoints(from: number, count: number): Point[] {
  return Array.from({ length: count }, (_, index) => ({
    key: 'a',
    ts: 1_700_000_000_000 + (from + index) * 1000,
    kind: 'double' as const,
    value: Math.sin((from + index) ** 2),
  }))
}

async function write(store: TelemetryLog, from: number, count: number): Promise<void> {
  for (let at = 0; at < count; at += 10_000) {
    await store.write([{ device, points: makePoints(from + at, Math.min(10_000, count - at)) }])
  }
}

async function readStates(db: Db): Promise<string[]> {
  const rows = await db.withRole('pms_store', (tx) =>
    tx.execute<{ state: string }>(sql`select distinct state from telemetry_segments order by 1`),
  )
  return rows.map(({ state }) => state)
}

/** What is wrong with the values read, as the first of them; and how many there are. */
async function check(context: Context, store: TelemetryLog): Promise<{ count: number; wrong: unknown }> {
  let [count, wrong] = [0, undefined as unknown]
  const range = { deviceId: device.id, key: 'a', from: 0, to: 4_000_000_000_000 }
  for await (const points of store.read(context.rootTenant, range)) {
    for (const point of points) {
      const n = (point.ts - 1_700_000_000_000) / 1000
      if (n !== count || point.value !== Math.sin(n ** 2)) wrong ??= { point, at: count }
      count++
    }
  }
  return { count, wrong }
}

it('holds points in every place of the store: chunks, sealed segments, the one being written', { timeout: 180_000 }, async () => {
  const { context } = server
  await write(server.store, 0, pointsOfA)
  await server.store.compact()
  await write(server.store, pointsOfA, 5000)
  // Ended servers leave sealed segments.
  await server.store.stop()
  const second = new TelemetryLog(context, { compacts: false })
  await second.start()
  await write(second, pointsOfA + 5000, 2000)
  expect(await readStates(context.db)).toEqual(['active', 'compacted', 'sealed'])
  const file = join(folder, 'full.tar')
  const stream = createWriteStream(file)
  const { totals } = await writeBackup(context.database.adminUrl, stream, { kind: 'full' })
  stream.end()
  await finished(stream)
  expect(Math.max(...totals.map(({ parts }) => parts))).toBeGreaterThan(1)
  await write(second, pointsOfA + 7000, 1000)
  await second.stop()

  const databases = await Databases.open(context.database.adminUrl)
  const fresh = await databases.create('20200101000000')
  const [adminUrl, appUrl] = [context.database.adminUrl, context.database.url].map((url) => withDatabaseName(url, fresh)) as [
    string,
    string,
  ]
  const backup = await openBackup(file)
  const db = new Db(appUrl)
  const store = new TelemetryLog({ ...context, db }, { compacts: false })
  try {
    expect(await loadBackup(backup, { adminUrl, appUrl }, { log: context.log, modules: new Map() })).toEqual([])
    await store.start()
    const expected = { count: pointsOfA + 7000, wrong: undefined }
    expect(await check({ ...context, db }, store)).toEqual(expected)
    await store.compact()
    expect(await check({ ...context, db }, store)).toEqual(expected)
    await write(store, pointsOfA + 7000, 10)
    expect((await check({ ...context, db }, store)).count).toBe(pointsOfA + 7010)
  } finally {
    await store.stop()
    await db.stop()
    await backup.close()
    await databases.drop(fresh)
    await databases.close()
  }
})
