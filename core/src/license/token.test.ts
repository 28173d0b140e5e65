// SPDX-License-Identifier: AGPL-3.0-only
import { constants, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LICENSE_CODES } from './codes.ts'
import { verifyCrl } from './crl.ts'
import { decodeUnverified } from './jws.ts'
import { kidOf, loadKeys } from './keys.ts'
import { damageToken } from './testing-damage.ts'
import { createTestVendor } from './testing.ts'
import { armourToken, normaliseToken } from './text.ts'
import { verifyLicense } from './token.ts'
import type { LicenseEnvironment } from './token.ts'

const vendor = createTestVendor()
const header = { alg: 'RS256', typ: 'iot-pms-license+jwt', kid: vendor.kid() }
const day = 86_400
const now = Math.floor(Date.now() / 1000)

const verify = (text: string, env: LicenseEnvironment = 'production') => verifyLicense(text, { keys: vendor.keys, env })
const payloadOf = (token: string) => decodeUnverified(token)!.payload
const base64url = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

const byText = (a: string[], b: string[]) => (a.join() < b.join() ? -1 : 1)

/** The code, or `ok`. */
async function judge(text: string, env?: LicenseEnvironment): Promise<string> {
  const result = await verify(text, env)
  return result.ok ? 'ok' : `${result.code}${result.claim ? ` ${result.claim}` : ''}`
}

/** A good token, taken apart. */
function parts(): { good: string; head: string; body: string; signature: string } {
  const good = vendor.license()
  const [head, body, signature] = good.split('.') as [string, string, string]
  return { good, head, body, signature }
}

describe('the form of a token', () => {
  it('is accepted as it is signed, and hands on claims without a prototype', async () => {
    const result = await verify(vendor.license({ features: ['vehicle', 'sso'], limits: { devices: 10 } }))
    expect(result).toMatchObject({ ok: true, kid: vendor.kid(), warnings: [] })
    if (result.ok) expect(Object.getPrototypeOf(result.claims)).toBeNull()
  })

  it('survives mail: byte order mark, armour, CRLF, any width, blanks [L-10]', async () => {
    const { good } = parts()
    const crlf = `\ufeff${armourToken(good).replaceAll('\n', '\r\n')}  \r\n`
    const narrow = good.replaceAll(/(.{17})/g, '$1 \u00a0\n')
    const trailing = armourToken(good).replaceAll('-----\n', '----- \t\n')
    for (const text of [crlf, narrow, trailing, armourToken(good)]) {
      expect(normaliseToken(text)).toBe(good)
      expect(await judge(text)).toBe('ok')
    }
  })

  it('has three parts of canonical base64url', async () => {
    const { good, head, body, signature } = parts()
    const bent = `${head}.${body}.${signature.slice(0, -1)}${signature.endsWith('A') ? 'B' : 'A'}=`
    for (const text of [
      '',
      '.',
      '..',
      head,
      `${head}.${body}`,
      `${good}.x`,
      `${good}..`,
      `.${body}.${signature}`,
      `${head}..${signature}`,
      bent,
    ]) {
      expect(await judge(text), text.slice(0, 20)).toBe('LIC_MALFORMED')
    }
    expect(await judge(`${head}.${body}.`)).toBe('LIC_MALFORMED')
    expect(await judge(`${head}!.${body}.${signature}`)).toBe('LIC_MALFORMED')
  })

  it('is never longer than 16,384 characters [L-11]', async () => {
    expect(await judge('a'.repeat(16_385))).toBe('LIC_SIZE')
    expect(await judge('a'.repeat(16_384))).toBe('LIC_MALFORMED')
    const long = vendor.license({ padding: 'x'.repeat(20_000) })
    expect(await judge(long)).toBe('LIC_SIZE')
  })

  it('is refused, not thrown at, when it is no text at all [L-6]', async () => {
    for (const text of [undefined, null, 7, {}, [], Buffer.from('x')]) {
      expect(await judge(text as string)).toBe('LIC_MALFORMED')
    }
  })

  it.each([
    ['a header that is no object', '[]', 'LIC_MALFORMED'],
    [
      'a duplicate member in the header',
      `{"alg":"none","alg":"RS256","typ":"iot-pms-license+jwt","kid":"${vendor.kid()}"}`,
      'LIC_MALFORMED',
    ],
    ['__proto__ in the header', `{"__proto__":{},"alg":"RS256","typ":"iot-pms-license+jwt","kid":"${vendor.kid()}"}`, 'LIC_MALFORMED'],
    ['another type', { ...header, typ: 'JWT' }, 'LIC_TYP'],
    ['no type', { alg: 'RS256', kid: vendor.kid() }, 'LIC_TYP'],
    ['the type of a revocation list', { ...header, typ: 'iot-pms-crl+jwt' }, 'LIC_TYP'],
    ['a type that is no text', { ...header, typ: ['iot-pms-license+jwt'] }, 'LIC_TYP'],
    ['the type in capitals with its prefix', { ...header, typ: 'application/IOT-PMS-LICENSE+JWT' }, 'ok'],
    ['a further member', { ...header, crit: ['exp'] }, 'LIC_HEADER_FORBIDDEN'],
    ['a key by address', { ...header, jku: 'https://example.com/keys' }, 'LIC_HEADER_FORBIDDEN'],
    ['an unencoded payload', { ...header, b64: false }, 'LIC_HEADER_FORBIDDEN'],
    ['no key id', { alg: 'RS256', typ: header.typ }, 'LIC_KID_MISSING'],
    ['an unknown key id', { ...header, kid: 'AAAAAAAAAAAAAAAA' }, 'LIC_KID_UNKNOWN'],
    ['a key id that is a path', { ...header, kid: '../../etc/passwd' }, 'LIC_KID_UNKNOWN'],
    ['a key id of every object', { ...header, kid: 'constructor' }, 'LIC_KID_UNKNOWN'],
    ['a key id that is a number', { ...header, kid: 1 }, 'LIC_KID_UNKNOWN'],
    ['a key for revocation lists', { ...header, kid: vendor.kid('crl') }, 'LIC_KID_UNKNOWN'],
  ])('with %s is judged by its own code', async (_, head, code) => {
    expect(await judge(vendor.sign(head, payloadOf(vendor.license())))).toBe(code)
  })

  it('knows no key in a build without keys', async () => {
    expect(await verifyLicense(vendor.license(), { keys: new Map(), env: 'production' })).toEqual({ ok: false, code: 'LIC_KID_UNKNOWN' })
  })
})

describe('the signature of a token', () => {
  it('may not be missing, by whatever name the header calls that', async () => {
    const { body } = parts()
    for (const alg of ['none', 'None', 'NONE', '', null, undefined]) {
      expect(await judge(`${base64url({ ...header, alg })}.${body}.`)).toBe('LIC_ALG')
    }
  })

  it('is RS256 and nothing else, even when it is good [L-13]', async () => {
    const body = base64url(payloadOf(vendor.license()))
    const key = vendor.privateKey()
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    const ed = generateKeyPairSync('ed25519').privateKey
    const signed = (alg: string, make: (text: Buffer) => Buffer) => {
      const text = `${base64url({ ...header, alg })}.${body}`
      return `${text}.${make(Buffer.from(text)).toString('base64url')}`
    }
    const pss = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
    expect(await judge(signed('RS512', (text) => sign('sha512', text, key)))).toBe('LIC_ALG')
    expect(await judge(signed('PS256', (text) => sign('sha256', text, pss)))).toBe('LIC_ALG')
    expect(await judge(signed('ES256', (text) => sign('sha256', text, ec)))).toBe('LIC_ALG')
    expect(await judge(signed('EdDSA', (text) => sign(null, text, ed)))).toBe('LIC_ALG')
    // The same signatures under the name we take.
    expect(await judge(signed('RS256', (text) => sign('sha256', text, pss)))).toBe('LIC_SIGNATURE')
    expect(await judge(signed('RS256', (text) => sign('sha512', text, key)))).toBe('LIC_SIGNATURE')
    expect(await judge(signed('RS256', (text) => sign('sha256', text, key)))).toBe('ok')
  })

  it('is not an HMAC keyed with our public key', async () => {
    const { createHmac } = await import('node:crypto')
    const pem = vendor.keys.get(vendor.kid())!.key.export({ type: 'spki', format: 'pem' })
    for (const alg of ['HS256', 'RS256']) {
      const text = `${base64url({ ...header, alg })}.${base64url(payloadOf(vendor.license()))}`
      const mac = createHmac('sha256', pem).update(text).digest('base64url')
      expect(await judge(`${text}.${mac}`)).toBe(alg === 'HS256' ? 'LIC_ALG' : 'LIC_SIGNATURE')
    }
  })

  it('is not checked with a key that the token brings along', async () => {
    const attacker = generateKeyPairSync('rsa', { modulusLength: 3072 })
    const jwk = createPublicKey(attacker.privateKey).export({ format: 'jwk' })
    const text = `${base64url({ ...header, jwk })}.${base64url(payloadOf(vendor.license()))}`
    expect(await judge(`${text}.${sign('sha256', Buffer.from(text), attacker.privateKey).toString('base64url')}`)).toBe(
      'LIC_HEADER_FORBIDDEN',
    )
  })

  it('does not fit an edited payload, nor that of another token', async () => {
    const { head, body, signature } = parts()
    const claims = payloadOf(`${head}.${body}.${signature}`)
    expect(await judge(`${head}.${base64url({ ...claims, limits: { devices: 100_000 } })}.${signature}`)).toBe('LIC_SIGNATURE')
    expect(await judge(`${head}.${vendor.license().split('.')[1]}.${signature}`)).toBe('LIC_SIGNATURE')
  })
})

describe('the payload of a token', () => {
  const raw = (payload: string | Buffer) => vendor.sign(header, payload)

  it('is strict JSON: nothing can be read in two ways [L-17]', async () => {
    const text = JSON.stringify(payloadOf(vendor.license()))
    const twice = text.replace('"seq":', '"exp":9999999999,"seq":')
    const deepTwice = text.replace('"mode":"any"', '"mode":"host","mode":"any"')
    const proto = text.replace('{', '{"__proto__":{"ver":1},')
    const deepProto = text.replace('"mode":"any"', '"mode":"any","\\u005f_proto__":1')
    const deep = text.replace('{', `{"x":${'['.repeat(8)}${']'.repeat(8)},`)
    const bad = [
      twice,
      deepTwice,
      proto,
      deepProto,
      deep,
      `\ufeff${text}`,
      `${text},`,
      '[]',
      'null',
      '"x"',
      '',
      `${text}${text}`,
      text.replace('"acme"', '"\\ud800"'),
    ]
    for (const payload of bad) expect(await judge(raw(payload)), payload.slice(0, 60)).toBe('LIC_MALFORMED')
    expect(await judge(raw(text.replace('{', `{"x":${'['.repeat(7)}${']'.repeat(7)},`)))).toBe('ok')
    const latin1 = Buffer.from(text.replace('acme', 'acm\u00e9'), 'latin1')
    const signed = `${base64url(header)}.${latin1.toString('base64url')}`
    expect(await judge(`${signed}.${sign('sha256', Buffer.from(signed), vendor.privateKey()).toString('base64url')}`)).toBe('LIC_MALFORMED')
  })

  it.each([
    ['ver', undefined, 'LIC_CLAIM_MISSING ver'],
    ['ver', '1', 'LIC_CLAIM_TYPE ver'],
    ['ver', 2, 'LIC_VERSION'],
    ['iss', 'somebody', 'LIC_ISS'],
    ['iss', undefined, 'LIC_ISS'],
    ['aud', 'other', 'LIC_AUD'],
    ['aud', ['iot-pms', 'other'], 'LIC_AUD'],
    ['aud', ['iot-pms'], 'LIC_AUD'],
    ['aud', undefined, 'LIC_AUD'],
    ['crit_claims', ['blood_type'], 'LIC_CRIT'],
    ['crit_claims', ['machine', 'grace_days'], 'ok'],
    ['crit_claims', 'machine', 'LIC_CLAIM_TYPE crit_claims'],
    ['machine', undefined, 'LIC_CLAIM_MISSING machine'],
    ['features', undefined, 'LIC_CLAIM_MISSING features'],
    ['jti', 'F0000000-0000-7000-8000-000000000001', 'LIC_CLAIM_TYPE jti'],
    ['sub', 'acme corp', 'LIC_CLAIM_TYPE sub'],
    ['seq', 0, 'LIC_CLAIM_TYPE seq'],
    ['seq', 1_000_000_001, 'LIC_CLAIM_TYPE seq'],
    ['seq', 1.5, 'LIC_CLAIM_TYPE seq'],
    ['iat', String(now), 'LIC_CLAIM_TYPE iat'],
    ['exp', now * 1000, 'LIC_CLAIM_TYPE exp'],
    ['exp', now, 'LIC_CLAIM_TYPE exp'],
    ['iat', now + 400 * day, 'LIC_CLAIM_TYPE exp'],
    ['kind', 'gift', 'LIC_CLAIM_TYPE kind'],
    ['edition', 'community', 'LIC_CLAIM_TYPE edition'],
    ['edition', 'trial', 'LIC_CLAIM_TYPE edition'],
    ['kind', 'trial', 'LIC_CLAIM_TYPE edition'],
    ['env', 'test', 'LIC_CLAIM_TYPE env'],
    ['features', ['*'], 'LIC_CLAIM_TYPE features'],
    ['features', ['vehicle', 'vehicle'], 'LIC_CLAIM_TYPE features'],
    ['features', Array.from({ length: 65 }, (_, n) => `f${n}`), 'LIC_CLAIM_TYPE features'],
    ['features', {}, 'LIC_CLAIM_TYPE features'],
    ['limits', { devices: -2 }, 'LIC_CLAIM_TYPE limits'],
    ['limits', { devices: 1.5 }, 'LIC_CLAIM_TYPE limits'],
    ['limits', { devices: '1000' }, 'LIC_CLAIM_TYPE limits'],
    ['limits', { overage_pct: 101 }, 'LIC_CLAIM_TYPE limits'],
    ['limits', {}, 'ok'],
    ['grace_days', 91, 'LIC_CLAIM_TYPE grace_days'],
    ['crl_seq', -1, 'LIC_CLAIM_TYPE crl_seq'],
    ['prev', 'yesterday', 'LIC_CLAIM_TYPE prev'],
    ['cnf', { jkt: 'short' }, 'LIC_CLAIM_TYPE cnf'],
    ['cnf', {}, 'LIC_CLAIM_TYPE cnf'],
    ['cust', { name: 'a\u0007b' }, 'LIC_CLAIM_TYPE cust'],
    ['cust', { name: 'ACME 演示' }, 'ok'],
    ['exp', now + 3661 * day, 'LIC_TERM_TOO_LONG'],
    ['exp', now + 3660 * day, 'ok'],
  ])('is refused for %s = %j as %s', async (claim, value, code) => {
    expect(await judge(vendor.license({ [claim]: value, ...(claim === 'iat' || claim === 'exp' ? { nbf: now } : {}) }))).toBe(code)
  })

  it('says exactly for which machine it is [L-30]', async () => {
    const salt = Buffer.alloc(16, 1).toString('base64url')
    const h = Buffer.alloc(16, 2).toString('base64url')
    const good = { mode: 'host', salt, min: 1, anchors: 1, factors: [{ k: 'install', h }] }
    expect(await judge(vendor.license({ machine: good }))).toBe('ok')
    expect(await judge(vendor.license({ machine: { mode: 'any', replicas: -1 } }))).toBe('ok')
    for (const machine of [
      {},
      { mode: 'all' },
      { mode: 'any', min: 0 },
      { ...good, min: 0 },
      { ...good, min: 2 },
      { ...good, anchors: 2 },
      { ...good, salt: 'AAAA' },
      { ...good, factors: [] },
      { ...good, factors: [...good.factors, ...good.factors], min: 1 },
      { ...good, factors: [{ k: 'install', h: 'x' }] },
      { ...good, factors: [{ k: 'install', h, also: 1 }] },
      { ...good, alt: good },
      { ...good, replicas: 0 },
      [good],
    ]) {
      expect(await judge(vendor.license({ machine })), JSON.stringify(machine)).toBe('LIC_CLAIM_TYPE machine')
    }
  })

  it('has a trial of up to 90 days without grace [L-16]', async () => {
    const trial = { kind: 'trial', edition: 'trial', nbf: now }
    expect(await judge(vendor.license({ ...trial, exp: now + 90 * day }))).toBe('ok')
    expect(await judge(vendor.license({ ...trial, exp: now + 91 * day }))).toBe('LIC_TERM_TOO_LONG')
    expect(await judge(vendor.license({ ...trial, exp: now + 30 * day, grace_days: 1 }))).toBe('LIC_CLAIM_TYPE grace_days')
  })

  it('lists what it does not know instead of failing [L-15]', async () => {
    const result = await verify(vendor.license({ features: ['vehicle', 'robotics'], limits: { devices: 10, drones: 5 }, colour: 'red' }))
    expect(result).toMatchObject({
      ok: true,
      warnings: [
        { code: 'UNKNOWN_CLAIM', value: 'colour' },
        { code: 'UNKNOWN_FEATURE', value: 'robotics' },
        { code: 'UNKNOWN_LIMIT', value: 'drones' },
      ],
    })
  })

  it('belongs to the environment of its key and of the instance [L-25]', async () => {
    expect(await judge(vendor.license({ env: 'staging' }), 'staging')).toBe('ok')
    expect(await verify(vendor.license({ env: 'staging' }))).toMatchObject({ code: 'LIC_ENV', expected: 'production', found: 'staging' })
    expect(await verify(vendor.license(), 'staging')).toMatchObject({ code: 'LIC_ENV', expected: 'staging', found: 'production' })
    const crossed = vendor.sign(header, { ...payloadOf(vendor.license()), env: 'staging' })
    expect(await verify(crossed, 'staging')).toMatchObject({ code: 'LIC_ENV', expected: 'production', found: 'staging' })
  })
})

describe('damaged tokens', () => {
  it('are refused 10,000 times out of 10,000, without an exception', async () => {
    const good = vendor.license({ cust: { name: 'ACME' }, limits: { devices: 1000, overage_pct: 10 } })
    const accepted: string[] = []
    const codes = new Set<string>()
    await fc.assert(
      fc.asyncProperty(damageToken(good, vendor.license()), async (text) => {
        // Blanks that mail adds are no damage.
        if (normaliseToken(text) === good) return
        const result = await verify(text)
        if (result.ok) accepted.push(text)
        else codes.add(result.code)
      }),
      { numRuns: 10_000 },
    )
    expect(accepted).toEqual([])
    expect([...codes].filter((code) => !(code in LICENSE_CODES))).toEqual([])
    expect(codes).toContain('LIC_SIGNATURE')
    expect(codes).toContain('LIC_MALFORMED')
  }, 300_000)
})

describe('revocation lists', () => {
  const judgeList = async (text: string) => {
    const result = await verifyCrl(text, { keys: vendor.keys })
    return result.ok ? 'ok' : result.code
  }

  it('are taken from a key for lists only, in their own form [L-81]', async () => {
    const list = { iss: 'iot-pms-license', aud: 'iot-pms', ver: 1, seq: 1, iat: now, next_update: now + day, revoked: [], keys: [] }
    const head = { alg: 'RS256', typ: 'iot-pms-crl+jwt', kid: vendor.kid('crl') }
    expect(await judgeList(armourToken(vendor.crl(), 'CRL'))).toBe('ok')
    expect(await judgeList(vendor.sign({ ...head, kid: vendor.kid() }, list))).toBe('CRL_KEY')
    expect(await judgeList(vendor.sign({ alg: 'RS256', typ: head.typ }, list, 'crl'))).toBe('CRL_KEY')
    expect(await judgeList(vendor.sign(head, list, 'license'))).toBe('CRL_SIGNATURE')
    expect(await judgeList(vendor.sign({ ...head, typ: 'iot-pms-license+jwt' }, list, 'crl'))).toBe('CRL_TYP')
    expect(await judgeList(vendor.sign({ ...head, alg: 'PS256' }, list, 'crl'))).toBe('CRL_ALG')
    expect(await judgeList(vendor.sign({ ...head, crit: [] }, list, 'crl'))).toBe('CRL_HEADER_FORBIDDEN')
    expect(await judgeList('x')).toBe('CRL_MALFORMED')
    expect(await judgeList('x'.repeat(1_048_577))).toBe('CRL_SIZE')
  })

  it.each([
    [{ seq: 0 }],
    [{ seq: '1' }],
    [{ next_update: undefined }],
    [{ aud: ['iot-pms'] }],
    [{ revoked: [{ jti: 'x', at: now, reason: 'mood' }] }],
    [{ revoked: {} }],
    [{ keys: [{ kid: 'x', mode: 'paused' }] }],
    [{ ledger_head: 'abc' }],
    [{ revoked: Array.from({ length: 20_001 }, () => ({ jti: 'x', at: now, reason: 'lost' })) }],
  ])('with %j are refused', async (change) => {
    expect(await judgeList(vendor.crl(change))).toMatch(/^CRL_(CLAIM|SIZE)$/)
  })
})

describe('the folder of public keys', () => {
  it('gives what is a strong public key under its own id, and names the rest [L-21]', () => {
    const folder = mkdtempSync(join('/tmp', 'iot-pms-keys-'))
    const pem = (bits: number) => {
      const { publicKey } = generateKeyPairSync('rsa', { modulusLength: bits })
      return { kid: kidOf(publicKey), text: publicKey.export({ type: 'spki', format: 'pem' }) }
    }
    const [good, weak, other] = [pem(3072), pem(2048), pem(3072)]
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 3072 })
    const files: Record<string, string> = {
      'README.md': 'words',
      [`license-${good.kid}.pem`]: good.text,
      [`crl-${other.kid}.pem`]: other.text,
      [`staging-${weak.kid}.pem`]: weak.text,
      'license-AAAAAAAAAAAAAAAA.pem': good.text,
      'vendor.pem': good.text,
      [`license-${'B'.repeat(16)}.pem`]: `${good.text}${other.text}`,
      [`license-${'C'.repeat(16)}.pem`]: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      [`license-${'D'.repeat(16)}.pem`]: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
        type: 'spki',
        format: 'pem',
      }),
    }
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
    const { keys, problems } = loadKeys(folder)
    expect([...keys.values()].map(({ kid, purpose }) => [kid, purpose]).sort(byText)).toEqual(
      [
        [good.kid, 'license'],
        [other.kid, 'crl'],
      ].sort(byText),
    )
    expect(problems).toHaveLength(6)
    expect(loadKeys(join(folder, 'nowhere'))).toEqual({ keys: new Map(), problems: [] })
    rmSync(folder, { recursive: true })
  })
})
