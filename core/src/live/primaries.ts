// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { deviceColumns, deviceTables, withPrimary } from '../devices/list.ts'
import type { DeviceRow } from '../devices/list.ts'
import type { Device } from '../devices/schemas.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Point } from '../telemetry/points.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { toJsonValue } from '../telemetry/values.ts'

/** Newest value of a device's primary key, as the list of devices shows it. */
export type Primary = NonNullable<Device['primary']>

type Watched = {
  scope: Scope
  productId: string
  /** Key its product names; null: the first one the device has sent, the one with the lowest number. */
  key: string | null
  newest: Primary | undefined
  isLoaded: boolean
  /** Messages that came before what was loaded; they are judged after it. */
  early: Stored[]
}

/** So many are kept at most; a look-up takes a few ms. */
const maxEarly = 100

/**
 * What the list of devices shows as their values, kept up to date for devices that are being watched,
 * so that a late point never passes for the current one [V-8]. Costs one look at each of their messages.
 */
export class Primaries {
  readonly #context: Context
  readonly #store: TelemetryStore
  readonly #late: (last: Stored) => void
  readonly #watched = new Map<string, Watched>()

  /** `late` hears of the last message that was told without a value, once the value is known. */
  constructor(context: Context, store: TelemetryStore, late: (last: Stored) => void) {
    this.#context = context
    this.#store = store
    this.#late = late
  }

  /** @returns what stops it */
  start(): () => void {
    const { events } = this.#context
    const stops = [
      events.on('product.changed', ({ productId }) => this.#reload((one) => one.productId === productId)),
      events.on('device.changed', ({ deviceId, change }) => {
        if (change === 'updated') this.#reload((one) => one === this.#watched.get(deviceId))
      }),
    ]
    return () => stops.forEach((stop) => stop())
  }

  async watch(scope: Scope, deviceIds: readonly string[]): Promise<void> {
    const fresh = deviceIds.filter((id) => !this.#watched.get(id)?.isLoaded)
    for (const id of fresh) this.#watched.set(id, { scope, productId: '', key: null, newest: undefined, isLoaded: false, early: [] })
    if (fresh.length > 0) await this.#load(scope, fresh)
  }

  forget(deviceId: string): void {
    this.#watched.delete(deviceId)
  }

  /** The newest value of a watched device; undefined when it has none or is not known yet. */
  get(deviceId: string): Primary | undefined {
    return this.#watched.get(deviceId)?.newest
  }

  /** Takes in a message of a watched device. */
  take(stored: Stored): void {
    const { device, points } = stored
    const watched = this.#watched.get(device.id)
    if (!watched) return
    if (!watched.isLoaded) {
      watched.early.push(stored)
      if (watched.early.length > maxEarly) watched.early.shift()
      return
    }
    const key = watched.key ?? firstKey(watched.newest?.key, device.keyNos, points)
    let newest: Point | Primary | undefined = watched.newest?.key === key ? watched.newest : undefined
    // Equal times: written last.
    for (const point of points) if (point.key === key && point.ts >= (newest?.ts ?? 0)) newest = point
    if (newest === watched.newest) return
    watched.newest = newest && { key: newest.key, ts: newest.ts, value: toJsonValue(newest as Point), kind: newest.kind }
  }

  #reload(isAsked: (one: Watched) => boolean): void {
    const asked = [...this.#watched].filter(([, one]) => isAsked(one))
    for (const [scope, entries] of Map.groupBy(asked, ([, one]) => one.scope)) {
      for (const [, one] of entries) one.isLoaded = false
      const ids = entries.map(([id]) => id)
      this.#load(scope, ids).catch((error: unknown) => {
        this.#context.log.warn({ err: error }, 'live values do not follow a change')
        for (const [, one] of entries) one.isLoaded = true
      })
    }
  }

  async #load(scope: Scope, ids: readonly string[]): Promise<void> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<DeviceRow>(
        sql`select ${deviceColumns} from ${deviceTables} where d.id = any(${sql.param(ids)}::uuid[]) and d.deleted_at is null`,
      ),
    )
    const devices = await withPrimary(this.#store, scope, rows)
    for (const [index, { id, productId, primary }] of devices.entries()) {
      const watched = this.#watched.get(id)
      if (!watched) continue
      const early = watched.early.splice(0)
      Object.assign(watched, { productId, key: rows[index]!.primaryKey, newest: primary ?? undefined, isLoaded: true })
      for (const stored of early) this.take(stored)
      const last = early.at(-1)
      if (last) this.#late(last)
    }
  }
}

/** Of the key so far and those of a message the one with the lowest number, as the store orders them. */
function firstKey(
  known: string | undefined,
  numbers: ReadonlyMap<string, number> | undefined,
  points: readonly Point[],
): string | undefined {
  const numberOf = (key: string) => numbers?.get(key) ?? Number.POSITIVE_INFINITY
  let first = known ?? points[0]?.key
  for (const { key } of points) if (key !== first && (first === undefined || numberOf(key) < numberOf(first))) first = key
  return first
}
