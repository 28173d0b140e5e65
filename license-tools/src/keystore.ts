// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import {
  argon2Sync,
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
} from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { statSync } from 'node:fs'
import { basename } from 'node:path'
import { kidOf } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'

export const purposes = ['license', 'staging', 'crl'] as const
export type Purpose = (typeof purposes)[number]

export type KeyStatus = 'active' | 'retired' | 'revoked'

/** A key file as it lies in `keys/`: the private part only sealed. */
export type KeyFile = {
  type: 'iot-pms-key'
  ver: 1
  kid: string
  purpose: Purpose
  alg: 'RS256'
  bits: number
  createdAt: string
  status: KeyStatus
  public: string
  kdf: { name: 'argon2id'; memory: number; passes: number; parallelism: number; salt: string }
  cipher: { name: 'aes-256-gcm'; iv: string }
  data: string
  tag: string
}

/** An opened key, in memory only. */
export type SigningKey = { kid: string; purpose: Purpose; bits: number; privateKey: KeyObject; publicKey: KeyObject }

type KeyPair = { privateKey: KeyObject; publicKey: KeyObject }
type Cost = { memory: number; passes: number; parallelism: number }

/** About 1.2 s and 256 MiB for each guess at the passphrase. */
const usualCost: Cost = { memory: 262_144, passes: 3, parallelism: 1 }

/** [T-10] What a key file may ask of the machine that reads it. */
const bounds = { memory: [65_536, 1_048_576], passes: [1, 10], parallelism: [1, 4] } as const

/** Makes an RSA key with exponent 65537 and seals it under the passphrase. @param cost of the key derivation; tests take less */
export function createKey(purpose: Purpose, bits: number, passphrase: string, createdAt: string, cost = usualCost): KeyFile {
  assertStrong(passphrase)
  const { privateKey, publicKey } = pickPair(() => generateKeyPairSync('rsa', { modulusLength: bits, publicExponent: 0x10001 }))
  const kid = kidOf(publicKey)
  const pem = publicKey.export({ type: 'spki', format: 'pem' })
  const head = { type: 'iot-pms-key', ver: 1, kid, purpose, alg: 'RS256', bits, createdAt, status: 'active', public: pem } as const
  return { ...head, ...seal(head, privateKey, passphrase, cost) }
}

/** The first key whose id does not begin like an option: it is typed at command lines. */
export function pickPair(generate: () => KeyPair): KeyPair {
  for (;;) {
    const pair = generate()
    if (!kidOf(pair.publicKey).startsWith('-')) return pair
  }
}

/** [T-10] [T-11] @throws KEY_PASSPHRASE for a wrong passphrase or a changed file, KEY_FILE when its parts do not fit */
export function openKey(file: KeyFile, passphrase: string): SigningKey {
  const key = deriveKey(passphrase, file.kdf)
  let der: Buffer
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(file.cipher.iv, 'base64url'), { authTagLength: 16 })
    decipher.setAAD(additionalData(file))
    decipher.setAuthTag(Buffer.from(file.tag, 'base64url'))
    der = Buffer.concat([decipher.update(Buffer.from(file.data, 'base64url')), decipher.final()])
  } catch {
    throw new ToolError('KEY_PASSPHRASE', {
      zh: `无法打开密钥 ${file.kid}：口令错误，或密钥文件已被改动。`,
      en: `Key ${file.kid} cannot be opened: the passphrase is wrong, or the key file was changed.`,
    })
  } finally {
    key.fill(0)
  }
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  der.fill(0)
  const publicKey = createPublicKey(privateKey)
  if (kidOf(publicKey) !== file.kid) throw broken(file.kid, '密钥编号与私钥不符', 'its id does not fit the private key')
  return { kid: file.kid, purpose: file.purpose, bits: bitsOf(publicKey), privateKey, publicKey }
}

/** The same key under another passphrase. */
export function resealKey(file: KeyFile, oldPassphrase: string, newPassphrase: string, cost = usualCost): KeyFile {
  assertStrong(newPassphrase)
  return { ...file, ...seal(file, openKey(file, oldPassphrase).privateKey, newPassphrase, cost) }
}

/** Reads and checks a key file without opening it. @throws KEY_FILE */
export function readKeyFile(path: string): KeyFile {
  const name = basename(path)
  if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) {
    throw broken(name, '其他用户可读，请先执行 chmod 600', 'other users can read it; run chmod 600 on it first')
  }
  const file = parseKeyFile(name, readInput(path))
  if (`${file.kid}.key.json` !== name) throw broken(name, '文件名与密钥编号不符', 'its name does not fit its key id')
  return file
}

/** [T-13] A PEM file of the vendor's own. @throws KEY_PLAIN for an unencrypted one unless it is allowed */
export function openPem(pem: string, purpose: Purpose, passphrase: () => string, isPlainAllowed: boolean): SigningKey {
  const isEncrypted = pem.includes('-----BEGIN ENCRYPTED ')
  if (!isEncrypted && !isPlainAllowed) {
    throw new ToolError('KEY_PLAIN', {
      zh: 'PEM 私钥未加密，已拒绝；确需使用请加 --allow-plain-key。',
      en: 'The PEM key is not encrypted and is refused; --allow-plain-key allows it.',
    })
  }
  let privateKey: KeyObject
  try {
    privateKey = createPrivateKey(isEncrypted ? { key: pem, format: 'pem', passphrase: passphrase() } : { key: pem, format: 'pem' })
  } catch (error) {
    if (error instanceof ToolError) throw error
    throw new ToolError('KEY_PASSPHRASE', {
      zh: '无法打开 PEM 私钥：口令错误或文件损坏。',
      en: 'The PEM key cannot be opened: wrong passphrase or damaged file.',
    })
  }
  const bits = bitsOf(privateKey)
  if (privateKey.asymmetricKeyType !== 'rsa' || bits < 3072 || privateKey.asymmetricKeyDetails?.publicExponent !== 65537n) {
    throw broken('PEM', '须为不少于 3072 位、指数 65537 的 RSA 密钥', 'it must be an RSA key of at least 3072 bits with exponent 65537')
  }
  const publicKey = createPublicKey(privateKey)
  return { kid: kidOf(publicKey), purpose, bits, privateKey, publicKey }
}

/** [T-12] @throws KEY_PASSPHRASE_WEAK */
export function assertStrong(passphrase: string): void {
  if ([...passphrase].length >= 12 && new Set(passphrase).size >= 6) return
  throw new ToolError('KEY_PASSPHRASE_WEAK', {
    zh: '口令至少 12 个字符，其中至少 6 个不同。',
    en: 'A passphrase has at least 12 characters, 6 of them different.',
  })
}

function seal(head: Pick<KeyFile, 'kid' | 'purpose'>, privateKey: KeyObject, passphrase: string, cost: Cost) {
  const kdf = { name: 'argon2id' as const, ...cost, salt: randomBytes(16).toString('base64url') }
  const iv = randomBytes(12)
  const key = deriveKey(passphrase, kdf)
  const der = privateKey.export({ type: 'pkcs8', format: 'der' })
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  cipher.setAAD(additionalData(head))
  const data = Buffer.concat([cipher.update(der), cipher.final()]).toString('base64url')
  key.fill(0)
  der.fill(0)
  return {
    kdf,
    cipher: { name: 'aes-256-gcm' as const, iv: iv.toString('base64url') },
    data,
    tag: cipher.getAuthTag().toString('base64url'),
  }
}

function deriveKey(passphrase: string, kdf: KeyFile['kdf']): Buffer {
  const { memory, passes, parallelism } = kdf
  const nonce = Buffer.from(kdf.salt, 'base64url')
  return argon2Sync('argon2id', { message: Buffer.from(passphrase, 'utf8'), nonce, memory, passes, parallelism, tagLength: 32 })
}

function additionalData(head: Pick<KeyFile, 'kid' | 'purpose'>): Buffer {
  return Buffer.from(`iot-pms-key-v1|${head.kid}|${head.purpose}`)
}

function parseKeyFile(name: string, text: string): KeyFile {
  let file: KeyFile
  try {
    file = JSON.parse(text) as KeyFile
  } catch {
    throw broken(name, '不是完整的 JSON', 'it is not complete JSON')
  }
  const isBase64 = (value: unknown, bytes?: number) =>
    typeof value === 'string' && /^[\w-]+$/.test(value) && (bytes === undefined || Buffer.from(value, 'base64url').length === bytes)
  const isShaped =
    file?.type === 'iot-pms-key' &&
    file.ver === 1 &&
    /^[\w-]{16}$/.test(file.kid) &&
    purposes.includes(file.purpose) &&
    typeof file.public === 'string' &&
    file.kdf?.name === 'argon2id' &&
    isBase64(file.kdf.salt, 16) &&
    file.cipher?.name === 'aes-256-gcm' &&
    isBase64(file.cipher.iv, 12) &&
    isBase64(file.data) &&
    isBase64(file.tag, 16)
  if (!isShaped) throw broken(name, '内容不合规', 'its members are not those of a key file')
  for (const [member, [least, most]] of Object.entries(bounds)) {
    const value = file.kdf[member as keyof typeof bounds]
    if (!Number.isInteger(value) || value < least || value > most) {
      throw broken(name, `kdf.${member} 超出范围`, `kdf.${member} is out of range`)
    }
  }
  let kid: string
  try {
    kid = kidOf(createPublicKey(file.public))
  } catch {
    throw broken(name, '公钥无法读取', 'its public key cannot be read')
  }
  if (kid !== file.kid) throw broken(name, '密钥编号与公钥不符', 'its id does not fit its public key')
  return file
}

function bitsOf(key: KeyObject): number {
  return key.asymmetricKeyDetails?.modulusLength ?? 0
}

function broken(name: string, zh: string, en: string): ToolError {
  return new ToolError('KEY_FILE', { zh: `密钥文件 ${name} 不可用：${zh}。`, en: `Key file ${name} is not used: ${en}.` })
}
