// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { classifyDbError, sqlStateOf } from '../db/errors.ts'
import { ProblemError, toProblem } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { languageOf } from './actor.ts'
import type { App } from './server.ts'

/** Largest body of the native API. */
export const maxBodyBytes = 1_048_576

export type CompatProblem = (error: ProblemError) => { status: number; body: unknown }

/** Answers every error as problem+json, or as a compat route's own form. */
export function useErrors(
  app: App,
  compatProblem: CompatProblem,
  denied: (request: FastifyRequest, code: string) => void = () => {},
): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = asProblemError(error, request)
    if (problem.status >= 500 && problem.code === 'INTERNAL') {
      request.log.error({ err: error, route: request.routeOptions.url, traceId: request.id }, 'request failed')
    }
    if (problem.status === 403) denied(request, problem.code)
    return sendProblem(request, reply, problem, compatProblem)
  })
  app.setNotFoundHandler((request, reply) => sendProblem(request, reply, new ProblemError('NOT_FOUND'), compatProblem))
}

function sendProblem(request: FastifyRequest, reply: FastifyReply, error: ProblemError, compatProblem: CompatProblem): FastifyReply {
  if (error.retryAfterS !== undefined) reply.header('retry-after', String(error.retryAfterS))
  if (request.routeOptions.config.compat) {
    const { status, body } = compatProblem(error)
    return reply.code(status).type('application/json').send(JSON.stringify(body))
  }
  const problem = toProblem(error, languageOf(request), request.id)
  return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem))
}

/** One place turns what Fastify and the parsers throw into our codes. */
function asProblemError(error: FastifyError | ProblemError, request: FastifyRequest): ProblemError {
  if (error instanceof ProblemError) return error
  // What is no id at all is as unknown as an id of nobody.
  if (error.validationContext === 'params' && !request.routeOptions.config.compat) return new ProblemError('NOT_FOUND', { cause: error })
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
      return new ProblemError(request.routeOptions.config.tooLarge ?? 'BODY_TOO_LARGE', {
        params: { limit: request.routeOptions.bodyLimit },
        cause: error,
      })
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ProblemError('CONTENT_TYPE', { cause: error })
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new ProblemError('VALIDATION_FAILED', { cause: error, errors: [{ pointer: '', detail: 'The body is not valid JSON.' }] })
    default:
      if (isDatabaseAway(error)) return new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5, cause: error })
      if (isUnstorableText(error)) {
        return new ProblemError('VALIDATION_FAILED', {
          cause: error,
          errors: [{ pointer: '', detail: 'A text holds the character U+0000.' }],
        })
      }
      // Fastify's own 4xx answers (malformed URL, …) are the caller's fault; everything else is ours.
      return error.statusCode && error.statusCode < 500
        ? new ProblemError('VALIDATION_FAILED', { cause: error })
        : new ProblemError('INTERNAL', { cause: error })
  }
}

/** PostgreSQL has no U+0000, in text (22021) or in JSON (22P05); only a caller's text can hold one. */
function isUnstorableText(error: unknown): boolean {
  return ['22021', '22P05'].includes(sqlStateOf(error) ?? '')
}

/** Missing rights of our own login are a mistake of ours and no passing trouble. */
function isDatabaseAway(error: unknown): boolean {
  return classifyDbError(error) === 'unavailable' && sqlStateOf(error) !== '42501'
}
