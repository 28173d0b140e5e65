// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Audit } from '../audit.ts'
import { actorOf } from '../http/actor.ts'
import { NoContent, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Demo } from './demo.ts'

const tags = ['demo']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const DemoStatus = Type.Object({ loaded: Type.Boolean(), devices: Type.Integer() })

/** Living example data, loaded and removed in one act each. */
export function registerDemoRoutes(app: App, { demo, audit }: { demo: Demo; audit: Audit }): void {
  app.get(
    '/api/v1/demo',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'Whether demo data is loaded',
        querystring: EmptyQuery,
        response: { 200: DemoStatus, ...problems(400, 401, 403) },
      },
    },
    () => demo.status(),
  )
  app.post(
    '/api/v1/demo',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Load demo data; nothing happens when it is loaded',
        querystring: EmptyQuery,
        response: { 200: DemoStatus, ...problems(400, 401, 403, 503) },
      },
    },
    (request) => audit.around(actorOf(request).scope, { type: 'demo.load', subject: '-' }, () => demo.load()),
  )
  app.delete(
    '/api/v1/demo',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Remove all demo data for good',
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 503) },
      },
    },
    async (request, reply) => {
      await audit.around(actorOf(request).scope, { type: 'demo.remove', subject: '-' }, () => demo.remove())
      return reply.code(204).send(null)
    },
  )
}
