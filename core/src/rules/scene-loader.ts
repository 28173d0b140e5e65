// SPDX-License-Identifier: AGPL-3.0-only
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import type { LogPosition } from '../telemetry/segments.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import type { LiveRules } from './live-rules.ts'
import type { DeviceCard, LiveScene } from './live-scene.ts'
import { loadAttributes } from './rule-loader.ts'
import type { RuleInForce } from './rule-loader.ts'
import { toRuleValue } from './values.ts'

/** Work between two looks at sockets. */
export const sliceMs = 5
/** Devices whose values are read at a time. */
const devicesAtOnce = 1000
/** What a window looks back at is read for so many series at a time. */
const seriesAtOnce = 8

/** Brings what is stored of devices to the rules: attributes, newest values, samples of windows, and what is to be judged again. */
export class SceneLoader {
  readonly #context: Context
  readonly #store: TelemetryStore
  readonly #live: LiveRules

  constructor(context: Context, { store, live }: { store: TelemetryStore; live: LiveRules }) {
    this.#context = context
    this.#store = store
    this.#live = live
  }

  async loadAttributes(tenant: Scope, cards: readonly DeviceCard[], names: ReadonlySet<string>): Promise<void> {
    for (let start = 0; start < cards.length && names.size > 0; start += devicesAtOnce) {
      const ids = cards.slice(start, start + devicesAtOnce).map(({ id }) => id)
      const found = await this.#context.db.withTenant(tenant, (tx) => loadAttributes(tx, ids, names))
      for (const { deviceId, name, value } of found) this.#live.scenes.get(deviceId)?.setAttribute(name, value)
    }
  }

  /** What devices had sent before `from`: what is in segments first, since it moves into chunks. */
  async loadBase(from: LogPosition, keys: readonly string[] | undefined): Promise<void> {
    const byNo = this.#scenesByNo()
    for await (const page of this.#store.readLog(undefined, from)) {
      for (const { tenantNo, deviceNo, points } of page) {
        const scene = byNo.get(`${tenantNo} ${deviceNo}`)
        for (const point of scene ? points : []) seed(scene!, point.key, point.ts, toRuleValue(point))
      }
      await nextTurn()
    }
    await this.#loadMerged([...this.#live.scenes.values()], keys)
  }

  #scenesByNo(): Map<string, LiveScene> {
    return new Map([...this.#live.scenes.values()].map((scene) => [`${scene.card.tenantNo} ${scene.card.no}`, scene]))
  }

  async #loadMerged(scenes: readonly LiveScene[], keys: readonly string[] | undefined): Promise<void> {
    if (keys?.length === 0) return
    for (const [tenantId, some] of Map.groupBy(scenes, ({ card }) => card.tenantId)) {
      const byNo = new Map(some.map((scene) => [scene.card.no, scene]))
      const { tenantNo } = some[0]!.card
      await this.#store.readMerged({ tenantId, tenantNo }, [...byNo.keys()], keys, (found) => {
        for (const { deviceNo, key, point } of found) if (point) seed(byNo.get(deviceNo)!, key, point.ts, toRuleValue(point))
      })
    }
  }

  /** Samples of windows are not stored: they are read from telemetry, up to what is known [5.3]. */
  async seedWindows(scenes: readonly LiveScene[]): Promise<void> {
    const wanted = scenes.flatMap((scene) => [...scene.values.samples].map(([key, samples]) => ({ scene, key, samples })))
    for (let start = 0; start < wanted.length; start += seriesAtOnce) {
      const some = wanted.slice(start, start + seriesAtOnce).map(async ({ scene, key, samples }) => {
        const newest = scene.values.slots.get(key)
        if (!newest) return
        const { tenantId, tenantNo } = scene.card
        const range = { deviceId: scene.id, key, from: newest.ts - 2 * samples.windowMs, to: newest.ts + 1 }
        const older: { ts: number; value: ReturnType<typeof toRuleValue> }[] = []
        for await (const block of this.#store.read({ tenantId, tenantNo }, range)) {
          for (const point of block) older.push({ ts: point.ts, value: toRuleValue(point) })
        }
        samples.prepend(older)
      })
      await Promise.all(some)
    }
  }

  /** Judges what was committed from `from` on, up to what is taken by itself since the start. */
  async replay(from: LogPosition, checkpointAt: number): Promise<void> {
    const { clock } = this.#context
    const byNo = this.#scenesByNo()
    // Rows of before may have their commit still to come; those are taken by themselves.
    const { segmentNo, seq } = this.#store.position
    let until = clock.monotonic() + sliceMs
    for await (const page of this.#store.readLog(from, { segmentNo, seq })) {
      for (const { tenantNo, deviceNo, points } of page) {
        const scene = byNo.get(`${tenantNo} ${deviceNo}`)
        if (!scene) continue
        // Nobody wrote down when it came: not before the checkpoint, and not after now.
        const newest = Math.max(...points.map(({ ts }) => ts))
        const receivedAt = Math.min(Math.max(newest, checkpointAt), clock.now())
        this.#live.judge(scene.id, points, receivedAt)
        if (clock.monotonic() < until) continue
        await nextTurn()
        until = clock.monotonic() + sliceMs
      }
    }
  }

  /** Reads what rules need to know of devices that nobody has followed so far. */
  async prepare(tenant: Scope, scenes: readonly LiveScene[], rules: readonly RuleInForce[]): Promise<void> {
    for (const { compiled } of rules) {
      for (const [key, windowMs] of compiled.reads.keys) if (windowMs > 0) for (const scene of scenes) scene.values.hold(key, windowMs)
    }
    const names = new Set(rules.flatMap(({ compiled }) => [...compiled.reads.attributes]))
    await this.loadAttributes(
      tenant,
      scenes.map(({ card }) => card),
      names,
    )
    const isAny = rules.some(({ compiled }) => compiled.reads.isAnyKey)
    const keys = [...new Set(rules.flatMap(({ compiled }) => [...compiled.reads.keys.keys()]))]
    const wanted = isAny || keys.length > 0 ? scenes : []
    for (let start = 0; start < wanted.length; start += devicesAtOnce) {
      const some = wanted.slice(start, start + devicesAtOnce)
      const latest = await this.#store.latest(
        tenant,
        some.map(({ id }) => id),
        isAny ? { maxKeys: 100 } : { keys },
      )
      for (const scene of some) {
        for (const point of latest.get(scene.id) ?? []) {
          // A key that is followed already knows what was judged; what is stored may be ahead of that.
          const isFollowed = scene.lane.rules.some(({ reads }) => reads.isAnyKey || reads.keys.has(point.key))
          if (!isFollowed) seed(scene, point.key, point.ts, toRuleValue(point))
        }
      }
    }
    if (rules.some(({ compiled }) => [...compiled.reads.keys.values()].some((windowMs) => windowMs > 0))) await this.seedWindows(scenes)
  }
}

function seed(scene: LiveScene, key: string, ts: number, value: ReturnType<typeof toRuleValue>): void {
  scene.values.seed(key, { ts, value, previous: undefined, receivedAt: ts })
}
