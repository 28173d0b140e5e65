// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { Counter } from 'prom-client'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { sqlStateOf } from '../db/errors.ts'
import { listTenants } from '../db/installation.ts'
import type { Freed, TelemetryStore } from '../telemetry/store.ts'
import { planRetention } from './retention-plan.ts'
import type { DeviceGroup } from './retention-plan.ts'
import { listAllRules } from './retention-rules.ts'
import type { RuleDraft } from './retention-rules.ts'

const everyMs = 3_600_000
/** Soon, so that a server that is often started anew comes to it, but not while everybody reconnects. */
const firstAfterMs = 120_000
const dayMs = 86_400_000
/** The store takes at most so many devices at a time. A run begins with few, and takes more as long as that is quick [RE-81]. */
const mostDevices = 1000
const firstDevices = 50
/** SQLSTATE query_canceled: the time of a statement was over. */
const canceled = '57014'
const slowMs = 1000
const quickMs = 200
/** After a step the database has as long for others as the step took. */
const longestPauseMs = 1000
/** A preview that would take longer says how far it came. */
const previewMs = 8000

type Store = Pick<TelemetryStore, 'listKeys' | 'previewRetention' | 'applyRetention'>
type Step = { rule: RuleDraft; deviceNos: number[]; keyNos: number[] | undefined; before: number }

export type RuleDraftPlace = Omit<RuleDraft, 'id'>

export type RetentionPreview = {
  items: (RuleDraft & { cutoff: number; releases: { points: number; bytes: number; oldestTs: number | null } })[]
  /** False when there was no time to look at everything: it will be more. */
  isComplete: boolean
  nextAt: number
}

/** Removes points that the rules no longer keep, every hour and when the disk gets full [RE-81]. */
export class Retention {
  readonly #context: Context
  readonly #store: Store
  readonly #removed: { points: Counter; bytes: Counter }
  #cancelTimer: (() => void) | undefined
  #nextAt: number
  #running: Promise<void> | undefined
  #previews: Promise<unknown> = Promise.resolve()
  #isStopped = false
  #leaveEvents: (() => void) | undefined

  constructor(context: Context, store: Store, metrics: Registry) {
    this.#context = context
    this.#store = store
    this.#nextAt = context.clock.now() + firstAfterMs
    const counter = (name: string, help: string) => new Counter({ name, help, registers: [metrics] })
    this.#removed = {
      points: counter('iot_pms_retention_points_total', 'Points removed by retention rules'),
      bytes: counter('iot_pms_retention_bytes_total', 'Bytes of rows removed by retention rules'),
    }
  }

  start(): void {
    const { events } = this.#context
    this.#leaveEvents ??= events.on('disk.level', ({ level, before }) => {
      const isWorse = (level === 'high' && before !== 'critical') || level === 'critical'
      if (isWorse) void this.run()
    })
    this.#schedule(firstAfterMs)
  }

  /** What runs breaks off after its step; the next start goes on with it. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelTimer?.()
    this.#leaveEvents?.()
    await this.#running
  }

  /** Never fails, and never runs twice at a time: whoever calls meanwhile gets the run under way. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
    return this.#running
  }

  /**
   * What the next run would remove by each rule of the tenant; with `draft` as if that were the rule of its place.
   * One at a time: it reads the heads of all chunks of the devices concerned.
   */
  preview(scope: Scope, draft?: RuleDraftPlace): Promise<RetentionPreview> {
    const result = this.#previews.then(() => this.#preview(scope, draft))
    this.#previews = result.catch(() => undefined)
    return result
  }

  #schedule(inMs: number): void {
    if (this.#isStopped) return
    this.#nextAt = this.#context.clock.now() + inMs
    this.#cancelTimer = this.#context.clock.after(inMs, () => {
      this.#schedule(everyMs)
      void this.run()
    })
  }

  async #run(): Promise<void> {
    const { db, log } = this.#context
    const tenants = await listTenants(db).catch((error: unknown) => {
      if (!this.#isStopped) log.warn({ err: error }, 'retention could not list the tenants')
      return []
    })
    for (const tenant of tenants) {
      if (this.#isStopped) return
      await this.#runTenant(tenant).catch((error: unknown) => {
        if (!this.#isStopped) log.warn({ err: error, tenant: tenant.tenantId }, 'retention failed and is tried again in an hour')
      })
    }
  }

  async #runTenant(scope: Scope): Promise<void> {
    const rules = await listAllRules(this.#context, scope)
    const total = { chunks: 0, points: 0, bytes: 0 }
    const size = { devices: firstDevices }
    for await (const step of this.#steps(scope, rules, size)) {
      if (this.#isStopped) break
      const freed = await this.#apply(scope, step, size)
      total.chunks += freed.chunks
      total.points += freed.points
      total.bytes += freed.bytes
    }
    if (total.chunks > 0) {
      const draft = { type: 'retention.run', subject: '-', actor: 'job:retention', changes: { from: total, to: null } }
      await this.#context.audit.note(scope, draft)
      this.#context.log.info({ tenant: scope.tenantId, ...total }, 'removed what the retention rules no longer keep')
    }
  }

  /** One step, in halves when the database did not come to its end in time. */
  async #apply(scope: Scope, step: Step, size: { devices: number }): Promise<Omit<Freed, 'oldestTs'>> {
    const startedAt = performance.now()
    try {
      const freed = await this.#store.applyRetention(scope.tenantNo, step)
      const tookMs = performance.now() - startedAt
      if (tookMs > slowMs) size.devices = Math.max(1, size.devices >> 1)
      else if (tookMs < quickMs) size.devices = Math.min(mostDevices, size.devices * 2)
      this.#removed.points.inc(freed.points)
      this.#removed.bytes.inc(freed.bytes)
      if (freed.chunks > 0) await sleep(Math.min(longestPauseMs, tookMs), undefined, { ref: false })
      return freed
    } catch (error) {
      const middle = step.deviceNos.length >> 1
      if (sqlStateOf(error) !== canceled || middle === 0) throw error
      size.devices = middle
      const first = await this.#apply(scope, { ...step, deviceNos: step.deviceNos.slice(0, middle) }, size)
      const second = await this.#apply(scope, { ...step, deviceNos: step.deviceNos.slice(middle) }, size)
      return { chunks: first.chunks + second.chunks, points: first.points + second.points, bytes: first.bytes + second.bytes }
    }
  }

  async #preview(scope: Scope, draft: RuleDraftPlace | undefined): Promise<RetentionPreview> {
    const { clock } = this.#context
    const stored = await listAllRules(this.#context, scope)
    const rules = draft ? withDraft(stored, draft) : stored
    const found = new Map<RuleDraft, Freed>()
    const endAt = clock.monotonic() + previewMs
    let isComplete = true
    for await (const step of this.#steps(scope, rules, { devices: mostDevices })) {
      isComplete = clock.monotonic() < endAt && !this.#isStopped
      if (!isComplete) break
      const freed = await this.#store.previewRetention(scope.tenantNo, step)
      found.set(step.rule, addFreed(found.get(step.rule), freed))
    }
    const now = clock.now()
    const items = rules.map((rule) => {
      const { points = 0, bytes = 0, oldestTs = null } = found.get(rule) ?? {}
      return { ...rule, cutoff: cutoffOf(rule, now), releases: { points, bytes, oldestTs } }
    })
    return { items, isComplete, nextAt: this.#nextAt }
  }

  /** The plan as steps the store can take; `size.devices` may change on the way. */
  async *#steps(scope: Scope, rules: readonly RuleDraft[], size: { devices: number }): AsyncGenerator<Step> {
    if (!rules.some((rule) => rule.keepDays !== null)) return
    const keys = rules.some((rule) => rule.keyPattern !== null) ? await this.#store.listKeys(scope) : []
    const now = this.#context.clock.now()
    for (const group of planRetention(rules, keys)) {
      for (let after = 0; ;) {
        const deviceNos = await this.#listDevices(scope, group, after, size.devices)
        const last = deviceNos.at(-1)
        if (last === undefined) break
        for (const { rule, keyNos } of group.shares) yield { rule, deviceNos, keyNos, before: cutoffOf(rule, now) }
        after = last
      }
    }
  }

  /** Those in the bin as well: their points come back with them, and age meanwhile. */
  async #listDevices(scope: Scope, { productId, exceptProductIds }: DeviceGroup, after: number, limit: number): Promise<number[]> {
    const isMember =
      productId === undefined ? sql`product_id <> all(${`{${exceptProductIds.join(',')}}`}::uuid[])` : sql`product_id = ${productId}`
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ number: number }>(
        sql`select number from devices where ${isMember} and number > ${after} order by number limit ${limit}`,
      ),
    )
    return rows.map((row) => row.number)
  }
}

/** Points before this are past their time; 0 where all are kept. */
function cutoffOf({ keepDays }: RuleDraft, now: number): number {
  return keepDays === null ? 0 : Math.max(0, now - keepDays * dayMs)
}

function withDraft(rules: readonly RuleDraft[], draft: RuleDraftPlace): RuleDraft[] {
  const isSamePlace = (rule: RuleDraft) => rule.productId === draft.productId && rule.keyPattern === draft.keyPattern
  return [...rules.filter((rule) => !isSamePlace(rule)), { ...draft, id: rules.find(isSamePlace)?.id ?? null }]
}

function addFreed(a: Freed | undefined, b: Freed): Freed {
  if (!a) return b
  const oldest = [a.oldestTs, b.oldestTs].filter((ts) => ts !== null)
  return {
    chunks: a.chunks + b.chunks,
    points: a.points + b.points,
    bytes: a.bytes + b.bytes,
    oldestTs: oldest.length > 0 ? Math.min(...oldest) : null,
  }
}
