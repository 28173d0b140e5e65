// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { classifyDbError } from '../db/errors.ts'
import { createToken, sealCredentials } from '../devices/credentials.ts'
import type { DeviceLog } from '../devices/device-log.ts'
import type { DeviceStates } from '../devices/states.ts'
import { tokenLookup } from '../ingest/device-registry.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { Sessions } from '../ingest/sessions.ts'
import { reserveSome } from '../license/limits.ts'
import { ensureProduct } from '../products/products.ts'

/** A child as its gateway names it; `type` is the name of its product. */
export type WantedChild = { name: string; type?: string | undefined }

export type ChildDeviceParts = { registry: DeviceRegistry; sessions: Sessions; states: DeviceStates; log: DeviceLog }

type Row = { id: string; name: string; gatewayId: string | null; disabled: boolean; isForeign: boolean; ownConnectAt: number | null }

/** [G-3] A device that spoke for itself during this time is not given to a gateway. */
const ownDays = 30
const dayMs = 86_400_000
const retryMs = 500

const forbid = (detail: string): Reject => ({ code: 'CHILD_FORBIDDEN', detail })
/** [E-3] Known devices go on as before. */
const licenseReject: Reject = { code: 'DEVICE_LIMIT', detail: 'the license has room for no further device' }

/** The devices behind gateways: finds them, makes them, and gives them from one gateway to another. */
export class ChildDevices {
  readonly #context: Context
  readonly #parts: ChildDeviceParts
  #isStopped = false

  constructor(context: Context, parts: ChildDeviceParts) {
    this.#context = context
    this.#parts = parts
  }

  /** What still waits for the database is told that there is no answer. */
  stop(): void {
    this.#isStopped = true
  }

  /** The devices a gateway has already, by name. */
  async list(gateway: Device): Promise<Map<string, string> | 'unavailable'> {
    const rows = await this.#transact(gateway, (tx) =>
      tx.execute<{ id: string; name: string }>(sql`select id, name from devices where gateway_id = ${gateway.id} and deleted_at is null`),
    )
    return rows === 'unavailable' ? rows : new Map(rows.map(({ id, name }) => [name, id]))
  }

  /**
   * The device of each name: found, adopted or created, and known to the registry [G-1], [G-3]. Whoever asks for
   * a name at the same time gets the same device [G-2].
   */
  async ensure(gateway: Device, wanted: readonly WantedChild[]): Promise<Map<string, Device | Reject> | 'unavailable'> {
    const names = wanted.map(({ name }) => name)
    const found = await this.#find(gateway, names)
    if (found === 'unavailable') return found
    const refused = new Map<string, Reject>()
    const created = await this.#create(
      gateway,
      wanted.filter(({ name }) => !found.has(name)),
      refused,
    )
    if (created === 'unavailable') return created
    // Read again with what was created, here or by another gateway at the same moment.
    const missed = names.filter((name) => !found.has(name) && !refused.has(name))
    const rest = missed.length > 0 ? await this.#find(gateway, missed) : new Map<string, Row>()
    if (rest === 'unavailable') return rest
    const rows = new Map([...found, ...rest])
    const adopted = await this.#adopt(gateway, [...rows.values()], refused)
    if (adopted === 'unavailable') return adopted
    await this.#announce(gateway, created, adopted)
    return new Map(names.map((name) => [name, refused.get(name) ?? this.#known(rows.get(name))]))
  }

  #known(row: Row | undefined): Device | Reject {
    const device = row && this.#parts.registry.get(row.id)
    return device ?? forbid('the device was deleted at this moment')
  }

  async #find(gateway: Device, names: readonly string[]): Promise<Map<string, Row> | 'unavailable'> {
    const rows = await this.#transact(gateway, (tx) =>
      tx.execute<Row>(sql`
        select d.id, d.name, d.gateway_id as "gatewayId", d.disabled_at is not null as disabled,
          coalesce(d.customer_id <> g.customer_id, false) as "isForeign", extract(epoch from d.own_connect_at)::float8 * 1000 as "ownConnectAt"
        from devices d, devices g where d.name = any(${sql.param(names)}::text[]) and d.deleted_at is null and g.id = ${gateway.id}`),
    )
    return rows === 'unavailable' ? rows : new Map(rows.map((row) => [row.name, row]))
  }

  /** @returns what was created; whoever came first with a name wins, and is found afterwards */
  async #create(gateway: Device, wanted: readonly WantedChild[], refused: Map<string, Reject>): Promise<string[] | 'unavailable'> {
    if (wanted.length === 0) return []
    if (!gateway.settings.gateway.autoCreate) {
      const reject = forbid('the product of the gateway does not let it create devices (gateway.autoCreate)')
      for (const { name } of wanted) refused.set(name, reject)
      return []
    }
    const products = await this.#ensureProducts(gateway, wanted)
    if (products === 'unavailable') return products
    const { secrets } = this.#context
    return this.#transact(gateway, async (tx, scope) => {
      const room = Math.min(wanted.length, await countRoom(tx, gateway))
      const { taken } = await reserveSome(this.#context.license, tx, room)
      for (const { name } of wanted.slice(room)) refused.set(name, limitReject(gateway))
      for (const { name } of wanted.slice(taken, room)) refused.set(name, licenseReject)
      const children = wanted.slice(0, taken).map(({ name, type }) => ({ id: randomUUIDv7(), name, productId: products.get(type)! }))
      // In one order everywhere, so that two gateways with the same names wait for each other instead of blocking each other.
      const inserted = await tx.execute<{ id: string }>(sql`
        insert into devices (tenant_id, id, customer_id, product_id, name, gateway_id)
        select ${scope.tenantId}, r.id, (select customer_id from devices where id = ${gateway.id}), r."productId", r.name, ${gateway.id}
        from jsonb_to_recordset(${JSON.stringify(children)}::jsonb) as r (id uuid, "productId" uuid, name text)
        order by r.name collate "C"
        on conflict (tenant_id, name) where deleted_at is null do nothing returning id`)
      const ids = inserted.map(({ id }) => id)
      for (const { id, name } of children.filter((child) => ids.includes(child.id))) {
        recordAudit(tx, { type: 'device.create', subject: `device:${id}`, targetName: name, actor: `device:${gateway.id}` })
      }
      const credentials = ids.map((deviceId) => {
        const token = createToken()
        const sealed = sealCredentials(secrets, scope.tenantId, deviceId, { type: 'access_token', token })
        return { deviceId, id: randomUUIDv7(), lookup: tokenLookup(token).toString('hex'), sealed }
      })
      await tx.execute(sql`
        insert into device_credentials (tenant_id, device_id, id, kind, lookup_sha256, sealed)
        select ${scope.tenantId}, r."deviceId", r.id, 'access_token', decode(r.lookup, 'hex'), r.sealed
        from jsonb_to_recordset(${JSON.stringify(credentials)}::jsonb) as r ("deviceId" uuid, id uuid, lookup text, sealed text)`)
      return ids
    })
  }

  /** The id of each product a child shall have, by its name [G-1]. */
  #ensureProducts(gateway: Device, wanted: readonly WantedChild[]): Promise<Map<string | undefined, string> | 'unavailable'> {
    return this.#persist(gateway, async (scope) => {
      const products = new Map<string | undefined, string>()
      for (const type of new Set(wanted.map((child) => child.type))) {
        products.set(type, type === undefined ? await this.#defaultProduct(scope) : await ensureProduct(this.#context, scope, type))
      }
      return products
    })
  }

  async #defaultProduct(scope: Scope): Promise<string> {
    const [row] = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string }>(sql`select id from products where is_default`),
    )
    return row!.id
  }

  /** @returns what has come over from no gateway or another one */
  async #adopt(gateway: Device, rows: readonly Row[], refused: Map<string, Reject>): Promise<string[] | 'unavailable'> {
    const wanted = rows.filter((row) => {
      const reject = this.#judge(gateway, row)
      if (reject) refused.set(row.name, reject)
      return reject === undefined && row.gatewayId !== gateway.id
    })
    if (wanted.length === 0) return []
    return this.#transact(gateway, async (tx) => {
      const room = await countRoom(tx, gateway)
      for (const { name } of wanted.slice(room)) refused.set(name, limitReject(gateway))
      const ids = wanted.slice(0, room).map(({ id }) => id)
      const updated = await tx.execute<{ id: string }>(sql`
        update devices set gateway_id = ${gateway.id}, version = version + 1, updated_at = now()
        where id = any(${sql.param(ids)}::uuid[]) and deleted_at is null returning id`)
      return updated.map(({ id }) => id)
    })
  }

  /** [G-3] Why the gateway may not speak for a device that exists. */
  #judge(gateway: Device, row: Row): Reject | undefined {
    const { sessions, states } = this.#parts
    if (row.id === gateway.id) return forbid('a gateway is not a child of its own')
    if (row.disabled) return forbid('the device is disabled')
    if (sessions.get(row.id)) return forbid('the device is connected with its own credentials')
    if (row.gatewayId === gateway.id) return undefined
    if (row.isForeign) return forbid('the device belongs to another customer than the gateway')
    const ownConnectAt = Math.max(row.ownConnectAt ?? 0, states.ownConnectAt(row.id) ?? 0)
    const isOwn = ownConnectAt > this.#context.clock.now() - ownDays * dayMs
    return isOwn ? forbid(`the device connected with its own credentials during the last ${ownDays} days`) : undefined
  }

  async #announce(gateway: Device, created: readonly string[], adopted: readonly string[]): Promise<void> {
    const { registry, log } = this.#parts
    const { tenantId } = gateway
    const changed = [...created, ...adopted]
    if (changed.length === 0) return
    await registry.refresh(scopeOf(gateway), ...changed)
    for (const deviceId of changed) {
      const isNew = created.includes(deviceId)
      const device = registry.get(deviceId)
      if (device) log.add(device, isNew ? 'created' : 'adopted', { by: 'gateway', gateway: gateway.name })
      this.#context.events.emit('device.changed', { tenantId, deviceId, change: isNew ? 'created' : 'updated' })
    }
  }

  #transact<T>(gateway: Device, work: (tx: Tx, scope: Scope) => Promise<T>): Promise<T | 'unavailable'> {
    return this.#persist(gateway, (scope) => this.#context.db.withTenant(scope, (tx) => work(tx, scope)))
  }

  /** Repeated while the database is away, since nothing of a message may be lost [M-29]. */
  async #persist<T>(gateway: Device, work: (scope: Scope) => Promise<T>): Promise<T | 'unavailable'> {
    const { log } = this.#context
    for (;;) {
      try {
        return await work(scopeOf(gateway))
      } catch (error) {
        if (classifyDbError(error) !== 'unavailable') throw error
        if (this.#isStopped) return 'unavailable'
        log.warn({ err: error, gateway: gateway.id }, 'the children of a gateway could not be read yet')
        await sleep(retryMs, undefined, { ref: false })
      }
    }
  }
}

function scopeOf({ tenantId, tenantNo }: Device): Scope {
  return { tenantId, tenantNo }
}

/** [M-26] How many more children the gateway may have; nobody else adds some until the transaction ends. */
async function countRoom(tx: Tx, gateway: Device): Promise<number> {
  await tx.execute(sql`select pg_advisory_xact_lock(hashtextextended(${gateway.id}, 0))`)
  const [row] = await tx.execute<{ count: number }>(
    sql`select count(*)::float8 as count from devices where gateway_id = ${gateway.id} and deleted_at is null`,
  )
  return Math.max(0, gateway.settings.limits.maxChildDevices - row!.count)
}

function limitReject({ settings }: Device): Reject {
  return {
    code: 'DEVICE_LIMIT',
    detail: `the gateway has its ${settings.limits.maxChildDevices} children (limits.maxChildDevices of its product)`,
  }
}
