// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, asc, eq, gt, isNotNull, isNull, ne, sql } from 'drizzle-orm'
import { isUniqueViolation } from '../db/errors.ts'
import type { Tx } from '../db/client.ts'
import { users } from '../db/tables.ts'
import type { UserRole } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { createLink, deleteLinksOf, getLink, takeLink } from './links.ts'
import type { Link } from './links.ts'
import { checkPassword } from './passwords.ts'
import { foldEmail, isUser, lockPeople } from './people.ts'
import type { People, User } from './people.ts'
import { addSecurityEvent, actorName } from './security-events.ts'
import type { Origin } from './security-events.ts'

/** Users in the order they were made. */
export async function listUsers(
  people: People,
  actor: Actor,
  page: { limit?: number; cursor?: string },
): Promise<{ items: User[]; nextCursor: string | null }> {
  const limit = page.limit ?? 50
  const [after] = page.cursor ? parseCursor(page.cursor, 1) : []
  if (page.cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
  const rows = await people.context.db.withTenant(actor.scope, (tx) =>
    tx
      .select()
      .from(users)
      .where(and(eq(users.tenantId, actor.scope.tenantId), isUuid(after) ? gt(users.id, after) : undefined))
      .orderBy(asc(users.id))
      .limit(limit + 1),
  )
  const items = rows.slice(0, limit)
  return { items, nextCursor: rows.length > limit ? formatCursor([items.at(-1)!.id]) : null }
}

export type NewUser = { name: string; email: string; role: UserRole; password?: string }

/**
 * Creates a user; without a password, with a link by which the person sets one.
 *
 * @throws {ProblemError} `EMAIL_TAKEN`, `PASSWORD_WEAK`
 */
export async function createUser(
  people: People,
  actor: Actor,
  request: NewUser,
  origin: Origin,
): Promise<{ user: User; link: Link | undefined }> {
  const { context } = people
  const { tenantId } = actor.scope
  const email = foldEmail(request.email)
  if (request.password !== undefined) checkPassword(request.password, email, origin.language)
  const passwordHash = request.password === undefined ? null : await people.passwords.hash(request.password)
  try {
    return await context.db.withTenant(actor.scope, async (tx) => {
      const id = randomUUIDv7()
      const [user] = await tx
        .insert(users)
        .values({ tenantId, id, name: request.name, email, role: request.role, passwordHash })
        .returning()
      await addSecurityEvent(tx, tenantId, origin, context.clock.now(), {
        actor: actorName(actor),
        action: 'user.create',
        target: `user:${id}`,
        outcome: 'ok',
        detail: { email, role: request.role },
      })
      return { user: user!, link: passwordHash === null ? await createLink(tx, context, 'reset', { userId: id }) : undefined }
    })
  } catch (error) {
    if (isUniqueViolation(error)) throw new ProblemError('EMAIL_TAKEN', { params: { email }, cause: error })
    throw error
  }
}

export type UserChange = { name?: string; role?: UserRole; disabled?: boolean }

/**
 * Changes a user. Another role or disabling ends the rights that were handed out before, at once [SC-21].
 *
 * @throws {ProblemError} `NOT_FOUND`, `LAST_ADMIN`
 */
export async function updateUser(people: People, actor: Actor, id: string, change: UserChange, origin: Origin): Promise<User> {
  const { context, sessions, keys } = people
  const { tenantId } = actor.scope
  const now = context.clock.now()
  const { user, stale } = await context.db.withTenant(actor.scope, async (tx) => {
    await lockPeople(tx, context)
    const before = await getUser(tx, people, id)
    const isDisabled = change.disabled ?? before.disabledAt !== null
    const role = change.role ?? before.role
    const roleChanged = role !== before.role
    const isDisabling = isDisabled && before.disabledAt === null
    if ((role !== 'admin' || isDisabled) && countsAsAdmin(before)) await requireOtherAdmin(tx, people, id)

    const [after] = await tx
      .update(users)
      .set({
        name: change.name ?? before.name,
        role,
        disabledAt: isDisabled ? (before.disabledAt ?? new Date(now)) : null,
        updatedAt: new Date(now),
        ...(roleChanged || isDisabling ? { sessionVersion: sql`${users.sessionVersion} + 1` } : {}),
      })
      .where(isUser(context, id))
      .returning()
    const changes = {
      ...(roleChanged ? { role: [before.role, role] } : {}),
      ...(isDisabled !== (before.disabledAt !== null) ? { disabled: isDisabled } : {}),
      ...(after!.name !== before.name ? { name: true } : {}),
    }
    await addSecurityEvent(tx, tenantId, origin, now, {
      actor: actorName(actor),
      action: 'user.update',
      target: `user:${id}`,
      outcome: 'ok',
      detail: changes,
      ...(isDisabling ? { type: 'user.disable' } : {}),
    })
    if (isDisabling) {
      await deleteLinksOf(tx, context, id)
      return { user: after!, stale: await sessions.end(tx, id) }
    }
    // The login goes on, but only a renewed token carries the new role; open sockets close and come back with it.
    return { user: after!, stale: roleChanged ? (await sessions.list(tx, id)).map((one) => one.id) : [] }
  })
  keys.forgetAll()
  sessions.announceEnd(stale)
  return user
}

/** @throws {ProblemError} `NOT_FOUND`, `LAST_ADMIN` */
export async function deleteUser(people: People, actor: Actor, id: string, origin: Origin): Promise<void> {
  const { context, sessions, keys } = people
  const ended = await context.db.withTenant(actor.scope, async (tx) => {
    await lockPeople(tx, context)
    const user = await getUser(tx, people, id)
    if (countsAsAdmin(user)) await requireOtherAdmin(tx, people, id)
    const ids = await sessions.end(tx, id)
    await tx.delete(users).where(isUser(context, id))
    await addSecurityEvent(tx, actor.scope.tenantId, origin, context.clock.now(), {
      actor: actorName(actor),
      action: 'user.delete',
      target: `user:${id}`,
      outcome: 'ok',
      detail: { email: user.email, name: user.name },
    })
    return ids
  })
  keys.forgetAll()
  sessions.announceEnd(ended)
}

/** @throws {ProblemError} `NOT_FOUND`, also for a disabled user, who could not sign in with it anyway */
export async function createResetLink(people: People, actor: Actor, id: string, origin: Origin): Promise<Link> {
  const { context } = people
  return context.db.withTenant(actor.scope, async (tx) => {
    const user = await getUser(tx, people, id)
    if (user.disabledAt) throw new ProblemError('NOT_FOUND')
    await addSecurityEvent(tx, actor.scope.tenantId, origin, context.clock.now(), {
      actor: actorName(actor),
      action: 'password.reset-link',
      target: `user:${id}`,
      outcome: 'ok',
    })
    return createLink(tx, context, 'reset', { userId: id })
  })
}

/**
 * Sets a password with a reset link; every login of the user ends.
 *
 * @throws {ProblemError} `TOKEN_INVALID`, `PASSWORD_WEAK` (the link stays good)
 */
export async function resetPassword(people: People, request: { token: string; password: string }, origin: Origin): Promise<void> {
  const { context, sessions } = people
  const { db, rootTenant, clock } = context
  const user = await db.withTenant(rootTenant, async (tx) => {
    const link = await getLink(tx, context, 'reset', request.token, origin.language)
    return getUser(tx, people, link.userId ?? '')
  })
  checkPassword(request.password, user.email, origin.language)
  const passwordHash = await people.passwords.hash(request.password)
  const ended = await db.withTenant(rootTenant, async (tx) => {
    await takeLink(tx, context, 'reset', request.token, origin.language)
    await tx
      .update(users)
      .set({ passwordHash, sessionVersion: sql`${users.sessionVersion} + 1`, updatedAt: new Date(clock.now()) })
      .where(isUser(context, user.id))
    await addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: `user:${user.id}`,
      action: 'password.reset',
      target: `user:${user.id}`,
      outcome: 'ok',
    })
    return sessions.end(tx, user.id)
  })
  sessions.announceEnd(ended)
}

async function getUser(tx: Tx, people: People, id: string): Promise<User> {
  const [user] = await tx.select().from(users).where(isUser(people.context, id))
  if (!user) throw new ProblemError('NOT_FOUND')
  return user
}

/** Who could open the door again if all others were gone. */
function countsAsAdmin(user: User): boolean {
  return user.role === 'admin' && user.disabledAt === null && user.passwordHash !== null
}

/** Called under {@link lockPeople}. */
async function requireOtherAdmin(tx: Tx, people: People, id: string): Promise<void> {
  const { tenantId } = people.context.rootTenant
  const others = await tx
    .select({ id: users.id })
    .from(users)
    .where(
      and(eq(users.tenantId, tenantId), eq(users.role, 'admin'), isNull(users.disabledAt), isNotNull(users.passwordHash), ne(users.id, id)),
    )
    .limit(1)
  if (others.length === 0) throw new ProblemError('LAST_ADMIN')
}
