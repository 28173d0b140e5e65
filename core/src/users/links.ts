// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, gt, lt } from 'drizzle-orm'
import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { oneTimeLinks } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { sha256 } from '../secrets.ts'
import { createOpaqueToken } from './tokens.ts'

/** [SC-10, SC-35] */
const lifeMs = 60 * 60_000

export type LinkKind = 'setup' | 'reset'
/** The link itself, to be shown once: only the hash of its token is stored. */
export type Link = { link: string; expiresAt: Date }
type LinkRow = typeof oneTimeLinks.$inferSelect

/** Makes a link that works once within 60 minutes. For a user it replaces the earlier one. */
export async function createLink(
  tx: Tx,
  context: Context,
  kind: LinkKind,
  target: { userId?: string; email?: string } = {},
): Promise<Link> {
  const { tenantId } = context.rootTenant
  const now = context.clock.now()
  await tx.delete(oneTimeLinks).where(and(eq(oneTimeLinks.tenantId, tenantId), lt(oneTimeLinks.expiresAt, new Date(now))))
  if (target.userId) await deleteLinksOf(tx, context, target.userId)
  const token = createOpaqueToken()
  const expiresAt = new Date(now + lifeMs)
  await tx.insert(oneTimeLinks).values({
    tenantId,
    id: randomUUIDv7(),
    kind,
    userId: target.userId ?? null,
    email: target.email ?? null,
    tokenSha256: sha256(token),
    createdAt: new Date(now),
    expiresAt,
  })
  // In the fragment it reaches no log and no referrer.
  return { link: `${pagesBase(context.config)}${kind}#t=${token}`, expiresAt }
}

/** @throws {ProblemError} `TOKEN_INVALID` when there is no such link, or it was used or is over */
export async function getLink(tx: Tx, context: Context, kind: LinkKind, token: string, language: Language): Promise<LinkRow> {
  const [row] = await tx
    .select()
    .from(oneTimeLinks)
    .where(isUsable(context, kind, token))
  return row ?? refuse(language)
}

/** Uses the link up; the one who comes second finds nothing. */
export async function takeLink(tx: Tx, context: Context, kind: LinkKind, token: string, language: Language): Promise<LinkRow> {
  const [row] = await tx
    .delete(oneTimeLinks)
    .where(isUsable(context, kind, token))
    .returning()
  return row ?? refuse(language)
}

export async function deleteLinksOf(tx: Tx, context: Context, userId: string): Promise<void> {
  await tx.delete(oneTimeLinks).where(and(eq(oneTimeLinks.tenantId, context.rootTenant.tenantId), eq(oneTimeLinks.userId, userId)))
}

export async function deleteSetupLinks(tx: Tx, context: Context): Promise<void> {
  await tx.delete(oneTimeLinks).where(and(eq(oneTimeLinks.tenantId, context.rootTenant.tenantId), eq(oneTimeLinks.kind, 'setup')))
}

function isUsable(context: Context, kind: LinkKind, token: string) {
  return and(
    eq(oneTimeLinks.tenantId, context.rootTenant.tenantId),
    eq(oneTimeLinks.kind, kind),
    eq(oneTimeLinks.tokenSha256, sha256(token)),
    gt(oneTimeLinks.expiresAt, new Date(context.clock.now())),
  )
}

function refuse(language: Language): never {
  const detail = language === 'zh' ? '链接无效、已使用或已过期。' : 'The link is not valid, was used, or is over.'
  throw new ProblemError('TOKEN_INVALID', { errors: [{ pointer: '/token', detail }] })
}

/** Where people find the pages; never taken from a Host header [SC-46]. */
function pagesBase(config: Config): string {
  if (config.publicUrl) return config.publicUrl.href
  return typeof config.http.port === 'number' && config.http.port > 0 ? `http://localhost:${config.http.port}/` : 'http://localhost/'
}
