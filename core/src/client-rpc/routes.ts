// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Audit } from '../audit.ts'
import type { Devices } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { exactMember, keepBodyTexts } from '../http/body-text.ts'
import { IdParams, NoContent, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { parseExactly } from '../telemetry/values.ts'
import type { ClientRpc } from './client-rpc.ts'

/** What a reply may have, as the body of a call may over HTTP [H-4]. */
const maxBodyBytes = 65_536

const Params = Type.Object({
  ...IdParams.properties,
  requestId: Type.Integer({ minimum: 0, description: 'As the live stream of the device told it (`requestId` of an item `call`).' }),
})
const Reply = Type.Object({ reply: Type.Unknown() }, { additionalProperties: false })

/** Users answer what devices ask. */
export async function registerClientRpcRoutes(app: App, parts: { clientRpc: ClientRpc; devices: Devices; audit: Audit }): Promise<void> {
  const { clientRpc, devices, audit } = parts
  await app.register(async (scope: App) => {
    keepBodyTexts(scope, 'any')
    scope.post(
      '/api/v1/devices/:id/client-rpc/:requestId',
      {
        config: { permission: 'device.write' },
        bodyLimit: maxBodyBytes,
        schema: {
          tags: ['commands'],
          summary: 'Answer a call that a device has made and that waits',
          params: Params,
          body: Reply,
          response: { 204: NoContent, ...problems(400, 401, 403, 404, 413) },
        },
      },
      async (request, reply) => {
        const { id, requestId } = request.params
        const { scope: tenant } = actorOf(request)
        await devices.get(tenant, id)
        await audit.around(tenant, { type: 'command.answer', subject: `device:${id}` }, async () => {
          if (!clientRpc.reply(id, requestId, parseExactly(exactMember(request, 'reply')))) throw new ProblemError('NOT_FOUND')
        })
        return reply.code(204).send(null)
      },
    )
  })
}
