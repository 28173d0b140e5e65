// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { notifyTemplateVersions, notifyTemplates } from '../db/notify-tables.ts'
import type { TemplateText } from '../db/notify-tables.ts'
import { tenants } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import { checkTemplate, fillTemplate, plainOf } from './liquid.ts'
import { renderMarkdown } from './render.ts'

export type TemplateRow = typeof notifyTemplates.$inferSelect
export type TemplateDraft = { name: string; topic?: string; locales: Record<string, TemplateText>; example?: Record<string, unknown> }

function check(locales: Record<string, TemplateText>): void {
  for (const { title, body } of Object.values(locales)) {
    checkTemplate(title ?? '')
    checkTemplate(body)
  }
}

export async function listTemplates(context: Context, scope: Scope, limit: number, cursor?: string) {
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
  const rows = await context.db.withTenant(scope, (tx) =>
    tx
      .select()
      .from(notifyTemplates)
      .where(after === undefined ? undefined : sql`${notifyTemplates.name} > ${after}`)
      .orderBy(notifyTemplates.name)
      .limit(limit + 1),
  )
  const items = rows.slice(0, limit)
  return { items, nextCursor: rows.length > limit ? formatCursor(['templates', items.at(-1)!.name]) : null }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getTemplate(context: Context, scope: Scope, id: string) {
  return context.db.withTenant(scope, async (tx) => {
    const template = await readTemplate(tx, id)
    const versions = await tx
      .select()
      .from(notifyTemplateVersions)
      .where(eq(notifyTemplateVersions.templateId, id))
      .orderBy(sql`${notifyTemplateVersions.version} desc`)
      .limit(100)
    return { template, versions }
  })
}

/** @throws {ProblemError} `TEMPLATE_INVALID`, `TEMPLATE_LIMIT`, `NAME_TAKEN` */
export async function createTemplate(context: Context, scope: Scope, draft: TemplateDraft, by: string): Promise<TemplateRow> {
  check(draft.locales)
  const values = {
    tenantId: scope.tenantId,
    id: randomUUIDv7(),
    name: draft.name,
    topic: draft.topic ?? 'message',
    locales: draft.locales,
    example: draft.example ?? {},
    updatedBy: by,
  }
  const [row] = await context.db.withTenant(scope, async (tx) => {
    const rows = await tx
      .insert(notifyTemplates)
      .values(values)
      .returning()
      .catch((error: unknown) => {
        throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: draft.name }, cause: error }) : error
      })
    recordAudit(tx, { type: 'notify_template.create', subject: `notify_template:${values.id}`, targetName: draft.name })
    return rows
  })
  return row!
}

/** What it was before stays as a version. @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT`, and as {@link createTemplate} */
export async function updateTemplate(
  context: Context,
  scope: Scope,
  id: string,
  patch: Partial<TemplateDraft>,
  by: string,
  version?: number,
): Promise<TemplateRow> {
  check(patch.locales ?? {})
  return context.db.withTenant(scope, async (tx) => {
    await tx.execute(sql`select 1 from notify_templates where id = ${id} for update`)
    const current = await readTemplate(tx, id)
    if (version !== undefined && version !== current.version) throw new ProblemError('VERSION_CONFLICT')
    const { tenantId, locales, example, updatedBy } = current
    await tx.insert(notifyTemplateVersions).values({ tenantId, templateId: id, version: current.version, locales, example, updatedBy })
    const [row] = await tx
      .update(notifyTemplates)
      .set({ ...patch, version: current.version + 1, updatedBy: by, updatedAt: sql`now()` })
      .where(eq(notifyTemplates.id, id))
      .returning()
      .catch((error: unknown) => {
        throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: patch.name ?? '' }, cause: error }) : error
      })
    recordAudit(tx, {
      type: 'notify_template.update',
      subject: `notify_template:${id}`,
      targetName: row!.name,
      changes: { from: { locales }, to: { locales: row!.locales } },
    })
    return row!
  })
}

/** Makes a version the present one; that is an edit like any other. @throws {ProblemError} `NOT_FOUND` */
export async function restoreTemplate(context: Context, scope: Scope, id: string, version: number, by: string): Promise<TemplateRow> {
  const [old] = await context.db.withTenant(scope, (tx) =>
    tx
      .select()
      .from(notifyTemplateVersions)
      .where(and(eq(notifyTemplateVersions.templateId, id), eq(notifyTemplateVersions.version, version))),
  )
  if (!old) throw new ProblemError('NOT_FOUND')
  return updateTemplate(context, scope, id, { locales: old.locales, example: old.example }, by)
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function deleteTemplate(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const [row] = await tx.delete(notifyTemplates).where(eq(notifyTemplates.id, id)).returning({ name: notifyTemplates.name })
    if (!row) throw new ProblemError('NOT_FOUND')
    recordAudit(tx, { type: 'notify_template.delete', subject: `notify_template:${id}`, targetName: row.name })
  })
}

/**
 * Title and body of a stored template, found by its name, in the wanted language or else the tenant's, else Chinese,
 * else any. The body is markdown in which every value is escaped, so that it can be put into any channel's words.
 *
 * @throws {ProblemError} `NOT_FOUND`, `TEMPLATE_VARIABLE`, `TEMPLATE_LIMIT`
 */
export async function fillStored(
  tx: Tx,
  name: string,
  data: Record<string, unknown>,
  locale?: string,
): Promise<{ title: string; text: string; topic: string }> {
  const [template] = await tx.select().from(notifyTemplates).where(eq(notifyTemplates.name, name))
  if (!template) throw new ProblemError('NOT_FOUND')
  const [tenant] = await tx.select({ locale: tenants.locale, timeZone: tenants.timeZone }).from(tenants)
  const chosen = [locale, tenant?.locale, 'zh', ...Object.keys(template.locales)].find(
    (one) => one !== undefined && template.locales[one] !== undefined,
  )
  const text = template.locales[chosen ?? 'zh']
  if (!text) throw new ProblemError('NOT_FOUND')
  const language: Language = chosen?.startsWith('zh') ? 'zh' : 'en'
  return { ...fillText(text, data, { language, zone: tenant?.timeZone ?? 'UTC' }), topic: template.topic }
}

/** The same of a text at hand. */
export function fillText({ title = '', body }: TemplateText, data: Record<string, unknown>, options: { language: Language; zone: string }) {
  const filled = fillTemplate(body, data, options)
  return {
    title: plainOf(fillTemplate(title, data, options))
      .replaceAll(/\s+/g, ' ')
      .trim()
      .slice(0, 200),
    text: renderMarkdown(filled.source, 'commonmark', filled.values).text,
  }
}

async function readTemplate(tx: Tx, id: string): Promise<TemplateRow> {
  const [row] = await tx.select().from(notifyTemplates).where(eq(notifyTemplates.id, id))
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}
