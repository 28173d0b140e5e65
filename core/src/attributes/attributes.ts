// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { stateSql } from '../devices/states.ts'
import { ProblemError } from '../errors.ts'
import type { Attribute } from '../ingest/codecs.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { upsert } from './attribute-store.ts'
import { attributeColumns, toColumns, toStored } from './columns.ts'
import type { AttributeScope, StoredAttribute, ValueColumns } from './columns.ts'

/** What changed, as listeners hear of it after the commit. */
export type AttributeChange = {
  tenantId: string
  deviceId: string
  scope: AttributeScope
  values: readonly StoredAttribute[]
  deleted: readonly string[]
}

export type AttributeFilter = { keys?: readonly string[] | undefined; after?: string | undefined; limit: number }

/** [A-6] Views of the device's state, which nobody writes. */
const reservedKeys: ReadonlySet<string> = new Set([
  'active',
  'lastActivityTime',
  'lastConnectTime',
  'lastDisconnectTime',
  'inactivityAlarmTime',
])
/** [A-6] A view of the device's own inactivity time, ms. */
const timeoutKey = 'inactivityTimeout'
const shortestTimeoutMs = 10_000
const longestTimeoutMs = 2_592_000_000
/** Read at a time where all are wanted. */
const pageSize = 1000

type Row = ValueColumns & { key: string; updatedAt: number }

/** Attributes of devices as people see and change them (device API §5). */
export class Attributes {
  readonly #context: Context
  readonly #registry: DeviceRegistry
  /** The last change of each device that is being made: the next one waits for it. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(context: Context, registry: DeviceRegistry) {
    this.#context = context
    this.#registry = registry
  }

  /**
   * One page of the attributes of a scope, by key.
   * @throws {ProblemError} `NOT_FOUND`
   */
  list(scope: Scope, deviceId: string, attributeScope: AttributeScope, filter: AttributeFilter): Promise<StoredAttribute[]> {
    const { keys, after, limit } = filter
    return this.#context.db.withTenant(scope, async (tx) => {
      const views = await readViews(tx, deviceId)
      const rows = await tx.execute<Row>(sql`
        select ${attributeColumns} from device_attributes a
        where a.tenant_id = ${scope.tenantId} and a.device_id = ${deviceId} and a.scope = ${attributeScope}
          ${keys ? sql`and a.key = any(${sql.param(keys)}::text[])` : sql``} ${after === undefined ? sql`` : sql`and a.key collate "C" > ${after}`}
        order by a.key collate "C" limit ${limit}`)
      const stored = rows.map(toStored)
      if (attributeScope !== 'server') return stored
      const shown = views.filter(({ key }) => (!keys || keys.includes(key)) && (after === undefined || compareKeys(key, after) > 0))
      return [...stored, ...shown].toSorted((one, other) => compareKeys(one.key, other.key)).slice(0, limit)
    })
  }

  /**
   * All attributes of a scope, or those of these keys, however many there are.
   * @throws {ProblemError} `NOT_FOUND`
   */
  async *listAll(
    scope: Scope,
    deviceId: string,
    attributeScope: AttributeScope,
    keys?: readonly string[],
  ): AsyncGenerator<StoredAttribute, undefined> {
    for (let after: string | undefined; ;) {
      const page = await this.list(scope, deviceId, attributeScope, { keys, after, limit: pageSize })
      yield* page
      if (page.length < pageSize) return
      after = page.at(-1)!.key
    }
  }

  /**
   * Sets and deletes attributes of one scope as one change: all of it or nothing. Changes of one device are
   * made, and told, one after the other [A-2].
   *
   * @returns what was set
   * @throws {ProblemError} `NOT_FOUND`, `ATTRIBUTE_RESERVED`, `UNPROCESSABLE` for an `inactivityTimeout` out of bounds
   */
  change(
    scope: Scope,
    deviceId: string,
    attributeScope: AttributeScope,
    wanted: { values?: readonly Attribute[]; deleted?: readonly string[] },
  ): Promise<StoredAttribute[]> {
    const change = { attributeScope, values: wanted.values ?? [], deleted: wanted.deleted ?? [] }
    const before = this.#turns.get(deviceId) ?? Promise.resolve()
    const turn = before.then(() => this.#change(scope, deviceId, change))
    const settled = turn.catch(() => {})
    this.#turns.set(deviceId, settled)
    void settled.then(() => {
      if (this.#turns.get(deviceId) === settled) this.#turns.delete(deviceId)
    })
    return turn
  }

  async #change(
    scope: Scope,
    deviceId: string,
    wanted: { attributeScope: AttributeScope; values: readonly Attribute[]; deleted: readonly string[] },
  ): Promise<StoredAttribute[]> {
    const { attributeScope, values, deleted } = wanted
    const timeout = attributeScope === 'server' ? findTimeout(values, deleted) : undefined
    const at = this.#context.clock.now()
    const rows = values
      .filter(({ key }) => attributeScope !== 'server' || key !== timeoutKey)
      .map((value) => ({ device: deviceId, scope: attributeScope, key: value.key, at, ...toColumns(value) }))
    await this.#context.db.withTenant(scope, async (tx) => {
      const found = await tx.execute(sql`select 1 from devices where id = ${deviceId} and deleted_at is null for key share`)
      if (found.length === 0) throw new ProblemError('NOT_FOUND')
      if (rows.length > 0) await upsert(tx, scope, rows)
      if (deleted.length > 0) await remove(tx, scope, deviceId, attributeScope, deleted)
      if (timeout !== undefined) {
        await tx.execute(sql`
          update devices set inactivity_timeout_ms = ${timeout}, version = version + 1, updated_at = to_timestamp(${at} / 1000.0)
          where id = ${deviceId}`)
      }
      const set = values.map(({ key, value }): [string, unknown] => [key, value])
      const to: Record<string, unknown> = Object.fromEntries([...set, ...deleted.map((key): [string, unknown] => [key, null])])
      recordAudit(tx, { type: 'attribute.update', subject: `device:${deviceId}`, changes: { from: null, to: { [attributeScope]: to } } })
    })
    if (timeout !== undefined) {
      await this.#registry.refresh(scope, deviceId)
      this.#context.events.emit('device.changed', { tenantId: scope.tenantId, deviceId, change: 'updated' })
    }
    const stored = values.map((value) => ({ ...value, updatedAt: at }))
    const change = { tenantId: scope.tenantId, deviceId, scope: attributeScope, values: stored, deleted }
    if (stored.length > 0 || deleted.length > 0) this.#context.events.emit('attributes.changed', change)
    return stored
  }
}

/** The device's own timeout as it is asked for: null takes it away, undefined leaves it. */
function findTimeout(values: readonly Attribute[], deleted: readonly string[]): number | null | undefined {
  const reserved = [...values.map(({ key }) => key), ...deleted].find((key) => reservedKeys.has(key))
  if (reserved !== undefined) throw new ProblemError('ATTRIBUTE_RESERVED', { params: { key: reserved } })
  if (deleted.includes(timeoutKey)) return null
  const value = values.find(({ key }) => key === timeoutKey)
  if (value === undefined) return undefined
  if (value.kind === 'integer' && value.value >= shortestTimeoutMs && value.value <= longestTimeoutMs) return Number(value.value)
  const detail = `${timeoutKey} is a whole number of milliseconds from ${shortestTimeoutMs} to ${longestTimeoutMs}.`
  throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: `/${timeoutKey}`, detail }] })
}

async function remove(tx: Tx, scope: Scope, deviceId: string, attributeScope: AttributeScope, keys: readonly string[]): Promise<void> {
  // In the order of upsert, for the same reason.
  await tx.execute(sql`
    delete from device_attributes where (tenant_id, device_id, scope, key) in (
      select tenant_id, device_id, scope, key from device_attributes
      where tenant_id = ${scope.tenantId} and device_id = ${deviceId} and scope = ${attributeScope} and key = any(${sql.param(keys)}::text[])
      order by key collate "C" for update)`)
}

/** [S-5] What the server itself knows of a device, as server attributes. */
async function readViews(tx: Tx, deviceId: string): Promise<StoredAttribute[]> {
  const ms = (instant: SQL) => sql`floor(extract(epoch from ${instant}) * 1000)::float8`
  type Views = {
    state: string
    link: string
    activity: number
    connect: number
    disconnect: number
    timeout: number
    own: string | null
    now: number
  }
  const [row] = await tx.execute<Views>(sql`
    select ${stateSql} as state, d.link, coalesce(${ms(sql`d.last_activity_at`)}, 0) as activity, coalesce(${ms(sql`d.last_connect_at`)}, 0) as connect,
      coalesce(${ms(sql`d.last_disconnect_at`)}, 0) as disconnect, coalesce(d.inactivity_timeout_ms, p.inactivity_timeout_ms)::float8 as timeout,
      d.inactivity_timeout_ms::text as own, ${ms(sql`now()`)} as now
    from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id where d.id = ${deviceId} and d.deleted_at is null`)
  if (!row) throw new ProblemError('NOT_FOUND')
  const { state, link, activity, connect, disconnect, timeout, own, now } = row
  // When the device last became inactive: its session ended, or a device without one was silent for too long.
  const inactive = link === 'http' && state === 'offline' ? activity + timeout : disconnect
  const time = (key: string, value: number): StoredAttribute => ({ key, kind: 'integer', value, updatedAt: value || now })
  return [
    { key: 'active', kind: 'boolean', value: state === 'online', updatedAt: Math.max(activity, connect, disconnect) || now },
    time('inactivityAlarmTime', inactive),
    ...(own === null ? [] : [{ key: timeoutKey, kind: 'integer', value: Number(own), updatedAt: now } as const]),
    time('lastActivityTime', activity),
    time('lastConnectTime', connect),
    time('lastDisconnectTime', disconnect),
  ]
}

/** Bytes, as the database orders keys. */
function compareKeys(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other))
}
