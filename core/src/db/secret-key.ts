// SPDX-License-Identifier: AGPL-3.0-only
import type { Config } from '../config.ts'
import { StartError, exitCodes } from '../errors.ts'
import { createSecretKey, loadSecretKey } from '../secrets.ts'
import type { Secrets } from '../secrets.ts'
import type { Db } from './client.ts'
import { saveSecretKeyId } from './installation.ts'

/** [SC-2] The key of the settings or the data folder; made at the first start, never silently replaced. */
export async function ensureSecrets(config: Config, db: Db, knownKeyId: string | null): Promise<Secrets> {
  const loaded = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir)
  if (!loaded && knownKeyId) {
    throw new StartError(
      'SECRET_KEY_MISSING',
      exitCodes.config,
      'The secret key of this installation is missing, but the database holds values sealed with it.',
      `Put the key back into ${config.dataDir}/secret.key or into IOT_PMS_SECRET_KEY.`,
    )
  }
  const secrets = loaded ?? createSecretKey(config.dataDir)
  const isKnown = knownKeyId === null || secrets.keyId === knownKeyId || secrets.has(knownKeyId)
  if (!isKnown) {
    throw new StartError(
      'SECRET_KEY_MISMATCH',
      exitCodes.config,
      'The secret key is not the one this database was sealed with.',
      'Use the key of this installation; to change it, name the old one in IOT_PMS_SECRET_KEY_OLD.',
    )
  }
  if (secrets.keyId !== knownKeyId) await saveSecretKeyId(db, secrets.keyId)
  return secrets
}
