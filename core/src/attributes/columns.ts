// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { kindNumbers, valueKinds } from '../telemetry/points.ts'
import type { TypedValue } from '../telemetry/points.ts'

/** `client`: written by the device; `shared`: written by users, pushed to the device; `server`: never sent to it. */
export const attributeScopes = ['client', 'shared', 'server'] as const
export type AttributeScope = (typeof attributeScopes)[number]

/** An attribute as it is stored. */
export type StoredAttribute = TypedValue & {
  key: string
  /** ms since 1970, server clock */
  updatedAt: number
}

/** A value as a row holds it; integers as text, since JSON numbers would round them. */
export type ValueColumns = { kind: number; num?: number | null; big?: string | null; txt?: string | null }

/** Columns of `device_attributes a` that {@link fromColumns} and a list need. */
export const attributeColumns = sql`a.key, a.kind, a.num, a.big::text as big, a.txt, floor(extract(epoch from a.updated_at) * 1000)::float8 as "updatedAt"`

export function toColumns(value: TypedValue): ValueColumns {
  const kind = kindNumbers[value.kind]
  switch (value.kind) {
    case 'double':
      return { kind, num: value.value }
    case 'integer':
    case 'boolean':
      return { kind, big: String(BigInt(value.value)) }
    case 'string':
    case 'json':
      return { kind, txt: value.value }
  }
}

export function fromColumns({ kind, num, big, txt }: ValueColumns): TypedValue {
  const name = valueKinds.find((one) => kindNumbers[one] === kind)
  switch (name) {
    case 'double':
      return { kind: name, value: Number(num) }
    case 'integer': {
      const value = Number(big)
      return { kind: name, value: Number.isSafeInteger(value) ? value : BigInt(big ?? '0') }
    }
    case 'boolean':
      return { kind: name, value: big === '1' }
    case 'string':
    case 'json':
      return { kind: name, value: txt ?? '' }
    case undefined:
      throw new Error(`no kind of value has the number ${kind}`)
  }
}

export function toStored(row: ValueColumns & { key: string; updatedAt: number }): StoredAttribute {
  return { key: row.key, updatedAt: row.updatedAt, ...fromColumns(row) }
}
