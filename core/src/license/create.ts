// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import type { Stop } from '../stops.ts'
import { builtAt, rootDir, version } from '../version.ts'
import { createFactorReader, detectMode } from './factors.ts'
import type { FactorReader } from './factors.ts'
import { FileSource } from './files.ts'
import { loadKeys } from './keys.ts'
import type { LicenseKeys } from './keys.ts'
import { LicenseService } from './license.ts'
import type { LicenseContext } from './license.ts'

/** What tests and embedding code bring instead of what the build and the machine have [L-24]. */
export type LicenseParts = { licenseKeys?: LicenseKeys; factors?: FactorReader; builtAt?: number }

/** [L-21] The only folder of vendor keys; no setting names another one. */
const keysDir = join(rootDir, 'core/license-keys')
const builtInCrl = join(keysDir, 'crl.jwt')

/** Reads what is in force, then offers it the files of this machine and of the build. */
export async function startLicense(
  context: LicenseContext,
  parts: LicenseParts,
  stops: Stop[],
): Promise<{ license: LicenseService; files: FileSource }> {
  const license = createLicense(context, parts)
  await license.start()
  stops.push(() => license.stop())
  const files = new FileSource(license, builtInCrl)
  await files.start()
  stops.push(() => files.stop())
  return { license, files }
}

/** The license of this installation, with the vendor keys of this build and the factors of this machine. */
export function createLicense(context: LicenseContext, parts: LicenseParts = {}): LicenseService {
  const { config, installId, clock, log } = context
  const place = { installId, dataDir: config.dataDir, publicUrl: config.publicUrl, isInKubernetes: config.isInKubernetes }
  return new LicenseService(context, {
    keys: parts.licenseKeys ?? readBuiltInKeys(log),
    factors: parts.factors ?? createFactorReader({ ...place, now: () => clock.monotonic() }),
    builtAt: parts.builtAt ?? builtAt,
    version,
    mode: detectMode(config.isInKubernetes),
  })
}

function readBuiltInKeys(log: LicenseContext['log']): LicenseKeys {
  const { keys, problems } = loadKeys(keysDir)
  for (const problem of problems) log.error(problem, 'a file in core/license-keys is no key and is left out')
  return keys
}
