// SPDX-License-Identifier: AGPL-3.0-only
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { Device } from '../ingest/registry.ts'
import type { FirstStore } from './first-store.ts'
import { heldBytes, newestOf, readLatest } from './latest-read.ts'
import type { FoundValue, LatestQuestion, LatestSource, Newest } from './latest-read.ts'
import type { Point } from './points.ts'
import type { LatestOptions, LatestPoint, StoredPoint } from './store.ts'

/** Values kept in memory over all devices. The devices that were asked for longest ago go first. */
const defaultMaxBytes = 40_000_000
/** Devices looked after at once; others get their turn between. */
const devicesAtOnce = 100
/** A device with so few keys is loaded whole, whichever of them is asked for. */
const fewKeys = 100

type Values = Map<string, Newest>
/** Newest value of each key of a device; complete once it was loaded. */
type Known = { no: number; id: string; tenantId: string; values: Values; bytes: number; loading: Promise<void> | undefined }
/** What is to be answered of a device; points that are long texts are still missing. */
type Choice = { no: number; id: string; chosen: [string, Newest][] }

/**
 * Newest values of devices somebody asked for as a whole, followed from commit to commit. They are kept nowhere
 * but in chunks and segments, and read from there after a start: nothing to lose, nothing to repair. Long texts
 * are read each time.
 */
export class LatestValues {
  readonly #context: Context
  readonly #source: LatestSource
  readonly #maxBytes: number
  /** By the device's number, in the order in which they were asked for. */
  readonly #known = new Map<number, Known>()
  readonly #numbers = new Map<string, number>()
  #bytes = 0
  #unsubscribe: (() => void) | undefined

  constructor(context: Context, first: FirstStore, maxBytes = defaultMaxBytes) {
    this.#context = context
    this.#maxBytes = maxBytes
    this.#source = {
      db: context.db,
      first,
      onDamaged: (err, deviceNo) => context.log.error({ err, deviceNo }, 'a chunk is damaged: its newest value cannot be read'),
    }
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

  /** Bytes of the values in memory, roughly. */
  get bytes(): number {
    return this.#bytes
  }

  /** After the commit of a message: a greater ts wins, and at the same ts the later write [V-8]. */
  follow(device: Device, points: readonly Point[]): void {
    const known = this.#known.get(device.no)
    if (!known) return
    for (const point of points) {
      const value = known.values.get(point.key)
      if (value && point.ts < value.ts) continue
      if (value && !isText(value.point) && !isText(point)) {
        // A number for a number takes no other room: at 100,000 points a second each object made counts.
        value.ts = point.ts
        value.point = point
        continue
      }
      this.#set(known, point.key, newestOf(device.keyNos?.get(point.key) ?? 0, point))
    }
    if (this.#bytes > this.#maxBytes) this.#trim()
  }

  /** Forgets what a deletion may have changed. */
  forget(deviceNo: number): void {
    const known = this.#known.get(deviceNo)
    if (!known) return
    this.#bytes -= known.bytes
    this.#known.delete(deviceNo)
    this.#numbers.delete(known.id)
  }

  /** What is in chunks of these keys (undefined: of the first ones a device sent), kept nowhere. */
  async readMerged(scope: Scope, deviceNos: readonly number[], keys: readonly string[] | undefined, take: (found: FoundValue[]) => void) {
    const options = keys ? { keys } : { maxKeys: fewKeys }
    for (let start = 0; start < deviceNos.length; start += devicesAtOnce) {
      await readLatest(this.#source, { scope, deviceNos: deviceNos.slice(start, start + devicesAtOnce), options, isMerged: true }, take)
    }
  }

  async read(scope: Scope, deviceIds: readonly string[], options: LatestOptions): Promise<Map<string, LatestPoint[]>> {
    const latest = new Map<string, LatestPoint[]>(deviceIds.map((id) => [id, []]))
    const ids = [...latest.keys()]
    for (let start = 0; start < ids.length; start += devicesAtOnce) {
      if (start > 0) await nextTurn()
      const choices = await this.#choose(scope, ids.slice(start, start + devicesAtOnce), options)
      const long = await this.#readLong(scope, choices)
      for (const { no, id, chosen } of choices) {
        const points = chosen.flatMap(([key, { point }]): LatestPoint[] => {
          const found = point ?? long.get(no)?.get(key)
          return found ? [{ ...found, key }] : []
        })
        latest.set(id, points)
      }
    }
    return latest
  }

  async #choose(scope: Scope, ids: readonly string[], options: LatestOptions): Promise<Choice[]> {
    const asked: Known[] = []
    const others: string[] = []
    for (const id of ids) {
      const known = this.#find(scope, id)
      if (known) asked.push(known)
      else others.push(id)
    }
    if (others.length > 0) asked.push(...(await this.#load(scope, others, options)))
    const choices: Choice[] = []
    for (const known of asked) {
      if (known.loading) await known.loading
      choices.push({ no: known.no, id: known.id, chosen: choose(known.values, options) })
    }
    return choices
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
  async #load(scope: Scope, deviceIds: readonly string[], options: LatestOptions): Promise<Known[]> {
    const devices = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ id: string; number: number; few: boolean }>(
        sql`select id, number, telemetry_has_few_keys(number, ${fewKeys}) as few from devices
          where id = any(${sql.param(deviceIds)}::uuid[]) and deleted_at is null`,
      ),
    )
    // What is kept are all values of a device. Where it has many, and some are asked for, those are read and not kept.
    const isWhole = options.keys === undefined && options.maxKeys === undefined
    const kept = new Map<number, Known>()
    const passing = new Map<number, Known>()
    const all = devices.map(({ id, number: no, few }) => {
      const found = this.#known.get(no)
      if (found) return found
      const known: Known = { no, id, tenantId: scope.tenantId, values: new Map(), bytes: 0, loading: undefined }
      if (isWhole || few) {
        kept.set(no, known)
        this.#known.set(no, known)
        this.#numbers.set(id, no)
      } else passing.set(no, known)
      return known
    })
    for (const [fresh, asked] of [
      [kept, {}],
      [passing, options],
    ] as const) {
      if (fresh.size === 0) continue
      const loading = this.#complete(fresh, { scope, deviceNos: [...fresh.keys()], options: asked })
      for (const known of fresh.values()) known.loading = loading
      // Whoever waits for it hears of a failure.
      loading.catch(() => {})
    }
    return all
  }

  async #complete(fresh: ReadonlyMap<number, Known>, question: LatestQuestion): Promise<void> {
    try {
      await readLatest(this.#source, question, (values) => {
        for (const { deviceNo, key, keyNo, ts, point } of values) {
          const known = fresh.get(deviceNo)!
          const followed = known.values.get(key)
          if (!followed || followed.ts < ts) this.#set(known, key, { keyNo, ts, point })
        }
        this.#trim()
      })
    } catch (error) {
      for (const [no, known] of fresh) if (this.#known.get(no) === known) this.forget(no)
      throw error
    }
    for (const known of fresh.values()) known.loading = undefined
  }

  #set(known: Known, key: string, value: Newest): void {
    const before = known.values.get(key)
    const more = heldBytes(value.point) - (before ? heldBytes(before.point) : 0)
    known.values.set(key, value)
    known.bytes += more
    if (this.#known.get(known.no) === known) this.#bytes += more
  }

  /** Whoever waits for a device that is forgotten here still gets its values. */
  #trim(): void {
    for (const no of this.#known.keys()) {
      if (this.#bytes <= this.#maxBytes) return
      this.forget(no)
    }
  }

  /** Values of an answer that are too long to be kept, by device number and key. */
  async #readLong(scope: Scope, choices: readonly Choice[]): Promise<Map<number, Map<string, StoredPoint>>> {
    const found = new Map<number, Map<string, StoredPoint>>()
    const long = new Map<number, Set<number>>()
    const keys = new Set<string>()
    for (const { no, chosen } of choices) {
      const missing = chosen.filter(([, { point }]) => !point)
      if (missing.length > 0) long.set(no, new Set(missing.map(([, { keyNo }]) => keyNo)))
      for (const [key] of missing) keys.add(key)
    }
    if (long.size === 0) return found
    await readLatest(this.#source, { scope, deviceNos: [...long.keys()], options: { keys: [...keys] }, long }, (values) => {
      for (const { deviceNo, key, keyNo, point } of values) {
        if (!point || !long.get(deviceNo)!.has(keyNo)) continue
        const byKey = found.get(deviceNo) ?? new Map<string, StoredPoint>()
        found.set(deviceNo, byKey.set(key, point))
      }
    })
    return found
  }
}

/** The named keys, or the first ones the device has ever sent, or all; in the order of their names. */
function choose(values: Values, { keys, maxKeys }: LatestOptions): [string, Newest][] {
  let chosen = [...values]
  if (keys) {
    const wanted = new Set(keys)
    chosen = chosen.filter(([key]) => wanted.has(key))
  }
  if (maxKeys !== undefined) chosen = chosen.sort(([, a], [, b]) => a.keyNo - b.keyNo).slice(0, maxKeys)
  return chosen.sort(([a], [b]) => (a < b ? -1 : 1))
}

/** Whether the room a value takes depends on it; of a long text only the time is held. */
function isText(point: StoredPoint | undefined): boolean {
  return point === undefined || point.kind === 'string' || point.kind === 'json'
}
