// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { ProblemError, errorCodes } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { compatProblem, toCompatPage } from './compat.ts'

describe('refusals in ThingsBoard form', () => {
  it.each<[ErrorCode, number, number]>([
    ['VALIDATION_FAILED', 400, 31],
    ['UNPROCESSABLE', 400, 31],
    ['TOKEN_INVALID', 401, 10],
    ['TOKEN_EXPIRED', 401, 11],
    ['LOGIN_FAILED', 401, 10],
    ['PERMISSION_DENIED', 403, 20],
    ['NOT_FOUND', 404, 32],
    ['NAME_TAKEN', 400, 31],
    ['TOKEN_TAKEN', 400, 31],
    ['TOKEN_RESERVED', 400, 31],
    ['PRODUCT_IN_USE', 400, 31],
    ['VERSION_CONFLICT', 409, 35],
    ['BODY_TOO_LARGE', 413, 31],
    ['CONTENT_TYPE', 415, 31],
    ['RATE_LIMITED', 429, 33],
    ['LOGIN_DELAYED', 429, 33],
    ['INTERNAL', 500, 2],
    ['OVERLOADED', 503, 2],
  ])('turns %s into status %i with errorCode %i', (code, status, errorCode) => {
    const answer = compatProblem(new ProblemError(code), 1_763_690_000_123)
    expect(answer).toMatchObject({ status, body: { status, errorCode, timestamp: 1_763_690_000_123 } })
    expect(answer.body.message).not.toBe('')
  })

  it('gives every code a ThingsBoard one', () => {
    for (const code of Object.keys(errorCodes) as ErrorCode[]) {
      const { body } = compatProblem(new ProblemError(code))
      expect([2, 10, 11, 20, 31, 32, 33, 35], code).toContain(body.errorCode)
    }
  })

  it('names what is wrong with the request', () => {
    const error = new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '/name', detail: '/name is required' }] })
    expect(compatProblem(error).body.message).toBe('The request is not valid. /name is required')
  })

  it('counts pages', () => {
    expect(toCompatPage([], 0, 10, 0)).toEqual({ data: [], totalPages: 0, totalElements: 0, hasNext: false })
    expect(toCompatPage([1], 11, 10, 0)).toMatchObject({ totalPages: 2, hasNext: true })
    expect(toCompatPage([1], 10, 10, 0)).toMatchObject({ totalPages: 1, hasNext: false })
  })
})
