// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { Id, IdParams, Instant, NoContent, Nullable, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { originOf } from '../users/security-events.ts'
import {
  RetentionRule,
  RetentionRuleCreate,
  RetentionRulePatch,
  createRule,
  deleteRule,
  getRule,
  listRules,
  updateRule,
} from './retention-rules.ts'
import type { Retention, RuleDraftPlace } from './retention.ts'

const tags = ['retention']
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
/** With `keepDays`: as if that were the rule of product and pattern. 0 keeps for ever. */
const PreviewQuery = Type.Object(
  {
    productId: Type.Optional(Id),
    keyPattern: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    keepDays: Type.Optional(Type.Integer({ minimum: 0, maximum: 36_500 })),
  },
  { additionalProperties: false },
)
const Preview = Type.Object({
  items: Type.Array(
    Type.Object({
      /** Null for the rule that is only asked about. */
      ruleId: Nullable(Id),
      productId: Nullable(Id),
      keyPattern: Nullable(Type.String()),
      keepDays: Nullable(Type.Integer()),
      /** Points before it are past their time; null where all are kept. */
      cutoff: Nullable(Instant),
      releases: Type.Object({ points: Type.Integer(), bytes: Type.Integer(), oldestTs: Nullable(Type.Integer()) }),
    }),
  ),
  /** False: there was no time to look at everything, it will be more. */
  isComplete: Type.Boolean(),
  nextAt: Instant,
})

/** Rules that say how long points are kept, and what they would remove. */
export function registerRetentionRoutes(app: App, context: Context, { retention }: { retention: Retention }): void {
  app.get(
    '/api/v1/retention-rules',
    {
      config: { permission: 'system.read' },
      schema: {
        tags,
        summary: 'List retention rules',
        querystring: ListQuery,
        response: { 200: Page(RetentionRule), ...problems(400, 401, 403) },
      },
    },
    (request) => listRules(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor),
  )
  app.post(
    '/api/v1/retention-rules',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Create a retention rule',
        body: RetentionRuleCreate,
        response: { 201: RetentionRule, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const { rule, version } = await createRule(context, actorOf(request).scope, request.body)
      noteChange(request, 'created', rule)
      return reply.code(201).header('etag', `"${version}"`).send(rule)
    },
  )
  app.get(
    '/api/v1/retention-rules/preview',
    {
      config: { permission: 'system.read' },
      schema: {
        tags,
        summary: 'What the next run would remove by each rule',
        querystring: PreviewQuery,
        response: { 200: Preview, ...problems(400, 401, 403, 422) },
      },
    },
    async (request) => {
      const { items, isComplete, nextAt } = await retention.preview(actorOf(request).scope, toDraft(request.query))
      return {
        items: items.map(({ id, cutoff, ...item }) => ({
          ruleId: id,
          ...item,
          cutoff: item.keepDays === null ? null : new Date(cutoff).toISOString(),
        })),
        isComplete,
        nextAt: new Date(nextAt).toISOString(),
      }
    },
  )
  registerRule(app, context)
}

function registerRule(app: App, context: Context): void {
  app.get(
    '/api/v1/retention-rules/:id',
    {
      config: { permission: 'system.read' },
      schema: {
        tags,
        summary: 'Read a retention rule',
        params: IdParams,
        response: { 200: RetentionRule, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { rule, version } = await getRule(context, actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${version}"`).send(rule)
    },
  )
  app.patch(
    '/api/v1/retention-rules/:id',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Change how long a retention rule keeps points',
        params: IdParams,
        body: RetentionRulePatch,
        response: { 200: RetentionRule, ...problems(400, 401, 403, 404, 412) },
      },
    },
    async (request, reply) => {
      const wanted = parseIfMatch(request.headers['if-match'])
      const { rule, version } = await updateRule(context, actorOf(request).scope, request.params.id, request.body, wanted)
      noteChange(request, 'changed', rule)
      return reply.header('etag', `"${version}"`).send(rule)
    },
  )
  app.delete(
    '/api/v1/retention-rules/:id',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Delete a retention rule',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 412) },
      },
    },
    async (request, reply) => {
      await deleteRule(context, actorOf(request).scope, request.params.id, parseIfMatch(request.headers['if-match']))
      noteChange(request, 'deleted', { id: request.params.id })
      return reply.code(204).send(null)
    },
  )
}

function toDraft(query: { productId?: string; keyPattern?: string; keepDays?: number }): RuleDraftPlace | undefined {
  const { productId = null, keyPattern = null, keepDays } = query
  if (keepDays !== undefined) return { productId, keyPattern, keepDays: keepDays || null }
  if (productId === null && keyPattern === null) return undefined
  throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '?keepDays', detail: 'A rule to try out says how many days it keeps.' }] })
}

/** Data goes by these rules, so the log says who made them. */
function noteChange(request: Parameters<typeof actorOf>[0], change: string, rule: object): void {
  request.log.info({ by: actorOf(request).userId, address: originOf(request).address, rule }, `a retention rule was ${change}`)
}
