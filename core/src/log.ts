// SPDX-License-Identifier: AGPL-3.0-only
import { DrizzleQueryError } from 'drizzle-orm'
import { pino } from 'pino'
import type { Logger } from 'pino'
import { sqlStateOf } from './db/errors.ts'

export type Log = Logger

/** Shapes of secrets: device tokens, API keys, JWTs. Only the last four characters survive. */
const secretShapes = /\b(?:pmsd_|pmsk_)[A-Za-z0-9]{8,}|eyJ[\w-]+\.[\w-]+\.[\w-]*/g

/** Masks secrets inside any text that is about to be logged or shown. */
export function redact(text: string): string {
  return text.replace(secretShapes, (secret) => `…${secret.slice(-4)}`)
}

/**
 * JSON lines on standard output, times in UTC. User text is a field, never the message.
 */
export function createLog(level: string): Log {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: serializeError },
    formatters: { level: (label) => ({ level: label }) },
    redact: {
      paths: ['password', 'token', 'secret', 'authorization', 'cookie', '*.password', '*.token', '*.secret', '*.authorization', '*.cookie'],
      censor: '[redacted]',
    },
    hooks: { streamWrite: redact },
  })
}

/** Longest cause chain that is followed. */
const maxCauses = 3

/**
 * What a log line says of an error. The message and parameters of drizzle's errors hold the values of
 * the statement, which are never logged [SC-100]: their statement and their cause say enough.
 */
export function serializeError(error: unknown, depth = 0): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: redact(String(error)) }
  const cause = error.cause === undefined || depth >= maxCauses ? {} : { cause: serializeError(error.cause, depth + 1) }
  if (error instanceof DrizzleQueryError) {
    return { type: 'DrizzleQueryError', query: error.query.replaceAll(/\s+/g, ' ').slice(0, 500), ...cause }
  }
  const { code } = error as { code?: unknown }
  // PostgreSQL quotes the value it refuses (SQLSTATE classes 22 and 23): the code has to do.
  if (/^2[23]/.test(sqlStateOf(error) ?? '')) return { type: error.name, code, ...cause }
  return { type: error.name, message: redact(error.message), ...(code === undefined ? {} : { code }), stack: error.stack, ...cause }
}
