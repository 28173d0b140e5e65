// SPDX-License-Identifier: AGPL-3.0-only
import { client, unwrap, unwrapWithResponse } from './client.ts'
import type { RuleBulk, RulePreview, RulePreviewed, RuleQuery } from './types.ts'

type PageQuery = { cursor?: string; limit?: number }
type Document = Record<string, unknown>
const byId = (id: string) => ({ params: { path: { id } } })
const ifMatch = (etag: string | undefined) => (etag ? { headers: { 'if-match': etag } } : {})

export const rules = {
  list: (query: RuleQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/rules', { params: { query }, signal })),
  get: (id: string) => unwrapWithResponse(client.GET('/api/v1/rules/{id}', byId(id))),
  create: (body: Document) => unwrap(client.POST('/api/v1/rules', { body })),
  replace: (id: string, body: Document, etag: string | undefined) =>
    unwrapWithResponse(client.PUT('/api/v1/rules/{id}', { ...byId(id), body, ...ifMatch(etag) })),
  /** What it would have raised of what is stored. */
  preview: (body: RulePreview, signal: AbortSignal): Promise<RulePreviewed> =>
    unwrap(client.POST('/api/v1/rules/preview', { body, signal })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/rules/{id}', byId(id))),
  bulk: (body: RuleBulk) => unwrap(client.POST('/api/v1/rules/bulk', { body })),
  versions: (id: string) => unwrap(client.GET('/api/v1/rules/{id}/versions', byId(id))),
  restore: (id: string, version: number) => unwrap(client.POST('/api/v1/rules/{id}/restore', { ...byId(id), body: { version } })),
  runs: (id: string) => unwrap(client.GET('/api/v1/rules/{id}/runs', byId(id))),
  dryRuns: (id: string, query: PageQuery = {}) => unwrap(client.GET('/api/v1/rules/{id}/dry-runs', { params: { path: { id }, query } })),
}
