// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { BlockList, isIP } from 'node:net'
import { crc32 } from 'node:zlib'
import { and, desc, eq, isNull, lt, or } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import { apiKeys, users } from '../db/tables.ts'
import type { UserRole } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { rolePermissions } from '../http/permissions.ts'
import type { Permission } from '../http/permissions.ts'
import { checksumBase62, randomBase62, sha256 } from '../secrets.ts'
import { FreshTable } from './fresh-table.ts'
import { addSecurityEvent, actorName } from './security-events.ts'
import type { Origin } from './security-events.ts'

const dayMs = 86_400_000
/** "Last used" is for people; a write per call would cost more than the call. */
const usedStepMs = 60_000

/** A key as requests need it, as of a second ago at most. */
export type LiveKey = {
  id: string
  userId: string
  customerId: string | null
  name: string
  permissions: ReadonlySet<Permission>
  expiresAt: number
  lastUsedAt: number
  allows: (address: string) => boolean
}

type KeyRow = typeof apiKeys.$inferSelect
export type ListedKey = KeyRow & { owner: { id: string; name: string } }

/** Keys of scripts and integrations: `pmsk_`, 27 random base62 characters, 6 of checksum. */
export class ApiKeys {
  readonly #context: Context
  readonly #live: FreshTable<LiveKey>

  constructor(context: Context) {
    this.#context = context
    this.#live = new FreshTable(context.clock, (hash) => this.#load(hash))
  }

  /** The key when it is ours, unexpired, its owner may sign in, and it is used from an address it allows. */
  async find(text: string, address: string): Promise<LiveKey | undefined> {
    if (!isApiKey(text)) return undefined
    const key = await this.#live.get(sha256(text).toString('hex'))
    const now = this.#context.clock.now()
    if (!key || key.expiresAt <= now || !key.allows(address)) return undefined
    if (now - key.lastUsedAt >= usedStepMs) this.#noteUse(key, now)
    return key
  }

  async #load(hash: string): Promise<LiveKey | undefined> {
    const { db, rootTenant } = this.#context
    const [row] = await db.withTenant(rootTenant, (tx) =>
      tx
        .select({ key: apiKeys, user: users })
        .from(apiKeys)
        .innerJoin(users, and(eq(users.tenantId, apiKeys.tenantId), eq(users.id, apiKeys.userId)))
        .where(and(eq(apiKeys.tenantId, rootTenant.tenantId), eq(apiKeys.keySha256, Buffer.from(hash, 'hex')))),
    )
    if (!row || row.user.disabledAt) return undefined
    return {
      id: row.key.id,
      userId: row.user.id,
      customerId: row.user.customerId,
      name: `${row.user.name} (${row.key.name})`,
      permissions: grantedTo(row.key.scopes, row.user.role),
      expiresAt: row.key.expiresAt.getTime(),
      lastUsedAt: row.key.lastUsedAt?.getTime() ?? 0,
      allows: addressCheck(row.key.addresses),
    }
  }

  /** Not awaited: a request does not wait for, or fail with, this note. */
  #noteUse(key: LiveKey, now: number): void {
    const isFirst = key.lastUsedAt === 0
    key.lastUsedAt = now
    const { db, rootTenant, log } = this.#context
    const isDue = or(isNull(apiKeys.lastUsedAt), lt(apiKeys.lastUsedAt, new Date(now - usedStepMs + 1)))
    db.withTenant(rootTenant, async (tx) => {
      await tx
        .update(apiKeys)
        .set({ lastUsedAt: new Date(now) })
        .where(and(eq(apiKeys.tenantId, rootTenant.tenantId), eq(apiKeys.id, key.id), isDue))
      const subject = `api_key:${key.id}`
      if (isFirst) recordAudit(tx, { type: 'api_key.first_use', subject, targetName: key.name, actor: subject })
    }).catch((error: unknown) => log.debug({ err: error }, 'noting the use of an API key failed'))
  }

  /** After owners changed: their keys may do more, less or nothing now. */
  forgetAll(): void {
    this.#live.clear()
  }

  /** Own keys; administrators see everybody's. */
  async list(actor: Actor): Promise<ListedKey[]> {
    const rows = await this.#context.db.withTenant(actor.scope, (tx) =>
      tx
        .select({ key: apiKeys, owner: { id: users.id, name: users.name } })
        .from(apiKeys)
        .innerJoin(users, and(eq(users.tenantId, apiKeys.tenantId), eq(users.id, apiKeys.userId)))
        .where(
          and(
            eq(apiKeys.tenantId, actor.scope.tenantId),
            actor.permissions.has('user.read') ? undefined : eq(apiKeys.userId, actor.userId),
          ),
        )
        .orderBy(desc(apiKeys.createdAt), desc(apiKeys.id))
        // Far more than people can look through; keys are few.
        .limit(500),
    )
    return rows.map((row) => ({ ...row.key, owner: row.owner }))
  }

  /**
   * @returns the row and the key itself, which is shown this once
   * @throws {ProblemError} `PERMISSION_DENIED` for a scope the owner does not hold, `UNPROCESSABLE` for an address that is none
   */
  async create(
    actor: Actor,
    request: { name: string; scopes: Permission[]; expiresInDays: number; addresses?: string[] },
    origin: Origin,
  ): Promise<{ row: ListedKey; key: string }> {
    const { db, clock } = this.#context
    const missing = request.scopes.find((scope) => !actor.permissions.has(scope))
    if (missing) throw new ProblemError('PERMISSION_DENIED', { params: { permission: missing } })
    const addresses = request.addresses ?? []
    const wrong = addresses.findIndex((one) => !parseNetwork(one))
    if (wrong >= 0) {
      const detail = origin.language === 'zh' ? '不是 IP 地址或网段。' : 'This is not an IP address or network.'
      throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: `/addresses/${wrong}`, detail }] })
    }
    const now = clock.now()
    const start = `pmsk_${randomBase62(27)}`
    const key = start + checksumBase62(crc32(start), 6)
    const row: KeyRow = {
      tenantId: actor.scope.tenantId,
      id: randomUUIDv7(),
      userId: actor.userId,
      name: request.name,
      keySha256: sha256(key),
      last4: key.slice(-4),
      scopes: [...new Set(request.scopes)],
      addresses,
      createdAt: new Date(now),
      expiresAt: new Date(now + request.expiresInDays * dayMs),
      lastUsedAt: null,
    }
    await db.withTenant(actor.scope, async (tx) => {
      await tx.insert(apiKeys).values(row)
      await addSecurityEvent(tx, row.tenantId, origin, now, {
        actor: actorName(actor),
        action: 'api-key.create',
        target: `api-key:${row.id}`,
        outcome: 'ok',
        detail: { name: row.name, scopes: row.scopes },
      })
    })
    return { row: { ...row, owner: { id: actor.userId, name: actor.name } }, key }
  }

  /** @throws {ProblemError} `NOT_FOUND`, also for keys of others unless the actor manages users */
  async delete(actor: Actor, id: string, origin: Origin): Promise<void> {
    const { db, clock } = this.#context
    const { tenantId } = actor.scope
    const hash = await db.withTenant(actor.scope, async (tx) => {
      const owned = actor.permissions.has('user.write') ? undefined : eq(apiKeys.userId, actor.userId)
      const [row] = await tx
        .delete(apiKeys)
        .where(and(eq(apiKeys.tenantId, tenantId), eq(apiKeys.id, id), owned))
        .returning()
      if (!row) throw new ProblemError('NOT_FOUND')
      await addSecurityEvent(tx, tenantId, origin, clock.now(), {
        actor: actorName(actor),
        action: 'api-key.delete',
        target: `api-key:${id}`,
        outcome: 'ok',
        detail: { name: row.name, userId: row.userId },
      })
      return row.keySha256
    })
    this.#live.forget(hash.toString('hex'))
  }
}

/** The checksum lets typing errors and random guesses end before the database is asked. */
function isApiKey(text: string): boolean {
  return /^pmsk_[0-9A-Za-z]{33}$/.test(text) && checksumBase62(crc32(text.slice(0, -6)), 6) === text.slice(-6)
}

/** Scopes can only narrow what the owner may do today. */
function grantedTo(scopes: readonly string[], role: UserRole): ReadonlySet<Permission> {
  return new Set([...rolePermissions[role]].filter((permission) => scopes.includes(permission)))
}

function parseNetwork(text: string): { address: string; bits: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [address = '', bits, rest] = text.split('/')
  const version = isIP(address)
  const most = version === 4 ? 32 : 128
  if (version === 0 || rest !== undefined || address.includes('%')) return undefined
  if (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > most)) return undefined
  return { address, bits: bits === undefined ? most : Number(bits), family: version === 4 ? 'ipv4' : 'ipv6' }
}

function addressCheck(addresses: readonly string[]): (address: string) => boolean {
  if (addresses.length === 0) return () => true
  const list = new BlockList()
  for (const one of addresses) {
    const network = parseNetwork(one)
    if (network) list.addSubnet(network.address, network.bits, network.family)
  }
  return (address) => isIP(address) !== 0 && list.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
}
