// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyAlerts, notifyEscalations, notifyGroups } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { skip } from '../jobs/define.ts'
import type { EscalationStep } from './escalations.ts'
import { sayOfGroup } from './group-messages.ts'
import type { Group } from './groups.ts'
import type { Messages } from './messages.ts'
import { readMuting } from './muting.ts'
import { notifyEscalate } from './queues.ts'
import { readRouting } from './routing-document.ts'

type Due = { group: string; startedAt: number; step: number; round: number }

/**
 * Tells further people, step by step, while nobody acknowledges [notifications §5]. Every step is a job of the
 * transaction before it, so that a restart forgets none; acknowledging, silencing and the end of the alerts stop it.
 */
export class Escalator {
  readonly #context: Context
  readonly #messages: Messages

  constructor(context: Context, messages: Messages) {
    this.#context = context
    this.#messages = messages
  }

  /** Begins the policy of the group's route, unless it runs already. Changes the group, which the caller saves. */
  async begin(tx: Tx, scope: Scope, id: string, group: Group): Promise<void> {
    const policy = group.match.escalation
    if (policy === undefined) return
    // One that was acknowledged and did not hear of it yet is over.
    if (group.escalation && !(await this.#wasAcked(tx, group, group.escalation.startedAt))) return
    const steps = await this.#stepsOf(tx, policy)
    if (!steps?.steps[0]) return
    const startedAt = this.#context.clock.now()
    group.escalation = { policy, startedAt }
    await this.#schedule(tx, scope, { group: id, startedAt, step: 0, round: 0 }, steps.steps[0].afterMs)
  }

  async run(tx: Tx, scope: Scope, due: Due): Promise<unknown> {
    const [row] = await tx.select().from(notifyGroups).where(eq(notifyGroups.id, due.group)).for('update')
    const group = row?.state as unknown as Group | undefined
    if (!group?.escalation || group.escalation.startedAt !== due.startedAt) return skip('over')
    const policy = await this.#stepsOf(tx, group.escalation.policy)
    const step = policy?.steps[due.step]
    const firing = await this.#needing(tx, group, due.startedAt)
    if (!policy || !step || firing.length === 0) return this.#stop(tx, due.group, group)
    await sayOfGroup(tx, scope, this.#messages, {
      id: due.group,
      group,
      told: { reason: 'repeat', firing, resolved: [] },
      to: step.targets,
      escalation: due.step + 1,
    }).catch((error: unknown) => {
      if (!(error instanceof ProblemError) || error.code !== 'NO_RECIPIENT') throw error
      this.#context.log.warn({ escalation: policy.name, step: due.step }, 'a step of an escalation has no recipient')
    })
    const next = policy.steps[due.step + 1]
    if (next) await this.#schedule(tx, scope, { ...due, step: due.step + 1 }, next.afterMs - step.afterMs)
    else if (due.round < policy.repeat) {
      // A round takes as long as its last step was after the first.
      await this.#schedule(tx, scope, { ...due, step: 0, round: due.round + 1 }, Math.max(60_000, step.afterMs - policy.steps[0]!.afterMs))
    } else await this.#stop(tx, due.group, group)
    return { told: firing.length }
  }

  /** Alerts of the group that still fire, are not muted, and that nobody acknowledged; none when any was since it began. */
  async #needing(tx: Tx, group: Group, startedAt: number): Promise<string[]> {
    const ids = Object.keys(group.members)
    if (ids.length === 0) return []
    const rows = await tx.select().from(notifyAlerts).where(inArray(notifyAlerts.id, ids))
    if (await this.#wasAcked(tx, group, startedAt)) return []
    const { routing } = await readRouting(tx)
    const isMuted = await readMuting(tx, routing, group.match, this.#context.clock.now())
    return rows.filter((row) => row.status === 'firing' && row.ackedAt === null && !isMuted(row.labels, row.id)).map((row) => row.id)
  }

  async #wasAcked(tx: Tx, group: Group, since: number): Promise<boolean> {
    const ids = Object.keys(group.members)
    if (ids.length === 0) return false
    const [acked] = await tx
      .select({ id: notifyAlerts.id })
      .from(notifyAlerts)
      .where(and(inArray(notifyAlerts.id, ids), sql`${notifyAlerts.ackedAt} >= ${new Date(since).toISOString()}`))
      .limit(1)
    return acked !== undefined
  }

  async #stop(tx: Tx, id: string, group: Group): Promise<unknown> {
    const { escalation: _, ...rest } = group
    await tx.update(notifyGroups).set({ state: rest }).where(eq(notifyGroups.id, id))
    return { stopped: true }
  }

  async #stepsOf(tx: Tx, name: string): Promise<{ name: string; steps: EscalationStep[]; repeat: number } | undefined> {
    const [row] = await tx.select().from(notifyEscalations).where(eq(notifyEscalations.name, name))
    return row && { name, steps: row.steps as EscalationStep[], repeat: row.repeat }
  }

  async #schedule(tx: Tx, scope: Scope, due: Due, delayMs: number): Promise<void> {
    await this.#context.jobs.send(notifyEscalate, { tenantId: scope.tenantId, ...due }, { tx, delayMs, priority: 40 })
  }
}
