// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import type { Clock } from '../clock.ts'
import { ProblemError } from '../errors.ts'
import { problems } from '../http/schemas.ts'
import type { DeviceCalls } from '../ingest/http.ts'
import type { Device } from '../ingest/registry.ts'
import type { Contents } from './contents.ts'
import { DownloadQuery, otaKinds } from './schemas.ts'
import { sendFile } from './send-file.ts'
import type { OtaTargets, Target } from './targets.ts'

export type HttpDownloadParts = { targets: OtaTargets; contents: Contents; clock: Clock; active: (device: Device) => void }

/** Downloads under way, each with a part in memory and another in its socket. */
const mostDownloads = 100
const params = Type.Object({ token: Type.String({ maxLength: 128 }) })
const bytes = Type.Any({ description: 'The bytes asked for.' })

/** Firmware and software over HTTP (device API §11): whole, in chunks, or from where a download broke off. */
export function httpDownloadCalls({ targets, contents, clock, active }: HttpDownloadParts): DeviceCalls {
  let underWay = 0
  const begin = (reply: FastifyReply) => {
    if (underWay >= mostDownloads) throw new ProblemError('OVERLOADED', { retryAfterS: 5 })
    underWay++
    reply.raw.once('close', () => underWay--)
  }
  return (scope, findDevice) => {
    for (const kind of otaKinds) {
      scope.get(
        `/api/v1/:token/${kind}`,
        {
          config: { public: true, beforeSetup: true },
          exposeHeadRoute: false,
          schema: {
            tags: ['device api'],
            summary: `A device downloads its ${kind}`,
            params,
            querystring: DownloadQuery,
            security: [],
            response: { 200: bytes, 206: bytes, 416: bytes, ...problems(400, 401, 404, 429, 503) },
          },
        },
        (request, reply) => {
          const device = findDevice(request)
          active(device)
          const { title, version, size = 0, chunk = 0 } = request.query
          const target = targets.find(device.id, kind)
          if (!target?.file.contentId) throw new ProblemError('OTA_NOT_FOUND')
          if (title !== target.file.title || version !== target.file.version) throw new ProblemError('OTA_MISMATCH')
          begin(reply)
          target.lastAskedAt = clock.now()
          const piece = size === 0 ? undefined : cut(target, size, chunk)
          noteBegin(targets, target, piece?.from ?? 0)
          return sendFile(request, reply, contents, {
            scope: target.scope,
            file: target.file,
            piece,
            sent: (to) => noteSent(targets, target, to),
          })
        },
      )
    }
  }
}

/** Beyond the end there is nothing, which is no mistake. */
function cut({ file }: Target, size: number, chunk: number): { from: number; to: number } {
  const end = file.sizeBytes ?? 0
  const from = Math.min(size * chunk, end)
  return { from, to: Math.min(from + size, end) }
}

function noteBegin(targets: OtaTargets, target: Target, from: number): void {
  if (from === 0) targets.addEvent(target, 'first_chunk', { transport: 'http' })
}

function noteSent(targets: OtaTargets, target: Target, to: number): void {
  if (to === target.file.sizeBytes && target.bytesSent < to) targets.addEvent(target, 'last_chunk', { transport: 'http' })
  targets.setSent(target, to)
}
