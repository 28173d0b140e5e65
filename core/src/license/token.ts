// SPDX-License-Identifier: AGPL-3.0-only
import { readClaims } from './claims.ts'
import type { LicenseClaims, LicenseWarning } from './claims.ts'
import { readJws } from './jws.ts'
import type { LicenseKeys } from './keys.ts'

/** [L-11] A normalised token is never longer. */
export const maxTokenCharacters = 16_384
/** [L-16] */
const maxTermDays = { trial: 90, other: 3660 }
const daySeconds = 86_400

export type LicenseEnvironment = 'production' | 'staging'

/** Why a token is refused, with what its code needs to be understood. */
export type LicenseRefusal = {
  ok: false
  code: `LIC_${string}`
  claim?: string
  expected?: string
  found?: string
  /** Key and ids of the token, known only when its signature is good. */
  signed?: { kid: string; jti?: string; seq?: number }
}
export type VerifiedLicense = { ok: true; kid: string; claims: LicenseClaims; warnings: LicenseWarning[] }

/**
 * Checks 1–16 of the license rules: form, signature, claims, environment, term. Pure, and never throws [L-6].
 * Whether the token is revoked, superseded or from the future is the service's part.
 *
 * @param env environment of this instance [L-25]; production when not given
 */
export async function verifyLicense(
  text: string,
  options: { keys: LicenseKeys; env?: LicenseEnvironment },
): Promise<VerifiedLicense | LicenseRefusal> {
  try {
    return await verify(text, options)
  } catch {
    // Whatever made us stumble is not a license.
    return { ok: false, code: 'LIC_MALFORMED' }
  }
}

async function verify(
  text: string,
  { keys, env = 'production' }: { keys: LicenseKeys; env?: LicenseEnvironment },
): Promise<VerifiedLicense | LicenseRefusal> {
  if (typeof text !== 'string') return { ok: false, code: 'LIC_MALFORMED' }
  const jws = await readJws(text, {
    typ: 'iot-pms-license+jwt',
    maxCharacters: maxTokenCharacters,
    keys,
    accepts: (key) => key.purpose !== 'crl',
  })
  if (typeof jws === 'string') return { ok: false, code: `LIC_${jws}` }
  const { kid, key, payload } = jws
  const read = readClaims(payload)
  const { jti, seq } = payload
  const signed = {
    kid,
    ...(typeof jti === 'string' && /^[0-9a-f-]{36}$/.test(jti) ? { jti } : {}),
    ...(Number.isSafeInteger(seq) ? { seq: seq as number } : {}),
  }
  if ('code' in read) return { ok: false, ...read, signed }
  const { claims, warnings } = read
  const keyEnv: LicenseEnvironment = key.purpose === 'staging' ? 'staging' : 'production'
  if (claims.env !== keyEnv) return { ok: false, code: 'LIC_ENV', expected: keyEnv, found: claims.env, signed }
  if (claims.env !== env) return { ok: false, code: 'LIC_ENV', expected: env, found: claims.env, signed }
  const maxDays = claims.kind === 'trial' ? maxTermDays.trial : maxTermDays.other
  if (claims.exp - claims.nbf > maxDays * daySeconds) return { ok: false, code: 'LIC_TERM_TOO_LONG', signed }
  return { ok: true, kid, claims, warnings }
}
