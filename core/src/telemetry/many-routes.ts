// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { json, sendChunks, sendFile } from './answers.ts'
import type { TelemetryParts } from './answers.ts'
import { createExport } from './export.ts'
import { parseKeys } from './history.ts'
import { findDevices, latestOfMany, parseDeviceIds, planMany, streamMany, toBodyProblem, withBodyPointers } from './many.ts'
import {
  ExportFiles,
  ManyExportBody,
  ManyHistory,
  ManyHistoryBody,
  ManyLatestBody,
  ManyLatestQuery,
  ManyLatestValues,
  NoQuery,
} from './schemas.ts'

const tags = ['telemetry']
const canRead = { permission: 'telemetry.read' } as const

/** A question has no effect to protect from repeating, and an answer of any length is not to be kept for that. */
const onRequest = async (request: FastifyRequest) => {
  delete request.headers['idempotency-key']
}

/** Questions about several devices at once; what somebody may not see is left out like what does not exist. */
export function registerManyRoutes(app: App, parts: TelemetryParts): void {
  app.get(
    '/api/v1/telemetry/latest',
    {
      config: canRead,
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: 'Newest values of several devices',
        querystring: ManyLatestQuery,
        response: { 200: ManyLatestValues, ...problems(400, 401, 403) },
      },
    },
    async (request, reply) => {
      const { deviceIds, ...query } = request.query
      await sendChunks(reply, latestOfMany(parts, actorOf(request), parseDeviceIds(deviceIds), parseKeys(query)), json)
      return reply
    },
  )
  app.post(
    '/api/v1/telemetry/latest',
    {
      config: canRead,
      onRequest,
      schema: {
        tags,
        summary: 'The same for more devices than an address can name',
        querystring: NoQuery,
        body: ManyLatestBody,
        response: { 200: ManyLatestValues, ...problems(400, 401, 403, 413, 415) },
      },
    },
    async (request, reply) => {
      const { deviceIds, keys } = request.body
      const checked = withBodyPointers(() => parseKeys(keys ? { key: keys } : {}))
      await sendChunks(reply, latestOfMany(parts, actorOf(request), deviceIds, checked), json)
      return reply
    },
  )
  app.post(
    '/api/v1/telemetry/history',
    {
      config: canRead,
      onRequest,
      schema: {
        tags,
        summary: 'History of several devices',
        querystring: NoQuery,
        body: ManyHistoryBody,
        response: { 200: ManyHistory, ...problems(400, 401, 403, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const devices = await findDevices(parts, actorOf(request), request.body.deviceIds)
      await sendChunks(reply, streamMany(devices, planMany(request.body, devices)), json)
      return reply
    },
  )
  app.post(
    '/api/v1/telemetry/export',
    {
      config: canRead,
      onRequest,
      schema: {
        tags,
        summary: 'History of several devices as one file',
        querystring: NoQuery,
        body: ManyExportBody,
        response: { 200: ExportFiles, ...problems(400, 401, 403, 404, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const { format, layout = 'long', lang = languageOf(request), ...question } = request.body
      const devices = await findDevices(parts, actorOf(request), question.deviceIds)
      const plan = planMany(question, devices, Number.POSITIVE_INFINITY)
      // An empty file would look like devices without data.
      if (devices.length === 0) throw new ProblemError('NOT_FOUND')
      const file = await createExport(devices, plan, { format, layout, language: lang }).catch((error: unknown) => {
        throw toBodyProblem(error)
      })
      const draft = { type: 'export.create', subject: '-', changes: { from: null, to: request.body } }
      await parts.audit.note(actorOf(request).scope, draft)
      await sendFile(reply, file)
      return reply
    },
  )
}
