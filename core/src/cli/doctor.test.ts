// SPDX-License-Identifier: AGPL-3.0-only
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Finding } from '../doctor/finding.ts'
import { createTestDatabase } from '../testing.ts'
import type { TestDatabase } from '../testing.ts'
import { rootDir } from '../version.ts'

let database: TestDatabase
let owner: postgres.Sql
const dataDir = mkdtempSync(join(tmpdir(), 'iot-pms-doctor-'))
const key = 'c2VjcmV0LW9mLXRoZS1kb2N0b3ItMTIzNDU2Nzg5MDE'

beforeAll(async () => {
  database = await createTestDatabase()
  owner = postgres(database.adminUrl, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await owner.end()
  await database.drop()
  rmSync(dataDir, { recursive: true })
})

/** The real program. */
async function run(args: string[] = ['--json'], settings: Record<string, string> = {}) {
  const env = {
    PATH: process.env['PATH'],
    IOT_PMS_DATA_DIR: dataDir,
    IOT_PMS_SECRET_KEY: key,
    IOT_PMS_HTTP_PORT: 'off',
    IOT_PMS_MQTT_PORT: 'off',
    IOT_PMS_MQTTS_PORT: 'off',
    DATABASE_URL: database.url,
    IOT_PMS_MIGRATE_URL: database.adminUrl,
    ...settings,
  }
  const program = [join(rootDir, 'core/src/main.ts'), 'doctor', ...args]
  return new Promise<{ code: number; output: string; finding(name: string): Partial<Finding> }>((resolve) =>
    execFile(process.execPath, program, { env }, (error, output) => {
      const finding = (name: string) => (JSON.parse(output) as { findings: Finding[] }).findings.find((one) => one.name === name) ?? {}
      resolve({ code: Number(error?.code ?? 0), output, finding })
    }),
  )
}

describe('iot-pms doctor', { timeout: 120_000 }, () => {
  it('says what is well and what could be better, a line each, and ends with 1', async () => {
    const { code, output } = await run([])
    expect(code, output).toBe(1)
    expect(output).toMatch(/^OK {3}settings: are understood\.$/m)
    expect(output).toMatch(/^OK {3}database: PostgreSQL \d+.*\.$/m)
    expect(output).toMatch(/^OK {3}durability: fsync and full_page_writes are on\.$/m)
    expect(output).toMatch(/^OK {3}tenants: every table keeps them apart\.$/m)
    expect(output).toMatch(/^(OK|WARN) +commit: a durable commit takes \d+\.\d ms\./m)
    expect(output).toMatch(/^WARN backup: none in .*\. Make one with: iot-pms backup/m)
    expect(output).not.toContain('FAIL')
    expect(output).not.toContain(key)
  })

  it('finds what must be mended, and ends with 2', async () => {
    await owner`drop policy tenant on products`
    await owner`insert into schema_version (version, name, checksum) values (9999, '9999_future.sql', 'x')`
    await owner`update installation set secret_key_id = 'deadbeef'`
    const said = await run(['--json'], { IOT_PMS_TEST_HOOKS: 'ack-early' })
    const finding = (name: string) => said.finding(name)
    expect(said.code).toBe(2)
    expect(finding('tenants')).toMatchObject({ status: 'FAIL', finding: 'not kept apart in products' })
    expect(finding('schema')).toMatchObject({ status: 'FAIL', finding: '9999_future.sql is of a newer version' })
    expect(finding('sealed values')).toMatchObject({ status: 'FAIL' })
    expect(finding('test hooks')).toMatchObject({ status: 'FAIL', finding: 'ack-early' })
    expect(finding('clock')).toMatchObject({ status: 'OK' })
  })

  it('knows a login that is too strong, a port in use and an old backup', async () => {
    const folder = join(dataDir, 'backups')
    mkdirSync(folder)
    writeFileSync(join(folder, 'old.tar'), '')
    const longAgo = new Date(Date.now() - 40 * 86_400_000)
    utimesSync(join(folder, 'old.tar'), longAgo, longAgo)
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const settings = { DATABASE_URL: database.adminUrl, IOT_PMS_HTTP_PORT: String(port), IOT_PMS_HTTP_HOST: '127.0.0.1' }
    const said = await run(['--json'], settings)
    server.close()
    const finding = (name: string) => said.finding(name)
    expect(said.code).toBe(2)
    expect(finding('login')).toMatchObject({ status: 'FAIL' })
    expect(finding(`port ${port}`)).toMatchObject({ status: 'FAIL', finding: 'is used by another program' })
    expect(finding('backup')).toMatchObject({ status: 'WARN', finding: 'the newest of 1 is 40 days old' })
  })

  it('says that settings are wrong, a database is away, or that there is none yet', async () => {
    expect(await run(['--json'], { IOT_PMS_HTTP_PORT: 'x', IOT_PMS_NO_SUCH: '1' })).toMatchObject({ code: 2 })
    const away = await run(['--json'], {
      DATABASE_URL: 'postgres://nobody:x@127.0.0.1:1/none',
      IOT_PMS_MIGRATE_URL: '',
      IOT_PMS_DATABASE_WAIT_S: '1',
    })
    expect(away.finding('database')).toMatchObject({ status: 'FAIL' })
    const fresh = mkdtempSync(join(tmpdir(), 'iot-pms-fresh-'))
    const first = await run(['--json'], { DATABASE_URL: '', IOT_PMS_MIGRATE_URL: '', IOT_PMS_DATA_DIR: fresh })
    expect(first.finding('database')).toMatchObject({ status: 'OK', finding: 'is made at the first start' })
    rmSync(fresh, { recursive: true })
  })
})
