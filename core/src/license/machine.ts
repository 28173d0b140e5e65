// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac } from 'node:crypto'
import type { LicenseClaims, MachineFactor } from './claims.ts'

export type MachineMode = 'host' | 'instance' | 'cluster'
export type Strength = 'strong' | 'normal' | 'weak' | 'none'

/** Factors requested per mode, and which of them bind hardest (license rules §4.4). */
export const machineModes: Record<MachineMode, { factors: readonly string[]; anchors: readonly string[] }> = {
  host: { factors: ['install', 'machine-id', 'disk', 'dmi', 'mac'], anchors: ['install', 'machine-id', 'disk'] },
  instance: { factors: ['install', 'machine-id', 'disk', 'url'], anchors: ['machine-id', 'disk'] },
  cluster: { factors: ['k8s-cluster', 'k8s-ns', 'install', 'url'], anchors: ['k8s-cluster', 'k8s-ns'] },
}

/** [L-31] 16 bytes of HMAC-SHA-256: the value itself never leaves the process. */
export function factorHash(salt: string, k: string, value: string): string {
  return createHmac('sha256', Buffer.from(salt, 'base64url'))
    .update(`iot-pms-factor-v1|${k}|${value}`)
    .digest()
    .subarray(0, 16)
    .toString('base64url')
}

/** Hashes of all values under one salt, as a token or a request holds them. */
export function hashFactors(salt: string, values: ReadonlyMap<string, string>): MachineFactor[] {
  return [...values].map(([k, value]) => ({ k, h: factorHash(salt, k, value) }))
}

export type MachineMatch = {
  mode: MachineMode | 'any'
  bound: boolean
  matched: number
  min: number
  total: number
  anchorsMatched: number
  anchors: number
  /** Whether the instance key is the one the token names; true when it names none. */
  isKeyMatched: boolean
  factors: { k: string; match: boolean }[]
}

/**
 * [L-36] Whether a license is for this machine: enough factors, enough anchors, and the right instance key.
 *
 * @param own hashes of our factors under the salt of the token, and the thumbprint of our instance key
 */
export function matchMachine(
  { machine, cnf }: Pick<LicenseClaims, 'machine' | 'cnf'>,
  own: { factors: readonly MachineFactor[]; jkt?: string | undefined },
): MachineMatch {
  const isKeyMatched = cnf === undefined || cnf.jkt === own.jkt
  if (machine.mode === 'any') {
    return { mode: 'any', bound: true, matched: 0, min: 0, total: 0, anchorsMatched: 0, anchors: 0, isKeyMatched, factors: [] }
  }
  const ours = new Map(own.factors.map(({ k, h }) => [k, h]))
  const factors = machine.factors.map(({ k, h }) => ({ k, match: ours.get(k) === h }))
  const matching = factors.filter((factor) => factor.match)
  const anchorsMatched = matching.filter(({ k }) => machineModes[machine.mode].anchors.includes(k)).length
  return {
    mode: machine.mode,
    bound: matching.length >= machine.min && anchorsMatched >= machine.anchors && isKeyMatched,
    matched: matching.length,
    min: machine.min,
    total: factors.length,
    anchorsMatched,
    anchors: machine.anchors,
    isKeyMatched,
    factors,
  }
}

/** [L-35] How hard it is to be taken for another machine, by the factors that can be read. */
export function strengthOf(kinds: readonly string[]): Strength {
  const has = (k: string) => kinds.includes(k)
  if (kinds.length >= 4 || (has('k8s-cluster') && has('install'))) return 'strong'
  if (kinds.length === 3 || (kinds.length === 2 && ['machine-id', 'disk', 'k8s-ns'].some(has))) return 'normal'
  return kinds.length === 2 && has('install') && has('url') ? 'weak' : 'none'
}
