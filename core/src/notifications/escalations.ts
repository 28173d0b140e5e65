// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { notifyChannels, notifyEscalations } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import { Targets, escalationsIn, readRouting } from './routing-document.ts'

const dayMs = 86_400_000

const Step = Type.Object(
  {
    /** Since the group was first told. */
    afterMs: Type.Integer({ minimum: 0, maximum: 7 * dayMs }),
    targets: Targets,
  },
  { additionalProperties: false },
)
export type EscalationStep = Static<typeof Step>

export const Escalation = Type.Object(
  {
    name: Type.String({ pattern: '\\S', maxLength: 100 }),
    steps: Type.Array(Step, { minItems: 1, maxItems: 10 }),
    /** So often once more from the first step. */
    repeat: Type.Optional(Type.Integer({ minimum: 0, maximum: 5 })),
  },
  { additionalProperties: false },
)
export type Escalation = Static<typeof Escalation>
export type EscalationRow = typeof notifyEscalations.$inferSelect

async function check(tx: Tx, { steps }: Escalation): Promise<void> {
  const errors: FieldError[] = []
  const refuse = (pointer: string, detail: string) => void errors.push({ pointer, detail })
  const known = new Set((await tx.select({ id: notifyChannels.id }).from(notifyChannels)).map((row) => row.id))
  for (const [index, { afterMs, targets }] of steps.entries()) {
    const pointer = `/steps/${index}`
    if (index > 0 && afterMs <= steps[index - 1]!.afterMs) refuse(`${pointer}/afterMs`, 'Steps come one after the other.')
    if (targets.length === 0) refuse(`${pointer}/targets`, 'A step needs a target.')
    const unknown = targets.find(({ channelId }) => channelId !== undefined && !known.has(channelId))
    if (unknown) refuse(`${pointer}/targets`, `There is no channel ${unknown.channelId}.`)
  }
  if (errors.length > 0) throw new ProblemError('UNPROCESSABLE', { errors })
}

export async function listEscalations(context: Context, scope: Scope, limit: number, cursor?: string) {
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
  const rows = await context.db.withTenant(scope, (tx) =>
    tx
      .select()
      .from(notifyEscalations)
      .where(after === undefined ? undefined : sql`${notifyEscalations.name} > ${after}`)
      .orderBy(notifyEscalations.name)
      .limit(limit + 1),
  )
  const items = rows.slice(0, limit)
  return { items, nextCursor: rows.length > limit ? formatCursor(['escalations', items.at(-1)!.name]) : null }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getEscalation(context: Context, scope: Scope, id: string): Promise<EscalationRow> {
  return context.db.withTenant(scope, (tx) => readEscalation(tx, id))
}

/** @throws {ProblemError} `UNPROCESSABLE` with pointers, `NAME_TAKEN` */
export async function createEscalation(context: Context, scope: Scope, draft: Escalation, by: string): Promise<EscalationRow> {
  return context.db.withTenant(scope, async (tx) => {
    await check(tx, draft)
    const [row] = await tx
      .insert(notifyEscalations)
      .values({ tenantId: scope.tenantId, id: randomUUIDv7(), ...draft, updatedBy: by })
      .returning()
      .catch(asNameTaken(draft.name))
    recordAudit(tx, {
      type: 'notify_escalation.create',
      subject: `notify_escalation:${row!.id}`,
      targetName: draft.name,
      changes: { from: null, to: draft },
    })
    return row!
  })
}

/** Escalations that run go on with what it says now. @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT`, `IN_USE` for a new name */
export async function updateEscalation(
  context: Context,
  scope: Scope,
  id: string,
  patch: Partial<Escalation>,
  by: string,
  version?: number,
): Promise<EscalationRow> {
  return context.db.withTenant(scope, async (tx) => {
    const current = await readEscalation(tx, id)
    if (version !== undefined && version !== current.version) throw new ProblemError('VERSION_CONFLICT')
    if (patch.name !== undefined && patch.name !== current.name) await assertUnused(tx, current.name)
    const draft: Escalation = { name: current.name, steps: current.steps as EscalationStep[], repeat: current.repeat, ...patch }
    await check(tx, draft)
    const [row] = await tx
      .update(notifyEscalations)
      .set({ ...draft, updatedBy: by, version: current.version + 1, updatedAt: sql`now()` })
      .where(and(eq(notifyEscalations.id, id), eq(notifyEscalations.version, current.version)))
      .returning()
      .catch(asNameTaken(draft.name))
    if (!row) throw new ProblemError('VERSION_CONFLICT')
    recordAudit(tx, {
      type: 'notify_escalation.update',
      subject: `notify_escalation:${id}`,
      targetName: row.name,
      changes: { from: { steps: current.steps }, to: patch },
    })
    return row
  })
}

/** @throws {ProblemError} `NOT_FOUND`, `IN_USE` while a route calls for it */
export async function deleteEscalation(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const { name } = await readEscalation(tx, id)
    recordAudit(tx, { type: 'notify_escalation.delete', subject: `notify_escalation:${id}`, targetName: name })
    await assertUnused(tx, name)
    await tx.delete(notifyEscalations).where(eq(notifyEscalations.id, id))
  })
}

async function assertUnused(tx: Tx, name: string): Promise<void> {
  const { routing } = await readRouting(tx)
  const errors = [{ pointer: '', detail: `A route calls for ${name}.` }]
  if (escalationsIn(routing.route).includes(name)) throw new ProblemError('IN_USE', { errors })
}

async function readEscalation(tx: Tx, id: string): Promise<EscalationRow> {
  const [row] = await tx.select().from(notifyEscalations).where(eq(notifyEscalations.id, id)).for('update')
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

function asNameTaken(name: string) {
  return (error: unknown): never => {
    throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name }, cause: error }) : error
  }
}
