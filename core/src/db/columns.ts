// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { bigint, customType, jsonb, timestamp } from 'drizzle-orm/pg-core'

/** Kinds of columns that the tables share. */
export const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' })
export const instant = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' })
export const ms = (name: string) => bigint(name, { mode: 'number' })
export const json = <T>(name: string) =>
  jsonb(name)
    .$type<T>()
    .notNull()
    .default(sql`'{}'`)
