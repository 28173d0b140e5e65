// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, isNotNull, isNull, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { deviceLog, devices, products } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { reserveDevices } from '../license/limits.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { addSecurityEvent, actorName } from '../users/security-events.ts'
import type { Origin } from '../users/security-events.ts'
import { createToken, findCredentials, setCredentials, setCredentialsActive } from './credentials.ts'
import { deviceColumns, deviceTables, withPrimary } from './list.ts'
import type { DeviceRow } from './list.ts'
import type { Credentials, Device, DeviceCreate, DevicePatch, LogEntry } from './schemas.ts'

/** Deleted devices are kept this long [DESIGN, bin]. */
const binDays = 30
const dayMs = 86_400_000

type Change = 'created' | 'updated' | 'deleted' | 'restored' | 'credentials' | 'disabled' | 'enabled'
export type BinItem = { kind: 'device'; id: string; name: string; deletedAt: string; deletedBy: string; daysLeft: number }

/** Everything people do with devices. Each change is one transaction, then the registry takes it in. */
export class Devices {
  readonly #context: Context
  readonly #registry: DeviceRegistry
  readonly #store: TelemetryStore

  constructor(context: Context, registry: DeviceRegistry, store: TelemetryStore) {
    this.#context = context
    this.#registry = registry
    this.#store = store
  }

  /** @throws {ProblemError} `NOT_FOUND` also for foreign devices */
  async get(scope: Scope, id: string): Promise<{ device: Device; version: number }> {
    const row = await this.#context.db.withTenant(scope, (tx) => readRow(tx, id))
    const [device] = await withPrimary(this.#store, scope, [row])
    return { device: device!, version: row.version }
  }

  /** What reading telemetry needs to know of a device; undefined for absent and foreign ones. */
  async find(scope: Scope, id: string): Promise<{ id: string; name: string; timeZone: string } | undefined> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string; name: string; timeZone: string }>(sql`
        select d.id, d.name, coalesce(d.time_zone, t.time_zone) as "timeZone" from devices d join tenants t on t.id = d.tenant_id
        where d.id = ${id} and d.deleted_at is null`),
    )
    return rows[0]
  }

  /** @throws {ProblemError} `LIMIT_DEVICES`, `NAME_TAKEN`, `TOKEN_TAKEN`, `TIME_ZONE_UNKNOWN`, `UNPROCESSABLE` for an unknown product */
  async create(
    actor: Pick<Actor, 'scope'>,
    wanted: DeviceCreate & { isDemo?: boolean; isProvisioned?: boolean; additionalInfo?: Record<string, unknown> },
    credentials?: Credentials,
  ): Promise<Device & { credentials: Credentials }> {
    const { scope } = actor
    const id = randomUUIDv7()
    const given: Credentials = credentials ?? { type: 'access_token', token: createToken() }
    checkTimeZone(wanted.timeZone)
    await this.#context.db.withTenant(scope, async (tx) => {
      const productId = await findProductId(tx, wanted.productId)
      if (!wanted.isDemo) await reserveDevices(this.#context.license, tx, 1)
      await this.#withUniqueName(wanted.name, () =>
        tx.insert(devices).values({
          tenantId: scope.tenantId,
          id,
          productId,
          name: wanted.name.trim(),
          label: wanted.label ?? null,
          description: wanted.description ?? null,
          tags: wanted.tags ?? [],
          isGateway: wanted.gateway ?? false,
          isDemo: wanted.isDemo ?? false,
          timeZone: wanted.timeZone ?? null,
          additionalInfo: wanted.additionalInfo ?? {},
          provisionedAt: wanted.isProvisioned ? new Date(this.#context.clock.now()) : null,
        }),
      )
      await setCredentials(this.#context, tx, scope.tenantId, id, given)
      await addLog(tx, scope, id, 'created', wanted.isProvisioned ? { by: 'provisioning' } : {})
      const { isProvisioned, ...shown } = wanted
      recordAudit(tx, {
        type: isProvisioned ? 'provision.create' : 'device.create',
        subject: `device:${id}`,
        targetName: wanted.name.trim(),
        changes: { from: null, to: { ...shown, credentials: given.type } },
        ...(isProvisioned ? { actor: 'anonymous' } : {}),
      })
    })
    await this.#announce(scope, id, 'created')
    return { ...(await this.get(scope, id)).device, credentials: given }
  }

  /** @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` when `version` is not the stored one, `NAME_TAKEN` */
  async update(
    actor: Actor,
    id: string,
    patch: DevicePatch & { additionalInfo?: Record<string, unknown>; isGateway?: boolean },
    version?: number,
  ): Promise<{ device: Device; version: number }> {
    const { scope } = actor
    checkTimeZone(patch.timeZone ?? undefined)
    const before = await this.#context.db.withTenant(scope, async (tx) => {
      const row = await readRow(tx, id)
      if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
      const { disabled, productId, ...rest } = patch
      const change = {
        ...rest,
        ...(patch.name === undefined ? {} : { name: patch.name.trim() }),
        ...(productId ? { productId: await findProductId(tx, productId) } : {}),
        ...(disabled === undefined ? {} : { disabledAt: disabled ? new Date(this.#context.clock.now()) : null }),
      }
      const updated = await this.#withUniqueName(patch.name ?? '', () =>
        tx
          .update(devices)
          .set({ ...change, version: sql`${devices.version} + 1`, updatedAt: new Date(this.#context.clock.now()) })
          .where(and(eq(devices.id, id), isNull(devices.deletedAt), version === undefined ? undefined : eq(devices.version, version)))
          .returning({ id: devices.id }),
      )
      if (updated.length === 0) throw new ProblemError('VERSION_CONFLICT')
      if (patch.name !== undefined && patch.name !== row.name) await addLog(tx, scope, id, 'renamed', { from: row.name, by: actor.name })
      if (disabled !== undefined && disabled !== row.disabled) {
        await addLog(tx, scope, id, disabled ? 'disabled' : 'enabled', { by: actor.name })
      }
      const from = Object.fromEntries(Object.keys(patch).map((name) => [name, row[name as keyof DeviceRow] ?? null]))
      recordAudit(tx, { type: 'device.update', subject: `device:${id}`, targetName: row.name, changes: { from, to: patch } })
      return row
    })
    const isSwitched = patch.disabled !== undefined && patch.disabled !== before.disabled
    await this.#announce(scope, id, isSwitched ? (patch.disabled ? 'disabled' : 'enabled') : 'updated')
    return this.get(scope, id)
  }

  /** Moves a device to the bin: its name and credentials are free at once, its data comes back with it. */
  async delete(actor: Actor, id: string): Promise<void> {
    const { scope } = actor
    await this.#context.db.withTenant(scope, async (tx) => {
      const rows = await tx
        .update(devices)
        .set({ deletedAt: new Date(this.#context.clock.now()), deletedBy: actor.name, link: 'closed' })
        .where(and(eq(devices.id, id), isNull(devices.deletedAt)))
        .returning({ id: devices.id, name: devices.name })
      if (!rows[0]) throw new ProblemError('NOT_FOUND')
      await setCredentialsActive(tx, id, false)
      recordAudit(tx, { type: 'device.delete', subject: `device:${id}`, targetName: rows[0].name })
    })
    await this.#announce(scope, id, 'deleted')
  }

  async listBin(scope: Scope, limit: number, cursor?: string): Promise<{ items: BinItem[]; nextCursor: string | null }> {
    const [, at, lastId] = cursor ? parseCursor(cursor, 3) : []
    if (cursor && (typeof at !== 'number' || !isUuid(lastId))) throw new ProblemError('CURSOR_INVALID')
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string; name: string; at: number; by: string | null }>(sql`
        select id, name, floor(extract(epoch from deleted_at) * 1000)::float8 as at, deleted_by as by from devices where deleted_at is not null and purging_at is null
        ${cursor ? sql`and (floor(extract(epoch from deleted_at) * 1000), id) < (${at}, ${lastId}::uuid)` : sql``}
        order by floor(extract(epoch from deleted_at) * 1000) desc, id desc limit ${limit + 1}`),
    )
    const page = rows.slice(0, limit)
    const last = page.at(-1)
    return {
      items: page.map((row) => ({
        kind: 'device',
        id: row.id,
        name: row.name,
        deletedAt: new Date(row.at).toISOString(),
        deletedBy: row.by ?? '',
        daysLeft: Math.max(0, Math.ceil((row.at + binDays * dayMs - this.#context.clock.now()) / dayMs)),
      })),
      nextCursor: rows.length > limit && last ? formatCursor(['bin', last.at, last.id]) : null,
    }
  }

  /** @throws {ProblemError} `LIMIT_DEVICES`; `NAME_TAKEN` or `TOKEN_TAKEN` when somebody took it meanwhile; then none is restored */
  async restore(actor: Actor, ids: readonly string[]): Promise<Device[]> {
    const { scope } = actor
    await this.#context.db.withTenant(scope, async (tx) => {
      await reserveDevices(this.#context.license, tx, new Set(ids).size)
      for (const id of ids) {
        const [row] = await tx.execute<{ name: string }>(
          sql`select name from devices where id = ${id} and deleted_at is not null and purging_at is null for update`,
        )
        if (!row) throw new ProblemError('NOT_FOUND')
        await this.#withUniqueName(row.name, () => tx.update(devices).set({ deletedAt: null, deletedBy: null }).where(eq(devices.id, id)))
        await setCredentialsActive(tx, id, true)
        recordAudit(tx, { type: 'device.restore', subject: `device:${id}`, targetName: row.name })
      }
    })
    const restored: Device[] = []
    for (const id of ids) {
      await this.#announce(scope, id, 'restored')
      restored.push((await this.get(scope, id)).device)
    }
    return restored
  }

  /**
   * Deletes devices in the bin for good, their telemetry first.
   * @throws {ProblemError} `NOT_FOUND` unless all of them are in the bin; then nothing is touched
   */
  async purge(scope: Scope, ids: readonly string[]): Promise<void> {
    const unique = [...new Set(ids)]
    await this.#context.db.withTenant(scope, async (tx) => {
      const marked = await tx
        .update(devices)
        .set({ purgingAt: new Date(this.#context.clock.now()) })
        .where(and(inArray(devices.id, unique), isNotNull(devices.deletedAt), isNull(devices.purgingAt)))
        .returning({ id: devices.id, name: devices.name })
      if (marked.length < unique.length) throw new ProblemError('NOT_FOUND')
      for (const { id, name } of marked) recordAudit(tx, { type: 'device.purge', subject: `device:${id}`, targetName: name })
    })
    for (const id of unique) await this.#finishPurge(scope, id)
  }

  /** What has been in the bin for its 30 days goes for good, and what a stopped server did not finish. */
  async purgeExpired(scope: Scope): Promise<void> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string }>(sql`
        update devices set purging_at = coalesce(purging_at, now())
        where deleted_at < now() - ${binDays} * interval '1 day' or purging_at is not null returning id`),
    )
    for (const { id } of rows) {
      await this.#finishPurge(scope, id).catch((error: unknown) =>
        this.#context.log.warn({ err: error, device: id }, 'a deleted device could not be removed yet'),
      )
    }
  }

  async #finishPurge(scope: Scope, id: string): Promise<void> {
    await this.#store.deleteDevice(scope, id)
    await this.#context.db.withTenant(scope, (tx) => tx.delete(devices).where(and(eq(devices.id, id), isNotNull(devices.purgingAt))))
  }

  /** The credentials in clear; each showing is a security event [M-9]. */
  async showCredentials(actor: Actor, origin: Origin, id: string): Promise<Credentials> {
    const { scope } = actor
    return this.#context.db.withTenant(scope, async (tx) => {
      await readRow(tx, id)
      const credentials = await findCredentials(this.#context, tx, scope.tenantId, id)
      if (!credentials) throw new ProblemError('NOT_FOUND')
      await addSecurityEvent(tx, scope.tenantId, origin, this.#context.clock.now(), {
        actor: actorName(actor),
        action: 'device.credentials.show',
        target: `device:${id}`,
        outcome: 'ok',
      })
      return credentials
    })
  }

  /** Replaces the credentials; an old access token may live on for the grace time. */
  async changeCredentials(
    actor: Actor,
    origin: Origin,
    id: string,
    wanted: Credentials,
    graceMs = 0,
    isRotation = false,
  ): Promise<Credentials> {
    const { scope } = actor
    await this.#context.db.withTenant(scope, async (tx) => {
      await readRow(tx, id)
      await setCredentials(this.#context, tx, scope.tenantId, id, wanted, graceMs)
      await addLog(tx, scope, id, 'credentials', { type: wanted.type, by: actor.name })
      await addSecurityEvent(tx, scope.tenantId, origin, this.#context.clock.now(), {
        actor: actorName(actor),
        action: 'device.credentials.change',
        target: `device:${id}`,
        outcome: 'ok',
        detail: { type: wanted.type },
        ...(isRotation ? { type: 'device.credentials.rotate' } : {}),
      })
    })
    // Within the grace time the old token is still good, and so is the session it opened.
    await this.#announce(scope, id, graceMs > 0 ? 'updated' : 'credentials')
    return wanted
  }

  /** A fresh access token. */
  rotate(actor: Actor, origin: Origin, id: string, graceMs: number): Promise<Credentials> {
    return this.changeCredentials(actor, origin, id, { type: 'access_token', token: createToken() }, graceMs, true)
  }

  async #announce(scope: Scope, deviceId: string, change: Change): Promise<void> {
    await this.#registry.refresh(scope, deviceId)
    this.#context.events.emit('device.changed', { tenantId: scope.tenantId, deviceId, change })
  }

  async #withUniqueName<T>(name: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name }, cause: error }) : error
    }
  }
}

/** Notes an event of a device in the transaction of its cause. */
export async function addLog(tx: Tx, scope: Scope, deviceId: string, event: string, detail: Record<string, unknown>): Promise<LogEntry> {
  const [row] = await tx.insert(deviceLog).values({ tenantId: scope.tenantId, deviceId, id: randomUUIDv7(), event, detail }).returning()
  return { id: row!.id, at: row!.at.toISOString(), event, detail }
}

async function readRow(tx: Tx, id: string): Promise<DeviceRow> {
  const [row] = await tx.execute<DeviceRow>(sql`select ${deviceColumns} from ${deviceTables} where d.id = ${id} and d.deleted_at is null`)
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

async function findProductId(tx: Tx, wanted: string | undefined): Promise<string> {
  const [product] = await tx
    .select({ id: products.id })
    .from(products)
    .where(wanted ? eq(products.id, wanted) : eq(products.isDefault, true))
  if (!product) throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/productId', detail: 'There is no such product.' }] })
  return product.id
}

/** @throws {ProblemError} `TIME_ZONE_UNKNOWN` */
export function checkTimeZone(timeZone: string | undefined): void {
  if (timeZone === undefined) return
  try {
    new Intl.DateTimeFormat('en', { timeZone })
  } catch (error) {
    throw new ProblemError('TIME_ZONE_UNKNOWN', { params: { timeZone }, cause: error })
  }
}
