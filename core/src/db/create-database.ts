// SPDX-License-Identifier: AGPL-3.0-only
import type postgres from 'postgres'

/** Makes an empty database with the collation of another one of the same server. */
export async function createDatabaseLike(sql: postgres.Sql, name: string, like: string): Promise<void> {
  // Statements about databases take no parameters, so the server itself does the quoting.
  const [row] = await sql<{ statement: string }[]>`
    select format('create database %I template template0 encoding ''UTF8''', ${name}::text) || case when datlocprovider = 'c'
      then format(' lc_collate %L lc_ctype %L', datcollate, datctype) else '' end as statement from pg_database where datname = ${like}`
  await sql.unsafe(row!.statement)
}
