// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { LatestValue } from '../devices/schemas.ts'
import { stateSql } from '../devices/states.ts'
import { Id, Instant } from '../http/schemas.ts'
import type { IngestCounters } from './ingest-counters.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { toJsonValue } from '../telemetry/values.ts'

const Counts = Type.Object({
  total: Type.Integer(),
  online: Type.Integer(),
  offline: Type.Integer(),
  never: Type.Integer(),
  disabled: Type.Integer(),
})

export const Overview = Type.Object({
  devices: Counts,
  ingest: Type.Object({
    messagesPerMinute: Type.Integer(),
    pointsPerMinute: Type.Integer(),
    rejectsPerMinute: Type.Integer(),
    /** `[start of the minute in ms, points, rejects]`, the last 24 h, minutes with traffic only. */
    series: Type.Array(Type.Array(Type.Number())),
  }),
  attention: Type.Array(
    Type.Object({
      kind: Type.String(),
      deviceId: Id,
      deviceName: Type.String(),
      at: Instant,
      count: Type.Integer(),
      detail: Type.String(),
    }),
  ),
  recent: Type.Array(Type.Object({ deviceId: Id, deviceName: Type.String(), ...LatestValue.properties })),
  checklist: Type.Object({ firstDevice: Type.Boolean(), firstPoint: Type.Boolean(), https: Type.Boolean() }),
})
export type Overview = Static<typeof Overview>

export type OverviewParts = { store: TelemetryStore; counters: IngestCounters }

/** The figures of the first page in one answer. */
export async function readOverview(context: Context, parts: OverviewParts, scope: Scope, isHttps: boolean): Promise<Overview> {
  await parts.counters.flush()
  const found = await context.db.withTenant(scope, async (tx) => ({
    devices: await countDevices(tx),
    series: await readSeries(tx),
    attention: await readAttention(tx),
    recent: await tx.execute<{ id: string; name: string }>(sql`
      select id, name from devices where deleted_at is null and last_activity_at is not null order by last_activity_at desc, id limit 8`),
  }))
  const latest = await parts.store.latest(
    scope,
    found.recent.map((row) => row.id),
    { maxKeys: 1 },
  )
  const recent = found.recent.flatMap((row) => {
    const point = latest.get(row.id)?.[0]
    return point
      ? [{ deviceId: row.id, deviceName: row.name, key: point.key, ts: point.ts, value: toJsonValue(point), kind: point.kind }]
      : []
  })
  const rates = parts.counters.perMinute(scope)
  return {
    devices: found.devices,
    ingest: { messagesPerMinute: rates.messages, pointsPerMinute: rates.points, rejectsPerMinute: rates.rejects, series: found.series },
    attention: found.attention,
    recent,
    checklist: { firstDevice: found.devices.total > 0, firstPoint: recent.length > 0, https: isHttps },
  }
}

export async function countDevices(tx: Tx): Promise<Overview['devices']> {
  const rows = await tx.execute<{ state: 'never' | 'online' | 'offline'; disabled: boolean; count: string }>(sql`
    select ${stateSql} as state, d.disabled_at is not null as disabled, count(*) as count
    from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id where d.deleted_at is null group by 1, 2`)
  const counts = { total: 0, online: 0, offline: 0, never: 0, disabled: 0 }
  for (const row of rows) {
    const count = Number(row.count)
    counts.total += count
    counts[row.state] += count
    if (row.disabled) counts.disabled += count
  }
  return counts
}

async function readSeries(tx: Tx): Promise<number[][]> {
  const rows = await tx.execute<{ at: number; points: string; rejects: string }>(sql`
    select (extract(epoch from minute) * 1000)::float8 as at, points, rejects from ingest_minutes where minute > now() - interval '24 hours' order by minute`)
  return rows.map((row) => [row.at, Number(row.points), Number(row.rejects)])
}

/** What somebody should look at: refused data, clients that push each other out, devices gone silent. */
async function readAttention(tx: Tx): Promise<Overview['attention']> {
  const rows = await tx.execute<{ kind: string; id: string; name: string; at: number; count: string; detail: string }>(sql`
    select * from (
      (select 'rejects' as kind, d.id, d.name, extract(epoch from max(r.last_at))::float8 * 1000 as at, sum(r.count) as count, (array_agg(r.code order by r.last_at desc))[1] as detail
        from device_rejects r join devices d on d.id = r.device_id where d.deleted_at is null and r.last_at > now() - interval '24 hours'
        group by d.id, d.name order by at desc limit 12)
      union all
      (select 'takeover_loop', d.id, d.name, extract(epoch from max(l.at))::float8 * 1000, count(*), ''
        from device_log l join devices d on d.id = l.device_id where d.deleted_at is null and l.event = 'takeover_loop' and l.at > now() - interval '24 hours'
        group by d.id, d.name limit 12)
      union all
      (select 'silent', d.id, d.name, extract(epoch from d.last_activity_at)::float8 * 1000, 1, coalesce(d.disconnect_reason, '')
        from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id
        where d.deleted_at is null and d.disabled_at is null and (${stateSql}) = 'offline' and d.last_activity_at > now() - interval '7 days'
        order by d.last_activity_at desc limit 12)
    ) found order by kind = 'silent', at desc limit 12`)
  return rows.map((row) => ({
    kind: row.kind,
    deviceId: row.id,
    deviceName: row.name,
    at: new Date(row.at).toISOString(),
    count: Number(row.count),
    detail: row.detail,
  }))
}
