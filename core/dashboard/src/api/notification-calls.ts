// SPDX-License-Identifier: AGPL-3.0-only
import { client, download, unwrap, unwrapWithResponse } from './client.ts'
import type {
  BulkRetry,
  ChannelCreate,
  ChannelPatch,
  ChannelTest,
  ContactPoint,
  DeliveryQuery,
  EscalationCreate,
  NotifyPreferences,
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
  rotateSecret: (id: string) => unwrap(client.POST('/api/v1/notifications/channels/{id}/rotate-secret', { ...byId(id), body: {} })),
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
  retryMany: (body: BulkRetry) => unwrap(client.POST('/api/v1/notifications/deliveries/bulk-retry', { body })),
  /** The log as CSV, made by the server. */
  export: (query: Record<string, string>) => download('/api/v1/notifications/deliveries/export', query),
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

/** What follows while nobody acknowledges. */
export const escalations = {
  list: () => unwrap(client.GET('/api/v1/notifications/escalations', { params: { query: { limit: 500 } } })),
  create: (body: EscalationCreate) => unwrap(client.POST('/api/v1/notifications/escalations', { body })),
  update: (id: string, body: EscalationCreate) => unwrap(client.PATCH('/api/v1/notifications/escalations/{id}', { ...byId(id), body })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/notifications/escalations/{id}', byId(id))),
}

/** How the person who is signed in wants to be told. */
export const myNotifications = {
  preferences: () => unwrap(client.GET('/api/v1/notifications/preferences/me')),
  savePreferences: (body: NotifyPreferences) => unwrap(client.PUT('/api/v1/notifications/preferences/me', { body })),
  points: () => unwrap(client.GET('/api/v1/notifications/contact-points/me')),
  addPoint: (type: ContactPoint['type'], address: string) =>
    unwrap(client.POST('/api/v1/notifications/contact-points/me', { body: { type, address } })),
  sendCode: (id: string) => unwrap(client.POST('/api/v1/notifications/contact-points/me/{id}/code', { ...byId(id), body: {} })),
  verify: (id: string, code: string) =>
    unwrap(client.POST('/api/v1/notifications/contact-points/me/{id}/verify', { ...byId(id), body: { code } })),
  deletePoint: (id: string) => unwrap(client.DELETE('/api/v1/notifications/contact-points/me/{id}', byId(id))),
}
