// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { isUuid, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { bytesOf, describeRejects, json, readLatest, registerRawScope, sendChunks, sendFile } from './answers.ts'
import type { TelemetryDevice, TelemetryParts } from './answers.ts'
import { createExport } from './export.ts'
import { parseKeys, parseRange, planHistory, streamHistory } from './history.ts'
import { registerManyRoutes } from './many-routes.ts'
import {
  DeleteQuery,
  Deleted,
  DeviceParams,
  ExportFiles,
  ExportQuery,
  History,
  HistoryQuery,
  LatestQuery,
  LatestValues,
  NoQuery,
  TelemetryKeys,
  Written,
} from './schemas.ts'
import type { Source } from './series.ts'
import type { LatestPoint } from './store.ts'
import { toJsonText } from './values.ts'

const tags = ['telemetry']
const canRead = { permission: 'telemetry.read' } as const
const canWrite = { permission: 'telemetry.write' } as const

/** Native reading and writing of a device's telemetry (device API §17). */
export async function registerTelemetryRoutes(app: App, context: Context, parts: TelemetryParts): Promise<void> {
  const { store } = parts

  app.get(
    '/api/v1/devices/:id/telemetry',
    {
      config: canRead,
      schema: {
        tags,
        summary: 'Newest values',
        params: DeviceParams,
        querystring: LatestQuery,
        response: { 200: LatestValues, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { source } = await open(parts, actorOf(request), request.params.id)
      await sendChunks(reply, latestJson(await readLatest(source, parseKeys(request.query))), json)
      return reply
    },
  )
  app.get(
    '/api/v1/devices/:id/telemetry/keys',
    {
      config: canRead,
      schema: {
        tags,
        summary: 'Keys a device has sent',
        params: DeviceParams,
        querystring: NoQuery,
        response: { 200: TelemetryKeys, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { source } = await open(parts, actorOf(request), request.params.id)
      const latest = await readLatest(source, undefined)
      return { items: latest.map(({ key, kind, ts }) => ({ key, kind, lastTs: ts })) }
    },
  )
  app.get(
    '/api/v1/devices/:id/telemetry/history',
    {
      config: canRead,
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: 'History: raw, downsampled or aggregated',
        params: DeviceParams,
        querystring: HistoryQuery,
        response: { 200: History, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request, reply) => {
      const { source, device } = await open(parts, actorOf(request), request.params.id)
      await sendChunks(reply, streamHistory(source, planHistory(request.query, device.timeZone)), json)
      return reply
    },
  )
  app.get(
    '/api/v1/devices/:id/telemetry/export',
    {
      config: canRead,
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: 'History as a file',
        params: DeviceParams,
        querystring: ExportQuery,
        response: { 200: ExportFiles, ...problems(400, 401, 403, 404, 413, 422) },
      },
    },
    async (request, reply) => {
      const { source, device } = await open(parts, actorOf(request), request.params.id)
      const { format, layout = 'long', lang = languageOf(request) } = request.query
      const plan = planHistory(request.query, device.timeZone, { limit: Number.POSITIVE_INFINITY })
      await parts.audit.note(source.scope, {
        type: 'export.create',
        subject: `device:${device.id}`,
        changes: { from: null, to: request.query },
      })
      await sendFile(reply, await createExport([{ device, source }], plan, { format, layout, language: lang }))
      return reply
    },
  )
  app.delete(
    '/api/v1/devices/:id/telemetry',
    {
      config: canWrite,
      schema: {
        tags,
        summary: 'Delete points of keys in a range',
        params: DeviceParams,
        querystring: DeleteQuery,
        response: { 200: Deleted, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const { device } = await open(parts, actor, request.params.id)
      const keys = parseKeys(request.query)
      if (!keys) throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '?keys', detail: 'at least one key is needed' }] })
      const { from, to } = parseRange(request.query)
      const draft = { type: 'telemetry.delete', subject: `device:${device.id}`, changes: { from: { keys, from, to }, to: null } }
      const deleted = await parts.audit.around(actor.scope, draft, () => store.delete(actor.scope, device.id, keys, from, to))
      context.log.info({ deviceId: device.id, keys: keys.length, from, to, deleted, userId: actor.userId }, 'telemetry deleted')
      return { deleted }
    },
  )
  registerManyRoutes(app, parts)
  await registerRawScope(
    app,
    (type) => type === 'application/json',
    (scope) =>
      scope.post(
        '/api/v1/devices/:id/telemetry',
        {
          config: canWrite,
          schema: {
            tags,
            summary: 'Write points for a device',
            params: DeviceParams,
            querystring: NoQuery,
            response: { 200: Written, ...problems(400, 401, 403, 404, 413, 415, 422, 503) },
          },
        },
        async (request) => {
          const actor = actorOf(request)
          const { device } = await open(parts, actor, request.params.id)
          const { accepted, rejected } = await parts.writeAsUser(actor, device.id, bytesOf(request), { cast: false, allOrNothing: false })
          if (accepted === 0 && rejected.length > 0) throw new ProblemError('POINTS_REJECTED', { errors: describeRejects(rejected) })
          return { accepted, rejected: [...rejected] }
        },
      ),
  )
}

/** @throws {ProblemError} `NOT_FOUND` also for a malformed id: no device has it */
async function open(parts: TelemetryParts, { scope }: Actor, id: string): Promise<{ device: TelemetryDevice; source: Source }> {
  const device = isUuid(id) ? await parts.findDevice(scope, id) : undefined
  if (!device) throw new ProblemError('NOT_FOUND')
  return { device, source: { store: parts.store, scope, deviceId: device.id } }
}

async function* latestJson(points: readonly LatestPoint[]): AsyncGenerator<string> {
  yield '{"items":['
  for (const [index, point] of points.entries()) {
    yield `${index > 0 ? ',' : ''}{"key":${JSON.stringify(point.key)},"ts":${point.ts},"value":${toJsonText(point)},"kind":"${point.kind}"}`
  }
  yield ']}'
}
