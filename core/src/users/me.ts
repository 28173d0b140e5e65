// SPDX-License-Identifier: AGPL-3.0-only
import { eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import { tenants, users } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { checkOwnPassword } from './login.ts'
import { checkPassword } from './passwords.ts'
import { deleteLinksOf } from './links.ts'
import { isUser } from './people.ts'
import type { People, User } from './people.ts'
import { addSecurityEvent, actorName } from './security-events.ts'
import type { Origin } from './security-events.ts'

/** Bound of what a user may keep in `prefs`. */
const maxPrefsBytes = 32_768

export type SiteRow = { name: string; timeZone: string; language: Language }

export async function getSite(people: People): Promise<SiteRow> {
  const { db, rootTenant } = people.context
  const [row] = await db.withTenant(rootTenant, (tx) => tx.select().from(tenants).where(eq(tenants.id, rootTenant.tenantId)))
  if (!row) throw new Error('the tenant of this installation has no row')
  return { name: row.name, timeZone: row.timeZone, language: row.locale === 'en' ? 'en' : 'zh' }
}

/** @throws {ProblemError} `TOKEN_INVALID` when the user was deleted this moment */
export async function getOwnUser(people: People, userId: string): Promise<User> {
  const { db, rootTenant } = people.context
  const [user] = await db.withTenant(rootTenant, (tx) => tx.select().from(users).where(isUser(people.context, userId)))
  if (!user) throw new ProblemError('TOKEN_INVALID')
  return user
}

export type OwnChange = { name?: string; language?: Language | null; prefs?: Record<string, unknown> }

/**
 * Changes name, language and preferences. Members of `prefs` replace those stored, one by one; null takes one away.
 *
 * @throws {ProblemError} `UNPROCESSABLE` when the preferences grow beyond 32 KiB
 */
export async function updateOwnUser(people: People, actor: Actor, change: OwnChange, origin: Origin): Promise<User> {
  const { db, rootTenant, clock } = people.context
  const prefs = Object.entries(change.prefs ?? {})
  const added = JSON.stringify(Object.fromEntries(prefs.filter(([, value]) => value !== null)))
  const removed = prefs.filter(([, value]) => value === null).map(([name]) => name)
  return db.withTenant(rootTenant, async (tx) => {
    const [user] = await tx
      .update(users)
      .set({
        ...(change.name === undefined ? {} : { name: change.name }),
        ...(change.language === undefined ? {} : { language: change.language }),
        prefs: sql`(${users.prefs} || ${added}::jsonb) - ${sql.param(removed)}::text[]`,
        updatedAt: new Date(clock.now()),
      })
      .where(isUser(people.context, actor.userId))
      .returning()
    if (!user) throw new ProblemError('TOKEN_INVALID')
    if (Buffer.byteLength(JSON.stringify(user.prefs)) > maxPrefsBytes) {
      const detail = origin.language === 'zh' ? `个人设置最多 ${maxPrefsBytes} 字节。` : `Preferences take at most ${maxPrefsBytes} bytes.`
      throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/prefs', detail }] })
    }
    recordAudit(tx, { type: 'user.update', subject: `user:${user.id}`, targetName: user.name, changes: { from: null, to: change } })
    return user
  })
}

/**
 * Changes the own password; all other logins end, this one stays.
 *
 * @throws {ProblemError} `PASSWORD_WRONG`, `PASSWORD_WEAK`, `LOGIN_DELAYED`
 */
export async function changeOwnPassword(
  people: People,
  actor: Actor,
  request: { current: string; password: string },
  origin: Origin,
): Promise<void> {
  const { context, sessions } = people
  const { db, rootTenant, clock } = context
  const user = await checkOwnPassword(people, actor, request.current, '/current', origin)
  checkPassword(request.password, user.email, origin.language)
  const passwordHash = await people.passwords.hash(request.password)
  const ended = await db.withTenant(rootTenant, async (tx) => {
    await tx
      .update(users)
      .set({ passwordHash, updatedAt: new Date(clock.now()) })
      .where(isUser(context, user.id))
    await deleteLinksOf(tx, context, user.id)
    await addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: actorName(actor),
      action: 'password.change',
      target: `user:${user.id}`,
      outcome: 'ok',
    })
    if (!actor.sessionId) return sessions.end(tx, user.id)
    await sessions.confirm(tx, actor.sessionId)
    return sessions.end(tx, user.id, { except: actor.sessionId })
  })
  if (actor.sessionId) sessions.forget(actor.sessionId)
  sessions.announceEnd(ended)
}

/**
 * Ends one own login, or all of them.
 *
 * @throws {ProblemError} `NOT_FOUND`
 */
export async function endOwnSessions(people: People, actor: Actor, sessionId: string | undefined, origin: Origin): Promise<void> {
  const { db, rootTenant, clock } = people.context
  const ended = await db.withTenant(rootTenant, async (tx) => {
    const ids = await people.sessions.end(tx, actor.userId, sessionId ? { only: sessionId } : {})
    if (ids.length === 0) throw new ProblemError('NOT_FOUND')
    await addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: actorName(actor),
      action: 'session.revoke',
      target: `user:${actor.userId}`,
      outcome: 'ok',
      detail: { sessions: ids },
    })
    return ids
  })
  people.sessions.announceEnd(ended)
}
