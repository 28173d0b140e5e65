// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { Rule, Settings } from './schemas.ts'

/** Beside what people set: filters of earlier settings, which are taken out of the broker's session. */
export type StoredSettings = Settings & { rules: Rule[]; formerTopics: string[] }

export type ConnectorRow = {
  id: string
  name: string
  isEnabled: boolean
  settings: StoredSettings
  sealedPassword: string | null
  /** Null as soon as the device is deleted, be it only to the bin. */
  deviceId: string | null
  version: number
  createdAt: number
  updatedAt: number
}

const columns = sql`c.id, c.name, c.is_enabled as "isEnabled", c.settings, c.sealed_password as "sealedPassword", d.id as "deviceId", c.version,
  floor(extract(epoch from c.created_at) * 1000)::float8 as "createdAt", floor(extract(epoch from c.updated_at) * 1000)::float8 as "updatedAt"`
const tables = sql`connectors c left join devices d on d.tenant_id = c.tenant_id and d.id = c.device_id and d.deleted_at is null`

/** @throws {ProblemError} `NOT_FOUND` */
export async function getRow(tx: Tx, id: string): Promise<ConnectorRow> {
  const [row] = await tx.execute<ConnectorRow>(sql`select ${columns} from ${tables} where c.id = ${id}`)
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

export async function listEnabled(tx: Tx): Promise<ConnectorRow[]> {
  return tx.execute<ConnectorRow>(sql`select ${columns} from ${tables} where c.is_enabled order by c.name`)
}

/** By name. @throws {ProblemError} `CURSOR_INVALID` */
export async function listRows(tx: Tx, limit: number, cursor?: string): Promise<{ rows: ConnectorRow[]; nextCursor: string | null }> {
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
  const rows = await tx.execute<ConnectorRow>(
    sql`select ${columns} from ${tables} ${cursor ? sql`where c.name > ${after}` : sql``} order by c.name limit ${limit + 1}`,
  )
  const page = rows.slice(0, limit)
  return { rows: page, nextCursor: rows.length > limit ? formatCursor(['connectors', page.at(-1)!.name]) : null }
}

export async function insertRow(
  tx: Tx,
  { tenantId }: Scope,
  row: Pick<ConnectorRow, 'id' | 'name' | 'isEnabled' | 'settings' | 'sealedPassword'>,
): Promise<void> {
  await tx.execute(sql`
    insert into connectors (tenant_id, id, name, is_enabled, settings, sealed_password)
    values (${tenantId}, ${row.id}, ${row.name}, ${row.isEnabled}, ${JSON.stringify(row.settings)}::jsonb, ${row.sealedPassword})`)
}

/** @throws {ProblemError} `VERSION_CONFLICT` when somebody else was faster */
export async function updateRow(tx: Tx, row: Omit<ConnectorRow, 'createdAt' | 'updatedAt' | 'deviceId'>): Promise<void> {
  const updated = await tx.execute(sql`
    update connectors set name = ${row.name}, is_enabled = ${row.isEnabled}, settings = ${JSON.stringify(row.settings)}::jsonb,
      sealed_password = ${row.sealedPassword}, version = version + 1, updated_at = now()
    where id = ${row.id} and version = ${row.version} returning id`)
  if (updated.length === 0) throw new ProblemError('VERSION_CONFLICT')
}

export async function setDevice(tx: Tx, id: string, deviceId: string): Promise<void> {
  await tx.execute(sql`update connectors set device_id = ${deviceId} where id = ${id}`)
}
