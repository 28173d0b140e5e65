// SPDX-License-Identifier: AGPL-3.0-only
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoreStats } from '../telemetry/store.ts'
import { startReadingServer } from '../telemetry/testing.ts'
import type { ReadingServer } from '../telemetry/testing.ts'
import { rootDir } from '../version.ts'
import { formatStats } from './telemetry.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
  const device = await server.createDevice()
  const points = Array.from({ length: 500 }, (_, n) => ({
    key: 'a',
    ts: 1_700_000_000_000 + n * 1000,
    kind: 'double' as const,
    value: n / 2,
  }))
  await server.write(device, points)
  await server.store.compact()
})
afterAll(() => server.close())

/** The real program, on the database of this test. */
async function run(...args: string[]): Promise<{ code: number; output: string; errors: string }> {
  const { config, database } = server.context
  const env = {
    PATH: process.env['PATH'],
    IOT_PMS_DATA_DIR: config.dataDir,
    DATABASE_URL: database.url,
    IOT_PMS_MIGRATE_URL: database.adminUrl,
  }
  const program = [join(rootDir, 'core/src/main.ts'), 'telemetry', 'stats', ...args]
  return new Promise((resolve) =>
    execFile(process.execPath, program, { env }, (error, output, errors) => resolve({ code: Number(error?.code ?? 0), output, errors })),
  )
}

describe('iot-pms telemetry stats', { timeout: 30_000 }, () => {
  it('prints what the store holds, a line each', async () => {
    const { code, output } = await run()
    expect(code).toBe(0)
    expect(output).toMatch(/^Points in chunks {2}500 in \d chunks\nBytes per point {3}\d+\.\d\d, indexes included\nSegments /)
    expect(output).toContain('Damaged chunks    none\n')
  })

  it('prints one JSON object for programs', async () => {
    const { output } = await run('--json')
    const stats = JSON.parse(output) as StoreStats
    expect(stats).toMatchObject({ points: 500, damaged: 0, segments: { sealed: 0, waitingRows: 0, oldestSealedAt: null } })
    expect(stats.bytesPerPoint).toBeCloseTo((stats.bytes.chunks + stats.bytes.indexes) / 500)
  })

  it('ends with 64 and how it is used when an option is unknown', async () => {
    const { code, errors } = await run('--yaml')
    expect(code).toBe(64)
    expect(JSON.parse(errors.trim().split('\n').at(-1)!)).toMatchObject({ code: 'USAGE', hint: 'iot-pms telemetry stats [--json]' })
  })

  it('says in words what waits, what is damaged and what is left of the first store', () => {
    const text = formatStats({
      segments: { active: 1, sealed: 2, waitingRows: 12_345, oldestSealedAt: '2026-01-01T00:00:00.000Z' },
      chunks: 0,
      points: 0,
      bytes: { segments: 5 * 2 ** 30, chunks: 0, indexes: 8192 },
      bytesPerPoint: null,
      damaged: 3,
      firstStoreBytes: 1536,
    })
    expect(text).toBe(
      [
        'Points in chunks  0 in 0 chunks',
        'Bytes per point   –',
        'Segments          1 active, 2 sealed with 12,345 rows to merge, the oldest since 2026-01-01T00:00:00.000Z',
        'On disk           chunks 0 B, their indexes 8.0 KiB, segments 5.0 GiB',
        'Damaged chunks    3 put aside in telemetry_damaged_chunks',
        'Table of 0.1      1.5 KiB not yet moved',
        '',
      ].join('\n'),
    )
  })
})
