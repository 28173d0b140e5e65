// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eq } from 'drizzle-orm'
import { configError } from '../config.ts'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { tenants, users } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { createLink, deleteSetupLinks, getLink, takeLink } from './links.ts'
import type { Link } from './links.ts'
import { checkPassword, findPasswordFaults, passwordFaults } from './passwords.ts'
import { foldEmail, hasUsers, lockPeople } from './people.ts'
import type { People } from './people.ts'
import { addSecurityEvent, systemOrigin } from './security-events.ts'
import type { Origin } from './security-events.ts'
import type { IssuedSession } from './sessions.ts'

/** How often an unfinished set-up is looked up again: another replica, or the console, may have finished it. */
const recheckMs = 1000

export type Setup = {
  /** False until the first administrator exists. */
  isSetUp: () => boolean
  /** To be printed once, framed, at the start; absent when there is nothing to set up. */
  link?: string
}

/**
 * The first start: makes the administrator named in the settings, or a link with which a person
 * becomes one [SC-10]. With users present the settings are ignored [SC-11].
 *
 * @throws {StartError} `PASSWORD_WEAK` when the administrator's password in the settings is refused
 */
export async function ensureSetup(people: People): Promise<Setup> {
  const { context } = people
  const { config, db, rootTenant, log } = context
  const existing = await db.withTenant(rootTenant, (tx) => hasUsers(tx, context))
  if (existing) {
    if (config.admin.email) log.info('IOT_PMS_ADMIN_EMAIL and IOT_PMS_ADMIN_PASSWORD are ignored: users exist')
    removeLinkFile(context)
    return { isSetUp: () => true }
  }
  if (config.admin.email && config.admin.password) {
    await createConfiguredAdmin(people, config.admin.email, config.admin.password)
    return { isSetUp: () => true }
  }
  const { link } = await createSetupLink(context)
  return { isSetUp: watchSetup(people), link }
}

/** Makes a set-up link, for the e-mail of the settings where one is given, and writes it to the data directory. */
export async function createSetupLink(context: Context): Promise<Link> {
  const { config, db, rootTenant } = context
  const link = await db.withTenant(rootTenant, (tx) =>
    createLink(tx, context, 'setup', config.admin.email ? { email: foldEmail(config.admin.email) } : {}),
  )
  // A file that exists keeps its mode when it is written over.
  removeLinkFile(context)
  writeFileSync(linkFile(context), `${link.link}\n`, { mode: 0o600, flag: 'wx' })
  return link
}

function linkFile(context: Context): string {
  return join(context.config.dataDir, 'setup-link.txt')
}

function removeLinkFile(context: Context): void {
  rmSync(linkFile(context), { force: true })
}

async function createConfiguredAdmin(people: People, email: string, password: string): Promise<void> {
  const { context } = people
  const faults = findPasswordFaults(password, email)
  if (faults.length > 0) {
    throw configError(
      faults.map((fault) => `PASSWORD_WEAK: IOT_PMS_ADMIN_PASSWORD: ${passwordFaults[fault].en}`),
      'PASSWORD_WEAK',
    )
  }
  const passwordHash = await people.passwords.hash(password)
  await context.db.withTenant(context.rootTenant, async (tx) => {
    await lockPeople(tx, context)
    // Another replica that starts at the same moment may have made it.
    if (await hasUsers(tx, context)) return
    await insertAdmin(tx, context, { name: 'Administrator', email, passwordHash, language: null }, systemOrigin, 'system')
  })
  removeLinkFile(context)
}

function watchSetup({ context, setup }: People): () => boolean {
  let checkedAt = context.clock.monotonic()
  return () => {
    if (!setup.isDone && context.clock.monotonic() - checkedAt >= recheckMs) {
      checkedAt = context.clock.monotonic()
      context.db
        .withTenant(context.rootTenant, (tx) => hasUsers(tx, context))
        .then(
          (found) => (setup.isDone ||= found),
          (error: unknown) => context.log.debug({ err: error }, 'looking for users failed'),
        )
    }
    return setup.isDone
  }
}

export type SetupRequest = {
  token: string
  name: string
  email: string
  password: string
  language: Language
  timeZone: string
  siteName: string
}

/**
 * Makes the first administrator and names the site.
 *
 * @throws {ProblemError} `NOT_FOUND` once there is a user, `TOKEN_INVALID`, `PASSWORD_WEAK`, `TIME_ZONE_UNKNOWN`,
 * `UNPROCESSABLE` when the link is for another e-mail
 */
export async function completeSetup(people: People, request: SetupRequest, origin: Origin): Promise<IssuedSession> {
  const { context, sessions } = people
  const { db, rootTenant, clock } = context
  const email = foldEmail(request.email)
  const link = await db.withTenant(rootTenant, async (tx) => {
    if (await hasUsers(tx, context)) throw new ProblemError('NOT_FOUND')
    return getLink(tx, context, 'setup', request.token, origin.language)
  })
  if (link.email && link.email !== email) {
    const detail = origin.language === 'zh' ? '该链接属于另一个邮箱。' : 'The link is for another e-mail.'
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/email', detail }] })
  }
  if (!isTimeZone(request.timeZone)) throw new ProblemError('TIME_ZONE_UNKNOWN', { params: { timeZone: request.timeZone } })
  checkPassword(request.password, email, origin.language)
  const passwordHash = await people.passwords.hash(request.password)

  const issued = await db.withTenant(rootTenant, async (tx) => {
    await lockPeople(tx, context)
    if (await hasUsers(tx, context)) throw new ProblemError('NOT_FOUND')
    await takeLink(tx, context, 'setup', request.token, origin.language)
    await deleteSetupLinks(tx, context)
    await tx
      .update(tenants)
      .set({ name: request.siteName, timeZone: request.timeZone, locale: request.language, updatedAt: new Date(clock.now()) })
      .where(eq(tenants.id, rootTenant.tenantId))
    const id = await insertAdmin(tx, context, { name: request.name, email, passwordHash, language: request.language }, origin, 'anonymous')
    return sessions.create(tx, { id, sessionVersion: 1 }, 'password', origin)
  })
  people.setup.isDone = true
  removeLinkFile(context)
  return issued
}

type NewAdmin = { name: string; email: string; passwordHash: string; language: Language | null }

async function insertAdmin(tx: Tx, context: Context, admin: NewAdmin, origin: Origin, actor: string): Promise<string> {
  const { tenantId } = context.rootTenant
  const id = randomUUIDv7()
  const email = foldEmail(admin.email)
  await tx
    .insert(users)
    .values({ tenantId, id, name: admin.name, email, role: 'admin', passwordHash: admin.passwordHash, language: admin.language })
  await addSecurityEvent(tx, tenantId, origin, context.clock.now(), {
    actor,
    action: 'setup',
    target: `user:${id}`,
    outcome: 'ok',
    detail: { email },
  })
  return id
}

export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    // Offsets such as +08:00 pass above; sites have a zone with a name.
    return /^[A-Za-z]/.test(name)
  } catch {
    return false
  }
}
