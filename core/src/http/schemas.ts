// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static, TSchema } from 'typebox'
import { ProblemError } from '../errors.ts'

/** Shapes that routes of several features share. */

export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
  traceId: Type.String(),
  errors: Type.Optional(Type.Array(Type.Object({ pointer: Type.String(), detail: Type.String(), code: Type.Optional(Type.String()) }))),
})
export type Problem = Static<typeof Problem>

/** The shared schema by its name, so that openapi.json holds it once. */
const ProblemRef = Type.Unsafe<Problem>({ $ref: 'Problem#' })

/** Response schemas of the refusals a route can give: `...problems(401, 403)`. */
export function problems<S extends number>(...statuses: S[]): Record<S, typeof ProblemRef> {
  return Object.fromEntries(statuses.map((status) => [status, ProblemRef])) as Record<S, typeof ProblemRef>
}

export const NoContent = Type.Null({ description: 'Nothing.' })
export const Id = Type.String({ format: 'uuid' })
/** RFC 3339 in UTC. */
export const Instant = Type.String({ format: 'date-time' })
export const IdParams = Type.Object({ id: Id })

export function Nullable<T extends TSchema>(schema: T) {
  return Type.Union([schema, Type.Null()])
}

/** Members of the query of every list. */
export const pageQuery = {
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, default: 50 })),
  cursor: Type.Optional(Type.String({ maxLength: 500 })),
}

export function Page<T extends TSchema>(item: T) {
  return Type.Object({ items: Type.Array(item), nextCursor: Nullable(Type.String()) })
}

/** An opaque cursor from the sort values of a page's last row. */
export function formatCursor(values: readonly (string | number | null)[]): string {
  return Buffer.from(JSON.stringify(values)).toString('base64url')
}

/** @throws {ProblemError} `CURSOR_INVALID` unless it holds exactly `length` sort values. */
export function parseCursor(cursor: string, length: number): (string | number | null)[] {
  let values: unknown
  try {
    values = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
  } catch (error) {
    throw new ProblemError('CURSOR_INVALID', { cause: error })
  }
  const isValue = (one: unknown): one is string | number | null => one === null || typeof one === 'string' || typeof one === 'number'
  if (!Array.isArray(values) || values.length !== length || !values.every(isValue)) throw new ProblemError('CURSOR_INVALID')
  return values
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** For ids inside cursors, which no schema has checked. */
export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && uuid.test(value)
}
