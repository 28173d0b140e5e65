// SPDX-License-Identifier: AGPL-3.0-only
import type { Tx } from '../db/client.ts'
import { findRevocation, verifyCrl } from './crl.ts'
import type { Crl } from './crl.ts'
import type { LicenseKeys } from './keys.ts'
import { hashFactors, matchMachine } from './machine.ts'
import type { MachineMatch } from './machine.ts'
import { countOverDays, listTokenRows, readCounts, readStateRow } from './rows.ts'
import type { TokenRow } from './rows.ts'
import { deviceLimits } from './snapshot.ts'
import type { LicenseCondition, LicenseSnapshot, StoredLicense } from './snapshot.ts'
import { accessOf, evaluate } from './state.ts'
import { verifyLicense } from './token.ts'
import type { LicenseEnvironment, LicenseRefusal, VerifiedLicense } from './token.ts'

/** What a snapshot is made of beside the rows of the database. */
export type Situation = {
  now: number
  isClockSuspect: boolean
  env: LicenseEnvironment
  factors: ReadonlyMap<string, string>
  jkt: string
  builtAt: number
  /** Ids of tokens that the file source holds at the moment. */
  filed: ReadonlySet<string>
}

/** Verifies stored tokens once for as long as they stay the same [L-102]. */
export class TokenCache {
  readonly #keys: LicenseKeys
  readonly #env: LicenseEnvironment
  readonly #tokens = new Map<string, Promise<VerifiedLicense | LicenseRefusal>>()
  #crl: { text: string; list: Promise<Crl | undefined> } | undefined

  constructor(keys: LicenseKeys, env: LicenseEnvironment) {
    this.#keys = keys
    this.#env = env
  }

  verify(text: string): Promise<VerifiedLicense | LicenseRefusal> {
    const known = this.#tokens.get(text) ?? verifyLicense(text, { keys: this.#keys, env: this.#env })
    this.#tokens.set(text, known)
    return known
  }

  readCrl(text: string | null): Promise<Crl | undefined> {
    if (text === null) return Promise.resolve(undefined)
    if (this.#crl?.text !== text) {
      const list = verifyCrl(text, { keys: this.#keys }).then((result) => (result.ok ? result.crl : undefined))
      this.#crl = { text, list }
    }
    return this.#crl.list
  }
}

/** Reads and judges all that is stored [L-71]; changes nothing. */
export async function computeSnapshot(tx: Tx, cache: TokenCache, situation: Situation): Promise<LicenseSnapshot> {
  const row = await readStateRow(tx)
  const crl = await cache.readCrl(row.crl)
  const { good, isHighestBad, isAllBad } = await verifyRows(cache, await listTokenRows(tx), row.currentSub)
  const hasCome = (license: StoredLicense) => license.claims.nbf * 1000 <= situation.now
  const inForce = good.find(hasCome)
  const scheduled = good.find((license) => !hasCome(license) && license.claims.seq > (inForce?.claims.seq ?? 0))
  const match = inForce && matchOf(inForce.claims, situation)
  const state = evaluate({
    claims: inForce?.claims,
    now: situation.now,
    bound: match?.bound ?? true,
    mismatchSince: inForce?.mismatchSince,
    revoked: inForce ? findRevocation(crl, { jti: inForce.claims.jti, kid: inForce.kid }) !== undefined : false,
    invalid: isAllBad,
  })
  const used = inForce ? (await readCounts(tx)).devices : 0
  const overDays = inForce ? await countOverDays(tx, inForce.claims.jti) : 0
  const snapshot: LicenseSnapshot = {
    state,
    conditions: [],
    inForce,
    match,
    scheduled,
    features: new Set(accessOf(state) === 'none' ? [] : inForce?.claims.features),
    devices: deviceLimits(inForce?.claims, state, used, overDays),
    crl,
    crlSeq: row.crlSeq,
    currentSub: row.currentSub ?? undefined,
    installId: row.installId,
    jkt: situation.jkt,
    revision: row.revision,
  }
  return { ...snapshot, conditions: listConditions(snapshot, situation, isHighestBad && inForce !== undefined) }
}

export function matchOf(claims: StoredLicense['claims'], { factors, jkt }: Pick<Situation, 'factors' | 'jkt'>): MachineMatch {
  const own = claims.machine.mode === 'any' ? [] : hashFactors(claims.machine.salt, factors)
  return matchMachine(claims, { factors: own, jkt })
}

/** Tokens of the current customer, the highest first. */
async function verifyRows(cache: TokenCache, rows: TokenRow[], sub: string | null) {
  const own = rows.filter((row) => row.sub === sub).sort((a, b) => b.seq - a.seq)
  const results = await Promise.all(own.map((row) => cache.verify(row.token)))
  const good = own.flatMap((row, index): StoredLicense[] => {
    const result = results[index]!
    if (!result.ok) return []
    const { source, installedAt, installedBy } = row
    return [
      {
        claims: result.claims,
        kid: result.kid,
        warnings: result.warnings,
        source,
        installedAt,
        installedBy,
        mismatchSince: row.mismatchSince?.getTime(),
        boundSince: row.boundSince?.getTime(),
      },
    ]
  })
  return { good, isHighestBad: results[0]?.ok === false, isAllBad: own.length > 0 && good.length === 0 }
}

function listConditions(snapshot: LicenseSnapshot, situation: Situation, isHighestSkipped: boolean): LicenseCondition[] {
  const { inForce, match, crl, devices } = snapshot
  const claims = inForce?.claims
  const isOutdated = (crl !== undefined && crl.nextUpdate * 1000 < situation.now) || (claims?.crl_seq ?? 0) > snapshot.crlSeq
  const holds: [LicenseCondition, boolean][] = [
    ['DRIFT', match !== undefined && match.bound && match.matched < match.total],
    ['OVER_LIMIT', devices.limit >= 0 && devices.used > devices.limit],
    ['CLOCK_SUSPECT', situation.isClockSuspect],
    ['CRL_OUTDATED', isOutdated],
    ['SOURCE_MISSING', inForce !== undefined && inForce.source !== 'upload' && !situation.filed.has(inForce.claims.jti)],
    ['STAGING', situation.env === 'staging'],
    ['NOT_PRODUCTION', claims?.kind === 'nfr' || claims?.kind === 'dev'],
    ['INSTANCE_KEY_CHANGED', match?.isKeyMatched === false],
    ['UPDATES_ENDED', claims?.updates_until !== undefined && claims.updates_until * 1000 < situation.builtAt],
    ['TOKEN_SKIPPED', isHighestSkipped],
  ]
  return holds.filter(([, isTrue]) => isTrue).map(([condition]) => condition)
}
