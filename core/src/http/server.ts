// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { parse as parseQuery } from 'node:querystring'
import cookie from '@fastify/cookie'
import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Ajv } from 'ajv'
import formatsPlugin from 'ajv-formats'
import Fastify, { LogController } from 'fastify'
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify'
import { ProblemError, toProblem } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { redact } from '../log.ts'
import type { Log } from '../log.ts'
import { languageOf } from './actor.ts'
import { Problem as problemSchema } from './schemas.ts'
import type { Authenticate } from './actor.ts'

export type App = FastifyInstance<RawServerDefault, RawRequestDefaultExpression, RawReplyDefaultExpression, FastifyBaseLogger, TypeBoxTypeProvider>

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
  /** Turns a problem into the ThingsBoard-style body on compat routes. */
  compatProblem: (error: ProblemError) => { status: number; body: unknown }
}

/** Largest body of the native API. */
const bodyLimit = 1_048_576

/** Fastify with our conventions: one place for permissions, validation, errors and headers. */
export async function createServer(options: ServerOptions): Promise<App> {
  const app: App = Fastify({
    loggerInstance: options.log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit,
    // Long enough for a proxy that keeps connections for 60 s.
    keepAliveTimeout: 72_000,
    connectionTimeout: 0,
    requestTimeout: 30_000,
    http: { headersTimeout: 10_000, maxHeaderSize: 16_384 },
    routerOptions: { maxParamLength: 256, querystringParser: (text) => parseQuery(text) },
    trustProxy: options.trustedProxies.length > 0 ? [...options.trustedProxies] : false,
    genReqId: () => randomBytes(8).toString('hex'),
    requestIdHeader: false,
    rewriteUrl: (request) => withoutBase(request.url ?? '/', options.basePath ?? '/'),
    return503OnClosing: true,
    forceCloseConnections: 'idle',
  }).withTypeProvider<TypeBoxTypeProvider>()

  useValidators(app)
  useErrors(app, options)
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

/** Query and path text is turned into numbers and booleans; a body is taken as it is written [SC-45]. */
function useValidators(app: App): void {
  const shared = { allErrors: true, useDefaults: true, removeAdditional: false, strict: false } as const
  const exact = formatsPlugin.default(new Ajv({ ...shared, coerceTypes: false }))
  const coercing = formatsPlugin.default(new Ajv({ ...shared, coerceTypes: true }))
  app.setValidatorCompiler(({ schema, httpPart }) => (httpPart === 'body' ? exact : coercing).compile(schema as object))
}

function useErrors(app: App, options: ServerOptions): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = asProblemError(error)
    if (problem.status >= 500 && problem.code === 'INTERNAL') {
      request.log.error({ err: error, route: request.routeOptions.url, traceId: request.id }, 'request failed')
    }
    return sendProblem(request, reply, problem, options)
  })
  app.setNotFoundHandler((request, reply) => sendProblem(request, reply, new ProblemError('NOT_FOUND'), options))
}

export function sendProblem(request: FastifyRequest, reply: FastifyReply, error: ProblemError, options: Pick<ServerOptions, 'compatProblem'>): FastifyReply {
  if (error.retryAfterS !== undefined) reply.header('retry-after', String(error.retryAfterS))
  if (request.routeOptions.config.compat) {
    const { status, body } = options.compatProblem(error)
    return reply.code(status).type('application/json').send(JSON.stringify(body))
  }
  const problem = toProblem(error, languageOf(request), request.id)
  return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem))
}

/** One place turns what Fastify and the parsers throw into our codes. */
function asProblemError(error: FastifyError | ProblemError): ProblemError {
  if (error instanceof ProblemError) return error
  if (error.validation) {
    const errors: FieldError[] = error.validation.map((one) => {
      const name = String(one.params['additionalProperty'] ?? one.params['missingProperty'] ?? '')
      const path = `${one.instancePath}${name ? `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}` : ''}`
      const pointer = error.validationContext === 'querystring' ? `?${path.slice(1)}` : path
      return { pointer, detail: `${pointer || '/'} ${one.message ?? 'is not valid'}` }
    })
    return new ProblemError('VALIDATION_FAILED', { errors: errors.slice(0, 20), cause: error })
  }
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new ProblemError('BODY_TOO_LARGE', { params: { limit: bodyLimit }, cause: error })
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ProblemError('CONTENT_TYPE', { cause: error })
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new ProblemError('VALIDATION_FAILED', { cause: error, errors: [{ pointer: '', detail: 'The body is not valid JSON.' }] })
    default:
      if (isUnstorableText(error)) return new ProblemError('VALIDATION_FAILED', { cause: error, errors: [{ pointer: '', detail: 'A text holds the character U+0000.' }] })
      // Fastify's own 4xx answers (malformed URL, …) are the caller's fault; everything else is ours.
      return error.statusCode && error.statusCode < 500 ? new ProblemError('VALIDATION_FAILED', { cause: error }) : new ProblemError('INTERNAL', { cause: error })
  }
}

/** PostgreSQL has no U+0000, in text (22021) or in JSON (22P05); only a caller's text can hold one. */
function isUnstorableText(error: { code?: string; cause?: unknown }): boolean {
  const code = (error.cause as { code?: string } | undefined)?.code ?? error.code
  return code === '22021' || code === '22P05'
}

/** Deny by default: a route names its permission or is on the public list, else the server does not start. */
function useGuards(app: App, options: ServerOptions): void {
  app.decorateRequest('actor', null)
  app.addHook('onRoute', (route) => {
    const isApi = route.url.startsWith('/api/')
    if (isApi && !route.config?.permission && !route.config?.public) throw new Error(`${String(route.method)} ${route.url} names no permission`)
  })
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(securityHeaders(options))
    const { config } = request.routeOptions
    if (options.requireHttps && request.protocol !== 'https' && isApiPath(request.url)) throw new ProblemError('HTTPS_REQUIRED')
    if (isApiPath(request.url)) {
      reply.header('cache-control', 'no-store')
      if (!config.beforeSetup && !options.isSetUp()) throw new ProblemError('SETUP_REQUIRED')
    }
    if (!config.permission) return
    request.actor = (await options.authenticate(request)) ?? null
    if (!request.actor) throw new ProblemError('TOKEN_INVALID')
    if (config.permission !== 'session' && !request.actor.permissions.has(config.permission)) {
      throw new ProblemError('PERMISSION_DENIED', { params: { permission: config.permission } })
    }
    if (config.permission === 'session' && request.actor.kind !== 'user') throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'session' } })
  })
  app.addHook('onResponse', async (request, reply) => {
    request.log.debug({ method: request.method, url: maskUrl(request.url), status: reply.statusCode, ms: Math.round(reply.elapsedTime), traceId: request.id }, 'request')
  })
}

/** [D-95] Everything lies below the base path but for the probes, which never come through a proxy. */
function withoutBase(url: string, basePath: string): string {
  if (basePath === '/' || /^\/(livez|readyz|startupz|metrics)$/.test(url)) return url
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
  const path = url.replace(/[?#].*$/, '')
  const match = /^\/api\/v1\/([^/]+)\/(telemetry|attributes|rpc|claim|firmware|software)\b/.exec(path)
  return redact(match && match[1] ? path.replace(match[1], `…${match[1].slice(-4)}`) : path)
}
