// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import { toJsonValue } from '../telemetry/values.ts'
import type { App } from './server.ts'

/** JSON as it was sent: a parsed number may have lost digits. */
const texts = new WeakMap<FastifyRequest, string>()

/**
 * Parses a JSON body, and keeps its text for {@link exactMember}.
 *
 * @throws {ProblemError} `VALIDATION_FAILED`
 */
export function parseJsonBody(request: FastifyRequest, text: string): unknown {
  texts.set(request, text)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ProblemError('VALIDATION_FAILED', { cause: error, errors: [{ pointer: '', detail: 'The body is not valid JSON.' }] })
  }
}

/**
 * Has the JSON bodies of a scope kept as text.
 *
 * @param names `any`: also `__proto__` and the like, which are names as any other in data [V-3]; `plain`: those are
 *   refused, as everywhere else
 */
export function keepBodyTexts(scope: App, names: 'any' | 'plain'): void {
  const parsePlain = scope.getDefaultJsonParser('error', 'error')
  scope.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (names === 'plain') {
      texts.set(request, body)
      return parsePlain(request, body, done)
    }
    try {
      done(null, parseJsonBody(request, body))
    } catch (error) {
      done(error as ProblemError)
    }
  })
}

/** A member of the body as JSON text, numbers with all their digits; `null` when it is missing. */
export function exactMember(request: FastifyRequest, name: string): string {
  const body = toJsonValue({ kind: 'json', value: texts.get(request) ?? 'null' })
  const members = new Map(Object.entries((body ?? {}) as Record<string, unknown>))
  return JSON.stringify(members.get(name) ?? null)
}
