// SPDX-License-Identifier: AGPL-3.0-only
import { randomFillSync } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { parse as parseQuery } from 'node:querystring'
import cookie from '@fastify/cookie'
import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Ajv } from 'ajv'
import type { ValidateFunction } from 'ajv'
import formatsPlugin from 'ajv-formats'
import Fastify, { LogController } from 'fastify'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import { withRequest } from '../audit.ts'
import { reservedTokens } from '../devices/credentials.ts'
import { ProblemError } from '../errors.ts'
import { redact } from '../log.ts'
import type { Log } from '../log.ts'
import { Problem as problemSchema } from './schemas.ts'
import type { Authenticate } from './actor.ts'
import type { Permission } from './permissions.ts'
import { maxBodyBytes, useErrors } from './problems.ts'

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** What a route asks of its caller. */
export type RouteGuard = {
  method: string
  path: string
  permission: Permission | 'session' | undefined
  isPublic: boolean
  hasId: boolean
  requiredQuery: string[]
  /** How the license gate sees it, where its method misleads. */
  license: 'always' | 'write' | undefined
}

const guardsOf = new WeakMap<object, RouteGuard[]>()

/** Every route of the server with its guard. */
export function listRoutes(app: App): readonly RouteGuard[] {
  return guardsOf.get(app.server) ?? []
}

export type ServerOptions = {
  log: Log
  version: string
  trustedProxies: readonly string[]
  authenticate: Authenticate
  /** False until the first administrator exists. */
  isSetUp: () => boolean
  isHttps: boolean
  requireHttps: boolean
  testHooks: ReadonlySet<string>
  /** Path the product is served under, with both slashes. */
  basePath?: string
  /** Ids of requests; the servers of modules go on with the id a request already has. */
  createId?: (raw: IncomingMessage) => string
  /** Requests in flight, counted over all servers of this process. */
  load?: { inFlight: number }
  /** Asked after authentication and permission: the license of a module. */
  gate?: (request: FastifyRequest) => void
  /** Told of writes that were refused. */
  denied?: (request: FastifyRequest, code: string) => void
  /** Turns a problem into the ThingsBoard-style body on compat routes. */
  compatProblem: (error: ProblemError) => { status: number; body: unknown }
}

/** [RE §7] Requests in flight, all together; more at a time answer 503. */
const maxInFlight = 2000
/** Whoever has shown no credential yet needs no more for a login or a set-up. */
const publicBodyBytes = 16_384
const devicePath = /^\/(api\/v1\/:token\/|api\/v2\/write$|write$)/
const probePath = /^\/(livez|readyz|startupz|metrics)$/

const noQuery = { type: 'object', properties: {}, additionalProperties: false } as const

/** Fastify with our conventions: one place for permissions, validation, errors and headers. */
export async function createServer(options: ServerOptions): Promise<App> {
  const logger: FastifyBaseLogger = options.log
  const app: App = Fastify({
    loggerInstance: logger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: maxBodyBytes,
    // Long enough for a proxy that keeps connections for 60 s.
    keepAliveTimeout: 72_000,
    connectionTimeout: 0,
    requestTimeout: 30_000,
    http: { headersTimeout: 10_000, maxHeaderSize: 16_384 },
    routerOptions: { maxParamLength: 256, querystringParser: (text) => parseQuery(text) },
    trustProxy: options.trustedProxies.length > 0 ? [...options.trustedProxies] : false,
    genReqId: options.createId ?? createRequestIds(),
    requestIdHeader: false,
    rewriteUrl: (request) => withoutBase(request.url ?? '/', options.basePath ?? '/'),
    return503OnClosing: true,
    forceCloseConnections: 'idle',
  }).withTypeProvider<TypeBoxTypeProvider>()

  letLongBodiesTakeTime(app)
  useValidators(app)
  useErrors(app, options.compatProblem, options.denied)
  const headers = securityHeaders(options)
  // These hooks call back: each promise per request would be felt where devices send over HTTP.
  app.addHook('onRequest', (_, reply, done) => {
    reply.headers(headers)
    done()
  })
  limitLoad(app, options.load ?? { inFlight: 0 })
  useGuards(app, options)
  app.addSchema({ $id: 'Problem', ...problemSchema })
  await app.register(cookie)
  await app.register(swagger, {
    refResolver: { buildLocalReference: (json) => String(json.$id) },
    openapi: {
      openapi: '3.1.0',
      info: { title: 'IoT PMS API', version: options.version, license: { name: 'AGPL-3.0-only', identifier: 'AGPL-3.0-only' } },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
      security: [{ bearer: [] }],
    },
  })
  return app
}

const longBodies = new WeakSet<object>()

/** The body of this request may take longer than others; its route has to watch over it. */
export function allowLongBody(request: FastifyRequest): void {
  longBodies.add(request.raw.socket)
  request.raw.once('close', () => longBodies.delete(request.raw.socket))
}

/** Node knows one time limit for all requests, and tells of each that has passed it once. */
function letLongBodiesTakeTime(app: App): void {
  const answers = app.server.listeners('clientError') as ((error: NodeJS.ErrnoException, socket: object) => void)[]
  app.server.removeAllListeners('clientError')
  app.server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && longBodies.has(socket)) return
    for (const answer of answers) answer(error, socket)
  })
}

/** Query and path text is turned into numbers and booleans; a body is taken as it is written [SC-45]. */
export function useValidators(app: App): void {
  const shared = { allErrors: true, useDefaults: true, removeAdditional: false, strict: false } as const
  const exact = formatsPlugin.default(new Ajv({ ...shared, coerceTypes: false }))
  const coercing = formatsPlugin.default(new Ajv({ ...shared, coerceTypes: true }))
  app.setValidatorCompiler(({ schema, httpPart }) => compileLater(httpPart === 'body' ? exact : coercing, schema as object))
}

/** Counted before anything is read or looked up. Probes are left out: a busy server is not a dead one. */
function limitLoad(app: App, load: { inFlight: number }): void {
  app.addHook('onRequest', (request, reply, done) => {
    const { waits, isHandedOver } = request.routeOptions.config
    if (waits || isHandedOver || probePath.test(request.routeOptions.url ?? '')) return done()
    if (load.inFlight >= maxInFlight) return done(new ProblemError('OVERLOADED', { retryAfterS: 1 }))
    load.inFlight++
    // Comes after the last byte of the answer, and when the connection is lost, once.
    reply.raw.once('close', () => load.inFlight--)
    done()
  })
}

/** Deny by default: a route names its permission or is on the public list, else the server does not start. */
function useGuards(app: App, options: ServerOptions): void {
  app.decorateRequest('actor', null)
  const guards: RouteGuard[] = []
  guardsOf.set(app.server, guards)
  app.addHook('onRoute', (route) => {
    if (route.config?.isHandedOver) return
    const { permission, public: isPublic = false, license } = route.config ?? {}
    if (isApiPath(route.url) && !permission && !isPublic) throw new Error(`${String(route.method)} ${route.url} names no permission`)
    const requiredQuery = (route.schema?.querystring as { required?: string[] } | undefined)?.required ?? []
    // A query nobody declared is a mistake of the caller, on every route of the native API.
    if (route.url.startsWith('/api/v1/') && !isPublic) route.schema = { querystring: noQuery, ...route.schema }
    if (isPublic) route.bodyLimit ??= publicBodyBytes
    // Devices' own calls are no acts of people, and the many.
    if (!devicePath.test(route.url)) route.preHandler = [handleWithin, route.preHandler ?? []].flat()
    for (const method of [route.method].flat()) {
      if (method === 'HEAD') continue
      guards.push({ method, path: route.url, permission, isPublic, hasId: route.url.includes('/:'), requiredQuery, license })
    }
  })
  app.addHook('onRequest', async (request, reply) => {
    const { config } = request.routeOptions
    if (config.isHandedOver) return
    if (options.requireHttps && request.protocol !== 'https' && isApiPath(request.url)) throw new ProblemError('HTTPS_REQUIRED')
    if (isApiPath(request.url)) {
      reply.header('cache-control', 'no-store')
      if (!config.beforeSetup && !options.isSetUp()) throw new ProblemError('SETUP_REQUIRED')
    }
    if (!config.permission) return config.public ? options.gate?.(request) : undefined
    request.actor = (await options.authenticate(request)) ?? null
    if (!request.actor) throw new ProblemError('TOKEN_INVALID')
    if (config.permission !== 'session' && !request.actor.permissions.has(config.permission)) {
      throw new ProblemError('PERMISSION_DENIED', { params: { permission: config.permission } })
    }
    if (config.permission === 'session' && request.actor.kind !== 'user') {
      throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'session' } })
    }
    options.gate?.(request)
  })
  app.addHook('onResponse', (request, reply, done) => {
    done()
    if (!options.log.isLevelEnabled('debug') || request.routeOptions.config.isHandedOver) return
    request.log.debug(
      {
        method: request.method,
        url: maskUrl(request.url),
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
        traceId: request.id,
      },
      'request',
    )
  })
}

/** What the handler does is known to be of this request; reading its body may have lost it before. */
function handleWithin(request: FastifyRequest, _: FastifyReply, done: () => void): void {
  withRequest(request, done)
}

const requestIdBytes = 8
const requestIdsAtOnce = 256

/** Random ids; asking the system for many at a time costs a tenth of asking for each. */
export function createRequestIds(): () => string {
  const random = Buffer.alloc(requestIdBytes * requestIdsAtOnce)
  let at = random.length
  return () => {
    if (at === random.length) {
      randomFillSync(random)
      at = 0
    }
    at += requestIdBytes
    return random.toString('hex', at - requestIdBytes, at)
  }
}

/** [D-95] Everything lies below the base path but for the probes, which never come through a proxy. */
function withoutBase(url: string, basePath: string): string {
  if (basePath === '/' || probePath.test(url)) return url
  if (url.startsWith(basePath)) return url.slice(basePath.length - 1)
  return url === basePath.slice(0, -1) ? '/' : '/api/outside-the-base-path'
}

function isApiPath(url: string): boolean {
  return url.startsWith('/api/')
}

/** [SC-40] */
function securityHeaders(options: ServerOptions): Record<string, string> {
  return {
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), microphone=(), geolocation=(), usb=()',
    ...(options.isHttps ? { 'strict-transport-security': 'max-age=31536000' } : {}),
    ...(options.testHooks.size > 0 ? { 'x-iot-pms-test-hooks': [...options.testHooks].join(',') } : {}),
  }
}

/** [H-5] Device tokens stand in the path; logs show their last four characters. */
function maskUrl(url: string): string {
  const path = url
    .replace(/[?#].*$/, '')
    // Links of messages, keys of the simple address, and what providers call hold a secret each.
    .replace(/^(\/+(?:n|send)\/+).*$/is, '$1…')
    .replace(/^(\/+api\/+v1\/+notifications\/+inbound\/+).*$/is, '$1…')
  const [, prefix, segment, rest] = /^(\/+api\/+v1\/+)([^/]+)(.*)$/is.exec(path) ?? []
  // Whatever is no word of the API may be meant as a token, also where no route takes one or the path is mistyped.
  return redact(segment === undefined || reservedTokens.has(segment) ? path : `${prefix}…${segment.slice(-4)}${rest}`)
}

type Check = ReturnType<Parameters<App['setValidatorCompiler']>[0]>

/** A check that is compiled when it is first needed: compiling those of all routes is a good part of a start. */
function compileLater(ajv: Ajv, schema: object): Check {
  let compiled: ValidateFunction | undefined
  const check: Check = (data: unknown) => {
    compiled ??= ajv.compile(schema)
    const isValid = compiled(data)
    check.errors = (compiled.errors ?? null) as NonNullable<Check['errors']> | null
    return isValid
  }
  return check
}
