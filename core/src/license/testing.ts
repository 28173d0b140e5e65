// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type { LicenseClaims } from './claims.ts'
import { kidOf } from './keys.ts'
import type { KeyPurpose, LicenseKey } from './keys.ts'

/** A vendor of a test: keys made in memory, and tokens signed with them. */
export type TestVendor = {
  keys: Map<string, LicenseKey>
  kid: (purpose?: KeyPurpose) => string
  /** A license for any machine with all that is required; `change` replaces claims, `undefined` takes one away. */
  license(change?: Partial<Record<keyof LicenseClaims | (string & {}), unknown>>): string
  crl(change?: Record<string, unknown>): string
  /** Signs whatever it is given, right or wrong. */
  sign(header: unknown, payload: unknown, purpose?: KeyPurpose): string
  privateKey: (purpose?: KeyPurpose) => KeyObject
}

const daySeconds = 86_400

/** @param now ms since 1970 that terms are counted from */
export function createTestVendor(now: () => number = Date.now): TestVendor {
  const pairs = new Map<KeyPurpose, { privateKey: KeyObject; kid: string }>()
  const keys = new Map<string, LicenseKey>()
  for (const purpose of ['license', 'staging', 'crl'] as const) {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 3072, publicExponent: 65_537 })
    const kid = kidOf(publicKey)
    pairs.set(purpose, { privateKey, kid })
    keys.set(kid, { kid, purpose, key: publicKey })
  }
  const pairOf = (purpose: KeyPurpose) => pairs.get(purpose)!
  let seq = 0
  const vendor: TestVendor = {
    keys,
    kid: (purpose = 'license') => pairOf(purpose).kid,
    privateKey: (purpose = 'license') => pairOf(purpose).privateKey,
    sign: (header, payload, purpose = 'license') => signToken(header, payload, pairOf(purpose).privateKey),
    license(change = {}) {
      const today = Math.floor(now() / 1000)
      const claims = { ...defaultClaims(today), jti: createTestJti(), seq: ++seq, ...change }
      const purpose = claims.env === 'staging' ? 'staging' : 'license'
      return vendor.sign({ alg: 'RS256', typ: 'iot-pms-license+jwt', kid: pairOf(purpose).kid }, claims, purpose)
    },
    crl(change = {}) {
      const today = Math.floor(now() / 1000)
      const list = { iss: 'iot-pms-license', aud: 'iot-pms', ver: 1, seq: 1, iat: today, next_update: today + 90 * daySeconds }
      const header = { alg: 'RS256', typ: 'iot-pms-crl+jwt', kid: pairOf('crl').kid }
      return vendor.sign(header, { ...list, revoked: [], keys: [], ...change }, 'crl')
    },
  }
  return vendor
}

function defaultClaims(today: number) {
  return {
    ver: 1,
    iss: 'iot-pms-license',
    aud: 'iot-pms',
    sub: 'acme',
    iat: today,
    nbf: today,
    exp: today + 365 * daySeconds,
    kind: 'production',
    edition: 'enterprise',
    env: 'production',
    features: ['vehicle'],
    limits: { devices: -1 },
    machine: { mode: 'any' },
  }
}

/** The payload may be text, to sign what JSON.stringify would never write. */
export function signToken(header: unknown, payload: unknown, key: KeyObject): string {
  const toText = (part: unknown) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')
  const signed = `${toText(header)}.${toText(payload)}`
  return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`
}

export function createTestJti(): string {
  return randomUUID()
}

/** 20 characters and more of a secret that appear in a text. */
export function findLeak(text: string, secret: string): string | undefined {
  for (let at = 0; at + 20 <= secret.length; at++) {
    const run = secret.slice(at, at + 20)
    if (text.includes(run)) return createHash('sha256').update(run).digest('hex')
  }
  return undefined
}

/** A token of a vendor of its own, and the keys that a server needs to take it. */
export function testLicense({
  days = 365,
  ...claims
}: {
  features?: string[]
  limits?: Record<string, number>
  days?: number
  machine?: unknown
}): {
  keys: TestVendor['keys']
  token: string
} {
  const vendor = createTestVendor()
  return { keys: vendor.keys, token: vendor.license({ ...claims, exp: Math.floor(Date.now() / 1000) + days * daySeconds }) }
}
