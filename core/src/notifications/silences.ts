// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyAlerts, notifySilences } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { matchesAll, parseMatcher } from './matchers.ts'
import type { SilenceView } from './routing-schemas.ts'

const longestMs = 366 * 86_400_000

type SilenceRow = typeof notifySilences.$inferSelect
export type SilenceDraft = { matchers: string[]; startsAt: string; endsAt: string; comment: string }

/** @throws {ProblemError} `SILENCE_INVALID` */
function check(draft: SilenceDraft): void {
  const errors: FieldError[] = []
  let matchesEmpty = true
  for (const [index, text] of draft.matchers.entries()) {
    try {
      matchesEmpty = parseMatcher(text).matchesEmpty && matchesEmpty
    } catch (error) {
      matchesEmpty = false
      errors.push({ pointer: `/matchers/${index}`, detail: error instanceof Error ? error.message : String(error) })
    }
  }
  // It would mute everything, today and what nobody thought of.
  if (matchesEmpty) errors.push({ pointer: '/matchers', detail: 'At least one matcher must not match what is empty.' })
  const spanMs = Date.parse(draft.endsAt) - Date.parse(draft.startsAt)
  if (spanMs <= 0) errors.push({ pointer: '/endsAt', detail: 'It must be after startsAt.' })
  if (spanMs > longestMs) errors.push({ pointer: '/endsAt', detail: 'A year is the longest.' })
  if (errors.length > 0) throw new ProblemError('SILENCE_INVALID', { errors })
}

export async function createSilence(
  context: Context,
  scope: Scope,
  draft: SilenceDraft,
  author: { id: string; name: string },
): Promise<SilenceView> {
  check(draft)
  return context.db.withTenant(scope, async (tx) => {
    const [row] = await tx
      .insert(notifySilences)
      .values({ tenantId: scope.tenantId, id: randomUUIDv7(), ...toColumns(draft), authorId: author.id, author: author.name })
      .returning()
    recordAudit(tx, {
      type: 'silence.create',
      subject: `silence:${row!.id}`,
      targetName: draft.comment,
      changes: { from: null, to: draft },
    })
    return view(row!, await firingLabels(tx), context.clock.now())
  })
}

/** An edit keeps what was before. @throws {ProblemError} `NOT_FOUND`, `SILENCE_INVALID` */
export async function updateSilence(
  context: Context,
  scope: Scope,
  id: string,
  patch: Partial<SilenceDraft>,
  by: string,
): Promise<SilenceView> {
  return context.db.withTenant(scope, async (tx) => {
    const [row] = await tx.select().from(notifySilences).where(eq(notifySilences.id, id)).for('update')
    if (!row) throw new ProblemError('NOT_FOUND')
    const before = { matchers: row.matchers, startsAt: row.startsAt.toISOString(), endsAt: row.endsAt.toISOString(), comment: row.comment }
    const draft = { ...before, ...patch }
    check(draft)
    const history = [...row.history, { ...before, by, at: new Date(context.clock.now()).toISOString() }].slice(-50)
    const [updated] = await tx
      .update(notifySilences)
      .set({ ...toColumns(draft), history, version: row.version + 1, updatedAt: sql`now()` })
      .where(eq(notifySilences.id, id))
      .returning()
    recordAudit(tx, { type: 'silence.update', subject: `silence:${id}`, targetName: row.comment, changes: { from: before, to: draft } })
    return view(updated!, await firingLabels(tx), context.clock.now())
  })
}

/** Ends it now; it stays in the list. @throws {ProblemError} `NOT_FOUND` */
export async function expireSilence(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const rows = await tx
      .update(notifySilences)
      .set({ startsAt: sql`least(starts_at, now() - interval '1 ms')`, endsAt: sql`least(ends_at, now())`, updatedAt: sql`now()` })
      .where(eq(notifySilences.id, id))
      .returning({ id: notifySilences.id })
    if (rows.length === 0) throw new ProblemError('NOT_FOUND')
    recordAudit(tx, { type: 'silence.expire', subject: `silence:${id}` })
  })
}

export async function listSilences(
  context: Context,
  scope: Scope,
  limit: number,
  cursor?: string,
): Promise<{ items: SilenceView[]; nextCursor: string | null }> {
  const [after] = cursor ? parseCursor(cursor, 1) : []
  if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
  return context.db.withTenant(scope, async (tx) => {
    const rows = await tx
      .select()
      .from(notifySilences)
      .where(cursor ? sql`${notifySilences.id} < ${String(after)}` : undefined)
      .orderBy(sql`${notifySilences.id} desc`)
      .limit(limit + 1)
    const firing = await firingLabels(tx)
    const page = rows.slice(0, limit)
    const items = page.map((row) => view(row, firing, context.clock.now()))
    return { items, nextCursor: rows.length > limit ? formatCursor([page.at(-1)!.id]) : null }
  })
}

function toColumns(draft: SilenceDraft) {
  return { matchers: draft.matchers, startsAt: new Date(draft.startsAt), endsAt: new Date(draft.endsAt), comment: draft.comment }
}

async function firingLabels(tx: Tx): Promise<Record<string, string>[]> {
  const rows = await tx.select({ labels: notifyAlerts.labels }).from(notifyAlerts).where(eq(notifyAlerts.status, 'firing')).limit(10_000)
  return rows.map((row) => row.labels)
}

function view(row: SilenceRow, firing: readonly Record<string, string>[], now: number): SilenceView {
  const state = row.endsAt.getTime() <= now ? 'expired' : row.startsAt.getTime() > now ? 'pending' : 'active'
  return {
    id: row.id,
    matchers: row.matchers,
    startsAt: row.startsAt.toISOString(),
    endsAt: row.endsAt.toISOString(),
    comment: row.comment,
    author: row.author,
    state,
    mutes: state === 'active' ? firing.filter((labels) => matchesAll(row.matchers, labels)).length : 0,
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
  }
}
