// SPDX-License-Identifier: AGPL-3.0-only
import { DrizzleQueryError } from 'drizzle-orm'

/** What the driver threw: drizzle wraps it and puts statement and parameters into its own message. */
export function unwrapDbError(error: unknown): unknown {
  return error instanceof DrizzleQueryError ? error.cause : error
}

/** SQLSTATE of an error that PostgreSQL itself reported; undefined for every other error. */
export function sqlStateOf(error: unknown): string | undefined {
  const { code, severity } = (unwrapDbError(error) ?? {}) as { code?: unknown; severity?: unknown }
  return typeof severity === 'string' && typeof code === 'string' ? code : undefined
}

export function isUniqueViolation(error: unknown): boolean {
  return sqlStateOf(error) === '23505'
}

/** Somebody must act before the database takes anything again: wrong password, missing database, missing rights. */
export function needsAdministrator(error: unknown): boolean {
  return /^(28|3D|42501)/.test(sqlStateOf(error) ?? '')
}

const connectionCodes = /^(E[A-Z]+|EAI_AGAIN|CONNECT_TIMEOUT|CONNECTION_[A-Z]+|COPY_TIMEOUT)$/
/** Messages of the drivers for errors that carry no code. */
const connectionMessages =
  /^(Connection terminated|Connection ended|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error)/

/**
 * Sorts what a statement throws [RE-40, RE-41]: `data` is the fault of a value (SQLSTATE classes 22, 23);
 * `unavailable` is the fault of no value and passes by itself or by an administrator: lost connections,
 * shutdown, locks, time-outs, a full disk, a refused login. Never judged by a text that may hold values.
 */
export function classifyDbError(error: unknown): 'data' | 'unavailable' | 'unknown' {
  const state = sqlStateOf(error)
  if (state !== undefined) {
    if (/^2[23]/.test(state)) return 'data'
    // 55000 is also what a database says that takes no connections for a while.
    const passes = /^(08|28|3D|53|57|58)/.test(state) || ['25006', '40001', '40P01', '42501', '55000', '55P03'].includes(state)
    return passes ? 'unavailable' : 'unknown'
  }
  const { code, message } = (unwrapDbError(error) ?? {}) as { code?: unknown; message?: unknown }
  // Codes of sockets and of postgres.js. ERR_* are Node's complaints about an argument: a mistake of ours, which no waiting mends.
  if (typeof code === 'string') return connectionCodes.test(code) ? 'unavailable' : 'unknown'
  return connectionMessages.test(String(message)) ? 'unavailable' : 'unknown'
}
