// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { RulePreviews } from './preview-history.ts'
import { mergePatch } from './rules.ts'
import type { Rules } from './rules.ts'
import {
  RuleBulk,
  RuleBulkResult,
  RuleDocument,
  RuleDryRun,
  RuleListQuery,
  RuleNote,
  RulePreview,
  RulePreviewed,
  RuleRestore,
  RuleRun,
  RuleVersion,
  RuleView,
} from './schemas.ts'

const tags = ['rules']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const PageQuery = Type.Object(pageQuery, { additionalProperties: false })

/** Rules over telemetry, attributes and connectivity (alarms and rules §11). */
export function registerRuleRoutes(app: App, { rules, previews }: { rules: Rules; previews: RulePreviews }): void {
  app.get(
    '/api/v1/rules',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'List rules by name; with deviceId those that are for this device',
        querystring: RuleListQuery,
        response: { 200: Page(RuleView), ...problems(400, 401, 403) },
      },
    },
    async (request) => rules.list(actorOf(request).scope, request.query),
  )
  app.post(
    '/api/v1/rules',
    {
      config: { permission: 'rule.write' },
      schema: {
        tags,
        summary: 'Create a rule; what is wrong with it is told all at once',
        querystring: RuleNote,
        body: RuleDocument,
        response: { 201: RuleView, ...problems(400, 401, 402, 403, 409, 413, 422) },
      },
    },
    async (request, reply) => {
      const rule = await rules.create(actorOf(request), request.body, request.query.note)
      return reply.code(201).header('etag', `"${rule.version}"`).send(rule)
    },
  )
  app.post(
    '/api/v1/rules/bulk',
    {
      config: { permission: 'rule.write' },
      schema: {
        tags,
        summary: 'Switch up to 500 rules on, off or to trial, or delete them, each for itself',
        querystring: EmptyQuery,
        body: RuleBulk,
        response: { 200: RuleBulkResult, ...problems(400, 401, 403) },
      },
    },
    (request) => rules.changeMany(actorOf(request), request.body),
  )
  app.post(
    '/api/v1/rules/preview',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'What a rule would have told of points that are sent along, or of up to 31 days of history; nothing is written',
        querystring: EmptyQuery,
        body: RulePreview,
        response: { 200: RulePreviewed, ...problems(400, 401, 403, 404, 413, 422) },
      },
    },
    async (request) => previews.run(actorOf(request).scope, request.body),
  )
  registerOneRule(app, rules)
  registerHistory(app, rules)
}

function registerOneRule(app: App, rules: Rules): void {
  app.get(
    '/api/v1/rules/:id',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'Read a rule',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: RuleView, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const rule = await rules.get(actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${rule.version}"`).send(rule)
    },
  )
  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: '/api/v1/rules/:id',
      config: { permission: 'rule.write' },
      schema: {
        tags,
        summary: method === 'PUT' ? 'Replace a rule by a new version' : 'Change a rule by a JSON Merge Patch of its document',
        params: IdParams,
        querystring: RuleNote,
        body: RuleDocument,
        response: { 200: RuleView, ...problems(400, 401, 403, 404, 409, 412, 413, 422, 428) },
      },
      handler: async (request, reply) => {
        const actor = actorOf(request)
        const version = await versionOf(rules, request)
        const { note } = request.query
        const { body } = request
        const decide = ({ rule }: RuleView) => (method === 'PUT' ? body : mergePatch(rule, body))
        const saved = await rules.update(actor, request.params.id, decide, { version, ...(note === undefined ? {} : { note }) })
        return reply.header('etag', `"${saved.version}"`).send(saved)
      },
    })
  }
  app.delete(
    '/api/v1/rules/:id',
    {
      config: { permission: 'rule.write' },
      schema: {
        tags,
        summary: 'Move a rule to the bin; its alarms are cleared',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 412, 428) },
      },
    },
    async (request, reply) => {
      await rules.delete(actorOf(request), request.params.id, await versionOf(rules, request))
      return reply.code(204).send(null)
    },
  )
}

function registerHistory(app: App, rules: Rules): void {
  app.get(
    '/api/v1/rules/:id/versions',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'Versions of a rule with who saved them, the latest first',
        params: IdParams,
        querystring: PageQuery,
        response: { 200: Page(RuleVersion), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => rules.listVersions(actorOf(request).scope, request.params.id, request.query.limit ?? 50, request.query.cursor),
  )
  app.post(
    '/api/v1/rules/:id/restore',
    {
      config: { permission: 'rule.write' },
      schema: {
        tags,
        summary: 'Make an earlier version the present one; a rule in the bin comes back',
        params: IdParams,
        querystring: EmptyQuery,
        body: RuleRestore,
        response: { 200: RuleView, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    async (request, reply) => {
      const rule = await rules.restore(actorOf(request), request.params.id, request.body.version)
      return reply.header('etag', `"${rule.version}"`).send(rule)
    },
  )
  app.get(
    '/api/v1/rules/:id/runs',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'What the last 100 actions of a rule did, the latest first',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Type.Object({ items: Type.Array(RuleRun) }), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => rules.listRuns(actorOf(request).scope, request.params.id),
  )
  app.get(
    '/api/v1/rules/:id/dry-runs',
    {
      config: { permission: 'rule.read' },
      schema: {
        tags,
        summary: 'What a rule on trial would have told, the latest first',
        params: IdParams,
        querystring: PageQuery,
        response: { 200: Page(RuleDryRun), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => rules.listDryRuns(actorOf(request).scope, request.params.id, request.query.limit ?? 50, request.query.cursor),
  )
}

/** [10] Who changes a rule says which version was seen; `*` is any. What is not there is not found before that. */
async function versionOf(rules: Rules, request: FastifyRequest<{ Params: { id: string } }>): Promise<number | undefined> {
  await rules.get(actorOf(request).scope, request.params.id)
  const header = request.headers['if-match']
  if (header === undefined) throw new ProblemError('IF_MATCH_REQUIRED')
  return parseIfMatch(header)
}
