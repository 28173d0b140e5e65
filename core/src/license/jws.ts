// SPDX-License-Identifier: AGPL-3.0-only
import { compactVerify } from 'jose'
import type { LicenseKey, LicenseKeys } from './keys.ts'
import { decodeBase64url, normaliseToken, parseStrictJson } from './text.ts'
import type { JsonObject } from './text.ts'

/** What is wrong with a signed text; licenses and revocation lists have codes of their own for each. */
export type JwsFault = 'SIZE' | 'MALFORMED' | 'TYP' | 'ALG' | 'HEADER_FORBIDDEN' | 'KID_MISSING' | 'KID_UNKNOWN' | 'SIGNATURE'

export type Jws = { kid: string; key: LicenseKey; payload: JsonObject }

const kidPattern = /^[A-Za-z0-9_-]{16}$/

/**
 * Steps 1–9 of [L-14]: a compact JWS with exactly the header `{alg: RS256, typ, kid}`, signed by one of our keys,
 * around one strict JSON object. The first check that fails names the fault.
 */
export async function readJws(
  text: string,
  options: { typ: string; maxCharacters: number; keys: LicenseKeys; accepts: (key: LicenseKey) => boolean },
): Promise<Jws | JwsFault> {
  const token = normaliseToken(text)
  if (token.length > options.maxCharacters) return 'SIZE'
  const parts = splitToken(token)
  if (!parts) return 'MALFORMED'
  const header = parseStrictJson(parts[0])
  if (!header) return 'MALFORMED'
  const { typ, alg, kid, ...rest } = header
  if (typeof typ !== 'string' || typ.toLowerCase().replace(/^application\//, '') !== options.typ) return 'TYP'
  if (alg !== 'RS256') return 'ALG'
  if (Object.keys(rest).length > 0) return 'HEADER_FORBIDDEN'
  if (kid === undefined) return 'KID_MISSING'
  const key = typeof kid === 'string' && kidPattern.test(kid) ? options.keys.get(kid) : undefined
  if (!key || !options.accepts(key)) return 'KID_UNKNOWN'
  if (parts[2].length === 0) return 'MALFORMED'
  if (!(await isSigned(token, key))) return 'SIGNATURE'
  const payload = parseStrictJson(parts[1])
  return payload ? { kid: key.kid, key, payload } : 'MALFORMED'
}

/** Header, payload and signature of a token in canonical base64url; only the last may be empty. */
function splitToken(token: string): [Buffer, Buffer, Buffer] | undefined {
  const parts = token.split('.')
  if (parts.length !== 3) return undefined
  const [header, payload, signature] = parts.map((part) => decodeBase64url(part))
  if (!header?.length || !payload?.length || !signature) return undefined
  return [header, payload, signature]
}

async function isSigned(token: string, { key }: LicenseKey): Promise<boolean> {
  try {
    await compactVerify(token, key, { algorithms: ['RS256'] })
    return true
  } catch {
    return false
  }
}

/** What a token says without any check of who says it. For showing only; nothing may be decided by it. */
export function decodeUnverified(text: string): { header: JsonObject; payload: JsonObject } | undefined {
  const parts = splitToken(normaliseToken(text))
  const header = parts && parseStrictJson(parts[0])
  const payload = parts && parseStrictJson(parts[1])
  return header && payload ? { header, payload } : undefined
}
