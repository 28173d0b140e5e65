// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { AttributeReads } from '../attributes/attribute-reads.ts'
import { answerTooLarge, askFor, formatAnswer, splitKeys } from '../attributes/questions.ts'
import type { Clock } from '../clock.ts'
import { ProblemError } from '../errors.ts'
import { problems } from '../http/schemas.ts'
import { sendPoll, withinCommitWait } from './http.ts'
import type { DeviceCalls } from './http.ts'
import type { LongPolls } from './long-polls.ts'
import type { Device } from './registry.ts'

export type HttpAttributeParts = { reads: AttributeReads; polls: LongPolls; clock: Clock; active: (device: Device) => void }

const KeyList = Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())]))
const tags = ['device api']
const params = Type.Object({ token: Type.String({ maxLength: 128 }) })
/** JSON made as text: the schema is for the reference only. */
const answer = { 200: Type.Unknown(), ...problems(400, 401, 408, 422, 429, 503) }

/** Attributes over HTTP (device API §11): asking for them, and waiting for the next push. */
export function httpAttributeCalls({ reads, polls, clock, active }: HttpAttributeParts): DeviceCalls {
  return (scope, findDevice) => {
    scope.get(
      '/api/v1/:token/attributes',
      {
        config: { public: true, beforeSetup: true },
        exposeHeadRoute: false,
        schema: {
          tags,
          summary: 'A device asks for its attributes',
          params,
          querystring: Type.Object({ clientKeys: KeyList, sharedKeys: KeyList }),
          security: [],
          response: answer,
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        const { clientKeys, sharedKeys } = request.query
        const keys = (list: typeof clientKeys) => (list === undefined ? undefined : [list].flat().flatMap(splitKeys))
        const found = await withinCommitWait(clock, reads.read(device, askFor(keys(clientKeys), keys(sharedKeys))))
        if (found === 'unavailable') throw new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })
        if (found === 'too_large') throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '', detail: answerTooLarge.detail }] })
        return reply.type('application/json').send(formatAnswer(found))
      },
    )
    scope.get(
      '/api/v1/:token/attributes/updates',
      {
        config: { public: true, beforeSetup: true, waits: true },
        exposeHeadRoute: false,
        schema: {
          tags,
          summary: 'A device waits for the next change of its shared attributes',
          params,
          querystring: Type.Object({ timeout: Type.Optional(Type.Integer({ minimum: 0 })) }),
          security: [],
          response: answer,
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        return sendPoll(reply, (signal) => polls.wait(device, 'attributes', request.query.timeout ?? 0, signal))
      },
    )
  }
}
