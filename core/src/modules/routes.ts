// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Modules } from './modules.ts'

const tags = ['modules']
const Both = Type.Object({ zh: Type.String(), en: Type.String() })
const Module = Type.Object({
  name: Type.String(),
  feature: Type.String(),
  title: Both,
  summary: Both,
  version: Type.String(),
  status: Type.String({ enum: ['locked', 'starting', 'active', 'readonly', 'stopping', 'failed'] }),
  editions: Type.Array(Type.String()),
  nav: Type.Array(Type.Object({ path: Type.String(), group: Type.String(), icon: Type.String(), title: Both })),
  reason: Type.Optional(Type.String({ description: 'Why it failed; for holders of license.read.' })),
})

export function registerModuleRoutes(app: App, modules: Modules): void {
  app.get(
    '/api/v1/modules',
    {
      config: { permission: 'session' },
      schema: {
        tags,
        summary: 'List the modules of this build',
        response: { 200: Type.Object({ items: Type.Array(Module) }), ...problems(400, 401, 403) },
      },
    },
    (request) => {
      const mayKnow = actorOf(request).permissions.has('license.read')
      const items = modules.list().map(({ name, feature, title, status }) => {
        const { block, reason } = modules.describe(name)!
        const { summary, version, row, nav } = block
        const shown = { name, feature, title, summary, version, status, editions: [...row.editions], nav: [...nav] }
        return mayKnow && reason !== undefined ? { ...shown, reason } : shown
      })
      return { items }
    },
  )
  app.post(
    '/api/v1/modules/:name/retry',
    {
      config: { permission: 'license.write' },
      schema: {
        tags,
        summary: 'Try again to start a module that failed',
        params: Type.Object({ name: Type.String({ maxLength: 32 }) }),
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 202: Type.Object({}), ...problems(400, 401, 403, 404) },
      },
    },
    (request, reply) => {
      if (!modules.describe(request.params.name)) throw new ProblemError('NOT_FOUND')
      void modules.sync()
      return reply.code(202).send({})
    },
  )
}
