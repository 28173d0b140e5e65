// SPDX-License-Identifier: AGPL-3.0-only
import type { ErrorCode } from './api.ts'

export type FieldProblem = { pointer: string; detail: string; code?: string }

/** The server refused, with a code that stays what it is. */
export class ApiError extends Error {
  readonly status: number
  /** Of this release, or of a later one that knows more. */
  readonly code: ErrorCode | (string & {})
  /** Names the request in the server's log. */
  readonly traceId: string | undefined
  readonly errors: readonly FieldProblem[]
  readonly retryAfterMs: number | undefined

  constructor(status: number, problem: Readonly<Record<string, unknown>>, retryAfterMs: number | undefined) {
    const text = (name: string) => (typeof problem[name] === 'string' ? problem[name] : undefined)
    super(text('detail') ?? text('title') ?? `HTTP ${status}`)
    this.name = 'ApiError'
    this.status = status
    this.code = text('code') ?? `HTTP_${status}`
    this.traceId = text('traceId')
    this.errors = Array.isArray(problem['errors']) ? (problem['errors'] as FieldProblem[]) : []
    this.retryAfterMs = retryAfterMs
  }
}

/** No answer came: the server was not reached, or not in time. */
export class ConnectionError extends Error {
  constructor(message: string, cause: unknown) {
    super(message, { cause })
    this.name = 'ConnectionError'
  }
}
