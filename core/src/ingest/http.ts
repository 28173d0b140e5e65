// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { plainAddress } from '../http/client-address.ts'
import type { Clock } from '../clock.ts'
import type { PollEnd } from './long-polls.ts'
import { admitRequest } from './rate-limits.ts'
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'
import type { IngestSink, Outcome, UplinkKind } from './uplink.ts'

export type HttpIngestOptions = {
  sink: IngestSink
  clock: Clock
  /** Throws while no data can be stored at all. */
  assertTakesData: () => void
  findByToken: (token: string) => Device | undefined
  /** Noted for the list of refused connections. */
  refused: (refusal: { address: string; reason: string; tokenLast4: string }) => void
  /** A body over the limit is refused before a device's message exists; its reject log says so. */
  tooLarge: (device: Device, address: string, topic: string, limit: number) => void
  /** A device sends faster than it may, for its reject log. */
  limited: (device: Device, address: string, topic: string, reject: Reject) => void
  /** Calls besides telemetry and attributes. */
  calls?: readonly DeviceCalls[]
  /** Calls of devices that have no token yet. */
  openCalls?: readonly ((scope: App) => void)[]
}

/**
 * Registers calls of the device API in their common scope, where a body arrives as the bytes that were sent.
 * `findDevice` is the device of the token in the path; it throws `DEVICE_UNAUTHORIZED`.
 */
export type DeviceCalls = (scope: App, findDevice: (request: FastifyRequest) => Device) => void

/** [H-4] Bodies of telemetry and attributes. */
const maxBodyBytes = 1_048_576
/** [RE §7] Requests in flight, and the bytes their bodies may grow to; more at a time answer 503. */
const maxInFlight = 1000
const maxInFlightBytes = 33_554_432
/** A device may have one in so many of either, so that one token cannot keep the others out. */
const deviceShare = 4
/** [M-29] How long a request waits for a commit. */
const commitWaitMs = 10_000

/** [H-2] The body is JSON text whatever the type says; curl's default type included. */
const contentTypes = ['application/json', 'text/plain', 'application/octet-stream', 'application/x-www-form-urlencoded']

const Rejected = Type.Object({
  code: Type.String(),
  key: Type.Optional(Type.String()),
  ts: Type.Optional(Type.Number()),
  detail: Type.String(),
})
const Accepted = Type.Object({ accepted: Type.Integer(), rejected: Type.Array(Rejected) })

/** The HTTP device API (device API §11): `POST /api/v1/{token}/telemetry` and `/attributes`. */
export async function registerHttpIngest(app: App, options: HttpIngestOptions): Promise<void> {
  await app.register(async (scope) => {
    // Own parsers in a scope of their own: everything arrives as the bytes that were sent.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: maxBodyBytes }, (request, body, done) => {
      const type = (request.headers['content-type'] ?? '')
        .toLowerCase()
        .replace(/;\s*charset="?utf-8"?\s*$/, '')
        .trim()
      const isEncoded = !['', 'identity'].includes(request.headers['content-encoding'] ?? '')
      if (isEncoded || (type !== '' && !contentTypes.includes(type))) return done(new ProblemError('CONTENT_TYPE'))
      done(null, body)
    })
    const load = new Load()
    const handle = (kind: UplinkKind) => async (request: FastifyRequest, reply: FastifyReply) => {
      const device = findDevice(request, options)
      options.assertTakesData()
      if (options.sink.isFull) throw new ProblemError('OVERLOADED', { retryAfterS: 1 })
      return answer(reply, await accept(request, device, kind, options))
    }
    for (const kind of ['telemetry', 'attributes'] as const) {
      scope.post(
        `/api/v1/:token/${kind}`,
        {
          config: { public: true, beforeSetup: true },
          bodyLimit: maxBodyBytes,
          // Token, room in the buffer and load are checked before a byte of the body is read.
          onRequest: async (request, reply) => {
            const device = findDevice(request, options)
            options.assertTakesData()
            const release = options.sink.isFull ? undefined : load.take(device.id, announcedBytes(request))
            if (!release) throw new ProblemError('OVERLOADED', { retryAfterS: 1 })
            reply.raw.once('close', release)
            const topic = `/api/v1/…/${kind}`
            const refused = (reject: Reject) => options.limited(device, plainAddress(request.ip), topic, reject)
            if (device.limits) await admitRequest(device, kind === 'telemetry', { clock: options.clock, refused })
          },
          errorHandler: (error, request) => {
            if ((error as { code?: string }).code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
              options.tooLarge(findDevice(request, options), plainAddress(request.ip), `/api/v1/…/${kind}`, maxBodyBytes)
              throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxBodyBytes }, cause: error })
            }
            throw error
          },
          schema: {
            tags: ['device api'],
            summary: kind === 'telemetry' ? 'A device sends telemetry' : 'A device reports client attributes',
            params: Type.Object({ token: Type.String({ maxLength: 128 }) }),
            security: [],
            response: { 200: Type.Union([Type.Null(), Accepted]), ...problems(400, 401, 413, 415, 422, 429, 503) },
          },
        },
        handle(kind),
      )
    }
    for (const register of options.openCalls ?? []) register(scope)
    await scope.register(async (calls) => {
      calls.addHook('onRequest', async (request) => {
        const device = findDevice(request, options)
        const refused = (reject: Reject) => options.limited(device, plainAddress(request.ip), topicOf(request), reject)
        await admitRequest(device, false, { clock: options.clock, refused })
      })
      calls.setErrorHandler((error: Error & { code?: string }, request) => {
        if (error.code !== 'FST_ERR_CTP_BODY_TOO_LARGE') throw error
        const limit = request.routeOptions.bodyLimit
        options.tooLarge(findDevice(request, options), plainAddress(request.ip), topicOf(request), limit)
        throw new ProblemError('BODY_TOO_LARGE', { params: { limit }, cause: error })
      })
      for (const register of options.calls ?? []) register(calls, (request) => findDevice(request, options))
    })
  })
}

/** The path without the token, as the reject log shows it. */
function topicOf(request: FastifyRequest): string {
  return request.routeOptions.url?.replace(':token', '…') ?? ''
}

/** Requests and bytes in flight, in all and per device. */
class Load {
  #requests = 0
  #bytes = 0
  readonly #devices = new Map<string, { requests: number; bytes: number }>()

  /** @returns what gives the room back, or undefined when there is none */
  take(deviceId: string, bytes: number): (() => void) | undefined {
    const own = this.#devices.get(deviceId) ?? { requests: 0, bytes: 0 }
    if (this.#requests >= maxInFlight || this.#bytes + bytes > maxInFlightBytes) return undefined
    if (own.requests >= maxInFlight / deviceShare || own.bytes + bytes > maxInFlightBytes / deviceShare) return undefined
    this.#devices.set(deviceId, own)
    this.#add(own, 1, bytes)
    return () => {
      this.#add(own, -1, -bytes)
      if (own.requests === 0) this.#devices.delete(deviceId)
    }
  }

  #add(own: { requests: number; bytes: number }, requests: number, bytes: number): void {
    this.#requests += requests
    this.#bytes += bytes
    own.requests += requests
    own.bytes += bytes
  }
}

/** A chunked body announces nothing and may become as large as any. */
function announcedBytes(request: FastifyRequest): number {
  if (request.headers['transfer-encoding'] !== undefined) return maxBodyBytes
  return Math.min(Number(request.headers['content-length'] ?? 0), maxBodyBytes)
}

/** Whose requests are under way: hashing a token twice would be a twentieth of what a request costs. */
const devices = new WeakMap<FastifyRequest, Device>()

function findDevice(request: FastifyRequest, options: HttpIngestOptions): Device {
  const known = devices.get(request)
  if (known && !known.isDisabled) return known
  const { token } = request.params as { token: string }
  const device = options.findByToken(token)
  if (device) {
    devices.set(request, device)
    return device
  }
  options.refused({ address: plainAddress(request.ip), reason: 'unknown access token', tokenLast4: token.slice(-4) })
  throw new ProblemError('DEVICE_UNAUTHORIZED')
}

/** Answers a long poll with what came, or with why nothing did [H-3]. `wait` gets a signal for when the client has left. */
export async function sendPoll(reply: FastifyReply, wait: (signal: AbortSignal) => Promise<PollEnd>): Promise<FastifyReply> {
  const left = new AbortController()
  reply.raw.once('close', () => left.abort())
  const end = await wait(left.signal)
  if (end === 'full') throw new ProblemError('OVERLOADED', { retryAfterS: 5 })
  if (typeof end === 'string') throw new ProblemError('POLL_TIMEOUT')
  return reply.code(200).type('application/json').send(end.answer)
}

/**
 * Waits for work of the database no longer than for a commit [M-29].
 * @throws {ProblemError} `STORE_UNAVAILABLE`
 */
export async function withinCommitWait<T>(clock: Clock, work: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const cancel = clock.after(commitWaitMs, () => reject(new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })))
  return Promise.race([work, late]).finally(cancel)
}

async function accept(request: FastifyRequest, device: Device, kind: UplinkKind, options: HttpIngestOptions): Promise<Outcome> {
  const payload = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  const transport = 'http'
  const source = { transport, topic: `/api/v1/…/${kind}`, address: plainAddress(request.ip) } as const
  return new Promise<Outcome>((resolve, reject) => {
    // The data may still be stored later: repeats are safe, a point is identified by device, key and ts.
    const cancel = options.clock.after(commitWaitMs, () => reject(new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })))
    options.sink.accept({ device, kind, payload, transport, source, receivedAt: options.clock.now() }, (outcome) => {
      cancel()
      resolve(outcome)
    })
  })
}

function answer(reply: FastifyReply, outcome: Outcome): unknown {
  switch (outcome.status) {
    case 'stored':
      reply.code(200)
      if (outcome.rejects.length > 0) return reply.send({ accepted: outcome.accepted, rejected: outcome.rejects })
      return reply.header('content-length', '0').send()
    case 'refused':
      throw refusedError(outcome.reject)
    case 'rejected':
      // One reason for all of it is told by its own code, several by the common one.
      throw new ProblemError('POINTS_REJECTED', { errors: outcome.rejects.slice(0, 100).map(toFieldError) })
    case 'unavailable':
      throw new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })
  }
}

/** The answer to a message that was refused as a whole. */
export function refusedError(reject: Reject): ProblemError {
  const errors = [toFieldError(reject)]
  switch (reject.code) {
    case 'TOO_MANY_POINTS':
      return new ProblemError('TOO_MANY_POINTS', { params: { limit: 10_000 }, errors })
    case 'SHAPE_INVALID':
      return new ProblemError('SHAPE_INVALID', { errors })
    default:
      return new ProblemError('PAYLOAD_MALFORMED', { errors })
  }
}

function toFieldError(reject: Reject): FieldError {
  const pointer = reject.key === undefined ? '' : `/${reject.key.replaceAll('~', '~0').replaceAll('/', '~1')}`
  return { pointer, code: reject.code, detail: reject.detail }
}
