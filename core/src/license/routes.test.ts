// SPDX-License-Identifier: AGPL-3.0-only
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectPatiently } from '../ingest/mqtt/testing.ts'
import { createLog } from '../log.ts'
import { startPlatform } from '../start.ts'
import type { Platform } from '../start.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { createTestVendor } from './testing.ts'
import { verifyRequest } from './request.ts'

const vendor = createTestVendor()
const secretKey = Buffer.from(Array.from({ length: 32 }, (_, n) => n * 7)).toString('base64url')
const day = 86_400
const now = Math.floor(Date.now() / 1000)

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform({ secretKey }, { licenseKeys: vendor.keys, moduleFolders: [] })
})
afterAll(() => platform.close())

const call = (method: string, path: string, body?: unknown, options: { headers?: Record<string, string>; token?: string | null } = {}) =>
  platform.call(method, `/api/v1/${path}`, { ...(body === undefined ? {} : { body }), ...options })
const install = (license: string, acknowledge = true) => call('POST', 'license', { license, acknowledge })
const remove = () => call('DELETE', 'license?acknowledge=true')

describe('the routes of the license', () => {
  it('tell anybody what this build is, and nothing more [§13]', async () => {
    const answer = await call('GET', 'editions', undefined, { token: null })
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([200, 'public, max-age=60'])
    expect(answer.json()).toEqual({ edition: 'community', features: [], modules: [], version: expect.any(String) })
  })

  it('take a license as JSON or as text, show it, and remove it', async () => {
    const token = vendor.license({
      features: ['vehicle', 'robotics'],
      cust: { name: 'ACME 演示' },
      limits: { devices: 1000, overage_pct: 10 },
    })
    const preview = await call('POST', 'license/preview', { license: token })
    expect(preview.json()).toMatchObject({
      result: 'installable',
      needsAcknowledge: false,
      next: { customer: 'ACME 演示' },
      warnings: [{ code: 'UNKNOWN_FEATURE' }],
    })
    const installed = await call('POST', 'license', token, { headers: { 'content-type': 'text/plain' } })
    expect(installed.json()).toMatchObject({
      result: 'installed',
      license: { state: 'ACTIVE', edition: 'enterprise', machine: { mode: 'any', bound: true } },
    })
    expect((await call('GET', 'license')).json()).toMatchObject({
      license: { customer: 'ACME 演示', source: 'upload', installedBy: expect.any(String), restrictedAt: null },
      limits: { devices: { limit: 1000, hard: 1100, used: 0, overDays: 0, overDaysAllowed: 30 } },
      crl: { seq: 0, outdated: false },
      clock: { suspect: false },
    })
    expect((await call('GET', 'editions')).json()).toMatchObject({ edition: 'enterprise', features: ['robotics', 'vehicle'] })
    const history = (await call('GET', 'license/history?limit=1')).json<{ items: object[]; nextCursor: string | null }>()
    expect(history.items).toMatchObject([{ action: 'license.state', outcome: 'ok', detail: { from: 'COMMUNITY', to: 'ACTIVE' } }])
    const next = (await call('GET', `license/history?limit=5&cursor=${history.nextCursor}`)).json<{ items: object[] }>()
    expect(next.items[0]).toMatchObject({ action: 'license.install', actor: expect.stringMatching(/^[0-9a-f-]{36}$/) })
    expect((await call('DELETE', 'license')).json()).toMatchObject({ code: 'LIC_NEEDS_ACK', changes: expect.any(Array) })
    expect((await remove()).status).toBe(204)
    expect((await remove()).json()).toMatchObject({ status: 404, code: 'LIC_NOT_INSTALLED' })
  })

  it('answer bad input with the code of the table and leave what is there [L-111]', async () => {
    const before = (await call('GET', 'license')).json()
    const plain = { headers: { 'content-type': 'text/plain' } }
    const answers = [
      [await call('POST', 'license', { license: '' }), 422, 'LIC_MALFORMED'],
      [await call('POST', 'license', {}), 400, 'VALIDATION_FAILED'],
      [await call('POST', 'license', { license: 7 }), 400, 'VALIDATION_FAILED'],
      [await call('POST', 'license', { license: 'x', acknowledge: 'true' }), 400, 'VALIDATION_FAILED'],
      [await call('POST', 'license', '"text"'), 400, 'VALIDATION_FAILED'],
      [await call('POST', 'license', '{"license":'), 400, 'VALIDATION_FAILED'],
      [await call('POST', 'license', 'x'.repeat(20_000), plain), 413, 'LIC_SIZE'],
      [await call('POST', 'license', 'x'.repeat(65_537), plain), 413, 'LIC_SIZE'],
      [await call('POST', 'license', vendor.license({ machine: undefined }), plain), 422, 'LIC_CLAIM_MISSING'],
      [await call('POST', 'license/crl', { crl: 'x' }), 422, 'CRL_MALFORMED'],
      [await call('POST', 'license/crl', 'x'.repeat(2_097_153), plain), 413, 'CRL_SIZE'],
    ] as const
    for (const [answer, status, code] of answers) expect([answer.status, answer.json()['code']]).toEqual([status, code])
    expect(answers[8][0].json()['claim']).toBe('machine')
    expect((await call('GET', 'license')).json()).toMatchObject({ state: before['state'], license: before['license'] })
    const english = await call('POST', 'license', { license: '' }, { headers: { 'accept-language': 'en' } })
    expect(english.json()['title']).toBe('Not a well-formed license; use the complete .lic file')
  })

  it('belong to administrators who have just shown who they are', async () => {
    const operator = await platform.login('operator')
    for (const [method, path] of [
      ['GET', 'license'],
      ['GET', 'license/history'],
      ['POST', 'license/preview'],
      ['DELETE', 'license'],
      ['POST', 'license/request'],
    ] as const) {
      expect((await call(method, path, method === 'POST' ? {} : undefined, { token: operator })).json()).toMatchObject({
        code: 'PERMISSION_DENIED',
      })
    }
    // An API key cannot enter a password again.
    const key = (await call('POST', 'api-keys', { name: 'k', scopes: ['license.write'], expiresInDays: 1 })).json<{ key: string }>().key
    const answer = await call(
      'POST',
      'license',
      { license: vendor.license() },
      { token: null, headers: { authorization: `ApiKey ${key}` } },
    )
    expect(answer.json()).toMatchObject({ status: 403, code: 'REAUTH_REQUIRED' })
  })

  it('give a signed request file, ten a minute [L-40, L-43]', async () => {
    const answer = await call('POST', 'license/request', { note: 'hello', mode: 'host' })
    expect(answer.headers.get('content-disposition')).toMatch(/^attachment; filename="iot-pms-[0-9a-f]{8}-\d{8}\.req\.json"$/)
    expect(verifyRequest(answer.text)).toMatchObject({ note: 'hello', mode: 'host', product: 'iot-pms' })
    const codes = []
    for (let n = 0; n < 10; n++) codes.push((await call('POST', 'license/request', {})).status)
    expect(codes.filter((status) => status === 429)).toHaveLength(1)
  })

  it('take a revocation list and tell of it', async () => {
    const token = vendor.license()
    const jti = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()).jti as string
    await install(token)
    const crl = vendor.crl({ seq: 3, revoked: [{ jti, at: now, reason: 'refund' }] })
    expect((await call('POST', 'license/crl', { crl })).json()).toEqual({ result: 'installed', seq: 3 })
    expect((await call('GET', 'license/crl')).json()).toMatchObject({ seq: 3, revoked: 1, outdated: false })
    expect((await call('GET', 'license')).json()).toMatchObject({ state: 'REVOKED' })
    await call('POST', 'license/crl', { crl: vendor.crl({ seq: 4 }) })
    expect((await call('POST', 'license/release', { acknowledge: true })).json()).toMatchObject({ type: 'iot-pms-release', jti })
  })

  it('are in the metrics [L-104]', async () => {
    await install(vendor.license({ limits: { devices: 77 } }))
    const key = (await call('POST', 'api-keys', { name: 'm', scopes: ['metrics.read'], expiresInDays: 1 })).json<{ key: string }>().key
    const { text } = await platform.call('GET', '/metrics', { token: null, headers: { authorization: `ApiKey ${key}` } })
    expect(text).toContain('iot_pms_license_state{state="ACTIVE"} 1')
    expect(text).toContain('iot_pms_license_limit{name="devices"} 77')
    expect(text).toMatch(/iot_pms_license_refused_total\{code="LIC_MALFORMED"\} \d/)
  })
})

/** Until nothing that was installed is left to take over. */
async function removeAll(): Promise<void> {
  while ((await remove()).status === 204);
}

describe('the limit of devices', () => {
  const create = (name: string) => call('POST', 'devices', { name })

  it('lets exactly those in who fit, however many come at once [L-65]', async () => {
    await removeAll()
    const held = await platform.context.db.withTenant(platform.context.rootTenant, async (tx) => {
      const { sql } = await import('drizzle-orm')
      await tx.execute(sql`insert into devices (tenant_id, id, product_id, name)
        select p.tenant_id, gen_random_uuid(), p.id, 'bulk ' || n from products p, generate_series(1, 1095) n where p.is_default`)
      const [row] = await tx.execute<{ n: string }>(sql`select license_device_count() as n`)
      return Number(row!.n)
    })
    expect(held).toBe(1095)
    const answer = await install(vendor.license({ limits: { devices: 1000, overage_pct: 10 } }), false)
    // Fewer than there are already: known and accepted [L-67].
    expect(answer.json()).toMatchObject({
      code: 'LIC_NEEDS_ACK',
      changes: expect.arrayContaining([expect.objectContaining({ change: 'LIMIT_LOWERED', to: 1000, used: 1095 })]),
    })
    await install(vendor.license({ limits: { devices: 1000, overage_pct: 10 } }))
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => create(`rush ${n}`)))
    const statuses = answers.map(({ status }) => status)
    expect([statuses.filter((status) => status === 201).length, statuses.filter((status) => status === 402).length]).toEqual([5, 45])
    const refused = answers.find(({ status }) => status === 402)!
    expect(refused.json()).toMatchObject({ code: 'LIMIT_DEVICES', limit: 1000, hard: 1100, used: 1100, source: 'license' })
    const view = await call('GET', 'license')
    expect(view.json()).toMatchObject({ state: 'ACTIVE', limits: { devices: { used: 1100, overDays: 1 } } })
  })

  it('counts what comes back from the bin, and nothing that is in it [L-64, L-66]', async () => {
    const [device] = (await call('GET', 'devices?q=rush&limit=1')).json<{ items: { id: string }[] }>().items
    expect((await call('DELETE', `devices/${device!.id}`)).status).toBe(204)
    expect((await create('takes its place')).status).toBe(201)
    expect((await call('POST', 'bin/restore', { ids: [device!.id] })).json()).toMatchObject({ status: 402, code: 'LIMIT_DEVICES' })
    // What exists is never refused: renaming, credentials, deleting.
    const other = (await call('GET', 'devices?q=takes its place')).json<{ items: { id: string }[] }>().items[0]!
    expect((await call('PATCH', `devices/${other.id}`, { label: 'x' })).status).toBe(200)
    expect((await call('POST', `devices/${other.id}/credentials/rotate`, {})).status).toBe(200)
  })

  it('lets as many children of a gateway in as fit, and their messages; the others are refused by themselves [E-3, G-8]', async () => {
    await removeAll()
    const gateway = await platform.createDevice({ gateway: true })
    const { used } = (await call('GET', 'license')).json<{ limits: { devices: { used: number } } }>().limits.devices
    await install(vendor.license({ limits: { devices: used + 2 } }))
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: gateway.token, protocolVersion: 5 })
    const children = Object.fromEntries(Array.from({ length: 5 }, (_, n) => [`child ${n}`, [{ n }]]))
    await client.publishAsync('v1/gateway/telemetry', JSON.stringify(children), { qos: 1 })
    const found = (await call('GET', `devices?gatewayId=${gateway.id}`)).json<{ items: unknown[] }>().items
    expect(found.length).toBe(2)
    const refused = async () =>
      (await call('GET', `devices/${gateway.id}/rejects`)).json<{ items: { code: string; count: number }[] }>().items
    for (let waited = 0; waited < 20_000 && (await refused()).length < 3; waited += 100) await sleep(100)
    expect((await refused()).map(({ code }) => code)).toEqual(Array(3).fill('DEVICE_LIMIT'))
    await client.endAsync()
  })

  it('ends with the license: COMMUNITY has none [L-61]', async () => {
    await removeAll()
    expect((await create('free again')).status).toBe(201)
  })
})

describe('a license that has run out, is revoked or is for another machine', () => {
  const salt = Buffer.alloc(16, 3).toString('base64url')
  const foreign = { mode: 'host', salt, min: 1, anchors: 0, factors: [{ k: 'install', h: salt }] }
  const old = { iat: now - 400 * day, nbf: now - 400 * day }
  it.each([
    ['RESTRICTED', { ...old, exp: now - 100 * day }],
    ['MISMATCH', { machine: foreign }],
    ['GRACE', { ...old, exp: now - day }],
    ['TRIAL', { kind: 'trial', edition: 'trial', exp: now + 60 * day }],
  ])('%s stops nothing of the core [L-1, L-2]', async (state, change) => {
    await install(vendor.license({ ...change, limits: { devices: -1 } }))
    expect((await call('GET', 'license')).json()).toMatchObject({ state })
    const device = await platform.createDevice()
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token })
    await client.publishAsync('v1/devices/me/telemetry', '{"a":1}', { qos: 1 })
    await client.endAsync()
    const byHttp = await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: { b: 2 }, token: null })
    expect(byHttp.status).toBe(200)
    const written = await call('PATCH', `devices/${device.id}`, { label: state })
    const gone = await call('DELETE', `devices/${device.id}`)
    const login = await call('POST', 'auth/login', { email: 'admin@example.com', password: 'correct-horse-9-battery' }, { token: null })
    expect([written.status, gone.status, login.status]).toEqual([200, 204, 200])
    await removeAll()
  })
})

describe('a second server on the same database', () => {
  it('takes over what the first one is given, and the other way round, without a restart [L-101]', async () => {
    const dataDir = mkdtempSync(join('/tmp', 'iot-pms-data-'))
    const { config } = platform.context
    const second: Platform = await startPlatform({ ...config, dataDir }, createLog('error'), { licenseKeys: vendor.keys })
    const until = async (matches: () => boolean) => {
      for (let waited = 0; waited < 20_000 && !matches(); waited += 20) await sleep(20)
      expect(matches()).toBe(true)
    }
    await install(vendor.license({ features: ['sso'] }))
    await until(() => second.license.status('sso') === 'active')
    // A removal on the second one is seen by the first.
    const { removeLicense } = await import('./install.ts')
    await removeLicense(second.license, { id: 'test', name: 'test' }, true)
    await until(() => platform.license.status('sso') === 'locked')
    await second.stop()
    rmSync(dataDir, { recursive: true })
  })
})
