// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { problems } from '../http/schemas.ts'
import { bytesOf } from '../telemetry/answers.ts'
import { plainAddress } from '../http/client-address.ts'
import { refusedError } from '../ingest/http.ts'
import type { DeviceCalls } from '../ingest/http.ts'
import type { RejectRecorder } from '../ingest/mqtt/uplinks.ts'
import type { Device } from '../ingest/registry.ts'
import type { ClientRpc } from './client-rpc.ts'

export type HttpClientRpcParts = { clientRpc: ClientRpc; rejects: RejectRecorder; active: (device: Device) => void }

/** [H-4] */
const maxBodyBytes = 65_536

/** `POST /api/v1/{token}/rpc`: a device calls the server and waits for the answer (device API §11). */
export function httpClientRpcCalls({ clientRpc, rejects, active }: HttpClientRpcParts): DeviceCalls {
  return (scope, findDevice) => {
    scope.post(
      '/api/v1/:token/rpc',
      {
        config: { public: true, beforeSetup: true, waits: true },
        bodyLimit: maxBodyBytes,
        schema: {
          tags: ['device api'],
          summary: 'A device calls the server',
          params: Type.Object({ token: Type.String({ maxLength: 128 }) }),
          security: [],
          response: { 200: Type.Unknown({ description: 'The reply.' }), ...problems(400, 401, 413, 415, 429, 503) },
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        const payload = bytesOf(request)
        const call = clientRpc.parse(device, payload)
        if ('code' in call) {
          const source = { transport: 'http', topic: '/api/v1/…/rpc', address: plainAddress(request.ip) } as const
          rejects.record({ device, source, reject: call, payload })
          throw refusedError(call)
        }
        const answer: unknown = await clientRpc.answer(device, call)
        return reply.type('application/json').send(JSON.stringify(answer))
      },
    )
  }
}
