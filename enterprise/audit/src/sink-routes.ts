// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { IdParams, NoContent, actorOf, problems } from '@iot-pms/core'
import type { App } from '@iot-pms/core'
import { Type } from 'typebox'
import { streamOf } from './event.ts'
import { readEntries, findChain } from './log.ts'
import type { AuditParts } from './parts.ts'
import { canRead, canWrite } from './permissions.ts'
import { SinkCreate, SinkPatch, SinkView } from './schemas.ts'

const tags = ['audit']
const testMs = 5000
const TestResult = Type.Object({ ok: Type.Boolean(), error: Type.Union([Type.String(), Type.Null()]) })

/** Where events go. */
export function registerSinkRoutes(app: App, { context, sinks, keeper }: AuditParts): void {
  const { db } = context
  app.get(
    '/sinks',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditListSinks',
        summary: 'Where events go; addresses and secrets are not shown',
        response: { 200: Type.Object({ items: Type.Array(SinkView) }), ...problems(400, 401, 403) },
      },
    },
    async (request) => ({ items: await db.withTenant(actorOf(request).scope, (tx) => sinks.list(tx)) }),
  )
  app.get(
    '/sinks/:id',
    {
      config: canRead,
      schema: {
        tags,
        operationId: 'auditGetSink',
        summary: 'One sink',
        params: IdParams,
        response: { 200: SinkView, ...problems(400, 401, 403, 404) },
      },
    },
    (request) => db.withTenant(actorOf(request).scope, (tx) => sinks.get(tx, request.params.id)),
  )
  app.post(
    '/sinks',
    {
      config: canWrite,
      schema: {
        tags,
        operationId: 'auditCreateSink',
        summary: 'Send events somewhere',
        body: SinkCreate,
        response: { 201: SinkView, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const { scope } = actorOf(request)
      await sinks.check(request.body.target)
      const sink = await db.withTenant(scope, (tx) => sinks.create(tx, scope, request.body))
      void keeper.refresh()
      return reply.code(201).send(sink)
    },
  )
  app.patch(
    '/sinks/:id',
    {
      config: canWrite,
      schema: {
        tags,
        operationId: 'auditUpdateSink',
        summary: 'Change a sink; a target is replaced as a whole',
        params: IdParams,
        body: SinkPatch,
        response: { 200: SinkView, ...problems(400, 401, 403, 404, 409, 422) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      if (request.body.target) await sinks.check(request.body.target)
      const sink = await db.withTenant(scope, (tx) => sinks.update(tx, scope, request.params.id, request.body))
      void keeper.refresh()
      return sink
    },
  )
  app.delete(
    '/sinks/:id',
    {
      config: canWrite,
      schema: {
        tags,
        operationId: 'auditDeleteSink',
        summary: 'Send events there no longer',
        params: IdParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      await db.withTenant(actorOf(request).scope, (tx) => sinks.delete(tx, request.params.id))
      void keeper.refresh()
      return reply.code(204).send(null)
    },
  )
  app.post(
    '/sinks/:id/test',
    {
      config: canWrite,
      schema: {
        tags,
        operationId: 'auditTestSink',
        summary: 'Send the newest event once, as it would be sent',
        params: IdParams,
        response: { 200: TestResult, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const { target, entries, stream } = await db.withTenant(scope, async (tx) => {
        const own = streamOf(scope.tenantId)
        const head = (await findChain(tx, own))?.head.seq ?? 0
        context.audit.record(tx, { type: 'audit.sink.test', subject: `sink:${request.params.id}` })
        return { target: await sinks.targetOf(tx, scope, request.params.id), entries: await readEntries(tx, own, head, head), stream: own }
      })
      try {
        await sinks.build('test', target).send({ stream, entries, checkpoints: [] }, AbortSignal.timeout(testMs))
        return { ok: true, error: null }
      } catch (error) {
        return { ok: false, error: error instanceof Error ? error.message : String(error) }
      }
    },
  )
}
