// SPDX-License-Identifier: AGPL-3.0-only
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkSecretMode, configError } from './config.ts'
import { ProblemError } from './errors.ts'

type Purpose = 'jwt' | 'seal' | 'pepper' | 'known-device' | 'cursor' | 'refresh'

/** Where a sealed value lives; it opens only there [SC-5]. */
export type SealPlace = { column: string; tenantId: string; rowId: string }

/** The installation's secret key and what is derived from it; no key serves two purposes [SC-4]. */
export class Secrets {
  /** First 8 hex digits of a hash of the key: tells keys apart without telling them. */
  readonly keyId: string
  readonly #keys: Map<string, Buffer>
  readonly #derived = new Map<string, Buffer>()

  constructor(key: Buffer, oldKeys: readonly Buffer[] = []) {
    this.keyId = keyIdOf(key)
    this.#keys = new Map([...oldKeys, key].map((one) => [keyIdOf(one), one]))
  }

  /** Whether a key with this id can open values. */
  has(keyId: string): boolean {
    return this.#keys.has(keyId)
  }

  /** 32-byte sub-key by HKDF-SHA-256. */
  derive(purpose: Purpose, keyId = this.keyId): Buffer {
    const label = `iot-pms/${purpose}/1`
    const known = this.#derived.get(keyId + label)
    if (known) return known
    const key = this.#keys.get(keyId)
    if (!key) throw new ProblemError('SEAL_BROKEN')
    const derived = Buffer.from(hkdfSync('sha256', key, '', label, 32))
    this.#derived.set(keyId + label, derived)
    return derived
  }

  hmac(purpose: Purpose, ...parts: string[]): Buffer {
    return createHmac('sha256', this.derive(purpose)).update(parts.join('\0')).digest()
  }

  /** `v1.<key id>.<nonce>.<ciphertext and tag>`, AES-256-GCM bound to its place. */
  seal(text: string, place: SealPlace): string {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', this.derive('seal'), nonce).setAAD(aad(place))
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return `v1.${this.keyId}.${nonce.toString('base64url')}.${sealed.toString('base64url')}`
  }

  /** @throws {ProblemError} `SEAL_BROKEN` when the value was changed, moved, or sealed with an unknown key. */
  open(sealed: string, place: SealPlace): string {
    const [version, keyId, nonce, body] = sealed.split('.')
    if (version !== 'v1' || !keyId || !nonce || !body) throw new ProblemError('SEAL_BROKEN')
    const bytes = Buffer.from(body, 'base64url')
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.derive('seal', keyId), Buffer.from(nonce, 'base64url')).setAAD(aad(place))
      decipher.setAuthTag(bytes.subarray(-16))
      return Buffer.concat([decipher.update(bytes.subarray(0, -16)), decipher.final()]).toString('utf8')
    } catch (error) {
      throw new ProblemError('SEAL_BROKEN', { cause: error })
    }
  }
}

/**
 * Reads the secret key from the settings or from `<data dir>/secret.key`.
 *
 * @returns undefined when there is none yet
 * @throws {StartError} `SECRET_KEY_WEAK`, `SECRET_FILE_MODE`
 */
export function loadSecretKey(fromConfig: string | undefined, oldKeys: readonly string[], dataDir: string): Secrets | undefined {
  const file = join(dataDir, 'secret.key')
  let text = fromConfig
  if (!text && existsSync(file)) {
    const problems: string[] = []
    checkSecretMode(file, problems)
    if (problems.length > 0) throw configError(problems, 'SECRET_FILE_MODE')
    text = readFileSync(file, 'utf8').trim()
  }
  return text ? new Secrets(parseKey(text), oldKeys.map(parseKey)) : undefined
}

/** Makes the key of a new installation, written with mode 0600. */
export function createSecretKey(dataDir: string): Secrets {
  const key = randomBytes(32)
  writeFileSync(join(dataDir, 'secret.key'), `${key.toString('base64url')}\n`, { mode: 0o600, flag: 'wx' })
  return new Secrets(key)
}

export function parseKey(text: string): Buffer {
  const bytes = /^[0-9a-f]{64,}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, /[-_]/.test(text) ? 'base64url' : 'base64')
  if (bytes.length < 32 || new Set(bytes).size < 10) {
    throw configError(
      ['SECRET_KEY_WEAK: IOT_PMS_SECRET_KEY needs at least 32 random bytes. Make one with: openssl rand -base64 32'],
      'SECRET_KEY_WEAK',
    )
  }
  return bytes
}

function keyIdOf(key: Buffer): string {
  return createHash('sha256').update('iot-pms/key-id/1').update(key).digest('hex').slice(0, 8)
}

function aad(place: SealPlace): Buffer {
  return Buffer.from(`${place.column}|${place.tenantId}|${place.rowId}`)
}

export function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** Compares in constant time; different lengths are unequal. */
export function isEqual(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** `length` characters of base62 from random bytes, without bias. */
export function randomBase62(length: number): string {
  let text = ''
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 = 4 × 62: larger bytes would make the first letters likelier.
      if (byte < 248 && text.length < length) text += base62[byte % 62]!
    }
  }
  return text
}

/** Base62 digits of a CRC-32, `length` of them, most significant first. */
export function checksumBase62(crc: number, length: number): string {
  let text = ''
  for (let rest = crc; text.length < length; rest = Math.floor(rest / 62)) text = base62[rest % 62]! + text
  return text
}
