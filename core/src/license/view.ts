// SPDX-License-Identifier: AGPL-3.0-only
import { FEATURES } from './features.ts'
import type { Feature } from './features.ts'
import type { FileRefusal } from './files.ts'
import type { LicenseService } from './license.ts'
import { overDaysAllowed } from './limits.ts'
import type { Editions, LicensePart, LicenseView } from './schemas.ts'
import { toInstant, titleOf } from './changes.ts'
import type { LicenseSnapshot, StoredLicense } from './snapshot.ts'
import { accessOf, graceEndOf, mismatchDays } from './state.ts'

const dayMs = 86_400_000

/** A commercial module of this build, as the license shows it. */
export type PresentModule = {
  name: string
  feature: string
  title: { zh: string; en: string }
  status: 'locked' | 'starting' | 'active' | 'readonly' | 'stopping' | 'failed'
  /** Row of a feature that is none of ours. */
  row?: Feature | undefined
}

/** @param devices devices that count now, also where no limit is in force */
export function viewLicense(
  service: LicenseService,
  parts: { present: readonly PresentModule[]; refusals: readonly FileRefusal[]; devices: number },
): LicenseView {
  const snapshot = service.get()
  const { inForce, scheduled, match, crl, devices } = snapshot
  return {
    state: snapshot.state,
    conditions: [...snapshot.conditions],
    edition: editionOf(snapshot),
    kind: inForce?.claims.kind ?? null,
    env: service.context.config.license.env,
    license: inForce ? viewStored(inForce, snapshot) : null,
    scheduled: scheduled ? viewStored(scheduled) : null,
    features: viewFeatures(snapshot, service, parts.present),
    limits: {
      devices: { limit: devices.limit, hard: devices.hard, used: parts.devices, overDays: devices.overDays, overDaysAllowed },
    },
    machine:
      match && inForce
        ? {
            mode: match.mode,
            bound: match.bound,
            matched: match.matched,
            min: match.min,
            total: match.total,
            anchorsMatched: match.anchorsMatched,
            anchors: match.anchors,
            mismatchSince: toIso(inForce.mismatchSince),
            factors: match.factors,
          }
        : null,
    crl: {
      seq: snapshot.crlSeq,
      issuedAt: crl ? toInstant(crl.iat) : null,
      nextUpdate: crl ? toInstant(crl.nextUpdate) : null,
      outdated: snapshot.conditions.includes('CRL_OUTDATED'),
    },
    clock: {
      effectiveNow: new Date(service.clock.now()).toISOString(),
      highWater: new Date(service.clock.highWater).toISOString(),
      suspect: service.clock.isSuspect,
    },
    warnings: [...(inForce?.warnings ?? [])],
    fileRefusals: parts.refusals.map(({ file, code, at }) => ({ file, code, at: new Date(at).toISOString() })),
    // The id itself is a factor and stays here [L-31].
    instance: { installId: snapshot.installId.slice(0, 8), keyThumbprint: snapshot.jkt },
  }
}

/** One token as the page shows it; the moment of restriction is told once it is in sight. */
export function viewStored(license: StoredLicense, snapshot?: LicenseSnapshot): LicensePart {
  const { claims, mismatchSince } = license
  const graceEnd = graceEndOf(claims)
  const isInSight = snapshot && ['GRACE', 'MISMATCH', 'RESTRICTED'].includes(snapshot.state)
  const mismatchEnd =
    mismatchSince === undefined || snapshot?.match?.bound ? Number.POSITIVE_INFINITY : mismatchSince + mismatchDays * dayMs
  return {
    jti: claims.jti,
    seq: claims.seq,
    sub: claims.sub,
    customer: claims.cust?.name ?? null,
    kid: license.kid,
    source: license.source,
    issuedAt: toInstant(claims.iat),
    notBefore: toInstant(claims.nbf),
    expiresAt: toInstant(claims.exp),
    graceEndsAt: new Date(graceEnd).toISOString(),
    restrictedAt: isInSight ? new Date(Math.min(graceEnd, mismatchEnd)).toISOString() : null,
    prev: claims.prev ?? null,
    installedAt: license.installedAt.toISOString(),
    installedBy: license.installedBy,
  }
}

function editionOf({ state, inForce }: LicenseSnapshot): string {
  return accessOf(state) === 'none' ? 'community' : (inForce?.claims.edition ?? 'community')
}

/** Ours, and any other that is granted or present. */
function viewFeatures(snapshot: LicenseSnapshot, service: LicenseService, present: readonly PresentModule[]): LicenseView['features'] {
  const ids = new Set([...Object.keys(FEATURES), ...snapshot.features, ...present.map(({ feature }) => feature)])
  return [...ids].map((id) => {
    const own = present.find(({ feature }) => feature === id)
    const row = own?.row ?? FEATURES[id]
    return {
      id,
      title: own && !FEATURES[id] ? own.title : titleOf(id),
      granted: snapshot.features.has(id),
      present: own !== undefined,
      status: own ? (own.status === 'active' ? service.status(id) : own.status) : 'absent',
      onExpire: row?.onExpire ?? 'readonly',
      editions: [...(row?.editions ?? [])],
    }
  })
}

export function viewEditions(snapshot: LicenseSnapshot, present: readonly PresentModule[], version: string): Editions {
  return {
    edition: editionOf(snapshot),
    features: [...snapshot.features].sort(),
    modules: present.map(({ name, feature, title, status }) => ({
      name,
      feature,
      title,
      status: status === 'active' || status === 'readonly' ? 'active' : 'locked',
    })),
    version,
  }
}

function toIso(at: number | undefined): string | null {
  return at === undefined ? null : new Date(at).toISOString()
}
