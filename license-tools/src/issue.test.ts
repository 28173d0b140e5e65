// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createPublicKey } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { decodeUnverified, matchMachine, verifyLicense } from '@iot-pms/core/license'
import type { LicenseRequest } from '@iot-pms/core/license'
import { buildClaims, checkPolicy, issueToken, signToken } from './issue.ts'
import type { IssueOptions, PolicyContext, Waiver } from './issue.ts'
import { openKey } from './keystore.ts'
import type { SigningKey } from './keystore.ts'
import type { Ledger } from './ledger.ts'
import { createInstance, createVendor, passphrase } from './testing.ts'
import type { Vendor } from './testing.ts'

let vendor: Vendor
let testVendor: Vendor
let ledger: Ledger
let key: SigningKey
const now = new Date()
const instance = createInstance()
const request = instance.request()

beforeAll(async () => {
  vendor = await createVendor()
  testVendor = await createVendor({ test: true, purposes: ['license'] })
  ledger = vendor.open()
  key = openKey(ledger.getKey(vendor.kids.license), passphrase)
  await ledger.lock()
})
afterAll(() => {
  ledger.close()
  vendor.close()
  testVendor.close()
})

const standard: IssueOptions = {
  customer: 'acme',
  name: 'ACME 演示',
  edition: 'standard',
  features: ['vehicle'],
  days: 365,
  env: 'production',
  waivers: new Set<Waiver>(),
}
const enterprise: IssueOptions = { ...standard, edition: 'enterprise', features: undefined }
const waive = (...given: Waiver[]) => ({ waivers: new Set(given), reason: 'agreed by the board' })

/** Codes that policy has against these options. */
function judge(options: IssueOptions, asked: LicenseRequest | undefined = request, change: Partial<PolicyContext> = {}): string[] {
  const context: PolicyContext = { ledger, request: asked, now, key: { kid: key.kid, purpose: 'license', status: 'active' }, ...change }
  return checkPolicy(buildClaims(options, asked, context.ledger, now), options, context).map((one) => one.code)
}

test('what is in order has nothing against it', () => {
  expect(judge(standard)).toEqual([])
  expect(judge(enterprise)).toEqual([])
  expect(judge({ ...standard, edition: 'trial', features: undefined, days: undefined })).toEqual([])
})

test.each<[string, IssueOptions]>([
  ['more than 400 days', { ...standard, days: 401 }],
  ['a long term without its reason', { ...standard, days: 401, waivers: new Set<Waiver>(['long-term']) }],
  ['a trial above 90 days, whatever the reason', { ...standard, edition: 'trial', features: undefined, days: 91, ...waive('long-term') }],
  ['more than the product takes', { ...standard, days: 3661, ...waive('long-term') }],
  ['an end in the past', { ...standard, days: undefined, until: new Date(now.getTime() - 1000) }],
  [
    'an end before its beginning',
    { ...standard, days: undefined, from: new Date(now.getTime() + 10 * 86_400_000), until: new Date(now.getTime() + 86_400_000) },
  ],
])('POLICY_TERM: %s', (_, options) => {
  expect(judge(options)).toContain('POLICY_TERM')
})

test('400 days pass, and a longer term with its reason', () => {
  expect(judge({ ...standard, days: 400 })).toEqual([])
  expect(judge({ ...standard, days: 3000, ...waive('long-term') })).toEqual([])
})

test.each<[string, IssueOptions]>([
  ['a feature that is none', { ...enterprise, features: ['robotics'] }],
  ['a name that every object has', { ...enterprise, features: ['constructor'] }],
  ['a feature outside the edition', { ...standard, features: ['sso'] }],
  ['no vertical for standard', { ...standard, features: undefined }],
  ['two verticals for standard', { ...standard, features: ['vehicle', 'retail'] }],
])('POLICY_FEATURE: %s', (_, options) => {
  expect(judge(options)).toContain('POLICY_FEATURE')
})

test.each<[string, IssueOptions]>([
  ['a limit that is none', { ...enterprise, limits: { drones: 5 } }],
  ['below unlimited', { ...enterprise, limits: { devices: -2 } }],
  ['above a billion', { ...enterprise, limits: { devices: 1_000_000_001 } }],
  ['an overage above 100', { ...enterprise, limits: { overage_pct: 101 } }],
  ['standard above 1000 devices', { ...standard, limits: { devices: 1001 } }],
  ['standard without a limit', { ...standard, limits: { devices: -1 } }],
])('POLICY_LIMIT: %s', (_, options) => {
  expect(judge(options)).toContain('POLICY_LIMIT')
})

test('standard above 1000 devices passes with an override and its reason', () => {
  expect(judge({ ...standard, limits: { devices: 5000 }, ...waive('override') })).toEqual([])
})

test('POLICY_ANY_MACHINE: any machine needs a reason of ten characters', () => {
  const options = { ...standard }
  const judgeAny = (reason?: string) =>
    checkPolicy(
      buildClaims({ ...options, reason }, undefined, ledger, now),
      { ...options, reason },
      { ledger, request: undefined, now, key: undefined },
    ).map((one) => one.code)
  expect(judgeAny()).toEqual(['POLICY_ANY_MACHINE'])
  expect(judgeAny('because')).toEqual(['POLICY_ANY_MACHINE'])
  expect(judgeAny('air-gapped lab, agreed')).toEqual([])
})

test.each<[string, string[], 'host' | 'instance' | 'cluster']>([
  ['one factor', ['install'], 'host'],
  ['no anchor on a host', ['dmi', 'mac'], 'host'],
  ['the weakest binding', ['install', 'url'], 'instance'],
  ['factors that bind nothing', ['install', 'mac'], 'instance'],
])('POLICY_BINDING: %s', (_, kinds, mode) => {
  expect(judge(standard, createInstance(mode, kinds).request())).toContain('POLICY_BINDING')
})

test('POLICY_BINDING: more factors asked for than there are', () => {
  expect(judge({ ...standard, min: 5 })).toContain('POLICY_BINDING')
  expect(judge({ ...standard, anchors: 4 })).toContain('POLICY_BINDING')
})

test('a weak binding passes when it is accepted with a reason', () => {
  expect(judge({ ...standard, ...waive('accept-weak') }, createInstance('instance', ['install', 'url']).request())).toEqual([])
})

test('the strength is counted, not read from the request', () => {
  expect(judge(standard, createInstance('instance', ['install', 'url']).request({ strength: 'strong' }))).toContain('POLICY_BINDING')
})

test.each([31 * 86_400_000, -25 * 3_600_000])('POLICY_REQUEST_AGE: a request made %i ms ago', (ageMs) => {
  const createdAt = new Date(now.getTime() - ageMs).toISOString()
  expect(judge(standard, instance.request({ createdAt }))).toContain('POLICY_REQUEST_AGE')
})

test('POLICY_KEY: the purpose does not fit, or the key is out of use', () => {
  const judgeKey = (options: IssueOptions, purpose: 'license' | 'staging' | 'crl', status: 'active' | 'retired' | 'revoked') =>
    judge(options, request, { key: { kid: 'k', purpose, status } })
  expect(judgeKey(standard, 'staging', 'active')).toEqual(['POLICY_KEY'])
  expect(judgeKey(standard, 'crl', 'active')).toEqual(['POLICY_KEY'])
  expect(judgeKey({ ...standard, env: 'staging' }, 'license', 'active')).toEqual(['POLICY_KEY'])
  expect(judgeKey({ ...standard, env: 'staging' }, 'staging', 'active')).toEqual([])
  expect(judgeKey(standard, 'license', 'retired')).toEqual(['POLICY_KEY'])
  expect(judgeKey(standard, 'license', 'revoked')).toEqual(['POLICY_KEY'])
})

test('POLICY_ENV: a test ledger issues nothing for production [T-7]', () => {
  const judgeTest = (options: IssueOptions) => judge(options, request, { ledger: testVendor.open(), key: undefined })
  expect(judgeTest(standard)).toEqual(['POLICY_ENV'])
  expect(judgeTest({ ...standard, kind: 'nfr' })).toEqual(['POLICY_ENV'])
  expect(judgeTest({ ...standard, kind: 'dev' })).toEqual([])
  expect(judgeTest({ ...standard, env: 'staging' })).toEqual([])
})

test('all violations are told, not only the first', () => {
  expect(
    judge(
      { ...standard, days: 500, features: ['robotics'], limits: { devices: 2000 } },
      instance.request({ createdAt: '2020-01-01T00:00:00Z' }),
    ).sort(),
  ).toEqual(['POLICY_FEATURE', 'POLICY_LIMIT', 'POLICY_REQUEST_AGE', 'POLICY_TERM'])
})

test('a token has the claims of the edition, the request and the ledger', async () => {
  const asked = instance.request()
  const claims = buildClaims({ ...standard, customer: 'claims', grace: 15 }, asked, ledger, now)
  const iat = Math.floor(now.getTime() / 1000)
  expect(claims).toMatchObject({
    ver: 1,
    iss: 'iot-pms-license',
    aud: 'iot-pms',
    sub: 'claims',
    seq: 1,
    iat,
    nbf: iat,
    exp: iat + 365 * 86_400,
    kind: 'production',
    features: ['vehicle'],
    limits: { devices: 1000, overage_pct: 10, tenants: 1, replicas: 1 },
    machine: { mode: 'host', salt: asked.salt, min: 3, anchors: 1, factors: asked.factors },
    grace_days: 15,
    cust: { name: 'ACME 演示' },
  })
  expect(claims.prev).toBeUndefined()
  const token = await issueToken({ ledger, claims, key, request: asked, actor: 'ops', now })
  const { header } = decodeUnverified(token)!
  expect(Object.keys(header)).toEqual(['alg', 'typ', 'kid'])
  const keys = new Map([[key.kid, { kid: key.kid, purpose: 'license' as const, key: key.publicKey }]])
  const verified = await verifyLicense(token, { keys, env: 'production' })
  expect(verified).toMatchObject({ ok: true, kid: key.kid, warnings: [], claims })
  const next = buildClaims({ ...standard, customer: 'claims' }, instance.request(), ledger, now)
  expect(next).toMatchObject({ seq: 2, prev: claims.jti })
})

test.each<['host' | 'instance' | 'cluster', string[], number, number]>([
  ['host', ['install', 'machine-id', 'disk', 'dmi', 'mac'], 3, 1],
  ['host', ['install', 'machine-id', 'disk', 'mac'], 3, 1],
  ['host', ['install', 'machine-id', 'mac'], 2, 1],
  ['host', ['install', 'machine-id'], 2, 1],
  ['instance', ['install', 'machine-id', 'disk', 'url'], 2, 0],
  ['cluster', ['k8s-cluster', 'install', 'url'], 2, 0],
])('mode %s with %j binds by %i, %i of them anchors', (mode, kinds, min, anchors) => {
  expect(buildClaims(standard, createInstance(mode, kinds).request(), ledger, now).machine).toMatchObject({ mode, min, anchors })
})

test('a trial has no grace and the limits of a trial', () => {
  const claims = buildClaims({ ...standard, edition: 'trial', features: undefined, days: undefined, grace: 20 }, request, ledger, now)
  expect(claims).toMatchObject({
    kind: 'trial',
    grace_days: 0,
    limits: { devices: 100, overage_pct: 0, tenants: 2, replicas: 3 },
    exp: claims.nbf + 30 * 86_400,
  })
  expect(claims.features).toHaveLength(12)
})

test('devices and overage are always written [L-60]', () => {
  expect(buildClaims(enterprise, request, ledger, now).limits).toEqual({
    devices: -1,
    tenants: -1,
    users: -1,
    replicas: -1,
    overage_pct: 0,
  })
})

test('the same claims signed twice are the same token [T-15]', async () => {
  const payload = JSON.stringify(buildClaims(standard, request, ledger, now))
  expect(await signToken(payload, key)).toBe(await signToken(payload, key))
})

test('what the product would refuse is recorded as refused and not given out [T-20]', async () => {
  const claims = { ...buildClaims({ ...standard, customer: 'refused' }, instance.request(), ledger, now), aud: 'other' as 'iot-pms' }
  await expect(issueToken({ ledger, claims, key, request: undefined, actor: 'ops', now })).rejects.toMatchObject({
    code: 'TOKEN_REFUSED',
    exit: 4,
    details: { reason: 'LIC_AUD' },
  })
  expect(ledger.entries.at(-1)).toMatchObject({ act: 'issue.refused', body: { jti: claims.jti, code: 'LIC_AUD' } })
})

test('a token that does not fit the machine of its request is refused [T-20]', async () => {
  const asked = instance.request()
  const claims = buildClaims({ ...standard, customer: 'moved' }, asked, ledger, now)
  await expect(issueToken({ ledger, claims, key, request: createInstance().request(), actor: 'ops', now })).rejects.toMatchObject({
    code: 'TOKEN_REFUSED',
    details: { reason: 'MACHINE' },
  })
  const jwk = createPublicKey({ key: asked.instanceKey, format: 'jwk' })
  expect(jwk.asymmetricKeyType).toBe('ed25519')
  expect(matchMachine(claims, { factors: asked.factors, jkt: claims.cnf!.jkt }).bound).toBe(true)
})

test('POLICY_NONCE: one request gives one license, unless the same customer gets it again with a reason', async () => {
  const asked = instance.request()
  const options = { ...standard, customer: 'nonce', name: 'Nonce' }
  await issueToken({ ledger, claims: buildClaims(options, asked, ledger, now), key, request: asked, actor: 'ops', now })
  expect(judge(options, asked)).toEqual(['POLICY_NONCE'])
  expect(judge({ ...options, ...waive('reissue') }, asked)).toEqual([])
  expect(judge({ ...options, customer: 'thief', name: 'Thief', ...waive('reissue') }, asked)).toEqual(['POLICY_NONCE'])
})

test('POLICY_CUSTOMER: a new id with the name of another asks whether it is another', async () => {
  const asked = instance.request()
  await issueToken({
    ledger,
    claims: buildClaims({ ...standard, customer: 'first', name: 'Same Ltd' }, asked, ledger, now),
    key,
    request: asked,
    actor: 'ops',
    now,
  })
  const second = { ...standard, customer: 'second', name: 'Same Ltd' }
  expect(judge(second)).toEqual(['POLICY_CUSTOMER'])
  expect(judge({ ...second, waivers: new Set<Waiver>(['new-customer']) })).toEqual([])
  expect(judge({ ...second, customer: 'first' })).toEqual([])
})
