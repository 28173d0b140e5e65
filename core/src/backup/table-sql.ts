// SPDX-License-Identifier: AGPL-3.0-only
import { quote, quoteName } from './catalog.ts'
import type { BackupTable } from './manifest.ts'

/** Statements about tables. Names cannot be bound as parameters; here every one of them is quoted. */
type Named = { schema: string; name: string }

export function takeRole(role: string): string {
  return `set role ${quote(role)}`
}

/** Until the end of the transaction. */
export function takeLocalRole(role: string): string {
  return `set local role ${quote(role)}`
}

/** Nobody waits for it but who would take the table away. */
export function keepTables(tables: readonly Named[]): string {
  return `lock table ${tables.map(quoteName).join(', ')} in access share mode`
}

export function selectTable(table: BackupTable): string {
  return `select ${table.columns.map(quote).join(', ')} from ${quoteName(table)}`
}

export function copyIntoTable(table: BackupTable): string {
  return `copy ${quoteName(table)} (${table.columns.map(quote).join(', ')}) from stdin (format binary)`
}

export function emptyTable(table: Named): string {
  return `truncate ${quoteName(table)}`
}

export function analyzeTable(table: Named): string {
  return `analyze ${quoteName(table)}`
}

/** One row: `count`. */
export function countRows(table: Named): string {
  return `select count(*) as count from ${quoteName(table)}`
}

/** $1 the table's quoted name. One row: whether its isolation binds its owner, and whether it has rows. */
export function describeTable(table: Named): string {
  return `select relforcerowsecurity as forced, exists (select from ${quoteName(table)}) as filled from pg_class where oid = $1::regclass`
}

export function forceIsolation(table: Named, isForced: boolean): string {
  return `alter table ${quoteName(table)} ${isForced ? '' : 'no '}force row level security`
}

/** @param table as the server itself writes it @param definition the same */
export function addConstraint(table: string, name: string, definition: string): string {
  return `alter table ${table} add constraint ${quote(name)} ${definition}`
}

/** @param table as the server itself writes it */
export function dropConstraint(table: string, name: string): string {
  return `alter table ${table} drop constraint ${quote(name)}`
}
