// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'

/**
 * The version a caller has seen, from `If-Match`; undefined when any will do.
 *
 * @throws {ProblemError} `VERSION_CONFLICT` for a tag that was never ours
 */
export function parseIfMatch(header: string | undefined): number | undefined {
  if (header === undefined || header === '*') return undefined
  const version = Number(/^"(\d+)"$/.exec(header)?.[1])
  if (!Number.isSafeInteger(version)) throw new ProblemError('VERSION_CONFLICT')
  return version
}
