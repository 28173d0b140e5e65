// SPDX-License-Identifier: AGPL-3.0-only
import type { Readable } from 'node:stream'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { IdParams, NoContent, Page, problems } from '../http/schemas.ts'
import { allowLongBody } from '../http/server.ts'
import type { App } from '../http/server.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { maxContentBytes } from './contents.ts'
import type { Contents } from './contents.ts'
import type { OtaOffers } from './offers.ts'
import { createPackage, deletePackage, getFile, getPackage, listPackages } from './packages.ts'
import { getDeviceOta, getRollout } from './rollouts.ts'
import {
  AssignPackage,
  ContentQuery,
  DeviceOta,
  OtaPackage,
  PackageCreate,
  PackageListQuery,
  Rollout,
  RolloutQuery,
  otaKinds,
} from './schemas.ts'
import { sendFile } from './send-file.ts'
import type { OtaTargets } from './targets.ts'

export type FirmwareRouteParts = { targets: OtaTargets; contents: Contents; offers: OtaOffers; store: TelemetryStore }

const tags = ['firmware']
const bytes = Type.Any({ description: 'The bytes of the content.' })

/** Firmware and software: packages, their content, who shall install them, and how far that is. */
export async function registerFirmwareRoutes(app: App, context: Context, parts: FirmwareRouteParts): Promise<void> {
  registerPackageRoutes(app, context, parts)
  registerDeviceRoutes(app, context, parts)
  await registerUpload(app, context, parts)
}

function registerPackageRoutes(app: App, context: Context, { contents, targets }: FirmwareRouteParts): void {
  app.get(
    '/api/v1/ota-packages',
    {
      config: { permission: 'product.read' },
      schema: {
        tags,
        summary: 'List packages, newest first',
        querystring: PackageListQuery,
        response: { 200: Page(OtaPackage), ...problems(400, 401, 403) },
      },
    },
    (request) => listPackages(context, actorOf(request).scope, request.query),
  )
  app.post(
    '/api/v1/ota-packages',
    {
      config: { permission: 'product.write' },
      schema: {
        tags,
        summary: 'Create a package; its content follows',
        body: PackageCreate,
        response: { 201: OtaPackage, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => reply.code(201).send(await createPackage(context, actorOf(request).scope, request.body)),
  )
  app.get(
    '/api/v1/ota-packages/:id',
    {
      config: { permission: 'product.read' },
      schema: { tags, summary: 'Read a package', params: IdParams, response: { 200: OtaPackage, ...problems(400, 401, 403, 404) } },
    },
    (request) => getPackage(context, actorOf(request).scope, request.params.id),
  )
  app.delete(
    '/api/v1/ota-packages/:id',
    {
      config: { permission: 'product.write' },
      schema: {
        tags,
        summary: 'Delete a package nobody shall install',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      await deletePackage(context, actorOf(request).scope, request.params.id)
      return reply.code(204).send(null)
    },
  )
  app.get(
    '/api/v1/ota-packages/:id/content',
    {
      config: { permission: 'product.read' },
      exposeHeadRoute: false,
      schema: {
        tags,
        summary: 'Download the content of a package',
        params: IdParams,
        response: { 200: bytes, 206: bytes, 416: bytes, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      const file = await getFile(context, scope, request.params.id)
      return sendFile(request, reply, contents, { scope, file })
    },
  )
  app.get(
    '/api/v1/ota-packages/:id/devices',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'Show how far a package has come',
        params: IdParams,
        querystring: RolloutQuery,
        response: { 200: Rollout, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => getRollout(context, targets, actorOf(request).scope, request.params.id, request.query),
  )
}

function registerDeviceRoutes(app: App, context: Context, { targets, offers, store }: FirmwareRouteParts): void {
  for (const kind of otaKinds) {
    const path = `/api/v1/devices/:id/${kind}`
    const show = (request: Parameters<typeof actorOf>[0], id: string) =>
      getDeviceOta(context, { targets, store }, actorOf(request).scope, id, kind)
    app.get(
      path,
      {
        config: { permission: 'device.read' },
        schema: {
          tags,
          summary: `Show the ${kind} of a device and the way to it`,
          params: IdParams,
          response: { 200: DeviceOta, ...problems(400, 401, 403, 404) },
        },
      },
      (request) => show(request, request.params.id),
    )
    app.put(
      path,
      {
        config: { permission: 'device.write' },
        schema: {
          tags,
          summary: `Give a device a ${kind} of its own`,
          params: IdParams,
          body: AssignPackage,
          response: { 200: DeviceOta, ...problems(400, 401, 403, 404, 422) },
        },
      },
      async (request) => {
        const actor = actorOf(request)
        await offers.assign(actor.scope, request.params.id, kind, request.body.packageId, actor.name)
        return show(request, request.params.id)
      },
    )
    app.delete(
      path,
      {
        config: { permission: 'device.write' },
        schema: {
          tags,
          summary: `Take the ${kind} of its own from a device; its product decides again`,
          params: IdParams,
          response: { 204: NoContent, ...problems(400, 401, 403, 404) },
        },
      },
      async (request, reply) => {
        const actor = actorOf(request)
        await offers.assign(actor.scope, request.params.id, kind, null, actor.name)
        return reply.code(204).send(null)
      },
    )
  }
}

async function registerUpload(app: App, context: Context, { contents }: FirmwareRouteParts): Promise<void> {
  await app.register(async (scope: App) => {
    // In a scope of its own: the body is a stream, whatever it says to be.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_, body, done) => done(null, body))
    scope.put(
      '/api/v1/ota-packages/:id/content',
      {
        config: { permission: 'product.write' },
        bodyLimit: maxContentBytes,
        schema: {
          tags,
          summary: 'Upload the content of a package nobody installs yet',
          consumes: ['application/octet-stream'],
          params: IdParams,
          querystring: ContentQuery,
          response: { 200: OtaPackage, ...problems(400, 401, 403, 404, 409, 413, 415, 422, 507) },
        },
        onRequest: async (request) => allowLongBody(request),
      },
      async (request) => {
        const actor = actorOf(request)
        const { id } = request.params
        const { fileName, checksum, size } = request.query
        const announced = Number(request.headers['content-length'] ?? 0)
        if (announced > maxContentBytes) throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxContentBytes } })
        const before = await getPackage(context, actor.scope, id)
        await contents.upload(actor.scope, id, request.raw satisfies Readable, {
          fileName: fileName ?? `${before.title}-${before.version}.bin`.replaceAll(/["/\\]/g, '_'),
          contentType: readContentType(request.headers['content-type']),
          ...(checksum === undefined ? {} : { checksum }),
          ...(size === undefined ? {} : { size }),
        })
        return getPackage(context, actor.scope, id)
      },
    )
  })
}

/** Kept for those who download it. What a page could show or run is none: devices get bytes. */
function readContentType(header: string | undefined): string {
  const type = (header ?? '').replace(/;.*$/, '').trim().toLowerCase()
  // What curl says when nobody said anything.
  if (type === '' || type === 'application/x-www-form-urlencoded') return 'application/octet-stream'
  if (!/^application\/[a-z0-9][a-z0-9.+-]{0,100}$/.test(type)) throw new ProblemError('CONTENT_TYPE')
  return type
}
