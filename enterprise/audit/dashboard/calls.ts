// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { api } from '@iot-pms/core/dashboard'

const base = '/api/v1/audit'

export type Change = { path: string; from: unknown; to: unknown }
export type AuditEvent = {
  stream: string
  seq: number
  ts: string
  type: string
  actor: string
  subject: string
  hash: string
  data: {
    outcome: 'success' | 'failure' | 'denied'
    reason: string | null
    actor: { name: string | null; auth: string }
    target: { name: string | null }
    changes: Change[]
    context: { ip: string | null; userAgent: string | null; requestId: string | null; route: string | null }
  }
}
export type EventQuery = { chain: string; type: string; outcome: string; q: string; subject: string }
export type Chain = {
  stream: string
  chain: 'own' | 'platform'
  firstSeq: number
  headSeq: number
  checkpointSize: number
  checkpointAt: string | null
  anchoredTo: number
  anchoredAt: 'nowhere' | 'machine' | 'elsewhere'
}
export type Verification = {
  ok: boolean
  findings: { code: string; seq?: number }[]
  firstSeq: number
  lastSeq: number
  anchoredTo: number
  unanchored: number
}
export type SinkKind = 'file' | 'http' | 'syslog'
export type Sink = {
  id: string
  name: string
  kind: SinkKind
  enabled: boolean
  chains: string
  failingSince: string | null
  deliveredSeq: number
}
export type Settings = { auditDays: number; maskNames: string[]; pendingDays: number | null; pendingAt: string | null; toDelete: number }
type Items<T> = { items: T[] }

export const audit = {
  events: (query: Partial<EventQuery> & { cursor?: string | undefined; limit?: string }, signal: AbortSignal) =>
    api.get<{ items: AuditEvent[]; nextCursor: string | null }>(`${base}/events`, query, signal),
  export: (body: Record<string, unknown>) => api.download(`${base}/exports`, body),
  chains: () => api.get<Items<Chain>>(`${base}/chains`),
  keys: () => api.get<Items<{ id: string; publicKey: string; createdAt: string }>>(`${base}/keys`),
  verify: (chain: string) => api.send<Verification>('POST', `${base}/verify`, { chain }),
  sinks: () => api.get<Items<Sink>>(`${base}/sinks`),
  createSink: (body: { name: string; target: Record<string, unknown>; chains: string }) => api.send<Sink>('POST', `${base}/sinks`, body),
  updateSink: (id: string, body: { enabled: boolean }) => api.send<Sink>('PATCH', `${base}/sinks/${id}`, body),
  deleteSink: (id: string) => api.send('DELETE', `${base}/sinks/${id}`),
  testSink: (id: string) => api.send<{ ok: boolean; error: string | null }>('POST', `${base}/sinks/${id}/test`),
  settings: () => api.get<Settings>(`${base}/settings`),
  saveSettings: (body: { auditDays: number }) => api.send<Settings>('PUT', `${base}/settings`, body),
}
