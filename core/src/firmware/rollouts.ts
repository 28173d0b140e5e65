// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { OtaKind } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { currentKeys } from './keys.ts'
import { otaStates } from './schemas.ts'
import type { DeviceOta, OtaState, Rollout, RolloutDevice, RolloutQuery } from './schemas.ts'
import { progressOf } from './targets.ts'
import type { OtaTargets } from './targets.ts'

type DeviceRow = {
  packageId: string
  title: string
  version: string
  tag: string | null
  sizeBytes: number | null
  source: 'device' | 'product'
  state: OtaState
  stateAt: number
  error: string | null
  bytesSent: number
  offeredAt: number | null
}
type RolloutRow = DeviceRow & { deviceId: string; deviceName: string; currentTitle: string | null; currentVersion: string | null }

const columns = sql`o.id as "packageId", o.title, o.version, o.tag, o.size_bytes::float8 as "sizeBytes",
  case when t.own_package_id = o.id then 'device' else 'product' end as source, t.state, floor(extract(epoch from t.state_at) * 1000)::float8 as "stateAt",
  t.error, t.bytes_sent::float8 as "bytesSent", floor(extract(epoch from t.offered_at) * 1000)::float8 as "offeredAt"`

/**
 * What a device runs, what it shall run, and what happened so far.
 *
 * @throws {ProblemError} `NOT_FOUND`
 */
export async function getDeviceOta(
  context: Context,
  parts: { targets: OtaTargets; store: TelemetryStore },
  scope: Scope,
  deviceId: string,
  kind: OtaKind,
): Promise<DeviceOta> {
  const { targets, store } = parts
  await targets.flush()
  const row = await context.db.withTenant(scope, async (tx) => {
    const [device] = await tx.execute(sql`select 1 from devices where id = ${deviceId} and deleted_at is null`)
    if (!device) throw new ProblemError('NOT_FOUND')
    const [found] = await tx.execute<DeviceRow>(sql`
      select ${columns} from ota_devices t join ota_packages o on o.tenant_id = t.tenant_id and o.id = coalesce(t.package_id, t.own_package_id)
      where t.device_id = ${deviceId} and t.kind = ${kind}`)
    return found
  })
  const latest = (await store.latest(scope, [deviceId], { keys: currentKeys(kind) })).get(deviceId)
  const [title, version] = currentKeys(kind).map((key) => latest?.find((point) => point.key === key))
  // The text is what was recognised where a product turns text into numbers.
  const target = targets.find(deviceId, kind)
  return {
    current: {
      title: title ? (target?.currentTitle ?? String(title.value)) : null,
      version: version ? (target?.currentVersion ?? String(version.value)) : null,
    },
    target: row ? { packageId: row.packageId, title: row.title, version: row.version, tag: row.tag, source: row.source } : null,
    state: row?.state ?? null,
    stateAt: row ? new Date(row.stateAt).toISOString() : null,
    error: row?.error ?? null,
    progress: row ? progressOf(row) : null,
    offeredAt: row?.offeredAt ? new Date(row.offeredAt).toISOString() : null,
    trace: await targets.trace.list(scope, deviceId, kind),
  }
}

/**
 * The devices of a package by name, with how far each is.
 *
 * @throws {ProblemError} `NOT_FOUND`
 */
export async function getRollout(
  context: Context,
  targets: OtaTargets,
  scope: Scope,
  packageId: string,
  query: RolloutQuery,
): Promise<Rollout> {
  const { limit = 50, cursor, state } = query
  const [, afterName, afterId] = cursor ? parseCursor(cursor, 3) : []
  if (cursor && (typeof afterName !== 'string' || !isUuid(afterId))) throw new ProblemError('CURSOR_INVALID')
  await targets.flush()
  const { rows, counted } = await context.db.withTenant(scope, async (tx) => {
    const [known] = await tx.execute(sql`select 1 from ota_packages where id = ${packageId}`)
    if (!known) throw new ProblemError('NOT_FOUND')
    const joined = sql`ota_devices t join devices d on d.tenant_id = t.tenant_id and d.id = t.device_id and d.deleted_at is null
      join ota_packages o on o.tenant_id = t.tenant_id and o.id = t.package_id where t.package_id = ${packageId}`
    return {
      counted: await tx.execute<{ state: OtaState; count: number }>(
        sql`select t.state, count(*)::int as count from ${joined} group by t.state`,
      ),
      rows: await tx.execute<RolloutRow>(sql`
        select d.id as "deviceId", d.name as "deviceName", t.current_title as "currentTitle", t.current_version as "currentVersion", ${columns}
        from ${joined} ${state ? sql`and t.state = ${state}` : sql``} ${cursor ? sql`and (d.name, d.id) > (${afterName}, ${afterId}::uuid)` : sql``}
        order by d.name, d.id limit ${limit + 1}`),
    }
  })
  const counts = Object.fromEntries(otaStates.map((one) => [one, 0])) as Record<OtaState, number>
  for (const { state: one, count } of counted) counts[one] = count
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  return {
    items: page.map(toRolloutDevice),
    nextCursor: rows.length > limit && last ? formatCursor(['ota', last.deviceName, last.deviceId]) : null,
    total: counted.reduce((sum, { count }) => sum + count, 0),
    counts,
  }
}

function toRolloutDevice(row: RolloutRow): RolloutDevice {
  const { deviceId, deviceName, source, state, error, currentTitle, currentVersion } = row
  return {
    deviceId,
    deviceName,
    source,
    state,
    stateAt: new Date(row.stateAt).toISOString(),
    error,
    progress: progressOf(row),
    current: { title: currentTitle, version: currentVersion },
    offeredAt: row.offeredAt ? new Date(row.offeredAt).toISOString() : null,
  }
}
