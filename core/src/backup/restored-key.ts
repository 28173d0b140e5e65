// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { StartError, exitCodes } from '../errors.ts'
import { Secrets, loadSecretKey, parseKey } from '../secrets.ts'
import type { OpenBackup } from './archive.ts'
import { readPassphrase, unpackKey } from './packed-key.ts'

/** What happens to the secret key of this data folder when the database changes. */
export type KeyPlan = {
  /** Sealed values of the backup are given up: they have to be entered again. */
  dropsSecrets: boolean
  /** Writes a key that comes with the backup beside the one in use. */
  prepare(): void
  /** Puts it in its place; the one before is kept under a name with the stamp. */
  commit(stamp: string): void
}

const keepKey: KeyPlan = { dropsSecrets: false, prepare: () => {}, commit: () => {} }

/**
 * [RE-97] Which key opens the sealed values of the backup: the one that is here, the one packed into it, or none.
 *
 * @throws {StartError} `SECRET_KEY_MISMATCH`, `PASSPHRASE_WRONG`
 */
export async function planKey(
  { manifest }: OpenBackup,
  config: Config,
  wish: { passphraseFile?: string | undefined; dropSecrets: boolean },
): Promise<KeyPlan> {
  const { secretKeyId, key } = manifest
  const own = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir)
  if (secretKeyId === null || own?.has(secretKeyId)) return keepKey
  if (key && wish.passphraseFile !== undefined) {
    const text = await unpackKey(key, readPassphrase(wish.passphraseFile))
    if (new Secrets(parseKey(text)).keyId !== secretKeyId) {
      throw mismatch('The key packed into the backup is not the one it was sealed with.')
    }
    if (config.secretKey !== undefined) {
      throw mismatch('IOT_PMS_SECRET_KEY is another key than that of the backup, and would be used in its place. Unset it for the restore.')
    }
    return replaceKey(config.dataDir, text)
  }
  if (wish.dropSecrets) return { ...keepKey, dropsSecrets: true }
  throw mismatch(`The backup was sealed with ${own ? 'another secret key than the one here' : 'a secret key that is not here'}.`)
}

function replaceKey(dataDir: string, text: string): KeyPlan {
  const file = join(dataDir, 'secret.key')
  const draft = `${file}.restored`
  return {
    dropsSecrets: false,
    prepare: () => writeFileSync(draft, `${text}\n`, { mode: 0o600 }),
    commit: (stamp) => {
      if (existsSync(file)) renameSync(file, `${file}.before-${stamp}`)
      renameSync(draft, file)
    },
  }
}

function mismatch(message: string): StartError {
  return new StartError(
    'SECRET_KEY_MISMATCH',
    exitCodes.config,
    message,
    'Put the key of that installation into secret.key of the data folder, or open the packed one with --passphrase-file, or give up stored passwords and keys with --drop-secrets. Nothing was changed.',
  )
}
