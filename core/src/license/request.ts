// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, createPublicKey, sign, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type { MachineFactor } from './claims.ts'
import type { MachineMode, Strength } from './machine.ts'
import { canonicalJson, parseStrictJson } from './text.ts'
import type { JsonObject } from './text.ts'

/** [L-40] What an installation asks a license with; made offline, signed by the instance key. */
export type LicenseRequest = {
  type: 'iot-pms-license-request'
  ver: 1
  product: 'iot-pms'
  productVersion: string
  nonce: string
  salt: string
  createdAt: string
  mode: MachineMode
  factors: MachineFactor[]
  strength: Strength
  counts: { devices: number; users: number; tenants: number; replicas: number }
  present: string[]
  prev: { jti: string; seq: number } | null
  note: string
  instanceKey: { crv: 'Ed25519'; kty: 'OKP'; x: string }
  sig: string
  shortCode: string
}
export type UnsignedRequest = Omit<LicenseRequest, 'sig' | 'shortCode'>

const domain = 'iot-pms-request-v1\n'
const maxBytes = 65_536

export function signRequest(request: UnsignedRequest, instanceKey: KeyObject): LicenseRequest {
  const canonical = canonicalJson(request)
  const sig = sign(null, Buffer.from(domain + canonical), instanceKey).toString('base64url')
  return { ...request, sig, shortCode: shortCode(canonical) }
}

/**
 * Reads a request file and checks its signature and short code: that it has come as it was made.
 * @returns undefined when it is none or was changed
 */
export function verifyRequest(text: string): LicenseRequest | undefined {
  try {
    if (Buffer.byteLength(text) > maxBytes) return undefined
    const value = parseStrictJson(Buffer.from(text.replace(/^\ufeff/, '')))
    if (!value || !isRequest(value)) return undefined
    const { sig, shortCode: code, ...signed } = value
    const canonical = canonicalJson(signed)
    const key = createPublicKey({ key: value.instanceKey, format: 'jwk' })
    const isGood = verify(null, Buffer.from(domain + canonical), key, Buffer.from(sig, 'base64url'))
    return isGood && (code === undefined || code === shortCode(canonical)) ? value : undefined
  } catch {
    return undefined
  }
}

const texts = ['productVersion', 'nonce', 'salt', 'createdAt', 'mode', 'strength', 'note', 'sig'] as const

function isRequest(value: JsonObject): value is JsonObject & LicenseRequest {
  const { type, ver, product, instanceKey, factors, present, counts } = value
  if (type !== 'iot-pms-license-request' || ver !== 1 || product !== 'iot-pms') return false
  if (texts.some((name) => typeof value[name] !== 'string')) return false
  const isList = Array.isArray(factors) && Array.isArray(present) && present.every((one) => typeof one === 'string')
  if (!isList || typeof counts !== 'object' || typeof instanceKey !== 'object' || instanceKey === null) return false
  const { kty, crv } = instanceKey as JsonObject
  return kty === 'OKP' && crv === 'Ed25519' && factors.every(isFactor)
}

function isFactor(value: unknown): boolean {
  const { k, h } = (value ?? {}) as Partial<MachineFactor>
  return typeof k === 'string' && typeof h === 'string'
}

const crockford = '0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U'

/**
 * Six groups to be read out over the phone: 20 bits each in Crockford's base32 with its check symbol (value mod 37),
 * from the first 15 bytes of SHA-256 of the canonical JSON that was signed (license rules §5.1).
 */
export function shortCode(canonical: string): string {
  const bits = BigInt(`0x${createHash('sha256').update(canonical).digest().subarray(0, 15).toString('hex')}`)
  const groups: string[] = []
  for (let shift = 100n; shift >= 0n; shift -= 20n) {
    const value = Number((bits >> shift) & 0xfffffn)
    const symbols = [15, 10, 5, 0].map((by) => crockford[(value >> by) & 31]!)
    groups.push(symbols.join('') + crockford[value % 37]!)
  }
  return groups.join('-')
}
