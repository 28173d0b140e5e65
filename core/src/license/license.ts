// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { eq, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { licenseTokens } from '../db/tables.ts'
import type { LicenseEvent } from '../events.ts'
import { LicenseClock } from './clock.ts'
import { TokenCache, computeSnapshot } from './compute.ts'
import type { Situation } from './compute.ts'
import type { FactorReader } from './factors.ts'
import { ensureInstanceKey } from './instance-key.ts'
import type { InstanceKey } from './instance-key.ts'
import type { LicenseKeys } from './keys.ts'
import { hashFactors, machineModes, strengthOf } from './machine.ts'
import type { MachineMode } from './machine.ts'
import { listNotices } from './notices.ts'
import { signRequest } from './request.ts'
import type { LicenseRequest } from './request.ts'
import { addLicenseEvent, licenseChannel, noteUsage, readCounts, readStateRow } from './rows.ts'
import type { NewEvent } from './rows.ts'
import { communitySnapshot, snapshotLimit, statusOf } from './snapshot.ts'
import type { FeatureStatus, License, LicenseSnapshot, StoredLicense } from './snapshot.ts'
import type { LimitName } from './limits.ts'
import { graceEndOf, mismatchDays } from './state.ts'

export type LicenseOptions = {
  keys: LicenseKeys
  factors: FactorReader
  /** ms since 1970 at which this product was built: it cannot be earlier now [L-91]. */
  builtAt: number
  version: string
  /** How a request binds unless the administrator says otherwise. */
  mode: MachineMode
}
export type LicenseContext = Omit<Context, 'license'>

const everyMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/**
 * What is known of the license in this process: the snapshot in force, when to look again, and the events that tell of
 * it. Changing the license is {@link installLicense} and its neighbours; they write, then every server loads.
 */
export class LicenseService implements License {
  readonly context: LicenseContext
  readonly options: LicenseOptions
  readonly clock: LicenseClock
  readonly cache: TokenCache
  #snapshot: LicenseSnapshot
  #instanceKey: InstanceKey | undefined
  #factors: ReadonlyMap<string, string> = new Map()
  #factorsReadAt = 0
  #filed: ReadonlySet<string> = new Set()
  #loading: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #cancelBoundary = () => {}
  #isStopped = false
  readonly #listeners = new Set<(snapshot: LicenseSnapshot) => void>()
  readonly #refused = new Map<string, number>()
  readonly #refusedThisHour = new Map<string, number>()
  #hour = 0

  constructor(context: LicenseContext, options: LicenseOptions) {
    this.context = context
    this.options = options
    this.clock = new LicenseClock(context.clock)
    this.cache = new TokenCache(options.keys, context.config.license.env)
    this.#snapshot = communitySnapshot(context.installId)
  }

  get(): LicenseSnapshot {
    return this.#snapshot
  }

  subscribe(listener: (snapshot: LicenseSnapshot) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  status(feature: string): FeatureStatus {
    return statusOf(this.#snapshot, feature)
  }

  limit(name: LimitName): number {
    return snapshotLimit(this.#snapshot, name)
  }

  now(): number {
    return this.clock.now()
  }

  /** Refusals by code since the start, for the metrics. */
  get refused(): ReadonlyMap<string, number> {
    return this.#refused
  }

  countRefusal(code: string): void {
    this.#refused.set(code, (this.#refused.get(code) ?? 0) + 1)
    if (code.startsWith('LIMIT_')) this.#refusedThisHour.set(code, (this.#refusedThisHour.get(code) ?? 0) + 1)
  }

  /** What limits refused is one event an hour, with its count. */
  async #noteRefusedByLimits(): Promise<void> {
    const hour = Math.floor(this.now() / hourMs)
    if (hour === this.#hour) return
    this.#hour = hour
    const counts = [...this.#refusedThisHour]
    this.#refusedThisHour.clear()
    for (const [code, count] of counts) {
      await this.note({ actor: 'system', action: 'license.limit_refused', outcome: 'refused', code, detail: { count } })
    }
  }

  /** Reads what there is; enough for a command at the console. */
  async open(): Promise<void> {
    this.#instanceKey = await ensureInstanceKey(this.context)
    await this.readFactors()
    await this.context.db.withTenant(this.context.rootTenant, async (tx) => {
      this.clock.read((await readStateRow(tx)).highWater)
      await this.clock.advance(tx, [this.options.builtAt])
    })
    await this.load()
  }

  /** Opens, then keeps up with the clock and with what other servers change. */
  async start(): Promise<void> {
    await this.open()
    this.#timer = setInterval(() => void this.tick(), everyMs).unref()
    // After a lost connection the first thing done is a reload [L-101].
    await this.context.db
      .listen(
        licenseChannel,
        () => void this.#loadQuietly(),
        () => void this.#loadQuietly(),
      )
      .catch((error: unknown) => this.context.log.warn({ err: error }, 'changes of the license are only seen every minute'))
  }

  /** A look under way ends with its database; nothing waits for it. */
  stop(): void {
    this.#isStopped = true
    clearInterval(this.#timer)
    this.#cancelBoundary()
  }

  /** What happens every minute: the clock mark, new values of the machine, the snapshot. Never fails. */
  async tick(): Promise<void> {
    try {
      if (this.context.clock.monotonic() - this.#factorsReadAt > hourMs) await this.readFactors()
      await this.context.db.withTenant(this.context.rootTenant, (tx) => this.clock.advance(tx, this.lowerBounds()))
      await this.load()
      await this.#noteRefusedByLimits()
    } catch (error) {
      if (!this.#isStopped) this.context.log.warn({ err: error }, 'the license could not be looked at')
    }
  }

  /** Times before which it cannot be [L-91]. */
  lowerBounds(): number[] {
    const { inForce, crl } = this.#snapshot
    return [this.options.builtAt, (inForce?.claims.iat ?? 0) * 1000, (crl?.iat ?? 0) * 1000]
  }

  async readFactors(): Promise<void> {
    this.#factors = await this.options.factors()
    this.#factorsReadAt = this.context.clock.monotonic()
  }

  situation(): Situation {
    return {
      now: this.clock.now(),
      isClockSuspect: this.clock.isSuspect,
      env: this.context.config.license.env,
      factors: this.#factors,
      jkt: this.#instanceKey?.jkt ?? '',
      builtAt: this.options.builtAt,
      filed: this.#filed,
    }
  }

  /** Which tokens the file source holds now. @returns whether that is news */
  setFiled(jtis: ReadonlySet<string>): boolean {
    const isSame = jtis.size === this.#filed.size && jtis.isSubsetOf(this.#filed)
    this.#filed = jtis
    return !isSame
  }

  /** Reads the license again and puts the new snapshot in place; one after the other. */
  load(): Promise<void> {
    const next = this.#loading.catch(() => {}).then(() => this.#load())
    this.#loading = next.catch(() => {})
    return next
  }

  async #loadQuietly(): Promise<void> {
    if (this.#isStopped) return
    await this.load().catch((error: unknown) => {
      if (!this.#isStopped) this.context.log.warn({ err: error }, 'the license could not be read')
    })
  }

  async #load(): Promise<void> {
    const { db, rootTenant } = this.context
    const next = await db.withTenant(rootTenant, (tx) => computeSnapshot(tx, this.cache, this.situation()))
    const isNoted = await this.#noteMismatch(next)
    const snapshot = isNoted ? await db.withTenant(rootTenant, (tx) => computeSnapshot(tx, this.cache, this.situation())) : next
    const before = this.#snapshot
    this.#snapshot = snapshot
    this.#planNextLook(snapshot)
    for (const listener of this.#listeners) listener(snapshot)
    if (describe(before) !== describe(snapshot)) {
      this.context.events.emit('license.changed', { state: snapshot.state, features: [...snapshot.features].sort() })
    }
    await this.#writeNotices(snapshot)
  }

  /** [L-38] Since when the license has not matched this machine; forgotten after a whole day of matching. */
  async #noteMismatch({ inForce, match }: LicenseSnapshot): Promise<boolean> {
    if (!inForce || !match) return false
    const now = this.clock.now()
    const change = mismatchChange(inForce, match.bound, now)
    if (!change) return false
    const { db, rootTenant } = this.context
    await db.withTenant(rootTenant, (tx) => tx.update(licenseTokens).set(change).where(eq(licenseTokens.jti, inForce.claims.jti)))
    return true
  }

  /** [L-52] A boundary within the next minute gets a timer of its own. */
  #planNextLook({ inForce, scheduled }: LicenseSnapshot): void {
    this.#cancelBoundary()
    if (this.#isStopped) return
    const now = this.clock.now()
    const boundaries = [
      ...(scheduled ? [scheduled.claims.nbf * 1000] : []),
      ...(inForce ? [inForce.claims.exp * 1000 - 30 * dayMs, inForce.claims.exp * 1000, graceEndOf(inForce.claims)] : []),
      ...(inForce?.mismatchSince === undefined ? [] : [inForce.mismatchSince + mismatchDays * dayMs]),
    ].filter((at) => at > now && at - now < everyMs)
    if (boundaries.length === 0) return
    this.#cancelBoundary = this.context.clock.after(Math.min(...boundaries) - now + 1, () => void this.#loadQuietly())
  }

  /** Over-limit days, the change of state, and what is worth a line; each is written by one server only. */
  async #writeNotices(snapshot: LicenseSnapshot): Promise<void> {
    const { db, rootTenant } = this.context
    const now = this.clock.now()
    const written = await db.withTenant(rootTenant, async (tx) => {
      const { inForce, devices, state } = snapshot
      if (inForce && devices.limit >= 0) await noteUsage(tx, now, inForce.claims.jti, devices.used, devices.limit)
      const events: (LicenseEvent | undefined)[] = []
      const add = async (event: NewEvent) => events.push(await addLicenseEvent(tx, rootTenant.tenantId, now, event))
      const [changed] = await tx.execute<{ from: string }>(sql`
        with old as (select noted_state from license_state)
        update license_state set noted_state = ${state} from old where license_state.noted_state <> ${state} returning old.noted_state as from`)
      const token = inForce ? { jti: inForce.claims.jti, seq: inForce.claims.seq, kid: inForce.kid } : {}
      if (changed) await add({ actor: 'system', action: 'license.state', detail: { from: changed.from, to: state }, ...token })
      for (const notice of listNotices(snapshot, now)) await add(notice)
      return events
    })
    for (const event of written) if (event) this.context.events.emit('license.event', event)
  }

  /** Notes one event in a transaction of its own, and tells the bus. */
  async note(event: NewEvent): Promise<void> {
    const { db, rootTenant } = this.context
    const written = await db.withTenant(rootTenant, (tx) => this.noteIn(tx, event))
    if (written) this.context.events.emit('license.event', written)
  }

  noteIn(tx: Tx, event: NewEvent): Promise<LicenseEvent | undefined> {
    return addLicenseEvent(tx, this.context.rootTenant.tenantId, this.clock.now(), event)
  }

  /** [L-40] A signed request for a license for this machine; it may be made in every state. */
  async makeRequest(wanted: { mode?: MachineMode; note?: string; present: readonly string[]; actor: string }): Promise<LicenseRequest> {
    await this.readFactors()
    const { db, rootTenant } = this.context
    const mode = wanted.mode ?? this.options.mode
    const salt = randomBytes(16).toString('base64url')
    const values = new Map(machineModes[mode].factors.flatMap((k) => (this.#factors.has(k) ? [[k, this.#factors.get(k)!] as const] : [])))
    const { inForce } = this.#snapshot
    const { x } = this.#instanceKey!.publicKey.export({ format: 'jwk' })
    const { request, event } = await db.withTenant(rootTenant, async (tx) => {
      const made = signRequest(
        {
          type: 'iot-pms-license-request',
          ver: 1,
          product: 'iot-pms',
          productVersion: this.options.version,
          nonce: randomBytes(16).toString('base64url'),
          salt,
          createdAt: `${new Date(this.clock.now()).toISOString().slice(0, 19)}Z`,
          mode,
          factors: hashFactors(salt, values),
          strength: strengthOf([...values.keys()]),
          counts: { ...(await readCounts(tx)), replicas: 1 },
          present: [...wanted.present].sort(),
          prev: inForce ? { jti: inForce.claims.jti, seq: inForce.claims.seq } : null,
          note: (wanted.note ?? '').slice(0, 200),
          instanceKey: { crv: 'Ed25519', kty: 'OKP', x: x! },
        },
        this.#instanceKey!.privateKey,
      )
      const detail = { mode, strength: made.strength, shortCode: made.shortCode }
      return { request: made, event: await this.noteIn(tx, { actor: wanted.actor, action: 'license.request', detail }) }
    })
    if (event) this.context.events.emit('license.event', event)
    return request
  }

  get instanceKey(): InstanceKey {
    return this.#instanceKey!
  }
}

/** What to store about the mismatch of a license, or undefined where it is stored already. */
function mismatchChange(
  { mismatchSince, boundSince }: Pick<StoredLicense, 'mismatchSince' | 'boundSince'>,
  isBound: boolean,
  now: number,
): { mismatchSince?: Date | null; boundSince: Date | null } | undefined {
  if (!isBound) {
    if (mismatchSince === undefined) return { mismatchSince: new Date(now), boundSince: null }
    return boundSince === undefined ? undefined : { boundSince: null }
  }
  if (mismatchSince === undefined) return undefined
  if (boundSince === undefined) return { boundSince: new Date(now) }
  return now - boundSince >= dayMs ? { mismatchSince: null, boundSince: null } : undefined
}

/** What of a snapshot others act by. */
function describe({ state, features, devices, inForce, scheduled, conditions }: LicenseSnapshot): string {
  const tokens = [inForce?.claims.jti, scheduled?.claims.jti]
  return JSON.stringify([state, [...features].sort(), devices.limit, devices.hard, tokens, conditions])
}
