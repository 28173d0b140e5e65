// SPDX-License-Identifier: AGPL-3.0-only
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { cleanFactor, createFactorReader, detectMode } from './factors.ts'
import type { FactorPlace } from './factors.ts'
import { thumbprintOf } from './keys.ts'
import { hardLimit } from './limits.ts'
import { factorHash, hashFactors, matchMachine, strengthOf } from './machine.ts'
import { shortCode, signRequest, verifyRequest } from './request.ts'
import type { UnsignedRequest } from './request.ts'
import { evaluate } from './state.ts'
import { canonicalJson } from './text.ts'
import type { LicenseClaims } from './claims.ts'

const salt = 'AAECAwQFBgcICQoLDA0ODw'
const values = new Map([
  ['install', '0192f0c1-2b3a-7c4d-8e5f-001122334455'],
  ['machine-id', '4c4c4544004a5810805ac3c04f4d3132'],
  ['disk', '6f1c2f3e-90ab-4c1d-8a2b-0c1d2e3f4a5b'],
  ['mac', '02:42:ac:1f:00:0a'],
])
const dayMs = 86_400_000

describe('hashes of factors', () => {
  it('are 16 bytes of HMAC-SHA-256 under the salt of the token [L-31]', () => {
    expect(hashFactors(salt, values)).toEqual([
      { k: 'install', h: 'H9xYbPfFYpheiR2rGLd4Lw' },
      { k: 'machine-id', h: 'SW_RxNpOpysuZFDGhYrG6A' },
      { k: 'disk', h: 'IQICMtXDjsjRCT1UIYPMuA' },
      { k: 'mac', h: 'MPrZpd52lDznuOVzF9jUgQ' },
    ])
    expect(factorHash(salt, 'url', 'https://iot.example.com')).toBe('EIuMD__F-vh00RFFO94FVw')
  })
})

describe('matching', () => {
  const claims = (change: object = {}): Pick<LicenseClaims, 'machine' | 'cnf'> => ({
    machine: { mode: 'host', salt, min: 3, anchors: 1, factors: hashFactors(salt, values), ...change },
  })
  const own = (kinds: string[]) => ({
    factors: hashFactors(salt, new Map([...values].map(([k, value]) => [k, kinds.includes(k) ? value : `${value}x`]))),
    jkt: 'ours',
  })

  it.each([
    [['install', 'machine-id', 'disk', 'mac'], true],
    [['install', 'machine-id', 'disk'], true],
    [['machine-id', 'disk', 'mac'], true],
    [['install', 'mac'], false],
    [['mac'], false],
    [[], false],
  ])('of %j with 3 of 4 needed is %s [L-36]', (kinds, bound) => {
    expect(matchMachine(claims(), own(kinds))).toMatchObject({ bound, matched: kinds.length, total: 4 })
  })

  it('needs as many anchors as the license says', () => {
    expect(matchMachine(claims({ min: 1, anchors: 1 }), own(['mac'])).bound).toBe(false)
    expect(matchMachine(claims({ min: 1, anchors: 1 }), own(['disk'])).bound).toBe(true)
    // The install id is no anchor of an instance: it moves with the database.
    expect(matchMachine(claims({ mode: 'instance', min: 1, anchors: 1 }), own(['install'])).bound).toBe(false)
  })

  it('never counts a kind we do not have, and counts it in the total', () => {
    const factors = [...hashFactors(salt, values), { k: 'tpm', h: factorHash(salt, 'tpm', 'x') }]
    expect(matchMachine(claims({ factors, min: 5 }), own([...values.keys()]))).toMatchObject({ bound: false, matched: 4, total: 5 })
  })

  it('asks for the instance key where the license names one', () => {
    const all = own([...values.keys()])
    expect(matchMachine({ ...claims(), cnf: { jkt: 'ours' } }, all).bound).toBe(true)
    expect(matchMachine({ ...claims(), cnf: { jkt: 'theirs' } }, all)).toMatchObject({ bound: false, isKeyMatched: false })
  })

  it('is not asked of a license for any machine', () => {
    expect(matchMachine({ machine: { mode: 'any' } }, { factors: [] }).bound).toBe(true)
  })

  it('is as strong as what can be read [L-35]', () => {
    const cases: [string[], string][] = [
      [['install', 'machine-id', 'disk', 'mac'], 'strong'],
      [['k8s-cluster', 'install'], 'strong'],
      [['install', 'url', 'mac'], 'normal'],
      [['install', 'disk'], 'normal'],
      [['install', 'url'], 'weak'],
      [['install'], 'none'],
      [[], 'none'],
    ]
    for (const [kinds, strength] of cases) expect(strengthOf(kinds), kinds.join()).toBe(strength)
  })
})

describe('values that identify nothing', () => {
  it.each([
    ['machine-id', ''],
    ['machine-id', 'uninitialized'],
    ['machine-id', '0'.repeat(32)],
    ['machine-id', 'f'.repeat(32)],
    ['machine-id', 'web-server-1'],
    ['machine-id', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
    ['dmi', '03000200-0400-0500-0006-000700080009'],
    ['dmi', '00000000-0000-0000-0000-000000000000'],
    ['dmi', 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'],
    ['mac', '00:00:00:00:00:00'],
    ['disk', undefined],
  ])('%s %j is unavailable [L-33]', (k, raw) => {
    expect(cleanFactor(k, raw, 'linux')).toBeUndefined()
  })

  it('are told from those that do', () => {
    expect(cleanFactor('machine-id', '4C4C4544004A5810805AC3C04F4D3132\n', 'linux')).toBe(values.get('machine-id'))
    expect(cleanFactor('machine-id', '{4C4C4544-004A-5810-805A-C3C04F4D3132}', 'win32')).toBe('4c4c4544-004a-5810-805a-c3c04f4d3132')
  })
})

describe('reading a machine', () => {
  const root = mkdtempSync(join('/tmp', 'iot-pms-machine-'))
  const write = (path: string, text: string) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  const place = (change: Partial<FactorPlace> = {}): FactorPlace => ({
    installId: values.get('install')!,
    dataDir: root,
    publicUrl: undefined,
    isInKubernetes: false,
    root,
    now: () => 0,
    ...change,
  })

  it('takes the id of the system, the board and the smallest real card', async () => {
    write('etc/machine-id', `${values.get('machine-id')}\n`)
    write('sys/class/dmi/id/product_uuid', '4C4C4544-004A-5810-805A-C3C04F4D3132\n')
    for (const [name, address, isReal, kind] of [
      ['eth1', '02:42:AC:1F:00:0B', true, '0'],
      ['eth0', '02:42:ac:1f:00:0a', true, '0'],
      ['docker0', '02:42:00:00:00:01', false, '0'],
      ['wlan0', '02:42:00:00:00:02', true, '1'],
    ] as const) {
      write(`sys/class/net/${name}/address`, `${address}\n`)
      write(`sys/class/net/${name}/addr_assign_type`, `${kind}\n`)
      if (isReal) symlinkSync(root, join(root, `sys/class/net/${name}/device`))
    }
    const found = await createFactorReader(place({ publicUrl: new URL('https://IoT.example.com:443/iot/') }))()
    expect(Object.fromEntries(found)).toEqual({
      install: values.get('install'),
      'machine-id': values.get('machine-id'),
      dmi: '4c4c4544-004a-5810-805a-c3c04f4d3132',
      mac: '02:42:ac:1f:00:0a',
      url: 'https://iot.example.com',
    })
  })

  it.each(['http://localhost:8080/', 'http://a.localhost/', 'http://127.0.0.1/', 'http://[::1]/', 'http://0.0.0.0/'])(
    'does not take %s for an identity',
    async (url) => {
      expect((await createFactorReader(place({ publicUrl: new URL(url) }))()).has('url')).toBe(false)
    },
  )

  it('keeps a value that becomes unreadable for a day [L-34]', async () => {
    let now = 0
    let id: () => Promise<string> = async () => values.get('machine-id')!
    const read = createFactorReader(place({ now: () => now, readMachineId: () => id() }))
    expect((await read()).has('machine-id')).toBe(true)
    id = async () => Promise.reject(new Error('gone'))
    now = dayMs - 1
    expect((await read()).has('machine-id')).toBe(true)
    now = dayMs
    expect((await read()).has('machine-id')).toBe(false)
  })

  it('leaves out a host name that stands in for a missing id [L-32]', async () => {
    expect((await createFactorReader(place({ readMachineId: async () => 'my-server' }))()).has('machine-id')).toBe(false)
  })

  it('in a container takes the id of the host from its mount only, and no card', async () => {
    write('.dockerenv', '')
    expect(detectMode(false, root)).toBe('instance')
    const without = await createFactorReader(place())()
    expect([without.has('machine-id'), without.has('mac')]).toEqual([false, false])
    write('run/host/machine-id', values.get('machine-id')!)
    expect((await createFactorReader(place())()).get('machine-id')).toBe(values.get('machine-id'))
    rmSync(root, { recursive: true })
  })

  it('reads this very machine without failing', async () => {
    const { root: _, ...real } = place({ dataDir: '/tmp' })
    const found = await createFactorReader(real)()
    expect(found.get('install')).toBe(values.get('install'))
  })
})

describe('states', () => {
  const exp = 1_826_784_000
  const claims = { exp, kind: 'production' as const, grace_days: 30 }
  const at = (now: number, change: Partial<Parameters<typeof evaluate>[0]> = {}) =>
    evaluate({ claims, now, bound: true, mismatchSince: undefined, revoked: false, ...change })
  const end = exp * 1000

  it('change to the millisecond [L-50]', () => {
    expect([end - 30 * dayMs - 1, end - 30 * dayMs, end - 1, end, end + 30 * dayMs - 1, end + 30 * dayMs].map((now) => at(now))).toEqual([
      'ACTIVE',
      'EXPIRING',
      'EXPIRING',
      'GRACE',
      'GRACE',
      'RESTRICTED',
    ])
  })

  it('give 30 days of grace unless the license says otherwise, and a trial none', () => {
    expect(at(end + 30 * dayMs - 1, { claims: { exp, kind: 'production' } })).toBe('GRACE')
    expect(at(end, { claims: { exp, kind: 'production', grace_days: 0 } })).toBe('RESTRICTED')
    expect(at(end, { claims: { exp, kind: 'trial', grace_days: 30 } })).toBe('RESTRICTED')
    expect(at(end - 40 * dayMs, { claims: { exp, kind: 'trial' } })).toBe('TRIAL')
  })

  it('give a machine that does not match 14 days [L-38]', () => {
    const now = end - 100 * dayMs
    const unbound = { bound: false, mismatchSince: now }
    expect(at(now, { bound: false })).toBe('MISMATCH')
    expect(at(now + 14 * dayMs - 1, unbound)).toBe('MISMATCH')
    expect(at(now + 14 * dayMs, unbound)).toBe('RESTRICTED')
    expect(at(now + 14 * dayMs, { bound: true, mismatchSince: now })).toBe('ACTIVE')
  })

  it('follow their order when several hold', () => {
    expect(at(end + 40 * dayMs, { revoked: true, invalid: true })).toBe('INVALID')
    expect(at(end + 40 * dayMs, { revoked: true })).toBe('REVOKED')
    expect(at(end + 1, { bound: false })).toBe('MISMATCH')
    expect(at(0, { claims: undefined })).toBe('COMMUNITY')
  })
})

describe('limits of devices', () => {
  it.each([
    [1000, 10, 'production', 0, 1100],
    [15, 10, 'production', 0, 16],
    [100, 10, 'trial', 0, 100],
    [0, 10, 'production', 0, 0],
    [-1, 10, 'production', 0, -1],
    [1000, 10, 'production', 30, 1100],
    [1000, 10, 'production', 31, 1000],
  ] as const)('of %d with %d %% in %s after %d days above it end at %d [L-62, L-63]', (devices, overage, kind, overDays, hard) => {
    expect(hardLimit({ limits: { devices, overage_pct: overage }, kind }, overDays)).toBe(hard)
  })

  it('are 0 devices where the license names none [L-60]', () => {
    expect(hardLimit({ limits: {}, kind: 'production' })).toBe(0)
  })
})

describe('request files', () => {
  // 32 bytes of 0x09 as an Ed25519 seed.
  const seed = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.alloc(32, 9)])
  const privateKey = createPrivateKey({ key: seed, format: 'der', type: 'pkcs8' })
  const x = createPublicKey(privateKey).export({ format: 'jwk' }).x!
  const unsigned: UnsignedRequest = {
    type: 'iot-pms-license-request',
    ver: 1,
    product: 'iot-pms',
    productVersion: '0.1.0',
    nonce: 'BwcHBwcHBwcHBwcHBwcHBw',
    salt,
    createdAt: '2026-11-21T08:00:00Z',
    mode: 'host',
    factors: hashFactors(salt, values),
    strength: 'strong',
    counts: { devices: 12, users: 3, tenants: 1, replicas: 1 },
    present: ['vehicle'],
    prev: null,
    note: '演示',
    instanceKey: { crv: 'Ed25519', kty: 'OKP', x },
  }

  it('are signed over their canonical form and have a code to be read out [L-40, §5.1]', () => {
    const request = signRequest(unsigned, privateKey)
    expect(thumbprintOf(createPublicKey(privateKey))).toBe('atZR63tNG3W2GhPpVleKnfrw1N7N6LAqOe5grE2SBR4')
    expect(request.shortCode).toBe('DNB4~-ZJZW0-T8456-7B18*-J580J-4F6TK')
    expect(request.sig).toBe('wvvmo1HnRLSERbF3qoBtI5m1ZQiSzZWbO0Yp-EDodSAKTiC06UolXGp3u9u3yxTzH28lIdh9o-O3iLJr36Q9Ag')
    expect(verifyRequest(JSON.stringify(request))).toMatchObject({ nonce: unsigned.nonce })
    expect(shortCode(canonicalJson({}))).toMatch(/^([0-9A-Z*~$=]{5}-){5}[0-9A-Z*~$=]{5}$/)
  })

  it('are refused when anything in them was changed, and never throw', () => {
    const request = signRequest(unsigned, privateKey)
    for (const change of [
      { note: 'other' },
      { counts: { ...request.counts, devices: 13 } },
      { shortCode: request.shortCode.replace('D', 'E') },
      { sig: 'AAAA' },
      { extra: 1 },
      { instanceKey: { crv: 'Ed25519', kty: 'OKP', x: 'AAAA' } },
      { type: 'other' },
    ]) {
      expect(verifyRequest(JSON.stringify({ ...request, ...change })), JSON.stringify(change)).toBeUndefined()
    }
    for (const text of ['', '{}', '[]', 'null', 'x'.repeat(70_000)]) expect(verifyRequest(text)).toBeUndefined()
  })
})

describe('canonical JSON', () => {
  it('sorts members by code unit and has no blanks [L-41]', () => {
    expect(canonicalJson({ b: [1, { z: null, a: 'é"\\\n' }], A: true, a: -5 })).toBe(
      '{"A":true,"a":-5,"b":[1,{"a":"é\\"\\\\\\n","z":null}]}',
    )
  })

  it.each([1.5, Number.NaN, 2 ** 53, undefined, () => 1, '\ud800'])('has no form for %j', (value) => {
    expect(() => canonicalJson([value])).toThrow(TypeError)
  })
})
