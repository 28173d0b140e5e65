// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, desc, eq, gt, inArray, lt, ne, or } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { refreshTokens, userSessions, users } from '../db/tables.ts'
import type { UserRole } from '../db/tables.ts'
import { sha256 } from '../secrets.ts'
import { FreshTable } from './fresh-table.ts'
import { addSecurityEvent } from './security-events.ts'
import type { Origin } from './security-events.ts'
import { createOpaqueToken, nextRefreshToken, signAccessToken } from './tokens.ts'

const dayMs = 86_400_000
/** Lives of [SC-20]'s table. */
export const refreshIdleMs = 7 * dayMs
const refreshAbsoluteMs = 30 * dayMs
const accessLifeS = { password: 900, compat: 9000 }
/** Two tabs, or a lost answer: a repeat this soon from the same browser is no theft [SC-22]. */
const repeatMs = 10_000
/** [SC-25] */
const maxSessions = 20

export type LoginMethod = keyof typeof accessLifeS

/** A login as requests need it: who it is, with which rights, as of a second ago at most. */
export type LiveSession = {
  userId: string
  customerId: string | null
  name: string
  role: UserRole
  sessionVersion: number
  authenticatedAt: number
  expiresAt: number
}

/** What a login or a renewal hands out. */
export type IssuedSession = { userId: string; sessionId: string; accessToken: string; expiresAt: number; refreshToken: string }

/** Why a renewal gave nothing: the token is unknown or over, or it was used before and its family is dead now. */
export type RefusedRefresh = 'none' | 'reused'

type Owner = { id: string; sessionVersion: number }

/** The logins of this installation. A login that ended has no row: what is not found is over. */
export class Sessions {
  readonly #context: Context
  readonly #live: FreshTable<LiveSession>

  constructor(context: Context) {
    this.#context = context
    this.#live = new FreshTable(context.clock, (id) => this.#load(id))
  }

  /** The login while it lives and its user may sign in. */
  async find(sessionId: string): Promise<LiveSession | undefined> {
    const session = await this.#live.get(sessionId)
    return session && session.expiresAt > this.#context.clock.now() ? session : undefined
  }

  async #load(sessionId: string): Promise<LiveSession | undefined> {
    const { rootTenant, db } = this.#context
    const [row] = await db.withTenant(rootTenant, (tx) =>
      tx
        .select({ session: userSessions, user: users })
        .from(userSessions)
        .innerJoin(users, and(eq(users.tenantId, userSessions.tenantId), eq(users.id, userSessions.userId)))
        .where(and(eq(userSessions.tenantId, rootTenant.tenantId), eq(userSessions.id, sessionId))),
    )
    if (!row || row.user.disabledAt) return undefined
    return {
      userId: row.user.id,
      customerId: row.user.customerId,
      name: row.user.name,
      role: row.user.role,
      sessionVersion: row.user.sessionVersion,
      authenticatedAt: row.session.authenticatedAt.getTime(),
      expiresAt: row.session.expiresAt.getTime(),
    }
  }

  /** Opens a login inside the caller's transaction, which has locked the user's row. */
  async create(tx: Tx, user: Owner, method: LoginMethod, origin: Origin): Promise<IssuedSession> {
    const { tenantId } = this.#context.rootTenant
    const now = this.#context.clock.now()
    const session = { tenantId, id: randomUUIDv7(), userId: user.id }
    await this.#deleteSurplus(tx, user.id, now)
    await tx.insert(userSessions).values({
      ...session,
      method,
      address: origin.address,
      userAgent: origin.userAgent,
      createdAt: new Date(now),
      lastUsedAt: new Date(now),
      authenticatedAt: new Date(now),
      expiresAt: new Date(now + refreshAbsoluteMs),
    })
    const refreshToken = createOpaqueToken()
    await tx.insert(refreshTokens).values({ tenantId, tokenSha256: sha256(refreshToken), sessionId: session.id, createdAt: new Date(now) })
    return this.#issue(user, session.id, method, refreshToken, now)
  }

  async #deleteSurplus(tx: Tx, userId: string, now: number): Promise<void> {
    const mine = this.#ofUser(userId)
    // Everybody's: a user who never comes back would leave rows behind.
    const isOver = or(lt(userSessions.expiresAt, new Date(now)), lt(userSessions.lastUsedAt, new Date(now - refreshIdleMs)))
    await tx.delete(userSessions).where(and(eq(userSessions.tenantId, this.#context.rootTenant.tenantId), isOver))
    const surplus = await tx
      .select({ id: userSessions.id })
      .from(userSessions)
      .where(mine)
      .orderBy(desc(userSessions.createdAt), desc(userSessions.id))
      .offset(maxSessions - 1)
    if (surplus.length === 0) return
    const ids = surplus.map((one) => one.id)
    await tx.delete(userSessions).where(and(mine, inArray(userSessions.id, ids)))
    // The login that pushes it out may still fail; to ask the database once more then costs nothing.
    this.announceEnd(ids)
  }

  /** Exchanges a refresh token for the next pair [SC-22]. */
  async refresh(presented: string, origin: Origin, isCompat: boolean): Promise<IssuedSession | RefusedRefresh> {
    const { rootTenant, db } = this.#context
    const outcome = await db.withTenant(rootTenant, (tx) => this.#rotate(tx, presented, origin, isCompat))
    if (typeof outcome === 'object' && 'endedId' in outcome) {
      this.announceEnd([outcome.endedId])
      return 'reused'
    }
    return outcome
  }

  async #rotate(tx: Tx, presented: string, origin: Origin, isCompat: boolean): Promise<IssuedSession | 'none' | { endedId: string }> {
    const { clock, secrets } = this.#context
    const { tenantId } = this.#context.rootTenant
    const now = clock.now()
    const isToken = and(eq(refreshTokens.tenantId, tenantId), eq(refreshTokens.tokenSha256, sha256(presented)))
    const [family] = await tx.select({ id: refreshTokens.sessionId }).from(refreshTokens).where(isToken)
    if (!family) return 'none'
    // The session's row is the lock of the family: the token is read after it, or two tabs would both find it unused.
    const isSession = and(eq(userSessions.tenantId, tenantId), eq(userSessions.id, family.id))
    const [session] = await tx.select().from(userSessions).where(isSession).for('update')
    const [token] = await tx.select().from(refreshTokens).where(isToken)
    if (!session || !token || session.expiresAt.getTime() <= now || (session.method === 'compat') !== isCompat) return 'none'
    const [user] = await tx
      .select()
      .from(users)
      .where(and(eq(users.tenantId, tenantId), eq(users.id, session.userId)))
    if (!user || user.disabledAt) return 'none'

    const method: LoginMethod = isCompat ? 'compat' : 'password'
    const successor = nextRefreshToken(secrets, presented)
    if (token.usedAt) {
      const usedAt = token.usedAt.getTime()
      const isRepeat = now - usedAt <= repeatMs && token.usedAddress === origin.address && token.usedAgent === origin.userAgent
      if (isRepeat) return this.#issue(user, session.id, method, successor, usedAt)
      await tx.delete(userSessions).where(isSession)
      await addSecurityEvent(tx, tenantId, origin, now, {
        actor: 'anonymous',
        action: 'session.reuse',
        target: `user:${user.id}`,
        outcome: 'denied',
        detail: { sessionId: session.id, email: user.email },
      })
      return { endedId: session.id }
    }
    if (now - token.createdAt.getTime() > refreshIdleMs) return 'none'
    await tx
      .update(refreshTokens)
      .set({ usedAt: new Date(now), usedAddress: origin.address, usedAgent: origin.userAgent })
      .where(isToken)
    await tx.insert(refreshTokens).values({ tenantId, tokenSha256: sha256(successor), sessionId: session.id, createdAt: new Date(now) })
    await tx
      .update(userSessions)
      .set({ lastUsedAt: new Date(now), address: origin.address, userAgent: origin.userAgent })
      .where(isSession)
    return this.#issue(user, session.id, method, successor, now)
  }

  async #issue(user: Owner, sessionId: string, method: LoginMethod, refreshToken: string, at: number): Promise<IssuedSession> {
    const { secrets, installId, rootTenant } = this.#context
    const lifeS = accessLifeS[method]
    const claims = { userId: user.id, sessionId, sessionVersion: user.sessionVersion, tenantId: rootTenant.tenantId }
    const accessToken = await signAccessToken(secrets, installId, claims, at, lifeS)
    return { userId: user.id, sessionId, accessToken, expiresAt: (Math.floor(at / 1000) + lifeS) * 1000, refreshToken }
  }

  /** The session a refresh token belongs to, for signing out with nothing but the cookie. */
  async findByRefreshToken(tx: Tx, token: string): Promise<{ id: string; userId: string } | undefined> {
    const [row] = await tx
      .select({ id: userSessions.id, userId: userSessions.userId })
      .from(refreshTokens)
      .innerJoin(userSessions, and(eq(userSessions.tenantId, refreshTokens.tenantId), eq(userSessions.id, refreshTokens.sessionId)))
      .where(and(eq(refreshTokens.tenantId, this.#context.rootTenant.tenantId), eq(refreshTokens.tokenSha256, sha256(token))))
    return row
  }

  list(tx: Tx, userId: string): Promise<(typeof userSessions.$inferSelect)[]> {
    const now = this.#context.clock.now()
    return tx
      .select()
      .from(userSessions)
      .where(
        and(this.#ofUser(userId), gt(userSessions.expiresAt, new Date(now)), gt(userSessions.lastUsedAt, new Date(now - refreshIdleMs))),
      )
      .orderBy(desc(userSessions.lastUsedAt))
  }

  /**
   * Deletes logins of a user: one, all but one, or all.
   *
   * @returns their ids, for {@link announceEnd} after the commit
   */
  async end(tx: Tx, userId: string, which: { only?: string; except?: string } = {}): Promise<string[]> {
    const conditions: SQL[] = [this.#ofUser(userId)]
    if (which.only !== undefined) conditions.push(eq(userSessions.id, which.only))
    if (which.except !== undefined) conditions.push(ne(userSessions.id, which.except))
    const rows = await tx
      .delete(userSessions)
      .where(and(...conditions))
      .returning({ id: userSessions.id })
    return rows.map((row) => row.id)
  }

  /** Forgets logins whose end or whose user's change was committed; sockets of them close. */
  announceEnd(ids: readonly string[]): void {
    for (const sessionId of ids) {
      this.#live.forget(sessionId)
      this.#context.events.emit('session.ended', { sessionId })
    }
  }

  /** A session was confirmed with the password just now [SC-26]. */
  async confirm(tx: Tx, sessionId: string): Promise<void> {
    const { tenantId } = this.#context.rootTenant
    await tx
      .update(userSessions)
      .set({ authenticatedAt: new Date(this.#context.clock.now()) })
      .where(and(eq(userSessions.tenantId, tenantId), eq(userSessions.id, sessionId)))
  }

  forget(sessionId: string): void {
    this.#live.forget(sessionId)
  }

  #ofUser(userId: string): SQL {
    return and(eq(userSessions.tenantId, this.#context.rootTenant.tenantId), eq(userSessions.userId, userId))!
  }
}
