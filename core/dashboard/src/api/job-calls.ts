// SPDX-License-Identifier: AGPL-3.0-only
import { client, download, unwrap } from './client.ts'
import type { JobQuery, Redrive, ScheduleCreate, SchedulePatch } from './types.ts'

type PageQuery = { cursor?: string; limit?: number }
const byId = (id: string) => ({ params: { path: { id } } })
const ofQueue = (queue: string, id: string) => ({ params: { path: { queue, id } } })

export const queues = {
  list: () => unwrap(client.GET('/api/v1/job-queues')),
  get: (queue: string) => unwrap(client.GET('/api/v1/job-queues/{queue}', { params: { path: { queue } } })),
  jobs: (queue: string, query: JobQuery, signal: AbortSignal) =>
    unwrap(client.GET('/api/v1/job-queues/{queue}/jobs', { params: { path: { queue }, query }, signal })),
  job: (queue: string, id: string) => unwrap(client.GET('/api/v1/job-queues/{queue}/jobs/{id}', ofQueue(queue, id))),
  retry: (queue: string, id: string) =>
    unwrap(client.POST('/api/v1/job-queues/{queue}/jobs/{id}/retry', { ...ofQueue(queue, id), body: {} })),
  cancel: (queue: string, id: string) =>
    unwrap(client.POST('/api/v1/job-queues/{queue}/jobs/{id}/cancel', { ...ofQueue(queue, id), body: {} })),
  redrive: (queue: string, body: Redrive) =>
    unwrap(client.POST('/api/v1/job-queues/{queue}/dead/redrive', { params: { path: { queue } }, body })),
}

export const schedules = {
  list: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/schedules', { params: { query }, signal })),
  create: (body: ScheduleCreate) => unwrap(client.POST('/api/v1/schedules', { body })),
  update: (id: string, body: SchedulePatch) => unwrap(client.PATCH('/api/v1/schedules/{id}', { ...byId(id), body })),
  delete: (id: string) => unwrap(client.DELETE('/api/v1/schedules/{id}', byId(id))),
  run: (id: string) => unwrap(client.POST('/api/v1/schedules/{id}/run', { ...byId(id), body: {} })),
  preview: (cron: string, zone: string, signal: AbortSignal) =>
    unwrap(client.GET('/api/v1/schedules/preview', { params: { query: { cron, zone, count: 3 } }, signal })),
}

export const workers = {
  list: () => unwrap(client.GET('/api/v1/workers')),
  restart: (name: string) => unwrap(client.POST('/api/v1/workers/{name}/restart', { params: { path: { name } }, body: {} })),
}

export const quarantine = {
  list: () => unwrap(client.GET('/api/v1/job-quarantine')),
  release: (queue: string, hash: string) => unwrap(client.POST('/api/v1/job-quarantine/release', { body: { queue, hash } })),
}

/** Long requests. */
export const operations = {
  list: (query: PageQuery, signal: AbortSignal) => unwrap(client.GET('/api/v1/jobs', { params: { query }, signal })),
  cancel: (id: string) => unwrap(client.POST('/api/v1/jobs/{id}/cancel', { ...byId(id), body: {} })),
  /** What failed of it, as an operation of its own. */
  retry: (id: string) => unwrap(client.POST('/api/v1/jobs/{id}/retry', { ...byId(id), body: {} })),
  failures: (id: string) => download(`/api/v1/jobs/${id}/failures`, { format: 'csv' }),
}
