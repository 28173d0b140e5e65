// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Clock } from '../clock.ts'
import { ProblemError } from '../errors.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { refusedError, withinCommitWait } from '../ingest/http.ts'
import type { ProvisionHandler } from '../ingest/mqtt/provisioning-session.ts'
import { bytesOf } from '../telemetry/answers.ts'
import { plainAddress } from '../http/client-address.ts'
import type { Provisioned, Provisioning } from './provisioning.ts'
import { parseProvisionRequest } from './requests.ts'

/** [H-4] */
const maxBodyBytes = 65_536
const maxInFlight = 100

/** Provisioning over MQTT: an answer to somebody who guesses comes late [P-6]. */
export function mqttProvisioning(provisioning: Provisioning, clock: Clock): ProvisionHandler {
  return (payload, address) => {
    const request = parseProvisionRequest(payload)
    if ('code' in request) return request
    const encode = ({ answer, delayMs }: Provisioned) => {
      const bytes = Buffer.from(JSON.stringify(answer))
      return delayMs === 0 ? bytes : new Promise<Buffer>((resolve) => clock.after(delayMs, () => resolve(bytes)))
    }
    return provisioning.provision(request, address).then(encode)
  }
}

/** `POST /api/v1/provision` (device API §11): for devices that have no token yet. */
export function httpProvisioning(
  provisioning: Provisioning,
  { clock, assertTakesData }: { clock: Clock; assertTakesData: () => void },
): (scope: App) => void {
  let inFlight = 0
  const provision = async (request: FastifyRequest): Promise<Provisioned> => {
    const asked = parseProvisionRequest(bytesOf(request))
    if ('code' in asked) throw refusedError(asked)
    assertTakesData()
    if (inFlight >= maxInFlight) throw new ProblemError('OVERLOADED', { retryAfterS: 1 })
    inFlight++
    const work = provisioning.provision(asked, plainAddress(request.ip)).finally(() => inFlight--)
    return withinCommitWait(clock, work)
  }
  return (scope) => {
    scope.post(
      '/api/v1/provision',
      {
        config: { public: true, beforeSetup: true },
        bodyLimit: maxBodyBytes,
        schema: {
          tags: ['device api'],
          summary: 'A device that knows key and secret of a product asks for its credentials',
          security: [],
          response: {
            200: Type.Unknown({ description: 'status SUCCESS with the credentials, NOT_FOUND or FAILURE' }),
            ...problems(400, 413, 415, 429, 503),
          },
        },
      },
      async (request, reply) => {
        const { answer, delayMs } = await provision(request)
        if (delayMs > 0) throw new ProblemError('RATE_LIMITED', { retryAfterS: Math.ceil(delayMs / 1000) })
        return reply.type('application/json').send(JSON.stringify(answer))
      },
    )
  }
}
