// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import { ChunkDamaged, decodeChunk } from './chunk-codec.ts'
import type { FirstStore } from './first-store.ts'
import type { Point } from './points.ts'
import { RowCursor, decodeEnds } from './segment-rows.ts'
import type { LatestOptions, LatestPoint, StoredPoint } from './store.ts'

/** Values kept in memory over all devices: some 40 MB. The devices that were asked for longest ago go first. */
const defaultMaxValues = 200_000
const endOfTime = Number.MAX_SAFE_INTEGER

type Value = { keyNo: number; point: StoredPoint }
/** Newest value of each key of a device; complete once it was loaded. */
type Known = { id: string; tenantId: string; values: Map<string, Value>; loading: Promise<void> | undefined }

/**
 * Newest values of devices somebody asked for, followed from commit to commit. They are kept nowhere but in
 * chunks and segments, and read from there after a start: nothing to lose, nothing to repair.
 */
export class LatestValues {
  readonly #context: Context
  readonly #first: FirstStore
  readonly #maxValues: number
  /** By the device's number, in the order in which they were asked for. */
  readonly #known = new Map<number, Known>()
  readonly #numbers = new Map<string, number>()
  #count = 0
  #unsubscribe: (() => void) | undefined

  constructor(context: Context, first: FirstStore, maxValues = defaultMaxValues) {
    this.#context = context
    this.#first = first
    this.#maxValues = maxValues
  }

  start(): void {
    this.#unsubscribe = this.#context.events.on('device.changed', ({ deviceId, change }) => {
      const no = this.#numbers.get(deviceId)
      if (change === 'deleted' && no !== undefined) this.forget(no)
    })
  }

  stop(): void {
    this.#unsubscribe?.()
    for (const no of this.#known.keys()) this.forget(no)
  }

  /** After the commit of a message: a greater ts wins, and at the same ts the later write [V-8]. */
  follow(device: Device, points: readonly Point[]): void {
    const known = this.#known.get(device.no)
    if (!known) return
    for (const point of points) {
      const value = known.values.get(point.key)
      if (value === undefined) this.#count++
      else if (point.ts < value.point.ts) continue
      known.values.set(point.key, { keyNo: device.keyNos?.get(point.key) ?? 0, point })
    }
  }

  /** Forgets what a deletion may have changed. */
  forget(deviceNo: number): void {
    const known = this.#known.get(deviceNo)
    if (!known) return
    this.#count -= known.values.size
    this.#known.delete(deviceNo)
    this.#numbers.delete(known.id)
  }

  async read(scope: Scope, deviceIds: readonly string[], options: LatestOptions): Promise<Map<string, LatestPoint[]>> {
    const latest = new Map<string, LatestPoint[]>(deviceIds.map((id) => [id, []]))
    const asked: Known[] = []
    const others: string[] = []
    for (const id of latest.keys()) {
      const known = this.#find(scope, id)
      if (known) asked.push(known)
      else others.push(id)
    }
    if (others.length > 0) asked.push(...(await this.#load(scope, others)))
    for (const known of asked) {
      if (known.loading) await known.loading
      latest.set(known.id, choose(known.values, options))
    }
    this.#trim()
    return latest
  }

  /** What is in memory already, when the caller may see all devices of its tenant. */
  #find(scope: Scope, deviceId: string): Known | undefined {
    const no = this.#numbers.get(deviceId)
    const known = no === undefined ? undefined : this.#known.get(no)
    if (!known || known.tenantId !== scope.tenantId || scope.customerIds) return undefined
    // To the end: asked for last.
    this.#known.delete(no!)
    this.#known.set(no!, known)
    return known
  }

  /** Devices the caller may see. What is committed while the question runs is followed already, so that no value is missed. */
  async #load(scope: Scope, deviceIds: readonly string[]): Promise<Known[]> {
    const devices = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string; number: number }>(
        sql`select id, number from devices where id = any(${sql.param(deviceIds)}::uuid[]) and deleted_at is null`,
      ),
    )
    const fresh = new Map<number, Known>()
    const all = devices.map(({ id, number }) => {
      const known = this.#known.get(number) ?? { id, tenantId: scope.tenantId, values: new Map<string, Value>(), loading: undefined }
      if (!this.#known.has(number)) fresh.set(number, known)
      this.#known.set(number, known)
      this.#numbers.set(id, number)
      return known
    })
    if (fresh.size === 0) return all
    const ask = () =>
      this.#context.db.withTenant(scope, (tx) =>
        readLatest(tx, this.#first, [...fresh.keys()], (error, deviceNo) => this.#tellDamaged(error, deviceNo)),
      )
    const asked = ask().catch(async (error: unknown) => {
      if (await this.#first.wentWith(error)) return ask()
      throw error
    })
    const loading = asked.then(
      (found) => {
        for (const [no, known] of fresh) this.#complete(no, known, found.get(no)!)
      },
      (error: unknown) => {
        for (const [no, known] of fresh) if (this.#known.get(no) === known) this.forget(no)
        throw error
      },
    )
    for (const known of fresh.values()) known.loading = loading
    // Whoever waits for it hears of a failure.
    loading.catch(() => {})
    return all
  }

  #complete(no: number, known: Known, found: ReadonlyMap<string, Value>): void {
    known.loading = undefined
    for (const [key, value] of found) {
      const followed = known.values.get(key)
      if (followed && followed.point.ts >= value.point.ts) continue
      if (!followed && this.#known.get(no) === known) this.#count++
      known.values.set(key, value)
    }
  }

  #trim(): void {
    for (const no of this.#known.keys()) {
      if (this.#count <= this.#maxValues) return
      this.forget(no)
    }
  }

  #tellDamaged(error: ChunkDamaged, deviceNo: number): void {
    this.#context.log.error({ err: error, deviceNo }, 'a chunk is damaged: its newest value cannot be read')
  }
}

type Row = {
  device_no: number
  key: string
  key_no: number
  first_ts: string | null
  last_ts: string | null
  ends: Buffer | null
  points: Buffer | null
}

/** From what is stored: segments first, since their points move into chunks. */
async function readLatest(
  tx: Tx,
  first: FirstStore,
  deviceNos: readonly number[],
  onDamaged: (error: ChunkDamaged, deviceNo: number) => void,
): Promise<Map<number, Map<string, Value>>> {
  const numbers = sql.param(deviceNos)
  const tail = await tx.execute<{ device_no: number; points: Buffer }>(
    sql`select * from telemetry_tail(${numbers}::int4[], 0, ${endOfTime})`,
  )
  const oldest = await first.latest(tx, deviceNos)
  const chunks = await tx.execute<Row>(sql`select * from telemetry_last_chunks(${numbers}::int4[], null, null)`)
  const newest = new Map<number, Map<number, StoredPoint>>(deviceNos.map((no) => [no, new Map()]))
  for (const { device_no, points } of tail) {
    const byKey = newest.get(device_no)!
    for (const cursor = new RowCursor(points); cursor.next();) {
      if (cursor.ts >= (byKey.get(cursor.keyNo)?.ts ?? 0)) byKey.set(cursor.keyNo, cursor.point())
    }
  }
  const old = new Map(oldest.map((point) => [`${point.deviceNo} ${point.key}`, point]))
  const found = new Map<number, Map<string, Value>>(deviceNos.map((no) => [no, new Map()]))
  for (const row of chunks) {
    let point = newest.get(row.device_no)!.get(row.key_no)
    if (row.last_ts !== null && Number(row.last_ts) > (point?.ts ?? 0)) point = lastOf(row, onDamaged) ?? point
    const before = old.get(`${row.device_no} ${row.key}`)
    if (before && before.ts > (point?.ts ?? 0)) {
      const { deviceNo: _, key: __, ...rest } = before
      point = rest
    }
    if (point) found.get(row.device_no)!.set(row.key, { keyNo: row.key_no, point })
  }
  return found
}

function lastOf(row: Row, onDamaged: (error: ChunkDamaged, deviceNo: number) => void): StoredPoint | undefined {
  if (row.ends) return decodeEnds(row.ends, Number(row.first_ts), Number(row.last_ts)).last
  try {
    return decodeChunk(row.points!).at(-1)
  } catch (error) {
    if (!(error instanceof ChunkDamaged)) throw error
    onDamaged(error, row.device_no)
    return undefined
  }
}

/** The named keys, or the first ones the device has ever sent, or all; in the order of their names. */
function choose(values: ReadonlyMap<string, Value>, { keys, maxKeys }: LatestOptions): LatestPoint[] {
  let chosen = [...values]
  if (keys) {
    const wanted = new Set(keys)
    chosen = chosen.filter(([key]) => wanted.has(key))
  }
  if (maxKeys !== undefined) chosen = chosen.sort(([, a], [, b]) => a.keyNo - b.keyNo).slice(0, maxKeys)
  return chosen.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, { point }]) => ({ ...point, key }))
}
