// SPDX-License-Identifier: AGPL-3.0-only
import type { LicenseSource } from '../db/tables.ts'
import type { LicenseClaims, LicenseWarning } from './claims.ts'
import type { Crl } from './crl.ts'
import { hardLimit, limitOf } from './limits.ts'
import type { LimitName } from './limits.ts'
import type { MachineMatch } from './machine.ts'
import { accessOf } from './state.ts'
import type { LicenseState } from './state.ts'

/** What stands beside the state and changes no function [L-51]. */
export type LicenseCondition =
  | 'DRIFT'
  | 'OVER_LIMIT'
  | 'CLOCK_SUSPECT'
  | 'CRL_OUTDATED'
  | 'SOURCE_MISSING'
  | 'STAGING'
  | 'NOT_PRODUCTION'
  | 'INSTANCE_KEY_CHANGED'
  | 'UPDATES_ENDED'
  | 'TOKEN_SKIPPED'

/** A stored token that verifies. */
export type StoredLicense = {
  claims: LicenseClaims
  kid: string
  source: LicenseSource
  installedAt: Date
  installedBy: string
  warnings: readonly LicenseWarning[]
  mismatchSince: number | undefined
  boundSince: number | undefined
}

/** All that is known of the license at one moment; replaced as a whole, never changed [L-100]. */
export type LicenseSnapshot = {
  state: LicenseState
  conditions: readonly LicenseCondition[]
  inForce: StoredLicense | undefined
  match: MachineMatch | undefined
  scheduled: StoredLicense | undefined
  /** Features that are granted: read-only ones too. */
  features: ReadonlySet<string>
  devices: { limit: number; hard: number; used: number; overDays: number }
  crl: Crl | undefined
  /** Highest sequence of a revocation list ever stored. */
  crlSeq: number
  currentSub: string | undefined
  installId: string
  jkt: string
  revision: number
}

export type FeatureStatus = 'active' | 'readonly' | 'locked'

/** What the rest of the server asks of the license, without waiting. */
export type License = {
  get(): LicenseSnapshot
  /** Calls after each replacement of the snapshot. */
  subscribe(listener: (snapshot: LicenseSnapshot) => void): () => void
  status(feature: string): FeatureStatus
  /** −1: no limit. */
  limit(name: LimitName): number
  /** A request was refused for a license reason: counted, never fails. */
  countRefusal(code: string): void
  /** Effective now in ms [L-92]. */
  now(): number
}

const noLimit = { limit: -1, hard: -1, used: 0, overDays: 0 }

export function communitySnapshot(installId = ''): LicenseSnapshot {
  return {
    state: 'COMMUNITY',
    conditions: [],
    inForce: undefined,
    match: undefined,
    scheduled: undefined,
    features: new Set(),
    devices: noLimit,
    crl: undefined,
    crlSeq: 0,
    currentSub: undefined,
    installId,
    jkt: '',
    revision: 0,
  }
}

/** The license of a process that has none: tests of single parts, and commands at the console. */
export const communityLicense: License = {
  get: () => communitySnapshot(),
  subscribe: () => () => {},
  status: () => 'locked',
  limit: () => -1,
  countRefusal: () => {},
  now: () => Date.now(),
}

export function statusOf(snapshot: LicenseSnapshot, feature: string): FeatureStatus {
  if (!snapshot.features.has(feature)) return 'locked'
  return accessOf(snapshot.state) === 'full' ? 'active' : 'readonly'
}

/** [L-61] Limits hold while a token is in force; COMMUNITY and INVALID have none. */
export function snapshotLimit(snapshot: LicenseSnapshot, name: LimitName): number {
  return snapshot.inForce && accessOf(snapshot.state) !== 'none' ? limitOf(snapshot.inForce.claims, name) : -1
}

/** [L-62], [L-63] */
export function deviceLimits(
  claims: LicenseClaims | undefined,
  state: LicenseState,
  used: number,
  overDays: number,
): LicenseSnapshot['devices'] {
  if (!claims || accessOf(state) === 'none') return { ...noLimit, used }
  return { limit: limitOf(claims, 'devices'), hard: hardLimit(claims, overDays), used, overDays }
}
