// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, lt, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { deviceClaims, devices } from '../db/tables.ts'
import { addLog } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import { decodeAttributes } from '../ingest/codecs.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { served } from '../ingest/requests.ts'
import type { RequestHandler } from '../ingest/requests.ts'
import { isEqual } from '../secrets.ts'

/** What a device says so that a customer may claim it [CL-1]. */
export type ClaimOffer = { secretKey: string; durationMs: number }

const defaultDurationMs = 86_400_000
/** A year; what waits longer is forgotten by people too. */
const longestDurationMs = 31_536_000_000
const maxSecretLength = 255
/** [CL-3] */
const mostFailures = 5
const failureWindowMs = 3_600_000

const wrongShape: Reject = { code: 'SHAPE_INVALID', detail: 'expected {"secretKey":"…","durationMs":60000}, both optional' }
/** A secret is a text, whatever it looks like. */
const rules = { ...defaultPayloadRules, castNumericStrings: false }

/** Devices that offer themselves, and the customers who claim them (device API §8). */
export class Claims {
  readonly #context: Context
  readonly #registry: DeviceRegistry

  constructor(context: Context, registry: DeviceRegistry) {
    this.#context = context
    this.#registry = registry
  }

  /** Takes an offer over MQTT; acknowledged once it is committed. */
  readonly serve: RequestHandler = ({ device, payload }) => {
    const offer = parseOffer(payload)
    if ('code' in offer) return { status: 'refused', reject: offer }
    return this.offer(device, offer).then(() => served)
  }

  /** Keeps the offer of a device in place of an older one. */
  async offer(device: Pick<Device, 'tenantId' | 'tenantNo' | 'id'>, { secretKey, durationMs }: ClaimOffer): Promise<void> {
    const now = this.#context.clock.now()
    const row = {
      secretHmac: this.#hmac(device.id, secretKey),
      createdAt: new Date(now),
      expiresAt: new Date(now + durationMs),
      failures: 0,
      failingSince: null,
    }
    await this.#context.db.withTenant(device, (tx) =>
      tx
        .insert(deviceClaims)
        .values({ tenantId: device.tenantId, deviceId: device.id, ...row })
        .onConflictDoUpdate({ target: [deviceClaims.tenantId, deviceClaims.deviceId], set: row }),
    )
  }

  /**
   * Assigns the device to the customer who knows its secret [CL-2]; @returns its id.
   * @throws {ProblemError} `NOT_FOUND` for users without a customer, `DEVICE_CLAIMED`, `CLAIM_REFUSED`
   */
  async claim(scope: Scope, name: string, secretKey: string): Promise<string> {
    const customerId = customerOf(scope)
    const { db, clock, events } = this.#context
    const tenant = { tenantId: scope.tenantId, tenantNo: scope.tenantNo }
    // The count of wrong secrets is committed, so a refusal is returned and thrown outside.
    const result = await db.withTenant(tenant, async (tx) => {
      const [device] = await tx.execute<{ id: string; customerId: string | null }>(
        sql`select id, customer_id as "customerId" from devices where name = ${name} and deleted_at is null for update`,
      )
      if (!device) return 'refused'
      if (device.customerId) return 'claimed'
      if (!(await this.#checkSecret(tx, device.id, secretKey))) return 'refused'
      await tx.delete(deviceClaims).where(eq(deviceClaims.deviceId, device.id))
      await assign(tx, device.id, customerId, clock.now())
      await addLog(tx, tenant, device.id, 'claimed', { customerId })
      const changes = { from: { customerId: null }, to: { customerId } }
      recordAudit(tx, { type: 'device.claim', subject: `device:${device.id}`, targetName: name, changes })
      return { id: device.id }
    })
    if (result === 'refused') throw new ProblemError('CLAIM_REFUSED')
    if (result === 'claimed') throw new ProblemError('DEVICE_CLAIMED')
    await this.#registry.refresh(tenant, result.id)
    events.emit('device.changed', { tenantId: scope.tenantId, deviceId: result.id, change: 'updated' })
    return result.id
  }

  /** Gives a device of the customer back. @throws {ProblemError} `NOT_FOUND` */
  async release(scope: Scope, name: string): Promise<void> {
    const customerId = customerOf(scope)
    const { db, clock, events } = this.#context
    const tenant = { tenantId: scope.tenantId, tenantNo: scope.tenantNo }
    const id = await db.withTenant(tenant, async (tx) => {
      const [device] = await tx.execute<{ id: string }>(
        sql`select id from devices where name = ${name} and customer_id = ${customerId} and deleted_at is null for update`,
      )
      if (!device) throw new ProblemError('NOT_FOUND')
      await assign(tx, device.id, null, clock.now())
      await addLog(tx, tenant, device.id, 'released', { customerId })
      const changes = { from: { customerId }, to: { customerId: null } }
      recordAudit(tx, { type: 'device.claim', subject: `device:${device.id}`, targetName: name, changes })
      return device.id
    })
    await this.#registry.refresh(tenant, id)
    events.emit('device.changed', { tenantId: scope.tenantId, deviceId: id, change: 'updated' })
  }

  /** Offers whose time is over. */
  async removeOld(scope: Scope): Promise<void> {
    const now = new Date(this.#context.clock.now())
    await this.#context.db.withTenant(scope, (tx) => tx.delete(deviceClaims).where(lt(deviceClaims.expiresAt, now)))
  }

  async #checkSecret(tx: Tx, deviceId: string, secretKey: string): Promise<boolean> {
    const now = this.#context.clock.now()
    const [claim] = await tx.select().from(deviceClaims).where(eq(deviceClaims.deviceId, deviceId)).for('update')
    if (!claim || claim.expiresAt.getTime() <= now) return false
    if (isEqual(claim.secretHmac, this.#hmac(deviceId, secretKey))) return true
    const since = claim.failingSince && claim.failingSince.getTime() > now - failureWindowMs ? claim.failingSince : undefined
    const failures = since ? claim.failures + 1 : 1
    const own = and(eq(deviceClaims.tenantId, claim.tenantId), eq(deviceClaims.deviceId, deviceId))
    // [CL-3] So many uses the offer up.
    if (failures >= mostFailures) await tx.delete(deviceClaims).where(own)
    const failingSince = since ?? new Date(now)
    await tx.update(deviceClaims).set({ failures, failingSince }).where(own)
    return false
  }

  #hmac(deviceId: string, secretKey: string): Buffer {
    return this.#context.secrets.hmac('pepper', 'claim', deviceId, secretKey)
  }
}

/** Reads an offer; the reason when it is none. Empty is one with everything left open. */
export function parseOffer(payload: Buffer): ClaimOffer | Reject {
  if (payload.length === 0) return { secretKey: '', durationMs: defaultDurationMs }
  const decoded = decodeAttributes(payload, rules)
  if ('refused' in decoded) return decoded.refused.code === 'SHAPE_INVALID' ? wrongShape : decoded.refused
  if (decoded.rejects.some(({ key }) => key === 'secretKey' || key === 'durationMs')) return wrongShape
  const secretKey = decoded.attributes.find(({ key }) => key === 'secretKey') ?? { kind: 'string', value: '' }
  const duration = decoded.attributes.find(({ key }) => key === 'durationMs') ?? { kind: 'integer', value: defaultDurationMs }
  if (secretKey.kind !== 'string' || secretKey.value.length > maxSecretLength || duration.kind !== 'integer') return wrongShape
  const durationMs = Number(duration.value)
  if (durationMs < 1 || durationMs > longestDurationMs) return wrongShape
  return { secretKey: secretKey.value, durationMs }
}

/** Customers come with a module: without one nobody can claim, and the call does not exist. */
function customerOf({ customerIds }: Scope): string {
  const customerId = customerIds?.[0]
  if (customerId === undefined) throw new ProblemError('NOT_FOUND')
  return customerId
}

async function assign(tx: Tx, deviceId: string, customerId: string | null, now: number): Promise<void> {
  await tx
    .update(devices)
    .set({ customerId, version: sql`${devices.version} + 1`, updatedAt: new Date(now) })
    .where(eq(devices.id, deviceId))
}
