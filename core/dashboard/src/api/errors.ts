// SPDX-License-Identifier: AGPL-3.0-only

export type FieldError = { pointer: string; detail: string }

/** A refused or failed call, from problem+json or from what the network gave instead. */
export class ApiError extends Error {
  /** 0 when no answer came at all. */
  readonly status: number
  /** The server's stable code; `NETWORK`, `TIMEOUT` when no answer came, `HTTP_<status>` when it was no problem+json. */
  readonly code: string
  readonly detail: string
  readonly traceId: string | undefined
  readonly errors: readonly FieldError[]
  readonly retryAfterS: number | undefined
  /** What else the answer says, such as `limit` and `used`. */
  readonly members: Readonly<Record<string, unknown>>

  constructor(problem: {
    status: number
    code: string
    detail: string
    traceId?: string | undefined
    errors?: readonly FieldError[]
    retryAfterS?: number | undefined
    members?: Readonly<Record<string, unknown>>
  }) {
    super(problem.detail)
    this.name = 'ApiError'
    this.status = problem.status
    this.code = problem.code
    this.detail = problem.detail
    this.traceId = problem.traceId
    this.errors = problem.errors ?? []
    this.retryAfterS = problem.retryAfterS
    this.members = problem.members ?? {}
  }
}

/** Reads what a failed answer says. A proxy in between may have answered something else than a problem. */
export async function readError(response: Response): Promise<ApiError> {
  const retryAfter = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfterS = Number.isFinite(retryAfter) ? retryAfter : undefined
  let body: Record<string, unknown> = {}
  try {
    const value: unknown = await response.clone().json()
    if (typeof value === 'object' && value !== null) body = value as Record<string, unknown>
  } catch {
    // Not JSON: the status alone has to do.
  }
  const text = (name: string) => (typeof body[name] === 'string' ? body[name] : undefined)
  return new ApiError({
    status: response.status,
    code: text('code') ?? `HTTP_${response.status}`,
    detail: text('detail') ?? text('title') ?? `HTTP ${response.status}`,
    traceId: text('traceId'),
    errors: Array.isArray(body['errors']) ? body['errors'].filter(isFieldError) : [],
    retryAfterS,
    members: body,
  })
}

function isFieldError(value: unknown): value is FieldError {
  if (typeof value !== 'object' || value === null) return false
  const { pointer, detail } = value as Record<string, unknown>
  return typeof pointer === 'string' && typeof detail === 'string'
}

export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  return new ApiError({ status: 0, code: 'PAGE', detail: error instanceof Error ? error.message : String(error) })
}
