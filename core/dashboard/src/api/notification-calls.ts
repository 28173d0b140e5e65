// SPDX-License-Identifier: AGPL-3.0-only
import { client, unwrap, unwrapWithResponse } from './client.ts'
import type {
  ChannelCreate,
  ChannelPatch,
  ChannelTest,
  DeliveryQuery,
  SilenceCreate,
  TemplateCreate,
  TemplatePreview,
  TemplatePreviewed,
} from './types.ts'

type PageQuery = { cursor?: string; limit?: number }
const byId = (id: string) => ({ params: { path: { id } } })
const ifMatch = (etag: string | undefined) => (etag ? { headers: { 'if-match': etag } } : {})

/** Accounts at providers. */
export const channels = {
  types: () => unwrap(client.GET('/api/v1/notifications/channel-types')),
  list: () => unwrap(client.GET('/api/v1/notifications/channels', { params: { query: { limit: 500 } } })),
  get: (id: string) => unwrapWithResponse(client.GET('/api/v1/notifications/channels/{id}', byId(id))),
  create: (body: ChannelCreate) => unwrap(client.POST('/api/v1/notifications/channels', { body })),
  update: (id: string, body: ChannelPatch, etag?: string) =>
    unwrapWithResponse(client.PATCH('/api/v1/notifications/channels/{id}', { ...byId(id), body, ...ifMatch(etag) })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/notifications/channels/{id}', byId(id))),
  test: (id: string, body: ChannelTest) => unwrap(client.POST('/api/v1/notifications/channels/{id}/test', { ...byId(id), body })),
  testDraft: (body: ChannelTest & { type: string; config: Record<string, unknown> }) =>
    unwrap(client.POST('/api/v1/notifications/channel-tests', { body })),
}

/** What was said, and what became of it. */
export const messages = {
  get: (id: string) => unwrap(client.GET('/api/v1/notifications/messages/{id}', byId(id))),
  cancel: (id: string) => unwrap(client.POST('/api/v1/notifications/messages/{id}/cancel', { ...byId(id), body: {} })),
  deliveries: (query: DeliveryQuery, signal: AbortSignal) =>
    unwrap(client.GET('/api/v1/notifications/deliveries', { params: { query }, signal })),
  retry: (deliveryId: string) => unwrap(client.POST('/api/v1/notifications/deliveries/{id}/retry', { ...byId(deliveryId), body: {} })),
  stats: (from: string, to: string) =>
    unwrap(client.GET('/api/v1/notifications/stats', { params: { query: { from, to, by: 'channel' } } })),
}

export const inbox = {
  list: (query: PageQuery, signal?: AbortSignal) =>
    unwrap(client.GET('/api/v1/notifications/inbox', { params: { query }, ...(signal ? { signal } : {}) })),
  /** All when none are named. */
  read: (ids?: string[]) => unwrap(client.POST('/api/v1/notifications/inbox/read', { body: ids ? { ids } : {} })),
}

export const silences = {
  list: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/notifications/silences', { params: { query }, signal })),
  create: (body: SilenceCreate) => unwrap(client.POST('/api/v1/notifications/silences', { body })),
  end: (id: string) => unwrap(client.DELETE('/api/v1/notifications/silences/{id}', byId(id))),
}

export const routing = {
  get: () => unwrapWithResponse(client.GET('/api/v1/notifications/routing')),
  put: (body: Record<string, unknown>, etag: string | undefined) =>
    unwrapWithResponse(client.PUT('/api/v1/notifications/routing', { body, ...ifMatch(etag) })),
  test: (labels: Record<string, string>, document: unknown) =>
    unwrap(client.POST('/api/v1/notifications/routing/test', { body: { labels, routing: document } })),
}

export const templates = {
  list: () => unwrap(client.GET('/api/v1/notifications/templates', { params: { query: { limit: 500 } } })),
  get: (id: string) => unwrapWithResponse(client.GET('/api/v1/notifications/templates/{id}', byId(id))),
  create: (body: TemplateCreate) => unwrap(client.POST('/api/v1/notifications/templates', { body })),
  update: (id: string, body: Partial<TemplateCreate>, etag?: string) =>
    unwrapWithResponse(client.PATCH('/api/v1/notifications/templates/{id}', { ...byId(id), body, ...ifMatch(etag) })),
  restore: (id: string, version: number) =>
    unwrap(client.POST('/api/v1/notifications/templates/{id}/restore', { ...byId(id), body: { version } })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/notifications/templates/{id}', byId(id))),
  preview: (body: TemplatePreview, signal: AbortSignal): Promise<TemplatePreviewed> =>
    unwrap(client.POST('/api/v1/notifications/templates/preview', { body, signal })),
}
