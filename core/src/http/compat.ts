// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { TSchema } from 'typebox'
import { ProblemError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { parseJsonBody } from './body-text.ts'
import { Id } from './schemas.ts'
import type { App } from './server.ts'

/** What ThingsBoard-style calls of several features share (device API §16.1). */

/** `errorCode` of an error body [TB-3]. */
const compatCodes = {
  general: 2,
  authentication: 10,
  tokenExpired: 11,
  permission: 20,
  badRequest: 31,
  notFound: 32,
  tooManyRequests: 33,
  versionConflict: 35,
} as const

/** Codes whose status or sentence scripts compare with ThingsBoard's own. */
const exceptions: Partial<Record<ErrorCode, { status?: number; errorCode?: number; message?: string }>> = {
  NAME_TAKEN: { status: 400, message: 'Device with such name already exists!' },
  TOKEN_TAKEN: { status: 400, message: 'Device credentials are already assigned to another device!' },
  // Clients sign in again on 11 instead of giving up.
  TOKEN_EXPIRED: { errorCode: compatCodes.tokenExpired },
  LOGIN_FAILED: { message: 'Invalid username or password' },
  PERMISSION_DENIED: { message: "You don't have permission to perform this operation!" },
  VERSION_CONFLICT: { status: 409, errorCode: compatCodes.versionConflict },
}

export type CompatError = { status: number; message: string; errorCode: number; timestamp: number }

/** The body and status of a refusal on compat routes [TB-3]; always in English, as scripts expect it. */
export function compatProblem(error: ProblemError, now = Date.now()): { status: number; body: CompatError } {
  const exception = exceptions[error.code]
  // ThingsBoard has one answer to every request that makes no sense.
  const status = exception?.status ?? ([409, 422].includes(error.status) ? 400 : error.status)
  const details = error.errors?.map((one) => one.detail).join(' ')
  const message = exception?.message ?? (details ? `${error.message} ${details}` : error.message)
  return { status, body: { status, message, errorCode: exception?.errorCode ?? codeOfStatus(status), timestamp: now } }
}

function codeOfStatus(status: number): number {
  switch (status) {
    case 401:
      return compatCodes.authentication
    case 403:
      return compatCodes.permission
    case 404:
      return compatCodes.notFound
    case 429:
      return compatCodes.tooManyRequests
    default:
      return status < 500 ? compatCodes.badRequest : compatCodes.general
  }
}

/** ThingsBoard's "no customer" [TB-2]. */
export const noCustomerId = '13814000-1dd2-11b2-8080-808080808080'

export const EntityId = Type.Object({ entityType: Type.String(), id: Id })

export function entityId<T extends string>(entityType: T, id: string): { entityType: T; id: string } {
  return { entityType, id }
}

/** An id as bodies carry it: only its uuid counts. */
export const GivenId = Type.Object({ id: Id })

/** Members of the query of a page [TB-5]. */
export const compatPageQuery = {
  pageSize: Type.Integer({ minimum: 1, maximum: 1000 }),
  page: Type.Integer({ minimum: 0, maximum: 1_000_000 }),
  textSearch: Type.String({ maxLength: 255 }),
  sortProperty: Type.Union(['createdTime', 'name', 'type', 'label'].map((name) => Type.Literal(name))),
  sortOrder: Type.Union([Type.Literal('ASC'), Type.Literal('DESC')]),
}

export function CompatPage<T extends TSchema>(item: T) {
  return Type.Object({ data: Type.Array(item), totalPages: Type.Integer(), totalElements: Type.Integer(), hasNext: Type.Boolean() })
}

export function toCompatPage<T>(data: T[], totalElements: number, pageSize: number, page: number) {
  const totalPages = Math.ceil(totalElements / pageSize)
  return { data, totalPages, totalElements, hasNext: page + 1 < totalPages }
}

const bodyTypes = ['application/json', 'text/plain', '']

/**
 * Registers compat routes in a scope of their own where a body is JSON whether its type is
 * `application/json`, `text/plain` or missing, and may be empty [TB-4].
 */
export async function registerCompatScope(app: App, register: (scope: App) => void | Promise<void>): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => {
      const type = (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase()
      if (!bodyTypes.includes(type)) return done(new ProblemError('CONTENT_TYPE'))
      if (body === '') return done(null, undefined)
      try {
        done(null, parseJsonBody(request, String(body)))
      } catch (error) {
        done(error as ProblemError)
      }
    })
    await register(scope)
  })
}
