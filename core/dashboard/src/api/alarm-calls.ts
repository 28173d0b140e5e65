// SPDX-License-Identifier: AGPL-3.0-only
import { client, unwrap } from './client.ts'
import type { AlarmBulk, AlarmQuery } from './types.ts'

type PageQuery = { cursor?: string; limit?: number }
const byId = (id: string) => ({ params: { path: { id } } })

export const alarms = {
  list: (query: AlarmQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/alarms', { params: { query }, signal })),
  get: (id: string) => unwrap(client.GET('/api/v1/alarms/{id}', byId(id))),
  events: (id: string, query: PageQuery = {}) => unwrap(client.GET('/api/v1/alarms/{id}/events', { params: { path: { id }, query } })),
  summary: () => unwrap(client.GET('/api/v1/alarms/summary')),
  acknowledge: (id: string, comment?: string) =>
    unwrap(client.POST('/api/v1/alarms/{id}/ack', { ...byId(id), body: comment ? { comment } : {} })),
  unacknowledge: (id: string) => unwrap(client.POST('/api/v1/alarms/{id}/unack', { ...byId(id), body: {} })),
  clear: (id: string, comment?: string) =>
    unwrap(client.POST('/api/v1/alarms/{id}/clear', { ...byId(id), body: comment ? { comment } : {} })),
  /** To nobody by null. */
  assign: (id: string, assigneeId: string | null) =>
    unwrap(client.POST('/api/v1/alarms/{id}/assign', { ...byId(id), body: { assigneeId } })),
  comment: (id: string, comment: string) => unwrap(client.POST('/api/v1/alarms/{id}/comments', { ...byId(id), body: { comment } })),
  bulk: (body: AlarmBulk) => unwrap(client.POST('/api/v1/alarms/bulk', { body })),
}
