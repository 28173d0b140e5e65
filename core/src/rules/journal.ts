// SPDX-License-Identifier: AGPL-3.0-only
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { readAlarms } from '../alarms/alarm-rows.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import type { Language } from '../errors.ts'
import type { LogPosition } from '../telemetry/segments.ts'
import { titleOf, triggerOf } from './alarm-text.ts'
import type { CompiledRule } from './compile-rule.ts'
import type { Pair } from './lane.ts'
import type { Judged, LiveRules } from './live-rules.ts'
import { writeSlots } from './live-scene.ts'
import type { LiveScene } from './live-scene.ts'
import { isDefault } from './pair.ts'
import type { Transition } from './pair.ts'
import type { RuleInForce } from './rule-loader.ts'
import { writeChanges } from './rule-writer.ts'
import type { AlarmStep, PairChange, Told, ValuesChange } from './rule-writer.ts'

/** What was judged is stored at the latest after so long [5.2]. */
const flushMs = 200
const checkpointMs = 1000
const retryMs = 500
/** Pairs of one transaction, about. */
const pairsAtOnce = 2000
/** An event that is told so long after its time is late [7.1]. */
const lateMs = 900_000
const checkpointName = 'rules'

export type Checkpoint = { position: LogPosition; at: number }
type Dirty = { rule: RuleInForce; scene: LiveScene; pair: Pair; told: Told[] }
type Batch = { tenant: Scope; pairs: PairChange[]; values: ValuesChange[] }

export type JournalParts = {
  live: LiveRules
  ruleOf: (compiled: CompiledRule) => RuleInForce | undefined
  position: () => LogPosition
  /** What follows from alarms, in the transaction that stores them. */
  plan: (tx: Tx, tenant: Scope, steps: readonly AlarmStep[]) => Promise<void>
  /** Waits for what was worked out so far to be stored. */
  settle: () => Promise<void>
}

/**
 * Brings what rules judged into the database: states, alarms and their timelines, all that belongs together in one
 * transaction, and then the checkpoint up to which nothing has to be judged again.
 */
export class Journal {
  readonly #context: Context
  readonly #parts: JournalParts
  #dirty = new Map<string, Dirty>()
  readonly #locales = new Map<string, { language: Language; zone: string }>()
  #checkpoint: Checkpoint = { position: { segmentNo: 0, seq: 0 }, at: 0 }
  /** Once so many messages are judged and what came of them is stored, the checkpoint may move here. */
  #mark: (Checkpoint & { count: number; lossCount: number }) | undefined
  #markedAt = Number.NEGATIVE_INFINITY
  #markedCount = 0
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()
  #isStopped = false
  #isOn = false
  transitionCount = 0

  constructor(context: Context, parts: JournalParts) {
    this.#context = context
    this.#parts = parts
  }

  get lastCheckpoint(): Checkpoint {
    return this.#checkpoint
  }

  /** Pairs that wait to be stored. */
  get depth(): number {
    return this.#dirty.size
  }

  /** Goes on from a checkpoint that is stored, or becomes so now. */
  async begin(position: LogPosition): Promise<void> {
    await this.#write({ position, at: this.#context.clock.now() })
    this.start(position)
  }

  start(position: LogPosition): void {
    this.#checkpoint = { position, at: this.#context.clock.now() }
    this.#mark = undefined
    this.#isOn = true
    this.#timer ??= setInterval(() => void this.flush(), flushMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#timer = undefined
    const flushed = this.flush()
    this.#isStopped = true
    await flushed
  }

  async readCheckpoint(): Promise<Checkpoint | undefined> {
    const [row] = await this.#context.db.withRole('pms_jobs', (tx) =>
      tx.execute<{ segmentNo: number; seq: number; at: number }>(sql`
        select segment_no as "segmentNo", seq, floor(extract(epoch from at) * 1000)::float8 as at from rule_checkpoints where name = ${checkpointName}`),
    )
    return row && { position: { segmentNo: row.segmentNo, seq: row.seq }, at: row.at }
  }

  /** Without a rule nothing has to be judged again. */
  async dropCheckpoint(): Promise<void> {
    this.#isOn = false
    this.#mark = undefined
    await this.#context.db.withRole('pms_jobs', (tx) => tx.execute(sql`delete from rule_checkpoints where name = ${checkpointName}`))
  }

  /** Takes a judgement in; what changes nothing of what is stored costs nothing. */
  note({ scene, pair, transitions }: Judged): void {
    const rule = this.#parts.ruleOf(pair.rule)
    if (!rule) return
    const key = `${rule.id} ${scene.id}`
    const known = this.#dirty.get(key)
    if (!known && transitions.length === 0 && pair.saved === undefined && isDefault(pair.state)) return
    const entry = known ?? { rule, scene, pair, told: [] }
    if (known) Object.assign(known, { rule, scene, pair })
    else this.#dirty.set(key, entry)
    for (const transition of transitions) entry.told.push(this.#tell(rule, scene, transition))
  }

  #tell(rule: RuleInForce, scene: LiveScene, transition: Transition): Told {
    const trigger = triggerOf(scene, rule.compiled.reads.keys.keys())
    const locale = this.#locales.get(rule.tenant.tenantId) ?? { language: 'zh', zone: 'UTC' }
    const title = transition.kind === 'raised' ? titleOf(rule.document, { scene, severity: transition.severity, trigger, ...locale }) : ''
    const at = transition.kind === 'raised' ? transition.confirmedTs : transition.kind === 'cleared' ? transition.clearedTs : transition.ts
    return { transition, title, trigger, isLate: this.#context.clock.now() - at > lateMs }
  }

  /** Language and time zone of what a tenant's alarms say. */
  async learnLocale({ tenantId, tenantNo }: Scope): Promise<void> {
    const [row] = await this.#context.db.withTenant({ tenantId, tenantNo }, (tx) =>
      tx.execute<{ locale: string; zone: string }>(sql`select locale, time_zone as zone from tenants where id = ${tenantId}`),
    )
    this.#locales.set(tenantId, { language: row?.locale === 'en' ? 'en' : 'zh', zone: row?.zone ?? 'UTC' })
  }

  /** Stores what was judged so far; one after the other. */
  flush(): Promise<void> {
    this.#flushing = this.#flushing
      .then(() => this.#flush())
      .catch((error: unknown) => this.#context.log.warn({ err: error }, 'what rules judged could not be stored'))
    return this.#flushing
  }

  async #flush(): Promise<void> {
    const { live, position } = this.#parts
    const mark = this.#mark
    const isReached = mark && live.isJudging && mark.lossCount === live.lossCount && live.judgedCount >= mark.count
    for (const batch of this.#take()) await this.#store(batch)
    if (!this.#isOn) return
    if (mark && mark.lossCount !== live.lossCount) this.#mark = undefined
    if (isReached) {
      this.#mark = undefined
      await this.#parts.settle()
      await this.#write({ position: mark.position, at: mark.at })
    }
    const now = this.#context.clock.monotonic()
    if (this.#mark || !live.isJudging || live.takenCount === this.#markedCount || now - this.#markedAt < checkpointMs) return
    const at = this.#context.clock.now()
    const here = position()
    const { lossCount } = live
    // Whoever wrote what is before this place is told within the turn that follows its commit.
    await nextTurn()
    this.#mark = { position: here, at, count: live.takenCount, lossCount }
    this.#markedAt = now
    this.#markedCount = live.takenCount
  }

  /** What is to be stored, by tenant, all of a device together: after a start its values and its states must be of one moment. */
  #take(): Batch[] {
    const dirty = this.#dirty
    if (dirty.size === 0) return []
    this.#dirty = new Map()
    const batches: Batch[] = []
    const open = new Map<string, Batch>()
    for (const [scene, some] of Map.groupBy(dirty.values(), (one) => one.scene)) {
      const pairs = some.flatMap((one) => changeOf(one))
      if (pairs.length === 0) continue
      const { tenant } = some[0]!.rule
      const batch = open.get(tenant.tenantId) ?? { tenant, pairs: [], values: [] }
      if (!open.has(tenant.tenantId)) batches.push(batch)
      batch.pairs.push(...pairs)
      batch.values.push({ deviceId: scene.id, slots: writeSlots(scene.values) })
      if (batch.pairs.length < pairsAtOnce) open.set(tenant.tenantId, batch)
      else open.delete(tenant.tenantId)
    }
    return batches
  }

  /** Until it is stored: what comes later depends on it. */
  async #store(batch: Batch): Promise<void> {
    const { db, clock, events, log } = this.#context
    for (let attempt = 0; ; attempt++) {
      try {
        const { steps, alarms } = await db.withTenant(batch.tenant, async (tx) => {
          const done = await writeChanges(tx, batch.tenant, batch, clock.now())
          await this.#parts.plan(tx, batch.tenant, done)
          return { steps: done, alarms: await readAlarms(tx, [...new Set(done.map(({ alarmId }) => alarmId))]) }
        })
        this.transitionCount += steps.length
        const byId = new Map(alarms.map((alarm) => [alarm.id, alarm]))
        for (const { alarmId, kind } of lastOfEach(steps)) {
          const found = byId.get(alarmId)
          if (!found) continue
          const { customerId, ...alarm } = found
          events.emit('alarm.changed', { tenantId: batch.tenant.tenantId, customerId, kind, alarm })
        }
        return
      } catch (error) {
        if (this.#isStopped) throw error
        if (attempt === 0) log.warn({ err: error, pairs: batch.pairs.length }, 'alarms wait for the database')
        await new Promise<void>((resolve) => clock.after(retryMs, resolve))
      }
    }
  }

  async #write({ position, at }: Checkpoint): Promise<void> {
    await this.#context.db.withRole('pms_jobs', (tx) =>
      tx.execute(sql`
        insert into rule_checkpoints (name, segment_no, seq, at)
        values (${checkpointName}, ${position.segmentNo}, ${position.seq}, ${new Date(at).toISOString()}::timestamptz)
        on conflict (name) do update set segment_no = excluded.segment_no, seq = excluded.seq, at = excluded.at`),
    )
    this.#checkpoint = { position, at }
  }
}

function changeOf({ rule, scene, pair, told }: Dirty): PairChange[] {
  const state = isDefault(pair.state) ? undefined : JSON.stringify(pair.state)
  if (told.length === 0 && state === pair.saved) return []
  // From now on it counts as stored: until it is, nothing else of the pair is.
  pair.saved = state
  scene.lane.forget(pair)
  return [{ rule, deviceId: scene.id, state, at: Number.isFinite(pair.at) ? pair.at : 0, activeSince: pair.activeSince, told }]
}

/** A listener hears of what an alarm is now, not of each step on the way. */
function lastOfEach(steps: readonly AlarmStep[]): Iterable<AlarmStep> {
  const last = new Map<string, AlarmStep>()
  for (const step of steps) {
    const before = last.get(step.alarmId)
    last.set(step.alarmId, before?.kind === 'raised' && step.kind === 'severity_changed' ? before : step)
  }
  return last.values()
}
