// SPDX-License-Identifier: AGPL-3.0-only
import { readJws } from './jws.ts'
import type { LicenseKeys } from './keys.ts'
import type { JsonObject, JsonValue } from './text.ts'

/** [L-80] What has been taken back. */
export type Crl = {
  seq: number
  /** Whole seconds since 1970. */
  iat: number
  nextUpdate: number
  revoked: ReadonlySet<string>
  /** Keys whose tokens are refused, each with the ids of tokens that stay good. */
  revokedKeys: ReadonlyMap<string, ReadonlySet<string>>
}

const reasons = ['key_compromise', 'lost', 'superseded', 'refund', 'misuse', 'other']
const maxEntries = 20_000
const maxSeconds = 253_402_300_799
const maxCharacters = 1_048_576

/**
 * Checks a revocation list: same form and order as a license, signed by a key of purpose `crl`. Never throws.
 *
 * @returns the list, or the code of the first check that fails
 */
export async function verifyCrl(
  text: string,
  { keys }: { keys: LicenseKeys },
): Promise<{ ok: true; crl: Crl } | { ok: false; code: string }> {
  try {
    const jws = await readJws(text, { typ: 'iot-pms-crl+jwt', maxCharacters, keys, accepts: (key) => key.purpose === 'crl' })
    if (typeof jws === 'string') return { ok: false, code: jws.startsWith('KID_') ? 'CRL_KEY' : `CRL_${jws}` }
    const crl = readList(jws.payload)
    return crl ? { ok: true, crl } : { ok: false, code: 'CRL_CLAIM' }
  } catch {
    return { ok: false, code: 'CRL_MALFORMED' }
  }
}

/** Whether a token is taken back by itself or by its key. */
export function findRevocation(crl: Crl | undefined, token: { jti: string; kid: string }): 'LIC_KEY_REVOKED' | 'LIC_REVOKED' | undefined {
  if (!crl) return undefined
  const allowed = crl.revokedKeys.get(token.kid)
  if (allowed && !allowed.has(token.jti)) return 'LIC_KEY_REVOKED'
  return crl.revoked.has(token.jti) ? 'LIC_REVOKED' : undefined
}

function readList(payload: JsonObject): Crl | undefined {
  const { iss, aud, ver, seq, iat, next_update: nextUpdate, revoked, keys, ledger_head: head } = payload
  if (iss !== 'iot-pms-license' || aud !== 'iot-pms' || ver !== 1) return undefined
  if (!isInt(seq, Number.MAX_SAFE_INTEGER) || !isInt(iat, maxSeconds) || !isInt(nextUpdate, maxSeconds)) return undefined
  if (head !== undefined && !(typeof head === 'string' && /^[0-9a-f]{64}$/.test(head))) return undefined
  if (!isList(revoked) || !isList(keys)) return undefined
  if (!revoked.every(isRevocation) || !keys.every(isKeyEntry)) return undefined
  return {
    seq,
    iat,
    nextUpdate,
    revoked: new Set(revoked.map((one) => String(one['jti']))),
    revokedKeys: new Map(
      keys
        .filter((one) => one['mode'] === 'revoked')
        .map((one) => [String(one['kid']), new Set((one['allow'] as string[] | undefined) ?? [])]),
    ),
  }
}

function isList(value: JsonValue | undefined): value is JsonObject[] {
  const isObject = (one: JsonValue) => typeof one === 'object' && one !== null && !Array.isArray(one)
  return Array.isArray(value) && value.length <= maxEntries && value.every(isObject)
}

function isRevocation({ jti, at, reason }: JsonObject): boolean {
  return typeof jti === 'string' && isInt(at, maxSeconds) && typeof reason === 'string' && reasons.includes(reason)
}

function isKeyEntry({ kid, mode, allow }: JsonObject): boolean {
  const isAllowList =
    allow === undefined || (Array.isArray(allow) && allow.length <= maxEntries && allow.every((one) => typeof one === 'string'))
  return typeof kid === 'string' && (mode === 'retired' || mode === 'revoked') && isAllowList
}

function isInt(value: JsonValue | undefined, max: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 1 && value <= max
}
