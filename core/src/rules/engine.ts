// SPDX-License-Identifier: AGPL-3.0-only
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { TypedValue } from '../telemetry/points.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import type { CompiledRule } from './compile-rule.ts'
import { LiveRules } from './live-rules.ts'
import type { Judged } from './live-rules.ts'
import { readSlots } from './live-scene.ts'
import { clearByHand, newPairState } from './pair.ts'
import type { ClearReason } from './pair.ts'
import { loadCards, loadRules, loadStates, loadValues, loadVersion } from './rule-loader.ts'
import type { RuleInForce, StoredState } from './rule-loader.ts'
import { SceneLoader, sliceMs } from './scene-loader.ts'
import { Transfers } from './transfers.ts'
import { Journal } from './journal.ts'
import { Membership } from './membership.ts'
import type { JournalParts } from './journal.ts'

/** What a calculated field worked out, at the instant of the point that made it do so. */
export type WorkedOut = { tenant: Scope; deviceId: string; key: string; type: 'telemetry' | 'attribute'; ts: number; value: TypedValue }
export type EngineParts = { store: TelemetryStore; plan: JournalParts['plan']; write: (worked: WorkedOut) => Promise<void> }

const retryMs = 2000

/**
 * Keeps rules in force: brings them, their devices and what was known of those into {@link LiveRules}, and what comes
 * of judging into the database. After a start everything since the checkpoint is judged again [5].
 */
export class RuleEngine {
  readonly live: LiveRules
  readonly journal: Journal
  readonly #context: Context
  readonly #store: TelemetryStore
  readonly #loader: SceneLoader
  readonly #transfers: Transfers
  readonly #membership: Membership
  readonly #write: EngineParts['write']
  /** What was worked out and is not stored yet. */
  readonly #writes = new Set<Promise<void>>()
  readonly #rules = new Map<string, RuleInForce>()
  readonly #byCompiled = new Map<CompiledRule, RuleInForce>()
  readonly #stops: (() => void)[] = []
  /** One change of what is in force after the other. */
  #turn: Promise<void> = Promise.resolve()
  readonly #changedDevices = new Map<string, Set<string>>()
  #isStopped = false
  #isLive = false

  constructor(context: Context, { store, plan, write }: EngineParts) {
    this.#context = context
    this.#store = store
    this.#write = write
    const { clock, log } = context
    this.live = new LiveRules({
      clock,
      log,
      onJudged: (judged) => {
        if (judged.pair.rule.calculation) this.#workOut(judged)
        else this.journal.note(judged)
      },
      onFailing: (rule, error) => this.#rest(rule, error),
      onOverflow: () => {
        log.warn('rules do not keep up with what comes in: they go on with what is stored')
        this.#enqueueWork('catching up', () => this.#catchUp())
      },
    })
    this.#loader = new SceneLoader(context, { store, live: this.live })
    this.journal = new Journal(context, {
      live: this.live,
      ruleOf: (compiled) => this.#byCompiled.get(compiled),
      position: () => store.position,
      plan,
      settle: async () => void (await Promise.all(this.#writes)),
    })
    const { live, journal } = this
    this.#transfers = new Transfers({ clock, live, journal })
    this.#membership = new Membership({ context, live, loader: this.#loader, transfers: this.#transfers })
  }

  /** Takes what is committed from now on; what was committed before is judged as soon as it can be read. Never waits. */
  start(): void {
    const { events } = this.#context
    this.live.switch(true)
    this.#stops.push(
      events.on('rule.changed', ({ tenantId, ruleId }) => this.#enqueueWork('a changed rule', () => this.#reload(tenantId, ruleId))),
      events.on('device.changed', ({ tenantId, deviceId, change }) => {
        if (change !== 'credentials') this.#noteDevice(tenantId, deviceId)
      }),
      events.on('attributes.changed', (change) => this.live.takeAttributes(change)),
      events.on('device.state', ({ deviceId, state }) => {
        if (state !== 'never') this.#noteConnection(deviceId, state === 'online')
      }),
      events.on('alarm.changed', ({ kind, alarm }) => {
        if (kind === 'cleared' && alarm.ruleId && alarm.clearReason === 'manual') {
          this.#transfers.clearByHand(this.#rules.get(alarm.ruleId), alarm.deviceId ?? '')
        }
      }),
    )
    this.#enqueueWork('the start of the rules', () => this.#begin())
  }

  /** Stores what was judged; what was not is judged after the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const stop of this.#stops.splice(0)) stop()
    this.live.stop()
    await this.journal.stop()
  }

  /** A step after the commit. */
  take(stored: Stored): void {
    this.live.enqueue(stored)
  }

  /** Waits until what is under way is done, for tests. */
  async settled(): Promise<void> {
    await this.#turn
  }

  /** Does one thing after the other; what fails for want of the database is tried again until it is done. */
  #enqueueWork(name: string, work: () => Promise<void>): void {
    this.#turn = this.#turn.then(async () => {
      while (!this.#isStopped) {
        try {
          return await work()
        } catch (error) {
          if (this.#isStopped) return
          this.#context.log.warn({ err: error, work: name }, 'rules wait for the database')
          await new Promise<void>((resolve) => this.#context.clock.after(retryMs, resolve))
        }
      }
    })
  }

  async #begin(): Promise<void> {
    this.live.hold()
    const checkpoint = await this.journal.readCheckpoint()
    const from = checkpoint?.position ?? this.#store.position
    const states: StoredState[] = []
    for (const tenant of await listTenants(this.#context.db)) {
      const rules = await this.#context.db.withTenant(tenant, (tx) => loadRules(tx, tenant))
      for (const rule of rules) this.#know(rule)
      if (rules.length === 0) continue
      await this.journal.learnLocale(tenant)
      states.push(...(await this.#loadTenant(tenant, rules)))
    }
    this.#announceKeys()
    if (this.#rules.size === 0) {
      this.live.switch(false)
      await this.journal.dropCheckpoint()
    } else {
      await this.#loader.loadBase(from, this.#keysRead())
      await this.#loader.seedWindows([...this.live.scenes.values()])
      await this.#restore(states)
      await this.#loader.replay(from, checkpoint?.at ?? this.#context.clock.now())
      this.journal.start(from)
    }
    this.#isLive = true
    this.live.release()
    this.#lookAround()
  }

  #know(rule: RuleInForce): void {
    this.#rules.set(rule.id, rule)
    this.#byCompiled.set(rule.compiled, rule)
  }

  /** Keys of all rules; undefined while one reads any. */
  #keysRead(): string[] | undefined {
    const all = [...this.#rules.values()]
    if (all.some(({ compiled }) => compiled.reads.isAnyKey)) return undefined
    return [...new Set(all.flatMap(({ compiled }) => [...compiled.reads.keys.keys()]))]
  }

  #announceKeys(): void {
    const keys = this.#keysRead()
    this.live.read(keys && new Set(keys))
  }

  /** Devices, attributes and stored values of a tenant at the start, and the states that were stored. */
  async #loadTenant(tenant: Scope, rules: readonly RuleInForce[]): Promise<StoredState[]> {
    const { db } = this.#context
    for (const rule of rules) {
      const cards = await db.withTenant(tenant, (tx) => loadCards(tx, tenant, { ruleId: rule.id }))
      for (const card of cards) this.live.put(this.live.ensure(card), rule.compiled, true)
      await this.#loader.loadAttributes(tenant, cards, rule.compiled.reads.attributes)
    }
    const { values, states } = await db.withTenant(tenant, async (tx) => ({ values: await loadValues(tx), states: await loadStates(tx) }))
    for (const { deviceId, slots } of values) {
      const scene = this.live.scenes.get(deviceId)
      for (const [key, slot] of scene ? readSlots(slots) : []) scene!.values.seed(key, slot)
    }
    return states
  }

  /** Goes on with the pairs as they were stored; those of an earlier version of their rule are taken over to the present one. */
  async #restore(states: readonly StoredState[]): Promise<void> {
    const known = new Set<string>()
    for (const { ruleId, deviceId, version, state, at, activeSince, isCleared } of states) {
      const rule = this.#rules.get(ruleId)
      const scene = this.live.scenes.get(deviceId)
      if (!rule || scene?.lane.rules.includes(rule.compiled) !== true) continue
      known.add(`${ruleId} ${deviceId}`)
      const saved = JSON.stringify(state)
      if (isCleared) clearByHand(rule.compiled, state, Math.max(at, state.toldAt ?? at))
      const before =
        version === rule.version ? rule.compiled : await this.#context.db.withTenant(rule.tenant, (tx) => loadVersion(tx, ruleId, version))
      const isSame = before === rule.compiled || before === undefined
      this.live.restore(scene, {
        rule: isSame ? rule.compiled : before,
        state: isSame && before ? state : newPairState(rule.compiled),
        at,
        activeSince,
        saved,
      })
      if (!isSame) this.#transfers.adopt(scene, before, rule)
    }
    for (const rule of this.#rules.values()) {
      if (!rule.compiled.reads.hasTimers && !rule.compiled.schedule) continue
      const at = this.#context.clock.now()
      for (const scene of this.live.scenes.values()) {
        if (!scene.lane.rules.includes(rule.compiled) || known.has(`${rule.id} ${scene.id}`)) continue
        this.live.restore(scene, { rule: rule.compiled, state: newPairState(rule.compiled), at, activeSince: rule.activeSince })
      }
    }
  }

  /** More came than was held: what is stored since the checkpoint is judged again, of which some was already. */
  async #catchUp(): Promise<void> {
    this.live.hold()
    this.live.switch(true)
    const { position, at } = this.journal.lastCheckpoint
    await this.#loader.replay(position, at)
    this.live.release()
  }

  /** What does not come as a point may have changed while nobody looked. */
  #lookAround(): void {
    const isConcerned = ({ reads, schedule }: CompiledRule) =>
      reads.hasTimers || reads.attributes.size > 0 || reads.fields.size > 0 || schedule !== undefined
    if (![...this.#rules.values()].some(({ compiled }) => isConcerned(compiled))) return
    for (const scene of this.live.scenes.values()) this.live.change(scene.id, isConcerned, () => {})
  }

  /** A rule was saved, switched or deleted. */
  async #reload(tenantId: string, ruleId: string): Promise<void> {
    const tenant = await this.#findTenant(tenantId)
    if (!tenant) return
    const before = this.#rules.get(ruleId)
    const { next, gone } = await this.#context.db.withTenant(tenant, async (tx) => {
      const [rule] = await loadRules(tx, tenant, sql`and r.id = ${ruleId}`)
      const [row] = await tx.execute<{ mode: string; isDeleted: boolean; onDisable: string | null }>(
        sql`select mode, deleted_at is not null as "isDeleted", document ->> 'onDisable' as "onDisable" from rules where id = ${ruleId}`,
      )
      return { next: rule, gone: row }
    })
    if (before && next?.version === before.version) return
    const isFirst = this.#rules.size === 0
    if (next) {
      await this.journal.learnLocale(tenant)
      this.#know(next)
      this.#announceKeys()
      if (isFirst) {
        this.live.switch(true)
        await this.journal.begin(this.#store.position)
      }
      await this.#putInForce(next, before)
    } else if (before) {
      const reason: ClearReason = !gone || gone.isDeleted ? 'rule_deleted' : 'rule_disabled'
      this.#transfers.withdraw(before, reason, reason === 'rule_disabled' && gone?.onDisable === 'keep')
      this.#rules.delete(ruleId)
    }
    if (!next && gone && !gone.isDeleted && !before) return
    this.#announceKeys()
    await this.journal.flush()
    if (before) this.#byCompiled.delete(before.compiled)
    if (this.#rules.size > 0) return
    this.live.switch(false)
    await this.journal.dropCheckpoint()
  }

  async #findTenant(tenantId: string): Promise<Scope | undefined> {
    return (await listTenants(this.#context.db)).find((tenant) => tenant.tenantId === tenantId)
  }

  async #putInForce(rule: RuleInForce, before: RuleInForce | undefined): Promise<void> {
    const cards = await this.#context.db.withTenant(rule.tenant, (tx) => loadCards(tx, rule.tenant, { ruleId: rule.id }))
    const isOtherMode = before !== undefined && before.document.mode !== rule.document.mode
    if (isOtherMode) {
      this.#transfers.withdraw(before, 'rule_disabled', rule.document.onDisable === 'keep')
      // What the rule told in its former mode is stored in that mode.
      await this.journal.flush()
    }
    const scenes = cards.map((card) => this.live.ensure(card))
    await this.#loader.prepare(rule.tenant, scenes, [rule])
    const targeted = new Set(scenes)
    let until = this.#context.clock.monotonic() + sliceMs
    for (const scene of scenes) {
      if (before && scene.lane.rules.includes(before.compiled)) this.#transfers.adopt(scene, before.compiled, rule)
      else this.live.put(this.live.ensure(scene.card), rule.compiled)
      if (this.#context.clock.monotonic() < until) continue
      await nextTurn()
      until = this.#context.clock.monotonic() + sliceMs
    }
    if (!before) return
    for (const scene of this.live.scenes.values()) if (!targeted.has(scene)) this.#transfers.leave(scene, before, 'out_of_scope')
  }

  #noteDevice(tenantId: string, deviceId: string): void {
    const waiting = this.#changedDevices.get(tenantId)
    if (waiting) return void waiting.add(deviceId)
    const ids = new Set([deviceId])
    this.#changedDevices.set(tenantId, ids)
    this.#enqueueWork('changed devices', async () => {
      this.#changedDevices.delete(tenantId)
      const rules = [...this.#rules.values()].filter(({ tenant }) => tenant.tenantId === tenantId)
      await this.#membership.judge(rules, [...ids])
    })
  }

  #noteConnection(deviceId: string, isOnline: boolean): void {
    const scene = this.live.scenes.get(deviceId)
    if (!scene || scene.connection?.isOnline === isOnline) return
    const connection = { isOnline, since: this.#context.clock.now() }
    // Before the start is through, what is stored is the truth, and comes to the same.
    if (this.#isLive) this.live.takeConnection(deviceId, connection)
    else scene.connection = connection
  }

  /** Evaluated once for each instant with a point of a trigger; a late point changes nothing. */
  #workOut({ pair: { rule: compiled }, scene, at, applied }: Judged): void {
    const { calculation } = compiled
    const rule = this.#byCompiled.get(compiled)
    if (!rule || !calculation || !applied || calculation.triggers.isDisjointFrom(applied)) return
    const value = calculation.evaluate(scene, at)
    if (value === undefined) return
    const { key, type } = calculation.output
    if (type === 'attribute' && scene.readAttribute('server', key) === value.value) return
    const written = this.#write({ tenant: rule.tenant, deviceId: scene.id, key, type, ts: at, value }).catch((error: unknown) =>
      this.#context.log.warn({ err: error, ruleId: rule.id }, 'a calculated value could not be stored'),
    )
    this.#writes.add(written)
    void written.then(() => this.#writes.delete(written))
  }

  /** [4.1] Nothing of it is cleared; it runs again once somebody saves it. */
  #rest(compiled: CompiledRule, error: unknown): void {
    const rule = this.#byCompiled.get(compiled)
    if (!rule || !this.#rules.has(rule.id)) return
    const reason = error instanceof Error ? error.message.slice(0, 500) : 'it threw'
    this.#context.log.error({ err: error, ruleId: rule.id }, 'a rule failed again and again and rests')
    this.#rules.delete(rule.id)
    this.#enqueueWork('a failing rule', async () => {
      for (const scene of this.live.scenes.values()) if (scene.lane.rules.includes(compiled)) this.live.take(scene, compiled)
      await this.#context.db.withTenant(rule.tenant, (tx) =>
        tx.execute(sql`update rules set failure = ${reason} where id = ${rule.id} and version = ${rule.version}`),
      )
      this.#announceKeys()
    })
  }
}
