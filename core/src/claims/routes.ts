// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { getCompatDevice } from '../devices/compat.ts'
import type { Devices } from '../devices/devices.ts'
import { Device } from '../devices/schemas.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { NoContent, Nullable, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { refusedError, withinCommitWait } from '../ingest/http.ts'
import type { DeviceCalls } from '../ingest/http.ts'
import type { RejectRecorder } from '../ingest/mqtt/uplinks.ts'
import type { Device as KnownDevice } from '../ingest/registry.ts'
import { bytesOf } from '../telemetry/answers.ts'
import { plainAddress } from '../http/client-address.ts'
import { parseOffer } from './claims.ts'
import type { Claims } from './claims.ts'

/** [H-4] */
const maxBodyBytes = 65_536
const Name = Type.String({ minLength: 1, maxLength: 255 })
const Secret = Type.String({ maxLength: 255 })
const CompatParams = Type.Object({ name: Name })

/** `POST /api/v1/{token}/claim`: a device offers itself over HTTP. */
export function httpClaimCalls(parts: {
  claims: Claims
  context: Context
  rejects: RejectRecorder
  active: (device: KnownDevice) => void
}): DeviceCalls {
  const { claims, context, rejects, active } = parts
  return (scope, findDevice) => {
    scope.post(
      '/api/v1/:token/claim',
      {
        config: { public: true, beforeSetup: true },
        bodyLimit: maxBodyBytes,
        schema: {
          tags: ['device api'],
          summary: 'A device says that it may be claimed',
          params: Type.Object({ token: Type.String({ maxLength: 128 }) }),
          security: [],
          response: { 200: Type.Unknown({ description: 'Empty.' }), ...problems(400, 401, 413, 415, 429, 503) },
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        const offer = parseOffer(bytesOf(request))
        if ('code' in offer) {
          // Nothing of the body is kept: it holds a secret [L-3].
          const source = { transport: 'http', topic: '/api/v1/…/claim', address: plainAddress(request.ip) } as const
          rejects.record({ device, source, reject: offer, payload: Buffer.alloc(0) })
          throw refusedError(offer)
        }
        await withinCommitWait(context.clock, claims.offer(device, offer))
        return reply.header('content-length', '0').send()
      },
    )
  }
}

/** Customers claim devices and give them back [CL-2], [CL-3]. */
export function registerClaimRoutes(app: App, { claims, devices }: { claims: Claims; devices: Devices }): void {
  app.post(
    '/api/v1/devices/claim',
    {
      config: { permission: 'device.read' },
      schema: {
        tags: ['devices'],
        summary: 'Claim a device for the own customer',
        body: Type.Object({ name: Name, secretKey: Type.Optional(Secret) }, { additionalProperties: false }),
        response: { 200: Device, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const id = await claims.claim(scope, request.body.name, request.body.secretKey ?? '')
      return (await devices.get(scope, id)).device
    },
  )
  app.delete(
    '/api/v1/devices/claim',
    {
      config: { permission: 'device.read' },
      schema: {
        tags: ['devices'],
        summary: 'Give a claimed device back',
        querystring: Type.Object({ name: Name }, { additionalProperties: false }),
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await claims.release(actorOf(request).scope, request.query.name)
      return reply.code(204).send(null)
    },
  )
}

/** The same as ThingsBoard's clients call it. */
export function registerCompatClaimRoutes(app: App, context: Context, { claims }: { claims: Claims }): void {
  app.post(
    '/api/customer/device/:name/claim',
    {
      config: { permission: 'device.read', compat: true },
      schema: {
        tags: ['compat'],
        summary: 'Claim a device',
        params: CompatParams,
        body: Type.Optional(Nullable(Type.Object({ secretKey: Type.Optional(Nullable(Secret)) }))),
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      try {
        const id = await claims.claim(scope, request.params.name, request.body?.secretKey ?? '')
        return await reply.send({ device: await getCompatDevice(context, scope, id), response: 'SUCCESS' })
      } catch (error) {
        const code = error instanceof ProblemError ? error.code : undefined
        if (code !== 'DEVICE_CLAIMED' && code !== 'CLAIM_REFUSED') throw error
        return reply
          .code(400)
          .type('application/json')
          .send(code === 'DEVICE_CLAIMED' ? '"CLAIMED"' : '"FAILURE"')
      }
    },
  )
  app.delete(
    '/api/customer/device/:name/claim',
    {
      config: { permission: 'device.read', compat: true },
      schema: { tags: ['compat'], summary: 'Give a claimed device back', params: CompatParams },
    },
    async (request, reply) => {
      await claims.release(actorOf(request).scope, request.params.name)
      return reply.code(200).send()
    },
  )
}
