// SPDX-License-Identifier: AGPL-3.0-only
import { FEATURES } from './features.ts'
import { decodeBase64url } from './text.ts'
import type { JsonObject, JsonValue } from './text.ts'

export type LicenseKind = 'production' | 'trial' | 'nfr' | 'dev'
export type LicenseEdition = 'standard' | 'enterprise' | 'source' | 'saas' | 'trial'
export type MachineFactor = { k: string; h: string }
/** [L-30] Which machines a license is for; `any` is written out. */
export type MachineClaim =
  | { mode: 'any'; replicas?: number }
  | {
      mode: 'host' | 'instance' | 'cluster'
      salt: string
      min: number
      anchors: number
      factors: MachineFactor[]
      replicas?: number
    }

/** What a license says (license rules §2.3). Times are whole seconds since 1970. */
export type LicenseClaims = {
  ver: 1
  iss: 'iot-pms-license'
  aud: 'iot-pms'
  jti: string
  sub: string
  seq: number
  iat: number
  nbf: number
  exp: number
  kind: LicenseKind
  edition: LicenseEdition
  env: 'production' | 'staging'
  features: string[]
  limits: Record<string, number>
  machine: MachineClaim
  cnf?: { jkt: string }
  grace_days?: number
  crl_seq?: number
  prev?: string
  updates_until?: number
  cust?: { name: string }
  crit_claims?: string[]
}

export type LicenseWarning = { code: 'UNKNOWN_CLAIM' | 'UNKNOWN_FEATURE' | 'UNKNOWN_LIMIT'; value: string }
type Fault = { code: `LIC_${string}`; claim?: string }
type Check = (value: JsonValue) => boolean

const maxSeconds = 253_402_300_799
const maxCount = 1_000_000_000
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
/** Names of features and limits. */
const name = /^[a-z][a-z0-9_]{1,31}$/
const factorName = /^[a-z][a-z0-9-]{1,31}$/
// oxlint-disable-next-line no-control-regex -- a display name with such characters is what is looked for
const control = /[\u0000-\u001f\u007f-\u009f]/

/** Limits the product knows [L-60]. */
export const limitNames = ['devices', 'tenants', 'users', 'replicas', 'overage_pct'] as const

const isInt = (min: number, max: number) => (value: JsonValue | undefined) =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max
const isText = (pattern: RegExp) => (value: JsonValue | undefined) => typeof value === 'string' && pattern.test(value)
const isOneOf = (values: readonly string[]) => (value: JsonValue) => typeof value === 'string' && values.includes(value)
const isBytes = (length: number) => (value: JsonValue | undefined) => typeof value === 'string' && decodeBase64url(value)?.length === length
const isTime = isInt(1, maxSeconds)
const isHash = isBytes(16)

/** Every claim the product understands, in the order in which a fault is named. */
const claimChecks: Record<keyof LicenseClaims, { isRequired: boolean; check: Check }> = {
  ver: { isRequired: true, check: isInt(1, 1) },
  iss: { isRequired: true, check: isOneOf(['iot-pms-license']) },
  aud: { isRequired: true, check: isOneOf(['iot-pms']) },
  jti: { isRequired: true, check: isText(uuid) },
  sub: { isRequired: true, check: isText(/^[A-Za-z0-9._:-]{1,64}$/) },
  seq: { isRequired: true, check: isInt(1, maxCount) },
  iat: { isRequired: true, check: isTime },
  nbf: { isRequired: true, check: isTime },
  exp: { isRequired: true, check: isTime },
  kind: { isRequired: true, check: isOneOf(['production', 'trial', 'nfr', 'dev']) },
  edition: { isRequired: true, check: isOneOf(['standard', 'enterprise', 'source', 'saas', 'trial']) },
  env: { isRequired: true, check: isOneOf(['production', 'staging']) },
  features: { isRequired: true, check: isFeatures },
  limits: { isRequired: true, check: isLimits },
  machine: { isRequired: true, check: isMachine },
  cnf: { isRequired: false, check: isConfirmation },
  grace_days: { isRequired: false, check: isInt(0, 90) },
  crl_seq: { isRequired: false, check: isInt(0, Number.MAX_SAFE_INTEGER) },
  prev: { isRequired: false, check: isText(uuid) },
  updates_until: { isRequired: false, check: isTime },
  cust: { isRequired: false, check: isCustomer },
  crit_claims: { isRequired: false, check: isTexts },
}

/** Checks 10–14: version, issuer, audience, critical claims, presence, then types, ranges and cross rules. */
export function readClaims(payload: JsonObject): { claims: LicenseClaims; warnings: LicenseWarning[] } | Fault {
  const { ver, iss, aud, crit_claims: critical } = payload
  if (ver === undefined) return { code: 'LIC_CLAIM_MISSING', claim: 'ver' }
  if (!isInt(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)(ver)) return { code: 'LIC_CLAIM_TYPE', claim: 'ver' }
  if (ver !== 1) return { code: 'LIC_VERSION' }
  if (iss !== 'iot-pms-license') return { code: 'LIC_ISS' }
  if (aud !== 'iot-pms') return { code: 'LIC_AUD' }
  if (Array.isArray(critical) && isTexts(critical) && critical.some((one) => !isKnown(String(one)))) return { code: 'LIC_CRIT' }
  for (const [claim, { isRequired }] of Object.entries(claimChecks)) {
    if (isRequired && payload[claim] === undefined) return { code: 'LIC_CLAIM_MISSING', claim }
  }
  for (const [claim, { check }] of Object.entries(claimChecks)) {
    const value = payload[claim]
    if (value !== undefined && !check(value)) return { code: 'LIC_CLAIM_TYPE', claim }
  }
  const known = Object.keys(payload).filter(isKnown)
  const claims = Object.assign(Object.create(null), Object.fromEntries(known.map((one) => [one, payload[one]]))) as LicenseClaims
  const crossed = findCrossFault(claims)
  return crossed ? { code: 'LIC_CLAIM_TYPE', claim: crossed } : { claims, warnings: listWarnings(payload, claims) }
}

function isKnown(claim: string): claim is keyof LicenseClaims {
  return Object.hasOwn(claimChecks, claim)
}

function findCrossFault(claims: LicenseClaims): keyof LicenseClaims | undefined {
  const { iat, nbf, exp, kind, edition } = claims
  if (nbf >= exp || iat > exp) return 'exp'
  if ((edition === 'trial') !== (kind === 'trial')) return 'edition'
  if (kind === 'trial' && (claims.grace_days ?? 0) !== 0) return 'grace_days'
  return undefined
}

/** [L-15] What is accepted without being understood. */
function listWarnings(payload: JsonObject, claims: LicenseClaims): LicenseWarning[] {
  const warn = (code: LicenseWarning['code']) => (value: string) => ({ code, value: value.slice(0, 64) })
  return [
    ...Object.keys(payload)
      .filter((one) => !isKnown(one))
      .map(warn('UNKNOWN_CLAIM')),
    ...claims.features.filter((one) => !Object.hasOwn(FEATURES, one)).map(warn('UNKNOWN_FEATURE')),
    ...Object.keys(claims.limits)
      .filter((one) => !(limitNames as readonly string[]).includes(one))
      .map(warn('UNKNOWN_LIMIT')),
  ]
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isTexts(value: JsonValue): boolean {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

function isFeatures(value: JsonValue): boolean {
  return Array.isArray(value) && value.length <= 64 && value.every(isText(name)) && new Set(value).size === value.length
}

function isLimits(value: JsonValue): boolean {
  if (!isObject(value)) return false
  const entries = Object.entries(value)
  if (entries.length > 32) return false
  return entries.every(([one, limit]) => name.test(one) && (one === 'overage_pct' ? isInt(0, 100) : isInt(-1, maxCount))(limit))
}

/** [L-30] */
function isMachine(value: JsonValue): boolean {
  if (!isObject(value)) return false
  const { mode, replicas, ...rest } = value
  const isReplicas = replicas === undefined || replicas === -1 || isInt(1, Number.MAX_SAFE_INTEGER)(replicas)
  if (!isReplicas) return false
  if (mode === 'any') return Object.keys(rest).length === 0
  if (mode !== 'host' && mode !== 'instance' && mode !== 'cluster') return false
  const { salt, min, anchors, factors, ...unknown } = rest
  if (Object.keys(unknown).length > 0 || !isHash(salt) || !isFactors(factors)) return false
  return isInt(1, factors.length)(min) && isInt(0, min as number)(anchors)
}

function isFactors(value: JsonValue | undefined): value is JsonValue[] {
  if (!Array.isArray(value) || value.length < 1 || value.length > 10) return false
  const isFactor = (one: JsonValue) => isObject(one) && Object.keys(one).length === 2 && isText(factorName)(one['k']) && isHash(one['h'])
  return value.every(isFactor) && new Set(value.map((one) => (one as JsonObject)['k'])).size === value.length
}

/** A way of confirming that we do not know must not pass as confirmed. */
function isConfirmation(value: JsonValue): boolean {
  return isObject(value) && Object.keys(value).length === 1 && isBytes(32)(value['jkt'])
}

function isCustomer(value: JsonValue): boolean {
  if (!isObject(value)) return false
  const { name: shown } = value
  return typeof shown === 'string' && shown.length >= 1 && [...shown].length <= 200 && !control.test(shown)
}
