// SPDX-License-Identifier: AGPL-3.0-only
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { installLicense } from '../license/install.ts'
import { createLicense } from '../license/create.ts'
import { verifyRequest } from '../license/request.ts'
import { createTestVendor } from '../license/testing.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { rootDir } from '../version.ts'

const vendor = createTestVendor()
let context: TestContext
beforeAll(async () => {
  context = await createTestContext()
})
afterAll(() => context.close())

/** The real program on the database of this test; this build carries no vendor key. */
async function run(...args: string[]): Promise<{ code: number; output: string; errors: string }> {
  const { config, database } = context
  const env = {
    PATH: process.env['PATH'],
    IOT_PMS_DATA_DIR: config.dataDir,
    DATABASE_URL: database.url,
    IOT_PMS_MIGRATE_URL: database.adminUrl,
  }
  const program = [join(rootDir, 'core/src/main.ts'), 'license', ...args]
  return new Promise((resolve) =>
    execFile(process.execPath, program, { env }, (error, output, errors) => resolve({ code: Number(error?.code ?? 0), output, errors })),
  )
}

describe('iot-pms license', { timeout: 300_000 }, () => {
  it('shows that there is none, and removing it says so with its code', async () => {
    const { code, output } = await run('show')
    expect(code).toBe(0)
    expect(output).toMatch(
      /^State {9}COMMUNITY\nEdition {7}community\nFeatures {6}none\nDevices {7}0, no limit\nInstallation {2}[0-9a-f]{8}…, key /,
    )
    const removed = await run('remove', '--acknowledge')
    expect([removed.code, removed.errors]).toEqual([1, expect.stringContaining('"code":"LIC_NOT_INSTALLED"')])
  })

  it('writes a request file that the vendor can check, without a server', async () => {
    const file = join(context.config.dataDir, 'a.req.json')
    const { code, output } = await run('request', '-o', file, '--note', 'hello', '--mode', 'host')
    expect(code).toBe(0)
    const request = verifyRequest(readFileSync(file, 'utf8'))
    expect(request).toMatchObject({ note: 'hello', mode: 'host' })
    expect(output).toContain(`short code ${request!.shortCode}`)
  })

  it('says plainly that this build has no vendor key, and quotes nothing of the token', async () => {
    const token = vendor.license()
    const file = join(context.config.dataDir, 'a.lic')
    writeFileSync(file, token)
    const { code, errors } = await run('install', file)
    expect([code, errors]).toEqual([1, expect.stringContaining('LIC_KID_UNKNOWN')])
    expect(errors).toContain('carries no license key')
    expect(errors).not.toContain(token.slice(0, 40))
  })

  it('shows one that a server installed, and what is lost by removing it', async () => {
    const service = createLicense(context, { licenseKeys: vendor.keys })
    await service.open()
    const text = vendor.license({ cust: { name: 'ACME' } })
    await installLicense(service, { text, actor: { id: 'x', name: 'x' }, source: 'upload', acknowledge: false })
    service.stop()
    // Without the vendor's key the stored token does not verify: nothing is granted, and nothing stops.
    expect(JSON.parse((await run('show', '--json')).output)).toMatchObject({ state: 'INVALID', edition: 'community', license: null })
    const refused = await run('remove')
    expect([refused.code, refused.errors]).toEqual([1, expect.stringContaining('LIC_NEEDS_ACK')])
    expect((await run('release', '--acknowledge')).code).toBe(0)
    expect((await run('show')).output).toContain('COMMUNITY')
  })

  it('ends with 64 and how it is used when something is missing or unknown', async () => {
    for (const args of [['install'], ['install', '/nowhere/x.lic'], ['show', '--yaml'], ['request', '--mode', 'moon']]) {
      const { code, errors } = await run(...args)
      expect(code, args.join(' ')).toBe(64)
      expect(JSON.parse(errors.trim().split('\n').at(-1)!)).toMatchObject({ hint: expect.stringContaining('iot-pms license show') })
    }
  })
})
