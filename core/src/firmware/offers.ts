// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Attributes } from '../attributes/attributes.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import type { OtaKind } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { ChildSessions } from '../gateway/child-sessions.ts'
import type { Device } from '../ingest/registry.ts'
import type { Sessions } from '../ingest/sessions.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { attributeKeys, currentKeys, offerAttributes, prefixOf, reportKeys } from './keys.ts'
import { checkAssignable } from './packages.ts'
import { otaKinds } from './schemas.ts'
import { isCurrent } from './targets.ts'
import type { OtaTargets, Target } from './targets.ts'

export type OfferParts = {
  targets: OtaTargets
  attributes: Pick<Attributes, 'list' | 'change'>
  sessions: Sessions
  childSessions: ChildSessions
  store: TelemetryStore
  /** Stores telemetry for a device whose values keep their types. */
  writeTelemetry: (deviceId: string, values: Record<string, string | number>) => Promise<void>
}

type Difference = { deviceId: string; kind: OtaKind; packageId: string | null; knownId: string | null }
type Wanted = { scope: Scope; filter: SQL }

/** [O-6] */
const offerAgainMs = 60_000
const retryMs = 10_000
const pageSize = 500
/** Devices that are told at the same time. */
const atOnce = 8

/**
 * Sees to it that each device is told to install what it shall run [O-2]: its own package, else that of its
 * product. What was told is a row per device, and what differs is found by comparing, so that a stopped
 * server goes on where it was.
 */
export class OtaOffers {
  readonly #context: Context
  readonly #parts: OfferParts
  readonly #wanted: Wanted[] = []
  #isRunning = false
  #isStopped = false
  /** The last change of each device that is under way: the next one waits for it. */
  readonly #turns = new Map<string, Promise<void>>()
  readonly #timers = new Set<() => void>()
  #stops: (() => void)[] = []

  constructor(context: Context, parts: OfferParts) {
    this.#context = context
    this.#parts = parts
  }

  async start(): Promise<void> {
    const { events, db } = this.#context
    const { targets, sessions, childSessions } = this.#parts
    const offerLater = ({ device }: { device: Device }) => this.#offerAgainLater(device.id)
    this.#stops = [
      events.on('product.changed', ({ tenantId, productId }) => this.#want(tenantId, sql`d.product_id = ${productId}`)),
      events.on('device.changed', ({ tenantId, deviceId, change }) => {
        if (change === 'deleted') targets.forget(deviceId)
        else if (change === 'created' || change === 'updated' || change === 'restored') this.#want(tenantId, sql`d.id = ${deviceId}`)
      }),
      sessions.on('opened', offerLater),
      childSessions.onOpened(offerLater),
    ]
    for (const session of [...sessions.all(), ...childSessions.all()]) offerLater(session)
    for (const scope of await listTenants(db)) this.#wanted.push({ scope, filter: sql`true` })
    void this.#run()
    this.#catchUp().catch((error: unknown) => this.#context.log.warn({ err: error }, 'reports before the start were not read'))
  }

  /** What is under way comes to its end; the rest goes on with the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const stop of this.#stops) stop()
    for (const cancel of this.#timers) cancel()
    await Promise.allSettled(this.#turns.values())
  }

  /**
   * Gives a package to one device, or takes its own away (null); then its product decides again. One that the
   * device was told already is told anew. Returns when that is done, or will be done as soon as it is possible.
   *
   * @throws {ProblemError} `NOT_FOUND`, `UNPROCESSABLE`
   */
  async assign(scope: Scope, deviceId: string, kind: OtaKind, packageId: string | null, by: string): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      const [device] = await tx.execute<{ productId: string }>(
        sql`select product_id as "productId" from devices where id = ${deviceId} and deleted_at is null for share`,
      )
      if (!device) throw new ProblemError('NOT_FOUND')
      if (packageId) await checkAssignable(tx, { packageId, kind, productId: device.productId }, '/packageId')
      await setOwnPackage(tx, scope, deviceId, kind, packageId)
      recordAudit(tx, { type: 'firmware.assign', subject: `device:${deviceId}`, changes: { from: null, to: { kind, packageId } } })
    })
    this.#parts.targets.trace.add({ scope, deviceId, kind, packageId }, packageId ? 'assigned' : 'taken_away', { by })
    await this.#settle(scope, deviceId).catch((error: unknown) => this.#later(error, { scope, filter: sql`d.id = ${deviceId}` }))
  }

  #want(tenantId: string, filter: SQL): void {
    const { rootTenant, db, log } = this.#context
    const push = (scope: Scope | undefined) => {
      if (scope) this.#wanted.push({ scope, filter })
      void this.#run()
    }
    if (tenantId === rootTenant.tenantId) return push(rootTenant)
    listTenants(db).then(
      (tenants) => push(tenants.find((tenant) => tenant.tenantId === tenantId)),
      // The next start finds what was missed.
      (error: unknown) => log.warn({ err: error, tenant: tenantId }, 'a change was not looked at for packages'),
    )
  }

  async #run(): Promise<void> {
    if (this.#isRunning) return
    this.#isRunning = true
    while (this.#wanted.length > 0 && !this.#isStopped) {
      const wanted = this.#wanted.shift()!
      await this.#settleAll(wanted).catch((error: unknown) => this.#later(error, wanted))
    }
    this.#isRunning = false
  }

  /** Devices one page after the other, so that a product with very many takes no memory. */
  async #settleAll({ scope, filter }: Wanted): Promise<void> {
    let after = '00000000-0000-0000-0000-000000000000'
    for (let found = pageSize; found === pageSize && !this.#isStopped;) {
      const page = await this.#findDifferences(scope, sql`${filter} and d.id > ${after}`)
      const ids = [...new Set(page.map(({ deviceId }) => deviceId))]
      found = page.length
      after = ids.at(-1) ?? after
      const queue = ids.values()
      const work = async () => {
        for (const id of queue) {
          if (this.#isStopped) return
          await this.#settle(scope, id).catch((error: unknown) => this.#later(error, { scope, filter: sql`d.id = ${id}` }))
        }
      }
      await Promise.all(Array.from({ length: atOnce }, work))
    }
  }

  /** Whatever fails is tried again: a database that is away, a full disk. */
  #later(error: unknown, wanted: Wanted): void {
    if (this.#isStopped) return
    this.#context.log.warn({ err: error }, 'a device could not be told its package yet')
    this.#after(retryMs, () => {
      this.#wanted.push(wanted)
      void this.#run()
    })
  }

  #after(ms: number, callback: () => void): void {
    const cancel = this.#context.clock.after(ms, () => {
      this.#timers.delete(cancel)
      callback()
    })
    this.#timers.add(cancel)
  }

  /** One change of a device after the other; each looks anew at what is wanted by then. */
  #settle(scope: Scope, deviceId: string): Promise<void> {
    const before = this.#turns.get(deviceId) ?? Promise.resolve()
    const turn = before.then(async () => {
      await this.#dropForeign(scope, deviceId)
      for (const difference of await this.#findDifferences(scope, sql`d.id = ${deviceId}`)) {
        if (difference.packageId) await this.#offer(scope, difference)
        else await this.#withdraw(scope, difference)
      }
    })
    const settled = turn.catch(() => {})
    this.#turns.set(deviceId, settled)
    void settled.then(() => {
      if (this.#turns.get(deviceId) === settled) this.#turns.delete(deviceId)
    })
    return turn
  }

  /** A device that moved to another product has lost the package it had of its own. */
  async #dropForeign(scope: Scope, deviceId: string): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        update ota_devices t set own_package_id = null from ota_packages o, devices d
        where t.device_id = ${deviceId} and o.tenant_id = t.tenant_id and o.id = t.own_package_id and d.tenant_id = t.tenant_id and d.id = t.device_id
          and o.product_id <> d.product_id`),
    )
  }

  /** Devices that were told something else than what they shall run, or not everything of it. */
  #findDifferences(scope: Scope, filter: SQL): Promise<Difference[]> {
    return this.#context.db.withTenant(scope, (tx) =>
      tx.execute<Difference>(sql`
        select d.id as "deviceId", k.kind, w.id as "packageId", t.package_id as "knownId"
        from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id
          cross join (values ('firmware', 'firmwareId'), ('software', 'softwareId')) as k (kind, setting)
          left join ota_devices t on t.tenant_id = d.tenant_id and t.device_id = d.id and t.kind = k.kind
          left join lateral (
            select o.id from ota_packages o
            where o.tenant_id = d.tenant_id and o.product_id = d.product_id and o.kind = k.kind and (o.url is not null or o.content_id is not null)
              and o.id::text in (t.own_package_id::text, p.settings->'ota'->>k.setting)
            order by o.id = t.own_package_id desc nulls last limit 1) w on true
        where d.deleted_at is null and (w.id is distinct from t.package_id or (w.id is not null and t.offered_at is null)) and ${filter}
        order by d.id limit ${pageSize}`),
    )
  }

  /** [O-2], in its order. */
  async #offer(scope: Scope, { deviceId, kind, packageId }: Difference): Promise<void> {
    const { targets, writeTelemetry, attributes } = this.#parts
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        insert into ota_devices (tenant_id, device_id, kind, package_id) values (${scope.tenantId}, ${deviceId}, ${kind}, ${packageId})
        on conflict (tenant_id, device_id, kind) do update set package_id = excluded.package_id, offered_at = null, state = 'QUEUED',
          state_at = now(), error = null, bytes_sent = 0`),
    )
    await targets.refresh(scope, deviceId)
    const target = targets.find(deviceId, kind)
    if (!target) return
    const prefix = prefixOf[kind]
    const { title, version, tag } = target.file
    targets.addEvent(target, 'state', { state: 'QUEUED' })
    await writeTelemetry(deviceId, {
      [`target_${prefix}_title`]: title,
      [`target_${prefix}_version`]: version,
      ...(tag === null ? {} : { [`target_${prefix}_tag`]: tag }),
      [`target_${prefix}_ts`]: this.#context.clock.now(),
      [`${prefix}_state`]: 'QUEUED',
    })
    await writeTelemetry(deviceId, { [`${prefix}_state`]: 'INITIATED' })
    targets.setState(target, 'INITIATED')
    await this.#takeCurrent(target)
    const values = offerAttributes(target)
    // Members of the package before that this one has not: told apart, so that the offer itself is one message.
    const stale = await this.#findKeys(scope, deviceId, kind, new Set(values.map(({ key }) => key)))
    if (stale.length > 0) await attributes.change(scope, deviceId, 'shared', { deleted: stale })
    await attributes.change(scope, deviceId, 'shared', { values })
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        update ota_devices set offered_at = now() where device_id = ${deviceId} and kind = ${kind} and package_id = ${packageId}`),
    )
    targets.addEvent(target, 'offered', { title, version })
  }

  async #withdraw(scope: Scope, { deviceId, kind, knownId }: Difference): Promise<void> {
    const { targets, attributes } = this.#parts
    const keys = await this.#findKeys(scope, deviceId, kind, new Set())
    if (keys.length > 0) await attributes.change(scope, deviceId, 'shared', { deleted: keys })
    await this.#context.db.withTenant(scope, async (tx) => {
      // What was given to the device itself meanwhile stays, and is told next.
      await tx.execute(sql`
        update ota_devices set package_id = null, offered_at = null where device_id = ${deviceId} and kind = ${kind} and package_id = ${knownId}`)
      await removeEmpty(tx, deviceId, kind)
    })
    await targets.refresh(scope, deviceId)
    targets.trace.add({ scope, deviceId, kind, packageId: knownId }, 'withdrawn')
  }

  async #findKeys(scope: Scope, deviceId: string, kind: OtaKind, without: ReadonlySet<string>): Promise<string[]> {
    const keys = attributeKeys(kind).filter((key) => !without.has(key))
    return (await this.#parts.attributes.list(scope, deviceId, 'shared', { keys, limit: keys.length })).map(({ key }) => key)
  }

  /** What the device reported before it was a target. */
  async #takeCurrent(target: Target): Promise<void> {
    const { scope, deviceId, kind } = target
    const latest = await this.#parts.store.latest(scope, [deviceId], { keys: currentKeys(kind) })
    this.#parts.targets.report(deviceId, latest.get(deviceId) ?? [])
  }

  /** [O-6] A device that runs something else is told again some time after it has come back. */
  #offerAgainLater(deviceId: string): void {
    const { targets } = this.#parts
    if (!otaKinds.some((kind) => targets.find(deviceId, kind))) return
    const session = this.#findSession(deviceId)
    const connectedAt = this.#context.clock.now()
    this.#after(offerAgainMs, () => {
      if (this.#findSession(deviceId) !== session) return
      for (const kind of otaKinds) {
        const target = targets.find(deviceId, kind)
        if (target && mustHearAgain(target, connectedAt)) void this.#offerAgain(target)
      }
    })
  }

  /** Its own session, or the one its gateway has for it. */
  #findSession(deviceId: string): object | undefined {
    return this.#parts.sessions.get(deviceId) ?? this.#parts.childSessions.get(deviceId)
  }

  async #offerAgain(target: Target): Promise<void> {
    const { targets, attributes } = this.#parts
    const { scope, deviceId, kind } = target
    try {
      if (targets.find(deviceId, kind) !== target) return
      await attributes.change(scope, deviceId, 'shared', { values: offerAttributes(target) })
      targets.addEvent(target, 'offered_again')
    } catch (error) {
      this.#context.log.warn({ err: error, device: deviceId }, 'a package could not be offered again')
    }
  }

  /** What devices reported in the last half second before a crash is known to the store only. */
  async #catchUp(): Promise<void> {
    const { targets, store } = this.#parts
    const open = targets.all().filter(({ state }) => state !== 'UPDATED' && state !== 'FAILED')
    const keys = [...reportKeys.keys()]
    for (const group of Map.groupBy(open, ({ scope }) => scope.tenantId).values()) {
      for (let at = 0; at < group.length && !this.#isStopped; at += pageSize) {
        const page = new Map(group.slice(at, at + pageSize).map((target) => [target.deviceId, target.stateAt]))
        const latest = await store.latest(group[0]!.scope, [...page.keys()], { keys })
        for (const [deviceId, since] of page) targets.report(deviceId, latest.get(deviceId)?.filter(({ ts }) => ts > since) ?? [])
      }
    }
  }
}

/** Only one that said what it runs, and not one that is just downloading: that would begin anew. */
function mustHearAgain(target: Target, since: number): boolean {
  const hasReported = target.currentTitle !== null || target.currentVersion !== null
  return hasReported && !isCurrent(target) && target.lastAskedAt < since
}

/** The row exists as long as the device has a package of its own or was told one. */
async function setOwnPackage(tx: Tx, scope: Scope, deviceId: string, kind: OtaKind, packageId: string | null): Promise<void> {
  if (packageId) {
    await tx.execute(sql`
      insert into ota_devices (tenant_id, device_id, kind, own_package_id) values (${scope.tenantId}, ${deviceId}, ${kind}, ${packageId})
      on conflict (tenant_id, device_id, kind) do update set own_package_id = excluded.own_package_id, offered_at = null`)
    return
  }
  await tx.execute(sql`update ota_devices set own_package_id = null where device_id = ${deviceId} and kind = ${kind}`)
  await removeEmpty(tx, deviceId, kind)
}

async function removeEmpty(tx: Tx, deviceId: string, kind: OtaKind): Promise<void> {
  await tx.execute(sql`
    delete from ota_devices where device_id = ${deviceId} and kind = ${kind} and own_package_id is null and package_id is null`)
}
