// SPDX-License-Identifier: AGPL-3.0-only
import { pino } from 'pino'
import type { Logger } from 'pino'

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
    formatters: { level: (label) => ({ level: label }) },
    redact: {
      paths: [
        'password',
        'token',
        'key',
        'secret',
        'authorization',
        'cookie',
        '*.password',
        '*.token',
        '*.secret',
        '*.authorization',
        '*.cookie',
      ],
      censor: '[redacted]',
    },
    hooks: { streamWrite: redact },
  })
}
