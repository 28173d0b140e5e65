// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { machineEvents, machines } from '../db/job-tables.ts'
import { ProblemError } from '../errors.ts'
import { deadLetter, defineJob } from './define.ts'
import type { JobDef } from './define.ts'
import type { Jobs } from './jobs.ts'

type Data = Record<string, unknown>

/** Sent with the transition; its key is `machine/key/version/queue`, the same in every repetition. */
export type Effect = { def: JobDef; data: (at: { scope: Scope; key: string; version: number; data: Data }) => Data & { tenantId: string } }

export type MachineDef<State extends string, Event extends string> = {
  name: string
  initial: State
  states: readonly State[]
  final: readonly State[]
  events: Record<
    Event,
    {
      from: readonly State[]
      to: State
      /** Pure; a string is the reason why not. */
      guard?: (state: State, data: Data) => true | string
      effects?: readonly Effect[]
    }
  >
  timeouts?: readonly { in: State; afterMs: number; event: NoInfer<Event> }[]
}

export type Transition<State extends string> = { state: State; version: number; outcome: 'applied' | 'repeated' }

export type ApplyOptions = { idempotencyKey?: string; expectedVersion?: number; data?: Data; actor?: string }

/** A state's time is over. One tied to an older version does nothing. */
export const machineTimeout = defineJob({
  name: 'machine-timeout',
  title: { zh: '状态超时', en: 'Timeouts of states' },
  data: Type.Object({ tenantId: Type.String(), machine: Type.String(), key: Type.String(), version: Type.Integer(), event: Type.String() }),
  batch: 50,
  perNode: 1,
  retry: { strategy: 'exponential', baseMs: 1000, maxMs: 60_000, limit: 10 },
  expireMs: 30_000,
  deadLetter: true,
})

/**
 * A durable state machine: the transition, its row in the history and the jobs that follow commit in one
 * transaction [jobs §8]. State is plain data.
 */
export class Machine<State extends string, Event extends string> {
  readonly def: MachineDef<State, Event>
  readonly #jobs: Jobs

  constructor(jobs: Jobs, def: MachineDef<State, Event>) {
    this.def = def
    this.#jobs = jobs
  }

  /**
   * Applies an event; the first one of a key begins in the initial state. Concurrent ones wait for each other.
   *
   * @param options.data replaces the machine's data
   * @throws {ProblemError} `TRANSITION_ILLEGAL` (in the history all the same when the caller's transaction commits:
   *   {@link tryApply}), `VERSION_CONFLICT`
   */
  async apply(tx: Tx, scope: Scope, key: string, event: Event, options: ApplyOptions = {}): Promise<Transition<State>> {
    const result = await this.tryApply(tx, scope, key, event, options)
    if (result.outcome === 'rejected') {
      throw new ProblemError('TRANSITION_ILLEGAL', { params: { event, state: result.state, reason: result.reason } })
    }
    return result
  }

  /** The same, where a refusal is an answer: its row in the history stays with the caller's transaction. */
  async tryApply(
    tx: Tx,
    scope: Scope,
    key: string,
    event: Event,
    options: ApplyOptions = {},
  ): Promise<Transition<State> | { state: State; version: number; outcome: 'rejected'; reason: string }> {
    const { def } = this
    const place = and(eq(machines.machine, def.name), eq(machines.key, key))
    await tx
      .insert(machines)
      .values({ tenantId: scope.tenantId, machine: def.name, key, state: def.initial, version: 0, data: {} })
      .onConflictDoNothing()
    const [row] = await tx.select().from(machines).where(place).for('update')
    const state = row!.state as State
    if (options.idempotencyKey !== undefined) {
      const known = await findEvent(tx, def.name, key, options.idempotencyKey)
      if (known) return repeat(known)
    }
    if (options.expectedVersion !== undefined && options.expectedVersion !== row!.version) throw new ProblemError('VERSION_CONFLICT')
    const move = def.events[event]
    const guard = move.from.includes(state) ? (move.guard?.(state, row!.data) ?? true) : `not from ${state}`
    const version = row!.version + 1
    const entry = { scope, key, event, from: state, options }
    if (guard !== true) {
      await this.#note(tx, { ...entry, to: state, version: row!.version, outcome: 'rejected' })
      return { state, version: row!.version, outcome: 'rejected', reason: guard }
    }
    const data = options.data ?? row!.data
    await tx
      .update(machines)
      .set({ state: move.to, version, data, updatedAt: sql`now()` })
      .where(place)
    await this.#note(tx, { ...entry, to: move.to, version, outcome: 'applied' })
    for (const effect of move.effects ?? []) {
      const jobKey = `${def.name}/${key}/${version}/${effect.def.name}`
      await this.#jobs.send(effect.def, effect.data({ scope, key, version, data }), { tx, key: jobKey })
    }
    for (const timeout of (def.timeouts ?? []).filter((one) => one.in === move.to)) {
      const timed = { tenantId: scope.tenantId, machine: def.name, key, version, event: timeout.event }
      await this.#jobs.send(machineTimeout, timed, { tx, delayMs: timeout.afterMs, key: `${def.name}/${key}/${version}/timeout` })
    }
    return { state: move.to, version, outcome: 'applied' }
  }

  /** Called for every timeout of this machine: does nothing once the state has moved on. */
  async timeOut(tx: Tx, scope: Scope, { key, version, event }: { key: string; version: number; event: string }): Promise<void> {
    const [row] = await tx
      .select()
      .from(machines)
      .where(and(eq(machines.machine, this.def.name), eq(machines.key, key)))
      .for('update')
    if (row?.version !== version || !(event in this.def.events)) return
    await this.tryApply(tx, scope, key, event as Event, { actor: 'timeout', idempotencyKey: `timeout/${version}` })
  }

  async #note(
    tx: Tx,
    entry: {
      scope: Scope
      key: string
      event: Event
      from: State
      to: State
      version: number
      outcome: 'applied' | 'rejected'
      options: ApplyOptions
    },
  ): Promise<void> {
    await tx.insert(machineEvents).values({
      tenantId: entry.scope.tenantId,
      machine: this.def.name,
      key: entry.key,
      id: randomUUIDv7(),
      version: entry.version,
      event: entry.event,
      fromState: entry.from,
      toState: entry.to,
      actor: entry.options.actor ?? 'system',
      idempotencyKey: entry.options.idempotencyKey ?? null,
      outcome: entry.outcome,
    })
  }
}

/** Runs the timeouts of these machines. */
export async function handleTimeouts(context: Context, all: readonly Machine<string, string>[]): Promise<void> {
  const byName = new Map(all.map((one) => [one.def.name, one]))
  await context.jobs.handle(machineTimeout, async ({ data, scope }) => {
    const machine = byName.get(data.machine)
    if (!machine) return deadLetter(`there is no machine ${data.machine}`)
    await context.db.withTenant(scope, (tx) => machine.timeOut(tx, scope, data))
  })
}

function repeat<State extends string>(known: typeof machineEvents.$inferSelect) {
  const state = known.toState as State
  return known.outcome === 'applied'
    ? ({ state, version: known.version, outcome: 'repeated' } as const)
    : ({ state, version: known.version, outcome: 'rejected', reason: 'refused before under this key' } as const)
}

async function findEvent(tx: Tx, machine: string, key: string, idempotencyKey: string) {
  const [row] = await tx
    .select()
    .from(machineEvents)
    .where(and(eq(machineEvents.machine, machine), eq(machineEvents.key, key), eq(machineEvents.idempotencyKey, idempotencyKey)))
  return row
}

/** Where a machine stands and how it came there, newest first. */
export async function readMachine(tx: Tx, name: string, key: string) {
  const [machine] = await tx
    .select()
    .from(machines)
    .where(and(eq(machines.machine, name), eq(machines.key, key)))
  if (!machine) throw new ProblemError('NOT_FOUND')
  const events = await tx
    .select()
    .from(machineEvents)
    .where(and(eq(machineEvents.machine, name), eq(machineEvents.key, key)))
    .orderBy(sql`${machineEvents.id} desc`)
    .limit(500)
  return { machine, events }
}

/** [jobs §8] History is kept for a year. */
export async function removeOldMachineEvents(tx: Tx): Promise<void> {
  await tx.execute(sql`delete from machine_events where at < now() - interval '1 year'`)
}
