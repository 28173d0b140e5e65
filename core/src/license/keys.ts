// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, createPublicKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

export type KeyPurpose = 'license' | 'staging' | 'crl'
export type LicenseKey = { kid: string; purpose: KeyPurpose; key: KeyObject }
export type LicenseKeys = ReadonlyMap<string, LicenseKey>

const minBits = 3072
const publicExponent = 65_537n
/** Lies beside the keys without being one. */
const otherFiles = new Set(['README.md', 'crl.jwt'])
const namePattern = /^(license|staging|crl)-([A-Za-z0-9_-]{16})\.pem$/
const onePublicKey = /^-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]+-----END PUBLIC KEY-----\s*$/

/** RFC 7638 SHA-256 thumbprint of a public RSA or Ed25519 key, 43 characters of base64url. */
export function thumbprintOf(key: KeyObject): string {
  const { kty, e, n, crv, x } = key.export({ format: 'jwk' })
  const members = kty === 'RSA' ? { e, kty, n } : { crv, kty, x }
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url')
}

/** [L-20] The id of a key is the beginning of its thumbprint. */
export function kidOf(key: KeyObject): string {
  return thumbprintOf(key).slice(0, 16)
}

/**
 * [L-20], [L-21] The public keys of a folder. A file that is no such key is left out and named with its reason.
 * A folder that is not there holds no keys.
 */
export function loadKeys(folder: string): { keys: LicenseKeys; problems: { file: string; reason: string }[] } {
  const keys = new Map<string, LicenseKey>()
  const problems: { file: string; reason: string }[] = []
  for (const file of listFolder(folder)) {
    if (otherFiles.has(file)) continue
    const found = readKey(join(folder, file), file)
    if (typeof found === 'string') problems.push({ file, reason: found })
    else keys.set(found.kid, found)
  }
  return { keys, problems }
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}

/** @returns the key, or why there is none */
function readKey(path: string, file: string): LicenseKey | string {
  const name = namePattern.exec(file)
  if (!name) return 'the name is not license-<kid>.pem, staging-<kid>.pem or crl-<kid>.pem'
  try {
    const text = readFileSync(path, 'utf8')
    if (!onePublicKey.test(text)) return 'it holds anything but one PUBLIC KEY block'
    const key = createPublicKey(text)
    if (!isStrong(key)) return 'it is not an RSA key of at least 3,072 bits with exponent 65537'
    const kid = kidOf(key)
    if (kid !== name[2]) return `the key's own id is ${kid}`
    return { kid, purpose: name[1] as KeyPurpose, key }
  } catch (error) {
    return `it cannot be read as a key (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`
  }
}

/** [L-13] */
export function isStrong(key: KeyObject): boolean {
  const { modulusLength = 0, publicExponent: exponent } = key.asymmetricKeyDetails ?? {}
  return key.asymmetricKeyType === 'rsa' && modulusLength >= minBits && exponent === publicExponent
}
