// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, formatCursor, isUuid, pageQuery, parseCursor, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { RejectLog } from '../ingest/reject-log.ts'
import type { ChildSessions } from '../gateway/child-sessions.ts'
import type { Sessions } from '../ingest/sessions.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { originOf } from '../users/security-events.ts'
import type { Devices } from './devices.ts'
import { countFacets, listDevices } from './list.ts'
import {
  BinIds,
  BinItem,
  CreatedDevice,
  Credentials,
  Device,
  DeviceCreate,
  DeviceFacets,
  DeviceFilter,
  DeviceList,
  DeviceListQuery,
  DevicePatch,
  LogEntry,
  Reject,
  Rotate,
  SessionView,
} from './schemas.ts'
import { viewGateway, viewSession } from './session-view.ts'

export type DeviceRouteParts = {
  devices: Devices
  store: TelemetryStore
  sessions: Sessions
  childSessions: ChildSessions
  rejects: RejectLog
}

const tags = ['devices']
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })

/** Devices, their credentials, sessions and logs, and the bin. */
export function registerDeviceRoutes(app: App, context: Context, parts: DeviceRouteParts): void {
  const { devices, store, sessions, childSessions, rejects } = parts

  app.get(
    '/api/v1/devices',
    {
      config: { permission: 'device.read' },
      schema: { tags, summary: 'List devices', querystring: DeviceListQuery, response: { 200: DeviceList, ...problems(400, 401, 403) } },
    },
    (request) => listDevices(context, store, actorOf(request).scope, request.query),
  )
  app.get(
    '/api/v1/devices/facets',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'Count devices by state, product, tag and firmware',
        querystring: DeviceFilter,
        response: { 200: DeviceFacets, ...problems(400, 401, 403) },
      },
    },
    (request) => countFacets(context, actorOf(request).scope, request.query),
  )
  app.post(
    '/api/v1/devices',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Create a device',
        body: DeviceCreate,
        response: { 201: CreatedDevice, ...problems(400, 401, 402, 403, 409, 422) },
      },
    },
    async (request, reply) => reply.code(201).send(await devices.create(actorOf(request), request.body)),
  )
  app.get(
    '/api/v1/devices/:id',
    {
      config: { permission: 'device.read' },
      schema: { tags, summary: 'Read a device', params: IdParams, response: { 200: Device, ...problems(400, 401, 403, 404) } },
    },
    async (request, reply) => {
      const { device, version } = await devices.get(actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${version}"`).send(device)
    },
  )
  app.patch(
    '/api/v1/devices/:id',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Edit a device',
        params: IdParams,
        body: DevicePatch,
        response: { 200: Device, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const { device, version } = await devices.update(
        actorOf(request),
        request.params.id,
        request.body,
        parseIfMatch(request.headers['if-match']),
      )
      return reply.header('etag', `"${version}"`).send(device)
    },
  )
  app.delete(
    '/api/v1/devices/:id',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Move a device to the bin',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await devices.delete(actorOf(request), request.params.id)
      return reply.code(204).send(null)
    },
  )

  app.get(
    '/api/v1/devices/:id/credentials',
    {
      config: { permission: 'device.credentials.read' },
      schema: {
        tags,
        summary: 'Show the credentials of a device',
        params: IdParams,
        response: { 200: Credentials, ...problems(400, 401, 403, 404, 500) },
      },
    },
    (request) => devices.showCredentials(actorOf(request), originOf(request), request.params.id),
  )
  app.put(
    '/api/v1/devices/:id/credentials',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Replace the credentials of a device',
        params: IdParams,
        body: Credentials,
        response: { 200: Credentials, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    (request) => devices.changeCredentials(actorOf(request), originOf(request), request.params.id, withoutGrace(request.body)),
  )
  app.post(
    '/api/v1/devices/:id/credentials/rotate',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Give a device a new access token',
        params: IdParams,
        body: Rotate,
        response: { 200: Credentials, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => devices.rotate(actorOf(request), originOf(request), request.params.id, (request.body.graceSeconds ?? 0) * 1000),
  )

  app.get(
    '/api/v1/devices/:id/session',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'Show the live session of a device',
        params: IdParams,
        response: { 200: SessionView, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      await devices.get(scope, request.params.id)
      const { items } = await listLog(context, scope, request.params.id, 20, undefined)
      return {
        session: viewSession(sessions.get(request.params.id)),
        gateway: viewGateway(childSessions.get(request.params.id)),
        events: items,
      }
    },
  )
  app.delete(
    '/api/v1/devices/:id/session',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Close the live session of a device',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await devices.get(actorOf(request).scope, request.params.id)
      await context.audit.note(actorOf(request).scope, { type: 'device.disconnect', subject: `device:${request.params.id}` })
      sessions.close(request.params.id, 'admin')
      const child = childSessions.get(request.params.id)
      if (child) childSessions.end(child, 'admin')
      return reply.code(204).send(null)
    },
  )
  app.get(
    '/api/v1/devices/:id/log',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'List the events of a device',
        params: IdParams,
        querystring: ListQuery,
        response: { 200: Page(LogEntry), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      await devices.get(scope, request.params.id)
      return listLog(context, scope, request.params.id, request.query.limit ?? 50, request.query.cursor)
    },
  )
  app.get(
    '/api/v1/devices/:id/rejects',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'List what was refused of a device, newest first',
        params: IdParams,
        querystring: ListQuery,
        response: { 200: Page(Reject), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      await devices.get(scope, request.params.id)
      return rejects.list(scope, request.params.id, request.query.limit ?? 50, request.query.cursor)
    },
  )
  app.delete(
    '/api/v1/devices/:id/rejects',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Clear the reject log of a device',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      await devices.get(scope, request.params.id)
      await context.audit.note(scope, { type: 'device.rejects.clear', subject: `device:${request.params.id}` })
      await rejects.clear(scope, request.params.id)
      return reply.code(204).send(null)
    },
  )

  app.get(
    '/api/v1/bin',
    {
      config: { permission: 'device.write' },
      schema: {
        tags: ['bin'],
        summary: 'List what was deleted',
        querystring: ListQuery,
        response: { 200: Page(BinItem), ...problems(400, 401, 403) },
      },
    },
    (request) => devices.listBin(actorOf(request).scope, request.query.limit ?? 50, request.query.cursor),
  )
  app.post(
    '/api/v1/bin/restore',
    {
      config: { permission: 'device.write' },
      schema: {
        tags: ['bin'],
        summary: 'Bring deleted things back',
        body: BinIds,
        response: { 200: Type.Object({ items: Type.Array(Device) }), ...problems(400, 401, 402, 403, 404, 409) },
      },
    },
    async (request) => ({ items: await devices.restore(actorOf(request), request.body.ids) }),
  )
  app.delete(
    '/api/v1/bin',
    {
      config: { permission: 'device.write' },
      schema: {
        tags: ['bin'],
        summary: 'Delete for good, with all data',
        body: BinIds,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await devices.purge(actorOf(request).scope, request.body.ids)
      return reply.code(204).send(null)
    },
  )
}

async function listLog(
  context: Context,
  scope: Parameters<Context['db']['withTenant']>[0],
  deviceId: string,
  limit: number,
  cursor: string | undefined,
) {
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
  // Ids are UUIDv7, so their order is the order of the events.
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<{ id: string; at: number; event: string; detail: Record<string, unknown> }>(sql`
      select id, floor(extract(epoch from at) * 1000)::float8 as at, event, detail from device_log
      where device_id = ${deviceId} ${cursor ? sql`and id < ${after}::uuid` : sql``} order by id desc limit ${limit + 1}`),
  )
  const items = rows.slice(0, limit).map((row) => ({ ...row, at: new Date(row.at).toISOString() }))
  return { items, nextCursor: rows.length > limit ? formatCursor(['log', items.at(-1)!.id]) : null }
}

function withoutGrace(credentials: Credentials): Credentials {
  return credentials.type === 'access_token' ? { type: 'access_token', token: credentials.token } : credentials
}
