// SPDX-License-Identifier: AGPL-3.0-only
import { argon2, createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { checkSecretMode, configError } from '../config.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { PackedKey } from './manifest.ts'

/** [RE-96] */
const leastPassphrase = 12
const parameters = { memory: 64 * 1024, passes: 3, parallelism: 1 }
const label = Buffer.from('iot-pms/backup-key/1')
const tagBytes = 16

/** @throws {StartError} `PASSPHRASE` when the file cannot be read, is open to others or holds too short a text */
export function readPassphrase(path: string): string {
  const problems: string[] = []
  if (!existsSync(path)) throw configError([`${path} does not exist.`], 'PASSPHRASE')
  checkSecretMode(path, problems)
  const passphrase = readFileSync(path, 'utf8').trim()
  if (passphrase.length < leastPassphrase) problems.push(`A passphrase has at least ${leastPassphrase} characters.`)
  if (problems.length > 0) throw configError(problems, 'PASSPHRASE')
  return passphrase
}

/** The secret key as it is written, of the settings or the data folder; undefined where there is none. */
export function readKeyText({ secretKey, dataDir }: Pick<Config, 'secretKey' | 'dataDir'>): string | undefined {
  const file = join(dataDir, 'secret.key')
  return secretKey ?? (existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined)
}

export async function packKey(text: string, passphrase: string): Promise<PackedKey> {
  const [salt, nonce] = [randomBytes(16), randomBytes(12)]
  const cipher = createCipheriv('aes-256-gcm', await derive(passphrase, salt, parameters), nonce).setAAD(label)
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
  const { memory: memoryKib, passes, parallelism } = parameters
  const [saltText, nonceText, sealedText] = [salt, nonce, sealed].map((bytes) => bytes.toString('base64url')) as [string, string, string]
  return { kdf: 'argon2id', memoryKib, passes, parallelism, salt: saltText, nonce: nonceText, sealed: sealedText }
}

/** @throws {StartError} `PASSPHRASE_WRONG` */
export async function unpackKey({ memoryKib, passes, parallelism, ...packed }: PackedKey, passphrase: string): Promise<string> {
  const [salt, nonce, sealed] = [packed.salt, packed.nonce, packed.sealed].map((text) => Buffer.from(text, 'base64url')) as [
    Buffer,
    Buffer,
    Buffer,
  ]
  try {
    const key = await derive(passphrase, salt, { memory: memoryKib, passes, parallelism })
    const decipher = createDecipheriv('aes-256-gcm', key, nonce).setAAD(label)
    decipher.setAuthTag(sealed.subarray(-tagBytes))
    return Buffer.concat([decipher.update(sealed.subarray(0, -tagBytes)), decipher.final()]).toString('utf8')
  } catch (error) {
    throw new StartError(
      'PASSPHRASE_WRONG',
      exitCodes.config,
      'The passphrase does not open the secret key in the backup.',
      'Give the passphrase the backup was made with. Nothing was changed.',
      error,
    )
  }
}

function derive(passphrase: string, nonce: Buffer, { memory, passes, parallelism }: typeof parameters): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    argon2('argon2id', { message: passphrase.normalize('NFC'), nonce, parallelism, tagLength: 32, memory, passes }, (error, key) =>
      error ? reject(error) : resolve(key),
    )
  })
}
