// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { and, eq, inArray, or, sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { notifyAlerts, notifyGroups } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { Outbound } from '../outbound.ts'
import { acknowledge } from './acks.ts'
import type { Acknowledged } from './acks.ts'
import type { AlertData } from './alert-text.ts'
import { Channels } from './channels.ts'
import { ContactPoints } from './contact-points.ts'
import { Deliverer } from './deliver.ts'
import { Escalator } from './escalator.ts'
import { sayOfGroup } from './group-messages.ts'
import { drainChannel, wakeDrain } from './drain.ts'
import { addFiring, addResolved, hasEnded, moveAway, newGroup, tick } from './groups.ts'
import type { Group, Notification } from './groups.ts'
import { releaseHeld } from './held.ts'
import { Messages } from './messages.ts'
import { NotifyMetrics, lookAtNotifications } from './metrics.ts'
import { readMuting } from './muting.ts'
import { notifyDrain, notifyEscalate, notifyFallback, notifyFlush, notifyRelease, notifySend } from './queues.ts'
import { groupIdOf, matchRoutes } from './route-tree.ts'
import type { RouteMatch } from './route-tree.ts'
import { readRouting } from './routing-document.ts'
import { Sender } from './sender.ts'

/** Something that fires or has ended: an alarm, a system alarm, an alert received from outside. */
export type Alert = {
  /** Identity: the id of the alarm. */
  id: string
  status: 'firing' | 'resolved'
  /** What routes are chosen by: `severity` (critical, major, minor, warning), `rule_id`, `device_id`, `group` … */
  labels: Readonly<Record<string, string>>
  data?: AlertData
  /** When it began, or ended; now when absent. */
  at?: Date
}

const sweepEveryMs = 10_000
/** Ended alerts are kept for the messages that still tell of them. */
const keptHours = 48

/**
 * The notification hub: `ctx.notifications` for whoever has something to tell.
 *
 * ```ts
 * await db.withTenant(scope, async (tx) => {
 *   await tx.update(alarms).set(…)
 *   await notifications.raise(tx, scope, { id: alarm.id, status: 'firing', labels: { severity: 'critical', rule_id, device_id }, data: { title, device } })
 * })
 * ```
 *
 * The alarm's transition and what follows from it here commit together: no alarm without its message, no message
 * without its alarm. From there on nothing is lost, and every drop on the way is written down with its reason.
 */
export class NotificationHub {
  readonly channels: Channels
  readonly messages: Messages
  readonly contactPoints: ContactPoints
  readonly escalator: Escalator
  readonly sender: Sender
  readonly deliverer: Deliverer
  readonly #context: Context
  readonly #metrics: NotifyMetrics
  readonly #onAcked: Acknowledged[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(context: Context, parts: { outbound: Outbound; metrics: Registry }) {
    this.#context = context
    this.channels = new Channels(context, parts.outbound)
    this.messages = new Messages(context)
    this.escalator = new Escalator(context, this.messages)
    this.contactPoints = new ContactPoints(context, this.messages)
    this.sender = new Sender(context, parts.outbound)
    this.#metrics = new NotifyMetrics(parts.metrics)
    this.deliverer = new Deliverer(context, {
      channels: this.channels,
      messages: this.messages,
      sender: this.sender,
      onAttempt: (type, attempt, delivery) => this.#metrics.noteAttempt(type, attempt, delivery, context.clock.now()),
    })
  }

  /** Begins to send; what waited since the last stop goes on. */
  async start(): Promise<void> {
    const { jobs, db } = this.#context
    await jobs.handle(notifySend, ({ data, scope }, signal) => this.deliverer.run(scope, data.deliveryId, data.reserved ?? false, signal))
    await jobs.handle(notifyDrain, ({ data, scope }) => drainChannel(this.#context, this.channels, scope, data.channelId))
    await jobs.handle(notifyFallback, ({ data, scope }) =>
      db.withTenant(scope, (tx) => this.messages.fallBack(tx, data.messageId, data.step)),
    )
    await jobs.handle(notifyEscalate, ({ data, scope }) => db.withTenant(scope, (tx) => this.escalator.run(tx, scope, data)))
    await jobs.handle(notifyRelease, ({ data, scope }) => db.withTenant(scope, (tx) => releaseHeld(this.#context, tx, scope, data.userId)))
    await jobs.handle(notifyFlush, ({ data, scope }) => db.withTenant(scope, (tx) => this.#flush(tx, scope, data.group)))
    await jobs.supervisor.add({
      name: 'notify-sweep',
      expectedEveryMs: sweepEveryMs,
      start: async () => {
        this.#timer = setInterval(() => void this.#sweep(), sweepEveryMs).unref()
      },
      stop: async () => clearInterval(this.#timer),
    })
  }

  /** Takes an alert as part of the transaction that changed it. */
  async raise(tx: Tx, scope: Scope, alert: Alert): Promise<void> {
    const now = this.#context.clock.now()
    const at = alert.at ?? new Date(now)
    const labels = { ...alert.labels }
    const data = { ...alert.data }
    if (alert.status === 'firing') {
      await tx
        .insert(notifyAlerts)
        .values({ tenantId: scope.tenantId, id: alert.id, status: 'firing', labels, data, startsAt: at })
        .onConflictDoUpdate({
          target: [notifyAlerts.tenantId, notifyAlerts.id],
          set: {
            status: 'firing',
            labels,
            data,
            endsAt: null,
            // What begins anew is acknowledged by nobody.
            ackedAt: sql`case when ${notifyAlerts.status} = 'firing' then ${notifyAlerts.ackedAt} end`,
            ackedBy: sql`case when ${notifyAlerts.status} = 'firing' then ${notifyAlerts.ackedBy} end`,
            startsAt: sql`case when ${notifyAlerts.status} = 'firing' then ${notifyAlerts.startsAt} else ${at.toISOString()} end`,
            updatedAt: sql`now()`,
          },
        })
    } else {
      await tx
        .update(notifyAlerts)
        .set({ status: 'resolved', endsAt: at, updatedAt: sql`now()` })
        .where(eq(notifyAlerts.id, alert.id))
    }
    const { routing } = await readRouting(tx)
    const matches = new Map<string, RouteMatch>()
    if (alert.status === 'firing') for (const match of matchRoutes(routing, labels)) matches.set(storedId(groupIdOf(match, labels)), match)
    // In the order of their ids, so that two alerts never wait for each other.
    await tx.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`notify groups ${scope.tenantId}`}, 0))`)
    const known = await tx
      .select()
      .from(notifyGroups)
      .where(
        or(
          sql`${notifyGroups.state} -> 'members' ? ${alert.id}`,
          matches.size > 0 ? inArray(notifyGroups.id, [...matches.keys()]) : undefined,
        ),
      )
      .orderBy(notifyGroups.id)
      .for('update')
    const groups = new Map(known.map((row) => [row.id, row.state as unknown as Group]))
    for (const [id, group] of groups) {
      if (alert.status === 'resolved') addResolved(group, alert.id)
      else if (!matches.has(id)) moveAway(group, alert.id)
      if (!matches.has(id)) await this.#save(tx, scope, id, group, now)
    }
    for (const [id, match] of matches) {
      const group = groups.get(id) ?? newGroup(match, now)
      const isNew = !groups.has(id)
      addFiring(group, alert.id, labels)
      await this.#save(tx, scope, id, group, now, isNew)
    }
  }

  /**
   * Somebody looks after these alerts: nothing of their groups escalates further. Those who listen hear of it within
   * the same transaction, whoever acknowledged: a link in a message, or the alarm itself.
   *
   * @returns the ids of those that fired and were not acknowledged before
   */
  async acknowledge(tx: Tx, scope: Scope, ids: readonly string[], by: string): Promise<string[]> {
    const acked = await acknowledge(tx, ids, by)
    for (const listener of this.#onAcked) await listener(tx, scope, { ids: acked, by })
    return acked
  }

  /** Called for what is acknowledged by a link in a message, as part of its transaction. */
  onAcknowledged(listener: Acknowledged): void {
    this.#onAcked.push(listener)
  }

  /** One tick of a group: state and message commit together. One that comes too early does nothing. */
  async #flush(tx: Tx, scope: Scope, id: string): Promise<void> {
    const [row] = await tx.select().from(notifyGroups).where(eq(notifyGroups.id, id)).for('update')
    const now = this.#context.clock.now()
    if (!row?.nextTickAt || row.nextTickAt.getTime() > now) return
    const group = row.state as unknown as Group
    const { routing } = await readRouting(tx)
    const isMuted = await readMuting(tx, routing, group.match, now)
    const receiver = routing.receivers.find((one) => one.name === group.match.receiver)
    const found = tick(group, now, isMuted, receiver?.sendResolved ?? false)
    if (found && receiver) await this.#tell(tx, scope, id, group, found)
    if (hasEnded(group)) await tx.delete(notifyGroups).where(eq(notifyGroups.id, id))
    else await this.#save(tx, scope, id, group, now, true)
  }

  async #tell(tx: Tx, scope: Scope, id: string, group: Group, found: Notification): Promise<void> {
    await sayOfGroup(tx, scope, this.messages, { id, group, told: found, to: [{ receiver: group.match.receiver }] }).catch(
      (error: unknown) => {
        if (!(error instanceof ProblemError) || error.code !== 'NO_RECIPIENT') throw error
        // Nobody can be told: the group goes on, and the log says so.
        this.#context.log.warn({ receiver: group.match.receiver, group: id }, 'an alert has no recipient')
      },
    )
    if (found.reason === 'first' || found.reason === 'new') await this.escalator.begin(tx, scope, id, group)
  }

  async #save(tx: Tx, scope: Scope, id: string, group: Group, now: number, schedules = false): Promise<void> {
    if (hasEnded(group)) {
      await tx.delete(notifyGroups).where(eq(notifyGroups.id, id))
      return
    }
    const state = group as unknown as Record<string, unknown>
    const nextTickAt = new Date(group.nextTickAt)
    await tx
      .insert(notifyGroups)
      .values({ tenantId: scope.tenantId, id, state, nextTickAt })
      .onConflictDoUpdate({ target: [notifyGroups.tenantId, notifyGroups.id], set: { state, nextTickAt, updatedAt: sql`now()` } })
    if (!schedules) return
    await this.#context.jobs.send(
      notifyFlush,
      { tenantId: scope.tenantId, group: id },
      { tx, delayMs: Math.max(0, group.nextTickAt - now), priority: 30 },
    )
  }

  /** Finds what a crash between two steps may have left behind, and removes what is old. */
  async #sweep(): Promise<void> {
    const { db, jobs, log } = this.#context
    try {
      const looks = []
      for (const tenant of await listTenants(db)) {
        looks.push(
          await db.withTenant(tenant, async (tx) => {
            await this.#sweepTenant(tx, tenant)
            return lookAtNotifications(tx)
          }),
        )
      }
      this.#metrics.set(looks)
      jobs.supervisor.report('notify-sweep', true)
    } catch (error) {
      log.warn({ err: error }, 'looking after notifications failed')
      jobs.supervisor.report('notify-sweep', false, error)
    }
  }

  async #sweepTenant(tx: Tx, tenant: Scope): Promise<void> {
    const waiting = await tx.execute<{ id: string }>(
      sql`select distinct channel_id as id from notify_deliveries where is_waiting and updated_at < now() - interval '5 seconds'`,
    )
    for (const { id } of waiting) {
      await wakeDrain(this.#context, tx, tenant, id, 0)
    }
    const late = await tx.execute<{ id: string }>(
      sql`select id from notify_groups where next_tick_at < now() - interval '30 seconds' limit 500`,
    )
    for (const { id } of late) await this.#context.jobs.send(notifyFlush, { tenantId: tenant.tenantId, group: id }, { tx })
    await tx
      .delete(notifyAlerts)
      .where(and(eq(notifyAlerts.status, 'resolved'), sql`${notifyAlerts.updatedAt} < now() - ${keptHours} * interval '1 hour'`))
  }
}

/** Ids of groups hold labels, which may be long. */
const storedId = (id: string): string => createHash('sha256').update(id).digest('base64url')
