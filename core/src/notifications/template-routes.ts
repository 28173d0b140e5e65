// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { Id, IdParams, Instant, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Dialect } from './channel-type.ts'
import { channelTypeOf } from './channel-types.ts'
import { fillTemplate, plainOf } from './liquid.ts'
import { renderMarkdown } from './render.ts'
import { splitText } from './split.ts'
import { createTemplate, deleteTemplate, getTemplate, listTemplates, restoreTemplate, updateTemplate } from './templates.ts'
import type { TemplateRow } from './templates.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const Data = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 200 })

const Text = Type.Object(
  { title: Type.Optional(Type.String({ maxLength: 1000 })), body: Type.String({ minLength: 1, maxLength: 20_000 }) },
  { additionalProperties: false },
)
const Locales = Type.Record(Type.String({ pattern: '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$' }), Text, {
  minProperties: 1,
  maxProperties: 20,
  additionalProperties: false,
})
const draft = {
  name: Type.String({ pattern: '^[a-z][a-z0-9_.-]{0,63}$' }),
  topic: Type.Optional(Type.String({ pattern: '^[a-z][a-z0-9_.-]{0,49}$' })),
  locales: Locales,
  example: Type.Optional(Data),
}
const TemplateCreate = Type.Object(draft, { additionalProperties: false })
const TemplatePatch = Type.Partial(Type.Object(draft, { additionalProperties: false }), { minProperties: 1 })
const Template = Type.Object({
  id: Id,
  name: Type.String(),
  topic: Type.String(),
  locales: Locales,
  example: Data,
  version: Type.Integer(),
  updatedBy: Type.String(),
  createdAt: Instant,
  updatedAt: Instant,
})
const Version = Type.Object({ version: Type.Integer(), locales: Locales, updatedBy: Type.String(), at: Instant })

const Preview = Type.Object(
  {
    template: Type.Optional(Text),
    templateId: Type.Optional(Id),
    channelType: Type.String({ maxLength: 50 }),
    locale: Type.Optional(Type.String({ maxLength: 20 })),
    data: Type.Optional(Data),
    format: Type.Optional(Type.Union([Type.Literal('markdown'), Type.Literal('text')])),
  },
  { additionalProperties: false },
)
const Previewed = Type.Object({
  title: Type.String(),
  parts: Type.Array(Type.Object({ text: Type.String(), entities: Type.Optional(Type.Array(Type.Unknown())) })),
})

/** Texts people write once. */
export function registerTemplateRoutes(app: App, context: Context): void {
  const read = { config: { permission: 'notify.read' as const } }
  const write = { config: { permission: 'notify.write' as const } }
  app.get(
    '/api/v1/notifications/templates',
    {
      ...read,
      schema: { tags, summary: 'Templates by name', querystring: ListQuery, response: { 200: Page(Template), ...problems(400, 401, 403) } },
    },
    async (request) => {
      const { items, nextCursor } = await listTemplates(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor)
      return { items: items.map(view), nextCursor }
    },
  )
  app.post(
    '/api/v1/notifications/templates',
    {
      ...write,
      schema: {
        tags,
        summary: 'Create a template',
        querystring: EmptyQuery,
        body: TemplateCreate,
        response: { 201: Template, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const row = await createTemplate(context, actor.scope, request.body, actor.name)
      return reply.code(201).header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.post(
    '/api/v1/notifications/templates/preview',
    {
      ...read,
      schema: {
        tags,
        summary: 'A template as a channel would show it',
        querystring: EmptyQuery,
        body: Preview,
        response: { 200: Previewed, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request) => {
      const { template, templateId, locale, data } = request.body
      const stored = templateId === undefined ? undefined : (await getTemplate(context, actorOf(request).scope, templateId)).template
      const text = template ?? stored?.locales[locale ?? 'zh'] ?? Object.values(stored?.locales ?? {})[0]
      if (!text) throw new ProblemError('MESSAGE_CONTENT')
      return preview(text, {
        ...request.body,
        data: data ?? stored?.example ?? {},
        language: locale?.startsWith('en') ? 'en' : locale ? 'zh' : languageOf(request),
      })
    },
  )
  app.get(
    '/api/v1/notifications/templates/:id',
    {
      ...read,
      schema: {
        tags,
        summary: 'Read a template with what it was before',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Type.Object({ ...Template.properties, versions: Type.Array(Version) }), ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { template, versions } = await getTemplate(context, actorOf(request).scope, request.params.id)
      const shown = versions.map(({ version, locales, updatedBy, at }) => ({ version, locales, updatedBy, at: at.toISOString() }))
      return reply.header('etag', `"${template.version}"`).send({ ...view(template), versions: shown })
    },
  )
  app.patch(
    '/api/v1/notifications/templates/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Edit a template',
        params: IdParams,
        querystring: EmptyQuery,
        body: TemplatePatch,
        response: { 200: Template, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const actor = actorOf(request)
      const row = await updateTemplate(
        context,
        actor.scope,
        request.params.id,
        request.body,
        actor.name,
        parseIfMatch(request.headers['if-match']),
      )
      return reply.header('etag', `"${row.version}"`).send(view(row))
    },
  )
  app.post(
    '/api/v1/notifications/templates/:id/restore',
    {
      ...write,
      schema: {
        tags,
        summary: 'Make an earlier version the present one',
        params: IdParams,
        querystring: EmptyQuery,
        body: Type.Object({ version: Type.Integer({ minimum: 1 }) }, { additionalProperties: false }),
        response: { 200: Template, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      return view(await restoreTemplate(context, actor.scope, request.params.id, request.body.version, actor.name))
    },
  )
  app.delete(
    '/api/v1/notifications/templates/:id',
    {
      ...write,
      schema: {
        tags,
        summary: 'Delete a template',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await deleteTemplate(context, actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

function preview(
  text: Static<typeof Text>,
  wanted: { channelType: string; data: Record<string, unknown>; format?: 'markdown' | 'text'; language: 'zh' | 'en' },
) {
  const options = { language: wanted.language, zone: 'UTC' }
  const filled = fillTemplate(text.body, wanted.data, options)
  const type = wanted.channelType === 'plain' ? undefined : channelTypeOf(wanted.channelType)
  const dialect: Dialect = type?.dialect ?? 'plain'
  const format = wanted.format ?? 'markdown'
  const whole = format === 'text' ? { text: plainOf(filled), entities: [] } : renderMarkdown(filled.source, dialect, filled.values)
  const parts = type ? splitText(whole, type.limit[format], type.limit.unit) : [whole]
  return {
    title: plainOf(fillTemplate(text.title ?? '', wanted.data, options)),
    parts: parts.map((part) => ({ text: part.text, ...(part.entities.length > 0 ? { entities: part.entities } : {}) })),
  }
}

function view(row: TemplateRow): Static<typeof Template> {
  return {
    id: row.id,
    name: row.name,
    topic: row.topic,
    locales: row.locales,
    example: row.example,
    version: row.version,
    updatedBy: row.updatedBy,
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
  }
}
