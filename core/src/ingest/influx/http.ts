// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { ProblemError } from '../../errors.ts'
import type { App } from '../../http/server.ts'
import { plainAddress } from '../../http/client-address.ts'
import { withinCommitWait } from '../http.ts'
import { admitRequest } from '../rate-limits.ts'
import type { Device } from '../registry.ts'
import { inflateBody, maxInflatedBytes, writeLines } from './influx-writes.ts'
import type { InfluxOutcome, InfluxParts } from './influx-writes.ts'
import { precisionNames } from './points.ts'

export type InfluxOptions = InfluxParts & {
  assertTakesData: () => void
  findByToken: (token: string) => Device | undefined
  refused: (refusal: { address: string; reason: string; tokenLast4: string }) => void
}

/** As it is sent, compressed or not. */
const maxBodyBytes = 1_048_576
/** Requests at a time, since each may hold a body that was inflated; more answer 503. */
const maxInFlight = 32
const maxInFlightOfDevice = 8

const Query = Type.Object({
  precision: Type.Unsafe<(typeof precisionNames)[number]>({ type: 'string', enum: precisionNames, default: 'ns' }),
})
const Failure = Type.Object({ code: Type.String(), message: Type.String(), line: Type.Optional(Type.Integer()) })

/** InfluxDB's codes for the statuses of our refusals. */
const codes: Readonly<Record<number, string>> = {
  401: 'unauthorized',
  413: 'request too large',
  415: 'invalid',
  429: 'too many requests',
  503: 'unavailable',
}

/**
 * The write entrance of InfluxDB for agents such as Telegraf: `POST /api/v2/write`, and `/write` of its first version.
 * The token is the device's. `org`, `bucket` and `db` name nothing here.
 */
export async function registerInfluxWrites(app: App, options: InfluxOptions): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: maxBodyBytes }, (_, body, done) => done(null, body))
    scope.setErrorHandler((error, _, reply) => sendFailure(reply, error))
    const load = new Map<string, number>()
    let inFlight = 0
    for (const path of ['/api/v2/write', '/write']) {
      scope.post(
        path,
        {
          config: { public: true, beforeSetup: true },
          bodyLimit: maxBodyBytes,
          onRequest: async (request, reply) => {
            const device = findDevice(request, options)
            options.assertTakesData()
            const own = load.get(device.id) ?? 0
            if (options.pipeline.isFull || inFlight >= maxInFlight || own >= maxInFlightOfDevice) {
              throw new ProblemError('OVERLOADED', { retryAfterS: 1 })
            }
            inFlight++
            load.set(device.id, own + 1)
            reply.raw.once('close', () => {
              inFlight--
              const left = (load.get(device.id) ?? 1) - 1
              if (left > 0) load.set(device.id, left)
              else load.delete(device.id)
            })
            const source = sourceOf(request)
            const refused = (reject: Parameters<typeof options.rejects.record>[0]['reject']) =>
              options.rejects.record({ device, source, reject, payload: Buffer.alloc(0) })
            await admitRequest(device, true, { clock: options.clock, refused })
          },
          schema: {
            tags: ['device api'],
            summary: 'An agent writes line protocol, as to InfluxDB; `Authorization: Token <access token of the device>`',
            querystring: Query,
            security: [],
            response: { 204: Type.Null(), '4xx': Failure, '5xx': Failure },
          },
        },
        async (request, reply) => {
          const device = findDevice(request, options)
          const body = await readBody(request)
          const { precision } = request.query as Static<typeof Query>
          const receivedAt = options.clock.now()
          const write = writeLines(options, { device, body, precision, source: sourceOf(request), receivedAt })
          const outcome = await withinCommitWait(options.clock, write)
          if (outcome === 'unavailable') throw new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })
          if (outcome.refused === 0) return reply.code(204).send(null)
          return reply.code(400).send({ code: 'invalid', message: describe(outcome), ...(outcome.line ? { line: outcome.line } : {}) })
        },
      )
    }
  })
}

/** `Token` as InfluxDB 2 says it, `Bearer` as InfluxDB 3; `p=` is the password of InfluxDB 1. */
function findDevice(request: FastifyRequest, options: InfluxOptions): Device {
  const given = /^(?:token|bearer) +(\S{1,128})$/i.exec(request.headers.authorization ?? '')?.[1]
  const password = (request.query as Record<string, unknown>)['p']
  const token = given ?? (typeof password === 'string' ? password : '')
  const device = token === '' ? undefined : options.findByToken(token)
  if (device) return device
  options.refused({ address: plainAddress(request.ip), reason: 'unknown access token', tokenLast4: token.slice(-4) })
  throw new ProblemError('DEVICE_UNAUTHORIZED')
}

async function readBody(request: FastifyRequest): Promise<Buffer> {
  const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  const encoding = request.headers['content-encoding'] ?? 'identity'
  if (encoding === 'identity') return body
  if (encoding !== 'gzip') throw new ProblemError('CONTENT_TYPE')
  const inflated = await inflateBody(body)
  if (inflated === 'too_large') throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxInflatedBytes } })
  const isBroken = inflated === 'broken'
  if (isBroken) throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '', detail: 'The body is not valid gzip.' }] })
  return inflated
}

function sourceOf(request: FastifyRequest) {
  return { transport: 'http', topic: request.routeOptions.url ?? '', address: plainAddress(request.ip) } as const
}

function describe({ accepted, refused, faults }: InfluxOutcome): string {
  const start = accepted > 0 ? `partial write: ${accepted} points stored, ${refused} lines or points refused: ` : ''
  return `${start}${faults.join('; ')}${refused > faults.length ? '; …' : ''}`
}

function sendFailure(reply: FastifyReply, error: unknown): FastifyReply {
  const known = error as { code?: string; statusCode?: number; validation?: unknown; message: string }
  const problem =
    error instanceof ProblemError
      ? error
      : known.code === 'FST_ERR_CTP_BODY_TOO_LARGE'
        ? new ProblemError('BODY_TOO_LARGE', { params: { limit: maxBodyBytes } })
        : new ProblemError(known.validation || (known.statusCode ?? 500) < 500 ? 'VALIDATION_FAILED' : 'INTERNAL', {
            errors: known.validation ? [{ pointer: '', detail: known.message }] : [],
          })
  if (problem.code === 'INTERNAL') reply.log.error({ err: error }, 'an InfluxDB write failed')
  if (problem.retryAfterS !== undefined) reply.header('retry-after', String(problem.retryAfterS))
  const details = problem.errors?.map(({ detail }) => detail).join(' ')
  const code = codes[problem.status] ?? (problem.status < 500 ? 'invalid' : 'internal error')
  return reply.code(problem.status).send({ code, message: details || problem.message })
}
