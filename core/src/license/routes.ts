// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, sign } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { requireReauthentication } from '../http/authenticate.ts'
import { NoContent, formatCursor, isUuid, pageQuery, parseCursor, problems } from '../http/schemas.ts'
import { Type } from 'typebox'
import type { App } from '../http/server.ts'
import type { FileSource } from './files.ts'
import { installCrl, installLicense, refuse, removeLicense } from './install.ts'
import type { LicenseActor } from './install.ts'
import type { LicenseService } from './license.ts'
import { listLicenseEvents, readCounts } from './rows.ts'
import {
  AcknowledgeQuery,
  CrlAnswer,
  CrlBody,
  CrlState,
  Editions,
  HistoryPage,
  InstallAnswer,
  LicenseBody,
  LicenseRequestFile,
  LicenseView,
  PreviewAnswer,
  ReleaseReceipt,
  RequestBody,
  maxCrlBytes,
  maxLicenseBytes,
} from './schemas.ts'
import { canonicalJson } from './text.ts'
import { viewEditions, viewLicense, viewStored } from './view.ts'
import type { PresentModule } from './view.ts'

export type LicenseRouteParts = { license: LicenseService; files: FileSource; present: () => readonly PresentModule[] }

const tags = ['license']
/** [L-43] */
const requestsPerMinute = 10
const releaseDomain = 'iot-pms-release-v1\n'

/** Routes of the license; they work in every state of it [L-110]. */
export function registerLicenseRoutes(app: App, parts: LicenseRouteParts): void {
  registerReading(app, parts)
  registerInstalling(app, parts)
  registerRemoving(app, parts)
  registerRequests(app, parts)
  registerCrl(app, parts)
}

async function view({ license, files, present }: LicenseRouteParts): Promise<LicenseView> {
  const { db, rootTenant } = license.context
  const { devices } = await db.withTenant(rootTenant, readCounts)
  return viewLicense(license, { present: present(), refusals: files.refusals, devices })
}

function actorIn(request: FastifyRequest): LicenseActor {
  const { userId, name } = actorOf(request)
  return { id: userId, name }
}

function registerReading(app: App, parts: LicenseRouteParts): void {
  const { license, present } = parts
  app.get(
    '/api/v1/editions',
    {
      // The login page and anonymous probes may know what this build is.
      config: { public: true, beforeSetup: true },
      schema: { tags, summary: 'What this build is and which features are granted', response: { 200: Editions } },
    },
    (_, reply) => {
      reply.header('cache-control', 'public, max-age=60')
      return viewEditions(license.get(), present(), license.options.version)
    },
  )
  app.get(
    '/api/v1/license',
    {
      config: { permission: 'license.read' },
      schema: { tags, summary: 'Read the license', response: { 200: LicenseView, ...problems(400, 401, 403) } },
    },
    () => view(parts),
  )
  app.get(
    '/api/v1/license/history',
    {
      config: { permission: 'license.read' },
      schema: {
        tags,
        summary: 'List what happened to the license, newest first',
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: HistoryPage, ...problems(400, 401, 403) },
      },
    },
    async (request) => {
      const { limit = 50, cursor } = request.query
      const [, before] = cursor ? parseCursor(cursor, 2) : []
      if (cursor && !isUuid(before)) throw new ProblemError('CURSOR_INVALID')
      const { db, rootTenant } = license.context
      const rows = await db.withTenant(rootTenant, (tx) => listLicenseEvents(tx, limit + 1, cursor ? String(before) : undefined))
      const items = rows.slice(0, limit).map((row) => ({ ...row, at: new Date(row.at).toISOString() }))
      return { items, nextCursor: rows.length > limit ? formatCursor(['license', items.at(-1)!.id]) : null }
    },
  )
}

function registerInstalling(app: App, parts: LicenseRouteParts): void {
  const { license } = parts
  const noteSize = (action: string) => async (request: FastifyRequest, _: unknown, error: Error) => {
    // A body cut off before it was read is a refused license, too [L-4].
    const { code } = error as { code?: string }
    if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') await refuse(license, actorIn(request), action, { code: 'LIC_SIZE' })
  }
  app.post(
    '/api/v1/license/preview',
    {
      config: { permission: 'license.write', tooLarge: 'LIC_SIZE' },
      bodyLimit: maxLicenseBytes,
      onError: noteSize('license.preview'),
      schema: {
        tags,
        summary: 'Say what installing a license would change',
        body: LicenseBody,
        response: { 200: PreviewAnswer, ...problems(400, 401, 403, 409, 413, 422) },
      },
    },
    async (request) => {
      const wish = {
        text: readText(request, 'license'),
        actor: actorIn(request),
        source: 'upload',
        acknowledge: false,
        isPreview: true,
      } as const
      const { result, changes, warnings, next } = await installLicense(license, wish)
      return {
        result: result === 'installed' ? ('installable' as const) : result,
        next: viewStored(next),
        changes,
        needsAcknowledge: changes.some((change) => change.ack),
        warnings: [...warnings],
      }
    },
  )
  app.post(
    '/api/v1/license',
    {
      config: { permission: 'license.write', tooLarge: 'LIC_SIZE' },
      bodyLimit: maxLicenseBytes,
      onError: noteSize('license.install'),
      schema: {
        tags,
        summary: 'Install a license',
        description: 'Losses must be acknowledged: 409 LIC_NEEDS_ACK lists them.',
        querystring: AcknowledgeQuery,
        body: LicenseBody,
        response: { 200: InstallAnswer, ...problems(400, 401, 403, 409, 413, 422) },
      },
    },
    async (request) => {
      requireReauthentication(actorOf(request), license.context.clock)
      const { body } = request
      const acknowledge = request.query.acknowledge === 'true' || (typeof body === 'object' && body.acknowledge === true)
      const wish = { text: readText(request, 'license'), actor: actorIn(request), source: 'upload', acknowledge } as const
      const { result, changes, warnings } = await installLicense(license, wish)
      return { result, changes, warnings: [...warnings], license: await view(parts) }
    },
  )
}

/** The token of a JSON body, or the body itself as text/plain. */
function readText(request: FastifyRequest, member: 'license' | 'crl'): string {
  const { body } = request
  const isPlain = (request.headers['content-type'] ?? '').trim().toLowerCase().startsWith('text/plain')
  if (typeof body === 'string' && isPlain) return body
  const text = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[member] : undefined
  if (typeof text !== 'string') {
    throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: `/${member}`, detail: `/${member} must be a string` }] })
  }
  return text
}

function registerRemoving(app: App, { license }: LicenseRouteParts): void {
  app.delete(
    '/api/v1/license',
    {
      config: { permission: 'license.write' },
      schema: {
        tags,
        summary: 'Remove the license; all data stays',
        querystring: AcknowledgeQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      requireReauthentication(actorOf(request), license.context.clock)
      await removeLicense(license, actorIn(request), request.query.acknowledge === 'true')
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/api/v1/license/release',
    {
      config: { permission: 'license.write' },
      schema: {
        tags,
        summary: 'Give the license back, to move it to another machine',
        body: Type.Object({ acknowledge: Type.Optional(Type.Boolean()) }, { additionalProperties: false }),
        response: { 200: ReleaseReceipt, ...problems(400, 401, 403, 404, 409) },
      },
    },
    (request) => {
      requireReauthentication(actorOf(request), license.context.clock)
      return releaseLicense(license, actorIn(request), request.body.acknowledge === true)
    },
  )
}

/** Removes the license for good and signs a receipt for the vendor. */
export async function releaseLicense(license: LicenseService, actor: LicenseActor, acknowledge: boolean): Promise<ReleaseReceipt> {
  const { jti, seq } = await removeLicense(license, actor, acknowledge, true)
  const receipt = {
    type: 'iot-pms-release' as const,
    jti,
    seq,
    at: new Date(license.clock.now()).toISOString(),
    installIdHash: createHash('sha256').update(license.get().installId).digest('hex'),
  }
  return {
    ...receipt,
    sig: sign(null, Buffer.from(releaseDomain + canonicalJson(receipt)), license.instanceKey.privateKey).toString('base64url'),
  }
}

function registerRequests(app: App, { license, present }: LicenseRouteParts): void {
  const { clock } = license.context
  let recent: number[] = []
  app.post(
    '/api/v1/license/request',
    {
      config: { permission: 'license.write' },
      schema: {
        tags,
        summary: 'Make a request file for a license',
        body: RequestBody,
        response: { 200: LicenseRequestFile, ...problems(400, 401, 403, 429) },
      },
    },
    async (request, reply) => {
      recent = recent.filter((at) => clock.monotonic() - at < 60_000)
      if (recent.length >= requestsPerMinute) throw new ProblemError('RATE_LIMITED', { retryAfterS: 60 })
      recent.push(clock.monotonic())
      const names = present().map(({ name }) => name)
      const file = await license.makeRequest({ ...request.body, present: names, actor: actorOf(request).userId })
      return reply.header('content-disposition', `attachment; filename="${requestFileName(license, file.createdAt)}"`).send(file)
    },
  )
}

export function requestFileName(license: LicenseService, createdAt: string): string {
  return `iot-pms-${license.get().installId.slice(0, 8)}-${createdAt.slice(0, 10).replaceAll('-', '')}.req.json`
}

function registerCrl(app: App, parts: LicenseRouteParts): void {
  const { license } = parts
  app.get(
    '/api/v1/license/crl',
    {
      config: { permission: 'license.read' },
      schema: { tags, summary: 'Read about the revocation list', response: { 200: CrlState, ...problems(400, 401, 403) } },
    },
    async () => ({ ...(await view(parts)).crl, revoked: license.get().crl?.revoked.size ?? 0 }),
  )
  app.post(
    '/api/v1/license/crl',
    {
      config: { permission: 'license.write', tooLarge: 'CRL_SIZE' },
      bodyLimit: maxCrlBytes,
      schema: {
        tags,
        summary: 'Install a revocation list',
        body: CrlBody,
        response: { 200: CrlAnswer, ...problems(400, 401, 403, 409, 413, 422) },
      },
    },
    (request) => {
      requireReauthentication(actorOf(request), license.context.clock)
      return installCrl(license, actorIn(request), readText(request, 'crl'))
    },
  )
}
