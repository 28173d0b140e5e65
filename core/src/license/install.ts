// SPDX-License-Identifier: AGPL-3.0-only
import { eq } from 'drizzle-orm'
import type { Tx } from '../db/client.ts'
import { licenseTokens } from '../db/tables.ts'
import type { LicenseSource } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { ErrorCode, Language } from '../errors.ts'
import type { LicenseEvent } from '../events.ts'
import { compareLicenses, compareRemoval } from './changes.ts'
import type { LicenseChange } from './changes.ts'
import type { LicenseWarning } from './claims.ts'
import { computeSnapshot, matchOf } from './compute.ts'
import { findRevocation, verifyCrl } from './crl.ts'
import type { LicenseService } from './license.ts'
import { announceChange, findTokenRow, listTokenRows, lockLicense, readCounts, readHighestSeq, readStateRow, storeToken } from './rows.ts'
import type { NewEvent } from './rows.ts'
import type { LicenseSnapshot, StoredLicense } from './snapshot.ts'
import { evaluate } from './state.ts'
import { normaliseToken } from './text.ts'
import { verifyLicense } from './token.ts'
import type { LicenseRefusal, VerifiedLicense } from './token.ts'

/** Who does it: a user, `system`, `file` or `console`. */
export type LicenseActor = { id: string; name: string }
export type InstallResult = {
  result: 'installed' | 'scheduled' | 'unchanged'
  changes: LicenseChange[]
  warnings: readonly LicenseWarning[]
  /** What would be, or is, stored. */
  next: StoredLicense
}

/** [L-90] A license may be signed this much ahead of our clock. */
const clockToleranceMs = 24 * 3_600_000

type Wish = {
  text: string
  actor: LicenseActor
  source: LicenseSource
  acknowledge: boolean
  isPreview?: boolean
  /** A refusal is noted only once under this word [L-75]. */
  once?: string
}

/** Refused for a reason of the license; becomes an event and a problem. */
type Refusal = { code: ErrorCode; members?: Record<string, unknown>; event?: Partial<NewEvent> }

/**
 * Installs a license, or says what installing it would do. What was in force stays untouched by every refusal, which is
 * one event without a word of the token [L-4].
 *
 * @throws {ProblemError} with the code of the first check that fails (license rules §2.4)
 */
export async function installLicense(service: LicenseService, wish: Wish): Promise<InstallResult> {
  const action = wish.isPreview ? 'license.preview' : 'license.install'
  const { keys } = service.options
  const verified = await verifyLicense(wish.text, { keys, env: service.context.config.license.env })
  const once = wish.once === undefined ? {} : { once: wish.once }
  if (!verified.ok) throw await refuse(service, wish.actor, action, describeRefusal(verified, keys.size === 0), once)
  await service.readFactors()
  const { db, rootTenant } = service.context
  const signed = { jti: verified.claims.jti, seq: verified.claims.seq, kid: verified.kid }
  const outcome = await db.withTenant(rootTenant, async (tx) => {
    await lockLicense(tx)
    const found = await decide(service, tx, verified, wish)
    if ('code' in found || wish.isPreview || found.result === 'unchanged') return { found, event: undefined }
    return { found, event: await write(service, tx, verified, wish, found) }
  })
  const { found, event } = outcome
  if ('code' in found) throw await refuse(service, wish.actor, action, { ...found, event: signed }, once)
  if (event) service.context.events.emit('license.event', event)
  if (!wish.isPreview && found.result !== 'unchanged') await service.load()
  return found
}

/** Checks 17–20: revoked, list too old, clock, superseded, and what must be acknowledged. */
async function decide(service: LicenseService, tx: Tx, verified: VerifiedLicense, wish: Wish): Promise<InstallResult | Refusal> {
  const { claims, kid, warnings } = verified
  const snapshot = await computeSnapshot(tx, service.cache, service.situation())
  const now = service.clock.now()
  const revocation = findRevocation(snapshot.crl, { jti: claims.jti, kid })
  if (revocation) return { code: revocation }
  const have = snapshot.crlSeq
  if ((claims.crl_seq ?? 0) > have) return { code: 'LIC_CRL_REQUIRED', members: { needed: claims.crl_seq, have } }
  // What the vendor signed vouches for its time, so a clock that is only not believed yet is no reason to refuse.
  if (claims.iat * 1000 > service.clock.latest + clockToleranceMs) return { code: 'LIC_CLOCK' }

  const { inForce, scheduled } = snapshot
  const known = await findTokenRow(tx, claims.jti)
  const next: StoredLicense = {
    claims,
    kid,
    warnings,
    source: wish.source,
    installedAt: new Date(now),
    installedBy: wish.actor.name,
    mismatchSince: known?.mismatchSince?.getTime(),
    boundSince: known?.boundSince?.getTime(),
  }
  if ([inForce?.claims.jti, scheduled?.claims.jti].includes(claims.jti)) return { result: 'unchanged', changes: [], warnings, next }
  // What lies in a file was taken before, whatever became of it: only an upload brings it back [L-76].
  if (known && wish.source !== 'upload') return { result: 'unchanged', changes: [], warnings, next }
  const highest = await readHighestSeq(tx, claims.sub, claims.jti)
  if (claims.seq <= highest || known?.releasedAt) return { code: 'LIC_SUPERSEDED', members: { seq: claims.seq, highest } }

  const match = matchOf(claims, service.situation())
  const isLater = claims.nbf * 1000 > now
  const at = Math.max(now, claims.nbf * 1000)
  const state = evaluate({ claims, now: at, bound: match.bound, mismatchSince: next.mismatchSince, revoked: false })
  const changes = compareLicenses(inForce?.claims, claims, await readCounts(tx), { state, match })
  if (!wish.isPreview && !isAccepted(snapshot, changes, wish)) return { code: 'LIC_NEEDS_ACK', members: { changes } }
  return { result: isLater ? 'scheduled' : 'installed', changes, warnings, next }
}

/** [L-73]; a file is taken as if acknowledged, but never takes the place of another customer's upload [L-75]. */
function isAccepted(snapshot: LicenseSnapshot, changes: LicenseChange[], wish: Wish): boolean {
  if (!changes.some((change) => change.ack)) return true
  if (wish.source === 'upload') return wish.acknowledge
  return !(snapshot.inForce?.source === 'upload' && changes.some(({ change }) => change === 'CUSTOMER_CHANGED'))
}

async function write(
  service: LicenseService,
  tx: Tx,
  verified: VerifiedLicense,
  wish: Wish,
  found: InstallResult,
): Promise<LicenseEvent | undefined> {
  const { claims, kid } = verified
  const { tenantId } = service.context.rootTenant
  const isNew = (await findTokenRow(tx, claims.jti)) === undefined
  const installation = { source: wish.source, at: found.next.installedAt, by: wish.actor.name }
  await storeToken(tx, tenantId, normaliseToken(wish.text), verified, installation)
  if (isNew) await service.clock.heal(tx, claims.iat * 1000, service.options.builtAt)
  await service.clock.advance(tx, [...service.lowerBounds(), claims.iat * 1000])
  await announceChange(tx, { currentSub: claims.sub })
  return service.noteIn(tx, {
    actor: wish.actor.id,
    action: found.result === 'scheduled' ? 'license.schedule' : 'license.install',
    jti: claims.jti,
    seq: claims.seq,
    kid,
    detail: { source: wish.source, changes: found.changes.map(({ change }) => change) },
  })
}

/** Notes a refusal and makes the error of it. */
export async function refuse(
  service: LicenseService,
  actor: LicenseActor,
  action: string,
  refusal: Refusal,
  once: { once?: string } = {},
): Promise<ProblemError> {
  service.countRefusal(refusal.code)
  await service.note({ actor: actor.id, action, outcome: 'refused', code: refusal.code, ...refusal.event, ...once })
  const { members = {} } = refusal
  return new ProblemError(refusal.code, { members: (language) => withSentence(members, language) })
}

/** A member `sentence` in both languages becomes the detail. */
function withSentence({ sentence, ...members }: Record<string, unknown>, language: Language): Record<string, unknown> {
  return sentence ? { ...members, detail: (sentence as Record<Language, string>)[language] } : members
}

const noKeys = {
  zh: '此构建未内置许可证公钥，无法校验任何许可证。 / This build carries no license key.',
  en: 'This build carries no license key, so no license can be checked. / 此构建未内置许可证公钥。',
}

function describeRefusal(refusal: LicenseRefusal, hasNoKeys: boolean): Refusal {
  const { code, signed, claim, expected, found } = refusal
  const members = Object.fromEntries(Object.entries({ claim, expected, found }).filter(([, value]) => value !== undefined))
  const sentence = code === 'LIC_KID_UNKNOWN' && hasNoKeys ? { sentence: noKeys } : {}
  return { code: code as ErrorCode, members: { ...members, ...sentence }, ...(signed ? { event: signed } : {}) }
}

/**
 * Takes the license in force away (or the scheduled one, or one that no longer verifies); data stays, and another stored
 * one that qualifies takes over.
 *
 * @param release the vendor gets it back: it can never be installed here again
 * @throws {ProblemError} `LIC_NOT_INSTALLED`, `LIC_NEEDS_ACK` with what would be lost
 */
export async function removeLicense(
  service: LicenseService,
  actor: LicenseActor,
  acknowledge: boolean,
  release = false,
): Promise<{ jti: string; seq: number }> {
  const { db, rootTenant } = service.context
  const outcome = await db.withTenant(
    rootTenant,
    async (tx): Promise<Refusal | { jti: string; seq: number; event: LicenseEvent | undefined }> => {
      await lockLicense(tx)
      const { inForce, scheduled, currentSub } = await computeSnapshot(tx, service.cache, service.situation())
      const rows = (await listTokenRows(tx)).filter((row) => row.sub === currentSub).sort((a, b) => b.seq - a.seq)
      const jti = inForce?.claims.jti ?? scheduled?.claims.jti ?? rows[0]?.jti
      const row = rows.find((one) => one.jti === jti)
      if (!row) return { code: 'LIC_NOT_INSTALLED' }
      const successor = await findSuccessor(service, rows, row.jti)
      const changes = inForce ? compareRemoval(inForce.claims, successor) : []
      if (!acknowledge) return { code: 'LIC_NEEDS_ACK', members: { changes } }
      const at = new Date(service.clock.now())
      const released = release ? { releasedAt: at } : {}
      await tx
        .update(licenseTokens)
        .set({ removedAt: at, removedBy: actor.name, ...released })
        .where(eq(licenseTokens.jti, row.jti))
      await announceChange(tx)
      const { seq, kid } = row
      const event = { actor: actor.id, action: 'license.remove', jti: row.jti, seq, kid, detail: release ? { release } : {} }
      return { jti: row.jti, seq, event: await service.noteIn(tx, event) }
    },
  )
  if ('code' in outcome) {
    const { code, members = {} } = outcome
    throw new ProblemError(code, { members })
  }
  if (outcome.event) service.context.events.emit('license.event', outcome.event)
  await service.load()
  return { jti: outcome.jti, seq: outcome.seq }
}

async function findSuccessor(service: LicenseService, rows: { jti: string; token: string }[], removed: string) {
  for (const row of rows) {
    if (row.jti === removed) continue
    const result = await service.cache.verify(row.token)
    if (result.ok && result.claims.nbf * 1000 <= service.clock.now()) return result.claims
  }
  return undefined
}

/**
 * Stores a newer revocation list, which then is the whole truth; every server looks again at once [L-83].
 * @throws {ProblemError} `CRL_…`
 */
export async function installCrl(
  service: LicenseService,
  actor: LicenseActor,
  text: string,
  once: { once?: string } = {},
): Promise<{ result: 'installed' | 'unchanged'; seq: number }> {
  const verified = await verifyCrl(text, { keys: service.options.keys })
  if (!verified.ok) throw await refuse(service, actor, 'license.crl', { code: verified.code as ErrorCode }, once)
  const { crl } = verified
  if (crl.iat * 1000 > service.clock.latest + clockToleranceMs) {
    throw await refuse(service, actor, 'license.crl', { code: 'CRL_CLOCK' }, once)
  }
  const { db, rootTenant } = service.context
  const outcome = await db.withTenant(rootTenant, async (tx) => {
    await lockLicense(tx)
    const { crlSeq: stored } = await readStateRow(tx)
    if (crl.seq <= stored) return crl.seq === stored ? 'unchanged' : 'stale'
    await service.clock.advance(tx, [...service.lowerBounds(), crl.iat * 1000])
    await announceChange(tx, { crl: normaliseToken(text), crlSeq: crl.seq })
    const detail = { seq: crl.seq, revoked: crl.revoked.size }
    return (await service.noteIn(tx, { actor: actor.id, action: 'license.crl', detail })) ?? 'unchanged'
  })
  if (outcome === 'stale') throw await refuse(service, actor, 'license.crl', { code: 'CRL_STALE' }, once)
  if (outcome === 'unchanged') return { result: 'unchanged', seq: crl.seq }
  service.context.events.emit('license.event', outcome)
  await service.load()
  return { result: 'installed', seq: crl.seq }
}
