// SPDX-License-Identifier: AGPL-3.0-only
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { checkSecrets } from './secrets.ts'

// Made while the test runs: a committed example would be found by the gate itself.
const letters = (count: number) => randomBytes(count).toString('hex').slice(0, count).toUpperCase()
const found = (text: string) => checkSecrets([{ path: 'a.ts', text: `const a = '${text}'\n` }])

describe('the search for secrets', () => {
  it('finds private keys of all kinds', () => {
    const { privateKey } = generateKeyPairSync('ed25519')
    expect(found(privateKey.export({ type: 'pkcs8', format: 'pem' }))).toHaveLength(1)
    expect(found(['-----BEGIN RSA', 'PRIVATE KEY-----'].join(' '))).toHaveLength(1)
    expect(found(['-----BEGIN ENCRYPTED', 'PRIVATE KEY-----'].join(' '))).toHaveLength(1)
    expect(found('-----BEGIN PUBLIC KEY-----')).toEqual([])
  })

  it('finds our own device tokens and API keys', () => {
    expect(found(`pmsd_${letters(25)}xY`)).toHaveLength(1)
    expect(found('pmsd_nobodyhasthistokenofours')).toEqual([])
    expect(found(`pmsk_${letters(31)}xY`)).toHaveLength(1)
    expect(found('pmsd_<27 characters>')).toEqual([])
  })

  it('finds JSON web tokens', () => {
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
    expect(
      found(`${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: 'admin', iat: 1 })}.${randomBytes(32).toString('base64url')}`),
    ).toHaveLength(1)
  })

  it('finds keys of common services', () => {
    expect(found(`AKIA${letters(16)}`)).toHaveLength(1)
    expect(found(`ghp_${letters(36)}`)).toHaveLength(1)
    expect(found(`npm_${letters(36)}`)).toHaveLength(1)
  })

  it('finds passwords in addresses but not variables or placeholders', () => {
    const address = (password: string) => `postgres://app:${password}@db.example.com/iot_pms`
    expect(found(address(letters(12)))).toHaveLength(1)
    expect(found(address('<password>'))).toEqual([])
    expect(found(address('${password}'))).toEqual([])
    expect(found(address('password'))).toEqual([])
  })

  it('never repeats the secret', () => {
    const secret = `pmsk_${letters(31)}xY`
    expect(found(secret)).toHaveLength(1)
    expect(JSON.stringify(found(secret))).not.toContain(secret.slice(0, 10))
  })
})
