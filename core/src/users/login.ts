// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, isNull } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import { users } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { readKnownDevice } from './cookies.ts'
import type { AdmittedTry, LoginTry } from './login-limits.ts'
import { needsRehash } from './passwords.ts'
import { findUserByEmail, foldEmail, isUser } from './people.ts'
import type { People, User } from './people.ts'
import { addSecurityEvent, actorName } from './security-events.ts'
import type { Origin } from './security-events.ts'
import type { IssuedSession, LoginMethod } from './sessions.ts'

export type LoginRequest = { email: string; password: string; method: LoginMethod; knownDevice: string | undefined }

/**
 * Signs in with e-mail and password.
 *
 * @throws {ProblemError} `LOGIN_FAILED` alike for unknown accounts, wrong passwords, disabled and
 * password-less accounts [SC-34]; `LOGIN_DELAYED`, `OVERLOADED` with the seconds to wait
 */
export async function login(people: People, request: LoginRequest, origin: Origin): Promise<IssuedSession> {
  const { context, passwords, sessions } = people
  const { db, rootTenant, clock, secrets } = context
  const user = await db.withTenant(rootTenant, (tx) => findUserByEmail(tx, context, request.email))
  const deviceId = user && readKnownDevice(request.knownDevice, secrets, user.id, clock.now())
  const one = admit(people, { account: foldEmail(request.email), address: origin.address, deviceId })

  const hash = user && !user.disabledAt ? user.passwordHash : null
  const isRight = await passwords.verify(request.password, hash).catch((error: unknown) => cancelled(one, error))
  if (!user || !isRight) {
    await noteFailure(people, user, request, origin)
    throw new ProblemError('LOGIN_FAILED')
  }
  const passwordHash = needsRehash(user.passwordHash ?? '') ? await passwords.hash(request.password) : user.passwordHash
  const issued = await db.withTenant(rootTenant, async (tx) => {
    // Locks the row and looks again: the user may have been disabled, or the password changed, meanwhile.
    const unchanged = and(isUser(context, user.id), isNull(users.disabledAt), eq(users.passwordHash, user.passwordHash ?? ''))
    const [current] = await tx
      .update(users)
      .set({ lastLoginAt: new Date(clock.now()), passwordHash })
      .where(unchanged)
      .returning()
    if (!current) return undefined
    const session = await sessions.create(tx, current, request.method, origin)
    await addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: `user:${user.id}`,
      action: 'login',
      target: `user:${user.id}`,
      outcome: 'ok',
      detail: { email: user.email, method: request.method, sessionId: session.sessionId },
    })
    return session
  })
  if (!issued) throw new ProblemError('LOGIN_FAILED')
  one.succeed()
  return issued
}

async function noteFailure(people: People, user: User | undefined, request: LoginRequest, origin: Origin): Promise<void> {
  const { db, rootTenant, clock } = people.context
  const reason = !user ? 'unknown account' : user.disabledAt ? 'disabled' : user.passwordHash === null ? 'no password' : 'wrong password'
  await db.withTenant(rootTenant, (tx) =>
    addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: 'anonymous',
      action: 'login',
      target: user ? `user:${user.id}` : 'user',
      outcome: 'failed',
      detail: { email: foldEmail(request.email), method: request.method, reason },
    }),
  )
}

/**
 * Asks a signed-in user for the password once more, within limits of this session's own.
 *
 * @throws {ProblemError} `PASSWORD_WRONG` at `pointer`, `LOGIN_DELAYED`, `OVERLOADED`
 */
export async function checkOwnPassword(people: People, actor: Actor, password: string, pointer: string, origin: Origin): Promise<User> {
  const { context, passwords } = people
  const { db, rootTenant, clock } = context
  const [user] = await db.withTenant(rootTenant, (tx) => tx.select().from(users).where(isUser(context, actor.userId)))
  if (!user) throw new ProblemError('TOKEN_INVALID')
  const one = admit(people, { account: user.email, address: origin.address, deviceId: `session ${actor.sessionId}` })
  const isRight = await passwords.verify(password, user.passwordHash).catch((error: unknown) => cancelled(one, error))
  if (!isRight) {
    await db.withTenant(rootTenant, (tx) =>
      addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
        actor: actorName(actor),
        action: 'password.check',
        target: `user:${user.id}`,
        outcome: 'failed',
      }),
    )
    throw new ProblemError('PASSWORD_WRONG', {
      errors: [{ pointer, detail: origin.language === 'zh' ? '密码不对。' : 'The password is wrong.' }],
    })
  }
  one.succeed()
  return user
}

/** Confirms the session for the next ten minutes [SC-26]. */
export async function reauthenticate(people: People, actor: Actor, password: string, origin: Origin): Promise<void> {
  const { db, rootTenant } = people.context
  const sessionId = actor.sessionId
  if (!sessionId) throw new ProblemError('TOKEN_INVALID')
  await checkOwnPassword(people, actor, password, '/password', origin)
  await db.withTenant(rootTenant, async (tx) => {
    await people.sessions.confirm(tx, sessionId)
    recordAudit(tx, { type: 'auth.reauth', subject: `session:${sessionId}` })
  })
  people.sessions.forget(sessionId)
}

/** Ends the login a refresh token belongs to; an unknown token is nothing to complain about. */
export async function logout(people: People, refreshToken: string | undefined, origin: Origin): Promise<void> {
  if (!refreshToken) return
  const { db, rootTenant } = people.context
  const session = await db.withTenant(rootTenant, (tx) => people.sessions.findByRefreshToken(tx, refreshToken))
  if (session) await endLogin(people, session.userId, session.id, origin)
}

/** Signs out of one login. */
export async function endLogin(people: People, userId: string, sessionId: string, origin: Origin): Promise<void> {
  const { db, rootTenant, clock } = people.context
  const ended = await db.withTenant(rootTenant, async (tx) => {
    const ids = await people.sessions.end(tx, userId, { only: sessionId })
    await addSecurityEvent(tx, rootTenant.tenantId, origin, clock.now(), {
      actor: `user:${userId}`,
      action: 'logout',
      target: `session:${sessionId}`,
      outcome: 'ok',
    })
    return ids
  })
  people.sessions.announceEnd(ended)
}

function admit(people: People, one: LoginTry): AdmittedTry {
  const admitted = people.limits.begin(one)
  if (!('waitMs' in admitted)) return admitted
  const seconds = Math.ceil(admitted.waitMs / 1000)
  throw new ProblemError('LOGIN_DELAYED', { params: { seconds }, retryAfterS: seconds })
}

/** A try nobody evaluated does not count. */
function cancelled(one: AdmittedTry, error: unknown): never {
  one.cancel()
  throw error
}
