// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import type { LatestPoint, TelemetryStore } from '../telemetry/store.ts'
import { toJsonValue } from '../telemetry/values.ts'
import type { Device, DeviceFacets, DeviceFilter, DeviceListQuery, DeviceSort } from './schemas.ts'
import { stateSql } from './states.ts'

/** A device row as queries of this feature read it. */
export type DeviceRow = Omit<Device, 'primary'> & { primaryKey: string | null; version: number; sortValue?: string }

const isoText = (column: SQL): SQL => sql`to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

export const deviceColumns = sql`d.id, d.name, d.label, d.description, d.product_id as "productId", p.name as "productName", ${stateSql} as state,
  d.disabled_at is not null as disabled, d.is_gateway as gateway, d.gateway_id as "gatewayId",
  (select g.name from devices g where g.tenant_id = d.tenant_id and g.id = d.gateway_id and g.deleted_at is null) as "gatewayName", d.tags, d.time_zone as "timeZone", d.inactivity_timeout_ms::float8 as "inactivityTimeoutMs",
  ${isoText(sql`d.created_at`)} as "createdAt", ${isoText(sql`d.updated_at`)} as "updatedAt", ${isoText(sql`d.last_activity_at`)} as "lastActivityAt",
  ${isoText(sql`d.last_connect_at`)} as "lastConnectAt", ${isoText(sql`d.last_disconnect_at`)} as "lastDisconnectAt",
  d.disconnect_reason as "disconnectReason", d.is_demo as "isDemo", p.settings -> 'model' ->> 'primaryKey' as "primaryKey", d.version`
export const deviceTables = sql`devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id`

/** What a device runs by its own word; known of devices that have been given an update. */
const firmwareText = sql`concat_ws(' ', o.current_title, o.current_version)`

/** Sort columns; a device that was never active counts as active at the beginning of time. */
const sortColumns: Record<DeviceSort, { column: SQL; isInstant: boolean; descending: boolean }> = {
  name: { column: sql`d.name`, isInstant: false, descending: false },
  '-name': { column: sql`d.name`, isInstant: false, descending: true },
  createdAt: { column: sql`d.created_at`, isInstant: true, descending: false },
  '-createdAt': { column: sql`d.created_at`, isInstant: true, descending: true },
  lastActivityAt: { column: sql`coalesce(d.last_activity_at, '-infinity')`, isInstant: true, descending: false },
  '-lastActivityAt': { column: sql`coalesce(d.last_activity_at, '-infinity')`, isInstant: true, descending: true },
}

/** How PostgreSQL prints a timestamptz in UTC. */
const instantText = /^(-infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00)$/

export type DevicePage = { items: Device[]; nextCursor: string | null; total?: number }

/** One page of devices with the newest value of each one's primary key. */
export async function listDevices(context: Context, store: TelemetryStore, scope: Scope, query: DeviceListQuery): Promise<DevicePage> {
  const limit = query.limit ?? 50
  const sort = query.sort ?? '-createdAt'
  const { column, descending } = sortColumns[sort]
  const where = filterSql(query)
  const direction = descending ? sql`desc` : sql`asc`
  const after = query.cursor ? cursorSql(query.cursor, sort) : sql``
  const { rows, total } = await context.db.withTenant(scope, async (tx) => ({
    rows: await tx.execute<DeviceRow>(sql`select ${deviceColumns}, ${column}::text as "sortValue" from ${deviceTables}
      where ${where} ${after} order by ${column} ${direction}, d.id ${direction} limit ${limit + 1}`),
    total: query.count ? await tx.execute<{ count: string }>(sql`select count(*) as count from ${deviceTables} where ${where}`) : undefined,
  }))
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  return {
    items: await withPrimary(store, scope, page),
    nextCursor: rows.length > limit && last ? formatCursor([sort, last.sortValue ?? null, last.id]) : null,
    ...(total ? { total: Number(total[0]?.count ?? 0) } : {}),
  }
}

/** How many devices each state, product, tag and firmware has within the filter. */
export async function countFacets(context: Context, scope: Scope, filter: DeviceFilter): Promise<DeviceFacets> {
  const where = filterSql(filter)
  return context.db.withTenant(scope, async (tx) => {
    const counts = async (rows: SQL) =>
      [...(await tx.execute<{ value: string; label?: string | null; count: string }>(rows))].map(({ value, label, count }) => ({
        value,
        ...(label ? { label } : {}),
        count: Number(count),
      }))
    const state = await counts(
      sql`select ${stateSql} as value, count(*) as count from ${deviceTables} where ${where} group by 1 order by 1`,
    )
    return {
      state,
      product: await counts(
        sql`select p.id as value, p.name as label, count(*) as count from ${deviceTables} where ${where} group by 1, 2 order by 3 desc, 2 limit 50`,
      ),
      tag: await counts(
        sql`select t.tag as value, count(*) as count from ${deviceTables} cross join unnest(d.tags) as t (tag) where ${where} group by 1 order by 2 desc, 1 limit 50`,
      ),
      firmware: await counts(
        sql`select ${firmwareText} as value, count(*) as count from ${deviceTables}
          join ota_devices o on o.tenant_id = d.tenant_id and o.device_id = d.id and o.kind = 'firmware' and o.current_version is not null
          where ${where} group by 1 order by 2 desc, 1 limit 50`,
      ),
      total: state.reduce((sum, one) => sum + one.count, 0),
    }
  })
}

/** Adds to each row the newest point of the product's primary key, else of the first key the device sent. */
export async function withPrimary(store: TelemetryStore, scope: Scope, rows: readonly DeviceRow[]): Promise<Device[]> {
  const byKey = Map.groupBy(rows, (row) => row.primaryKey)
  const found = new Map<string, LatestPoint | undefined>()
  for (const [key, group] of byKey) {
    const latest = await store.latest(
      scope,
      group.map((row) => row.id),
      key === null ? { maxKeys: 1 } : { keys: [key] },
    )
    for (const [id, points] of latest) found.set(id, points[0])
  }
  return rows.map((row) => {
    const { primaryKey: _, version: __, sortValue: ___, ...device } = row
    const point = found.get(row.id)
    return { ...device, primary: point ? { key: point.key, ts: point.ts, value: toJsonValue(point), kind: point.kind } : null }
  })
}

function filterSql(filter: DeviceFilter): SQL {
  const parts = [sql`d.deleted_at is null`]
  if (filter.q) {
    const pattern = `%${filter.q.replace(/[\\%_]/g, '\\$&')}%`
    parts.push(
      sql`(d.name ilike ${pattern} or d.label ilike ${pattern} or d.id::text like ${`${filter.q.toLowerCase().replace(/[\\%_]/g, '\\$&')}%`})`,
    )
  }
  if (filter.state) parts.push(sql`(${stateSql}) = ${filter.state}`)
  if (filter.productId) parts.push(sql`d.product_id = ${filter.productId}`)
  if (filter.gatewayId) parts.push(sql`d.gateway_id = ${filter.gatewayId}`)
  if (filter.tag) parts.push(sql`d.tags @> array[${filter.tag}]::text[]`)
  if (filter.firmware) {
    parts.push(sql`exists (select 1 from ota_devices o where o.tenant_id = d.tenant_id and o.device_id = d.id and o.kind = 'firmware'
      and o.current_version is not null and ${firmwareText} = ${filter.firmware})`)
  }
  if (filter.lastSeenBefore) parts.push(sql`d.last_activity_at < ${filter.lastSeenBefore}::timestamptz`)
  if (filter.disabled !== undefined) parts.push(sql`(d.disabled_at is not null) = ${filter.disabled}`)
  return sql.join(parts, sql` and `)
}

function cursorSql(cursor: string, sort: DeviceSort): SQL {
  const { column, isInstant, descending } = sortColumns[sort]
  const [cursorSort, value, id] = parseCursor(cursor, 3)
  const isValue = typeof value === 'string' && (!isInstant || instantText.test(value))
  if (cursorSort !== sort || !isValue || !isUuid(id)) throw new ProblemError('CURSOR_INVALID')
  const typed = isInstant ? sql`${value}::timestamptz` : sql`${value}::text`
  return descending ? sql`and (${column}, d.id) < (${typed}, ${id}::uuid)` : sql`and (${column}, d.id) > (${typed}, ${id}::uuid)`
}
