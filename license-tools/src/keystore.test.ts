// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { kidOf } from '@iot-pms/core/license'
import { assertStrong, createKey, openKey, openPem, pickPair, readKeyFile, resealKey } from './keystore.ts'
import type { KeyFile } from './keystore.ts'
import { cheap, passphrase } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'keystore-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const file = createKey('license', 3072, passphrase, '2026-11-21T08:01:00Z', cheap)
const other = createKey('license', 3072, passphrase, '2026-11-21T08:01:00Z', cheap)

function store(value: object, name = `${file.kid}.key.json`, mode = 0o600): string {
  const path = join(folder, name)
  rmSync(path, { force: true })
  writeFileSync(path, JSON.stringify(value))
  chmodSync(path, mode)
  return path
}

test('a key whose id would be taken for an option is made anew', () => {
  // A quicker kind of key has ids of the same alphabet.
  const make = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pairs = Array.from({ length: 2000 }, make)
  const startsWithDash = ({ publicKey }: { publicKey: (typeof pairs)[number]['publicKey'] }) => kidOf(publicKey).startsWith('-')
  const [bad, good] = [pairs.find(startsWithDash)!, pairs.find((pair) => !startsWithDash(pair))!]
  const made = [bad, bad, good]
  expect(pickPair(() => made.shift()!)).toBe(good)
})

test('a key opens with its passphrase and has the strength the product asks for [T-10]', () => {
  const key = openKey(readKeyFile(store(file)), passphrase)
  expect(key).toMatchObject({ kid: file.kid, purpose: 'license', bits: 3072 })
  expect(key.privateKey.asymmetricKeyDetails).toEqual({ modulusLength: 3072, publicExponent: 65537n })
})

test('a usual key costs 256 MiB and three passes for each guess [T-10]', () => {
  expect(createKey('crl', 3072, passphrase, '2026-11-21T08:01:00Z').kdf).toMatchObject({
    name: 'argon2id',
    memory: 262_144,
    passes: 3,
    parallelism: 1,
  })
})

test('the file holds no private part in the clear', () => {
  const text = JSON.stringify(file)
  const { privateKey } = openKey(file, passphrase)
  const jwk = privateKey.export({ format: 'jwk' })
  for (const member of ['d', 'p', 'q', 'dp', 'dq', 'qi'] as const) expect(text).not.toContain(jwk[member]!)
  expect(text).not.toContain('PRIVATE KEY')
})

test('a wrong passphrase is one sentence and no key [T-11]', () => {
  expect(() => openKey(file, `${passphrase} `)).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE', exit: 8 }))
})

test.each<[string, (file: KeyFile) => KeyFile]>([
  ['data', (one) => ({ ...one, data: flip(one.data) })],
  ['tag', (one) => ({ ...one, tag: flip(one.tag) })],
  ['iv', (one) => ({ ...one, cipher: { ...one.cipher, iv: flip(one.cipher.iv) } })],
  ['salt', (one) => ({ ...one, kdf: { ...one.kdf, salt: flip(one.kdf.salt) } })],
  ['purpose', (one) => ({ ...one, purpose: 'crl' })],
  ['kdf passes', (one) => ({ ...one, kdf: { ...one.kdf, passes: 2 } })],
  ['sealed part of another key', (one) => ({ ...one, kdf: other.kdf, cipher: other.cipher, data: other.data, tag: other.tag })],
])('a changed %s does not open [T-10]', (_, change) => {
  expect(() => openKey(change(file), passphrase)).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE' }))
})

test.each<[string, object]>([
  ['another kid', { ...file, kid: other.kid }],
  ['another public key', { ...file, public: other.public }],
  ['no public key', { ...file, public: 'nothing' }],
  ['memory that would take the machine down', { ...file, kdf: { ...file.kdf, memory: 8_388_608 } }],
  ['a derivation that costs nothing', { ...file, kdf: { ...file.kdf, memory: 8 } }],
  ['100 passes', { ...file, kdf: { ...file.kdf, passes: 100 } }],
  ['another derivation', { ...file, kdf: { ...file.kdf, name: 'pbkdf2' } }],
  ['another cipher', { ...file, cipher: { ...file.cipher, name: 'aes-256-cbc' } }],
  ['a short tag', { ...file, tag: 'AAAA' }],
  ['a member missing', { ...file, data: undefined }],
  ['a list', []],
])('a key file with %s is refused before it is opened [T-11]', (_, value) => {
  expect(() => readKeyFile(store(value))).toThrow(expect.objectContaining({ code: 'KEY_FILE', exit: 8 }))
})

test('a torn key file is refused [T-11]', () => {
  const path = store(file)
  writeFileSync(path, JSON.stringify(file).slice(0, 900))
  expect(() => readKeyFile(path)).toThrow(expect.objectContaining({ code: 'KEY_FILE' }))
})

test('a file under another name is refused [T-11]', () => {
  expect(() => readKeyFile(store(file, `${other.kid}.key.json`))).toThrow(expect.objectContaining({ code: 'KEY_FILE' }))
})

test.each([0o640, 0o604, 0o644])('a key file of mode %o is refused with the way to mend it [T-11]', (mode) => {
  expect(() => readKeyFile(store(file, `${file.kid}.key.json`, mode))).toThrow(/chmod 600/)
})

test('a passphrase has 12 characters, 6 of them different [T-12]', () => {
  expect(() => assertStrong('correct hor')).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE_WEAK', exit: 8 }))
  expect(() => assertStrong('aaaaaabbbbbbccccc')).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE_WEAK' }))
  expect(() => assertStrong('一二三四五六七八九十零壹')).not.toThrow()
})

test('a key under a new passphrase opens with that one only', () => {
  const sealed = resealKey(file, passphrase, 'another long passphrase', cheap)
  expect(openKey(sealed, 'another long passphrase').kid).toBe(file.kid)
  expect(() => openKey(sealed, passphrase)).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE' }))
  expect(sealed.kdf.salt).not.toBe(file.kdf.salt)
})

test('a PEM key opens by its passphrase, an unencrypted one only when allowed [T-13]', () => {
  const { privateKey } = openKey(file, passphrase)
  const plain = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const encrypted = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase })
  expect(openPem(encrypted, 'license', () => passphrase, false).kid).toBe(file.kid)
  expect(() => openPem(encrypted, 'license', () => 'wrong', false)).toThrow(expect.objectContaining({ code: 'KEY_PASSPHRASE' }))
  expect(() => openPem(plain, 'license', () => '', false)).toThrow(expect.objectContaining({ code: 'KEY_PLAIN', exit: 8 }))
  expect(openPem(plain, 'license', () => '', true).kid).toBe(file.kid)
})

test('a weak or foreign PEM key is refused [T-13]', () => {
  const weak = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' })
  const elliptic = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' })
  for (const pem of [weak, elliptic]) {
    expect(() => openPem(pem, 'license', () => '', true)).toThrow(expect.objectContaining({ code: 'KEY_FILE' }))
  }
})

/** Another first character, which all bits of count. */
function flip(text: string): string {
  return (text.startsWith('A') ? 'B' : 'A') + text.slice(1)
}
