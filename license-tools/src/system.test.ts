// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomBytes, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadKeys } from '@iot-pms/core/license'
import { startTestPlatform } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { createVendor } from './testing.ts'
import type { Outcome, Vendor } from './testing.ts'

let vendor: Vendor
let server: TestPlatform
let second: TestPlatform

const factorsOf = () => new Map(['install', 'machine-id', 'disk', 'mac'].map((kind) => [kind, randomUUID()]))

beforeAll(async () => {
  vendor = await createVendor()
  // The vendor's path [L-23]: public keys go into a folder of the product, nothing else does.
  const folder = vendor.path('license-keys')
  mkdirSync(folder)
  for (const purpose of ['license', 'staging', 'crl'] as const) {
    const kid = vendor.kids[purpose]
    await vendor.run('key', 'export-public', kid, '-o', `${folder}/${purpose}-${kid}.pem`)
  }
  const { keys } = loadKeys(folder)
  const secretKey = randomBytes(32).toString('base64url')
  const [own, other] = [factorsOf(), factorsOf()]
  server = await startTestPlatform({ secretKey }, { licenseKeys: keys, factors: async () => own })
  second = await startTestPlatform({ secretKey }, { licenseKeys: keys, factors: async () => other })
})
afterAll(async () => {
  await server.close()
  await second.close()
  vendor.close()
})

async function call(platform: TestPlatform, method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  const answer = await platform.call(method, `/api/v1/${path}`, {
    ...(body !== undefined && { body }),
    headers: { 'accept-language': 'en' },
  })
  const members: Record<string, unknown> = answer.text === '' ? {} : answer.json()
  return { status: answer.status, ...members }
}

async function requestFrom(platform: TestPlatform, name: string): Promise<string> {
  const request = await call(platform, 'POST', 'license/request', { mode: 'host', note: 'system test' })
  expect(request.status).toBe(200)
  const { status: _status, ...file } = request
  return vendor.write(name, file)
}

/** By the launcher, as the vendor does it, in a process without network. */
async function start(...args: string[]): Promise<Outcome> {
  const out = await vendor.start({}, ...args, '--passphrase-file', vendor.path('passphrase'), '--json')
  expect([out.code, out.stderr]).toEqual([0, expect.any(String)])
  return out
}

test('request, issue, upload, ACTIVE, renew, move, revoke, list, REVOKED [Done when]', async () => {
  const request = await requestFrom(server, 'a.req.json')
  const shown = await vendor.run('request', 'inspect', request, '--json')
  expect(shown.json).toMatchObject({
    ok: true,
    mode: 'host',
    strength: 'strong',
    shortCode: (JSON.parse(readFileSync(request, 'utf8')) as { shortCode: string }).shortCode,
  })
  const license = ['--customer', 'acme', '--name', 'ACME 演示', '--edition', 'standard', '--feature', 'vehicle', '--days', '365']
  const issued = await start('issue', '--request', request, ...license, '-o', vendor.path('a.lic'))
  expect(existsSync(vendor.path('a.lic'))).toBe(true)
  expect(await call(server, 'POST', 'license', { license: readFileSync(vendor.path('a.lic'), 'utf8') })).toMatchObject({
    status: 200,
    result: 'installed',
  })
  expect(await call(server, 'GET', 'license')).toMatchObject({
    state: 'ACTIVE',
    conditions: [],
    edition: 'standard',
    license: { jti: issued.json.jti, seq: 1, customer: 'ACME 演示', kid: vendor.kids.license },
    machine: { mode: 'host', bound: true, matched: 4, min: 3, total: 4, anchorsMatched: 3, anchors: 1 },
    limits: { devices: { limit: 1000, hard: 1100 } },
  })

  // The next one: the change list of the tool is the one the product shows.
  const renewed = await vendor.sign(
    'renew',
    String(issued.json.jti),
    '--days',
    '30',
    '--limit',
    'devices=2000',
    '--override',
    '--reason',
    'agreed',
    '-o',
    vendor.path('b.lic'),
    '--yes',
    '--json',
  )
  const text = readFileSync(vendor.path('b.lic'), 'utf8')
  const preview = await call(server, 'POST', 'license/preview', { license: text })
  const kinds = (list: unknown) =>
    (list as { change: string; limit?: string }[]).map(({ change, limit }) => `${change} ${limit ?? ''}`).sort()
  expect(kinds(preview.changes)).toEqual(kinds(renewed.json.changes))
  expect(await call(server, 'POST', 'license', { license: text })).toMatchObject({ result: 'installed', license: { state: 'ACTIVE' } })
  expect(await call(server, 'POST', 'license', { license: readFileSync(vendor.path('a.lic'), 'utf8') })).toMatchObject({
    status: 409,
    code: 'LIC_SUPERSEDED',
  })

  // To another machine: the first one lets go and signs for it.
  const receipt = await call(server, 'POST', 'license/release', { acknowledge: true })
  expect(receipt.status).toBe(200)
  const { status: _status, ...file } = receipt
  const target = await requestFrom(second, 'c.req.json')
  const moving = [
    'transfer',
    String(renewed.json.jti),
    '--request',
    target,
    '--override',
    '--long-term',
    '--reason',
    'as agreed',
    '-o',
    vendor.path('c.lic'),
    '--yes',
    '--json',
  ]
  const forged = await vendor.sign(...moving, '--receipt', vendor.write('forged.json', { ...file, at: '2020-01-01T00:00:00.000Z' }))
  expect([forged.code, forged.json.code]).toEqual([4, 'RECEIPT_SIGNATURE'])
  const moved = await vendor.sign(...moving, '--receipt', vendor.write('receipt.json', file))
  expect(moved.json).toMatchObject({ ok: true, seq: 3, replaced: renewed.json.jti })
  expect(await call(second, 'POST', 'license', { license: readFileSync(vendor.path('c.lic'), 'utf8') })).toMatchObject({
    result: 'installed',
    license: { state: 'ACTIVE', machine: { bound: true } },
  })

  // Taken back: nothing happens before the list is there, then at once.
  expect((await vendor.run('revoke', String(moved.json.jti), '--reason', 'refund')).code).toBe(0)
  await start('crl', 'build', '-o', vendor.path('one.crl'))
  expect(await call(second, 'GET', 'license')).toMatchObject({ state: 'ACTIVE' })
  expect(await call(second, 'POST', 'license/crl', { crl: readFileSync(vendor.path('one.crl'), 'utf8') })).toEqual({
    status: 200,
    result: 'installed',
    seq: 1,
  })
  expect(await call(second, 'GET', 'license')).toMatchObject({ state: 'REVOKED', crl: { seq: 1, outdated: false } })
  expect(await call(second, 'POST', 'license', { license: readFileSync(vendor.path('c.lic'), 'utf8') })).toMatchObject({
    status: 422,
    code: 'LIC_REVOKED',
  })
  expect((await vendor.run('ledger', 'verify')).code).toBe(0)
})

test('exported public keys are what a product loads from its folder [L-23]', () => {
  const { keys, problems } = loadKeys(vendor.path('license-keys'))
  expect(problems).toEqual([])
  expect(new Map([...keys].map(([kid, key]) => [key.purpose, kid]))).toEqual(new Map(Object.entries(vendor.kids)))
})

test('what the tool issues for another machine or environment is answered by the product as the tool says', async () => {
  const foreign = await requestFrom(second, 'd.req.json')
  await vendor.sign(
    'issue',
    '--request',
    foreign,
    '--customer',
    'other',
    '--name',
    'Other',
    '--edition',
    'enterprise',
    '--days',
    '30',
    '-o',
    vendor.path('d.lic'),
  )
  const answer = await call(server, 'POST', 'license', { license: readFileSync(vendor.path('d.lic'), 'utf8') })
  expect(answer).toMatchObject({ status: 409, code: 'LIC_NEEDS_ACK' })
  expect(answer.changes).toContainEqual(expect.objectContaining({ change: 'STATE_AFTER', state: 'MISMATCH', matched: 0 }))
  const own = await requestFrom(server, 'e.req.json')
  await vendor.sign(
    'issue',
    '--request',
    own,
    '--customer',
    'staging',
    '--name',
    'Staging',
    '--edition',
    'enterprise',
    '--days',
    '30',
    '--env',
    'staging',
    '-o',
    vendor.path('e.lic'),
  )
  expect(await call(server, 'POST', 'license', { license: readFileSync(vendor.path('e.lic'), 'utf8') })).toMatchObject({
    status: 422,
    code: 'LIC_ENV',
  })
})

test('what a stolen key signs is refused once the list allows only what the ledger knows', async () => {
  const own = await createVendor({ purposes: ['license', 'crl'] })
  const issue = (name: string) =>
    own.sign(
      'issue',
      '--machine',
      'any',
      '--reason',
      'an old contract',
      '--customer',
      name,
      '--name',
      name,
      '--edition',
      'enterprise',
      '--days',
      '30',
      '-o',
      own.path(`${name}.lic`),
      '--json',
    )
  const known = String((await issue('known')).json.jti)
  await own.run('key', 'revoke', own.kids.license, '--reason', 'key_compromise', '--yes')
  await own.sign('crl', 'build', '-o', own.path('stolen.crl'))
  const verdict = await own.run('verify', own.path('known.lic'), '--crl', own.path('stolen.crl'), '--json')
  expect(verdict.json).toMatchObject({ ok: true, jti: known, state: 'EXPIRING' })
  own.close()
})
