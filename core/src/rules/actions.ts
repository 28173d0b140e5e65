// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { Counter } from 'prom-client'
import type { Registry } from 'prom-client'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { addAlarmEvent } from '../alarms/alarm-rows.ts'
import type { AlarmChange } from '../alarms/alarms.ts'
import type { Attributes } from '../attributes/attributes.ts'
import type { Commands } from '../commands/commands.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { Id } from '../http/schemas.ts'
import { decodeAttributes } from '../ingest/codecs.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import { deadLetter, defineJob, skip } from '../jobs/define.ts'
import type { Job } from '../jobs/define.ts'
import type { NotificationHub } from '../notifications/hub.ts'
import { call } from '../notifications/transport.ts'
import type { Outbound } from '../outbound.ts'
import { loadEvent, readActions, usualAction } from './action-events.ts'
import type { ActionEvent } from './action-events.ts'
import type { ActionMoment, RuleAction } from './action-schemas.ts'
import { fillJson, fillText } from './fill-json.ts'
import { rankOf } from './compile-rule.ts'
import type { AlarmStep } from './rule-writer.ts'
import type { Severity } from './schemas.ts'

/** Six attempts [7.1]. */
const waitsMs = [5000, 30_000, 120_000, 300_000, 600_000]

/** One action of one event of an alarm [7.1]. */
export const ruleAction = defineJob({
  name: 'rule-action',
  title: { zh: '规则动作', en: 'Actions of rules' },
  data: Type.Object({
    tenantId: Id,
    alarmId: Id,
    eventId: Id,
    moment: Type.String(),
    ruleId: Type.Union([Id, Type.Null()]),
    version: Type.Union([Type.Integer(), Type.Null()]),
    index: Type.Integer(),
    group: Type.String(),
    late: Type.Boolean(),
  }),
  group: (data) => data.group,
  perGroup: 1,
  batch: 50,
  perNode: 1,
  retry: { strategy: 'delays', delaysMs: waitsMs },
  expireMs: 60_000,
  heartbeatMs: 15_000,
  deadLetter: true,
})
type ActionJob = Static<typeof ruleAction.data>

/** [7.1] Commands and attributes of one rule at one device within an hour, and of one rule within a minute. */
const mostPerPair = 30
const mostPerRule = 600
const jobsAtOnce = 5000

export type ActionParts = {
  hub: NotificationHub
  commands: Commands
  attributes: Attributes
  outbound: Outbound
  metrics: Registry
}

/** What follows from alarms: notifications, commands, attributes, calls of other systems. Each is a job of its own. */
export class RuleActions {
  readonly #context: Context
  readonly #parts: ActionParts
  readonly #done: Counter

  constructor(context: Context, parts: ActionParts) {
    this.#context = context
    this.#parts = parts
    this.#done = new Counter({
      name: 'iot_pms_rule_actions_total',
      help: 'Actions of rules',
      labelNames: ['type', 'outcome'],
      registers: [parts.metrics],
    })
  }

  /** Makes the queue, so that alarms may follow before anything runs. */
  async declare(): Promise<void> {
    await this.#context.jobs.declare(ruleAction)
  }

  async start(): Promise<void> {
    await this.#context.jobs.handle(ruleAction, (job, signal) => this.#run(job, signal))
  }

  /** The jobs of what rules told, in the transaction that stores it. */
  async plan(tx: Tx, tenant: Scope, steps: readonly AlarmStep[]): Promise<void> {
    const jobs = steps.flatMap(({ alarmId, eventId, rule, deviceId, told, from, kind }) => {
      const { transition, isLate } = told
      const severity = transition.kind === 'cleared' ? from : transition.severity
      const moment = momentOf(kind, from, severity)
      const about = { alarmId, eventId, moment, ruleId: rule.id, version: rule.version, group: deviceId, late: isLate }
      return chosen(rule.document.actions ?? [], { moment, severity, isLate, late: rule.document.lateActions ?? 'notify' }).map(
        ({ index, action }) => ({
          data: { tenantId: tenant.tenantId, ...about, index },
          key: `${eventId}:${index}`,
          ...(action.afterMs ? { startAfter: new Date(this.#context.clock.now() + action.afterMs) } : {}),
        }),
      )
    })
    for (let start = 0; start < jobs.length; start += jobsAtOnce) {
      await this.#context.jobs.sendMany(ruleAction, jobs.slice(start, start + jobsAtOnce), { tx })
    }
  }

  /** The jobs of what people and callers of the API did; alarms of no rule go through the routing tree. */
  async planChange(tx: Tx, tenant: Scope, { alarm, eventId, kind, from }: AlarmChange): Promise<void> {
    if (kind !== 'raised' && kind !== 'severity_changed' && kind !== 'acked' && kind !== 'cleared') return
    const moment = kind === 'acked' ? kind : momentOf(kind, from, alarm.severity)
    const rule = alarm.ruleId === null ? undefined : await readActions(tx, alarm.ruleId)
    if (alarm.ruleId !== null && !rule) return
    const about = {
      alarmId: alarm.id,
      eventId,
      moment,
      ruleId: alarm.ruleId,
      version: rule?.version ?? null,
      group: alarm.deviceId ?? alarm.id,
    }
    for (const { index, action } of chosen(rule?.actions ?? [usualAction], {
      moment,
      severity: alarm.severity,
      isLate: false,
      late: 'notify',
    })) {
      const data = { tenantId: tenant.tenantId, ...about, index, late: false }
      await this.#context.jobs.send(ruleAction, data, { tx, key: `${eventId}:${index}`, delayMs: action.afterMs ?? 0 })
    }
  }

  async #run({ data, scope, attempt }: Job<ActionJob>, signal: AbortSignal): Promise<unknown> {
    const { db } = this.#context
    const key = `${data.eventId}:${data.index}`
    const event = await db.withTenant(scope, (tx) => loadEvent(tx, data))
    if (!event || event.isDone) return skip('there is nothing to do any more')
    const { action } = event
    if (action.afterMs && event.alarm.status === 'cleared' && data.moment !== 'cleared') return skip('the alarm is over')
    if (action.type === 'notify') return this.#notify(scope, data, event, action)
    try {
      if (action.type !== 'webhook' && (await this.#isStormy(scope, data))) {
        return await this.#finish(scope, data, event, { outcome: 'suppressed', detail: 'too many within an hour' })
      }
      if (action.type === 'command') await this.#command(scope, event, action)
      else if (action.type === 'attributes') await this.#setAttributes(scope, event, action)
      else await this.#callWebhook(scope, key, event, action, signal)
      return await this.#finish(scope, data, event, { outcome: 'done', detail: null })
    } catch (error) {
      if (!(error instanceof ActionRefused) && !isRefusal(error)) {
        if (attempt >= waitsMs.length) await this.#finish(scope, data, event, { outcome: 'failed', detail: reasonOf(error) })
        throw error
      }
      await this.#finish(scope, data, event, { outcome: 'failed', detail: reasonOf(error) })
      return deadLetter(reasonOf(error))
    }
  }

  /** In one transaction with the note that it was done: told exactly once, however often the job runs. */
  async #notify(scope: Scope, data: ActionJob, event: ActionEvent, action: RuleAction & { type: 'notify' }): Promise<unknown> {
    const { hub } = this.#parts
    return this.#context.db.withTenant(scope, async (tx) => {
      if (!(await this.#note(tx, scope, data, event, { outcome: 'done', detail: null }))) return skip('it was told already')
      const { alarm, labels, device } = event
      const told = { title: alarm.title, ...(device ? { device: device.name } : {}), ...(data.late ? { late: true } : {}) }
      if (action.receivers) {
        await hub.messages.accept(tx, scope, {
          to: action.receivers.map((receiver) => ({ receiver })),
          title: `${device?.name ?? ''} ${alarm.title}`.trim(),
          text: alarm.title,
          format: 'text',
          priority: (action.priority ?? 4 - Math.min(3, 3 - rankOf(alarm.severity))) as 1 | 2 | 3 | 4 | 5,
          topic: 'alarm',
          event: `alarm.${data.moment}`,
          source: 'alert',
          dedupKey: `${data.eventId}:${data.index}`,
          resolved: data.moment === 'cleared',
          data: { alarm, device, moment: data.moment },
          createdBy: 'system',
        })
      } else {
        // One that is over by now is told as it was, and then as it is: what comes later finds it so.
        const { id, startTs, clearedTs } = alarm
        if (data.moment !== 'cleared') await hub.raise(tx, scope, { id, status: 'firing', labels, data: told, at: new Date(startTs) })
        if (clearedTs !== null) await hub.raise(tx, scope, { id, status: 'resolved', labels, at: new Date(clearedTs) })
      }
      this.#done.inc({ type: 'notify', outcome: 'done' })
      return undefined
    })
  }

  async #command(scope: Scope, event: ActionEvent, action: RuleAction & { type: 'command' }): Promise<void> {
    const deviceId = action.target === undefined || action.target === 'self' ? event.device?.id : action.target
    if (!deviceId) throw new ActionRefused('the alarm has no device')
    const params = JSON.stringify(fillJson(action.params ?? {}, event.data))
    const { method, ttlMs = 60_000, retries, persistent = true } = action
    const createdBy = `rule:${event.ruleName}`.slice(0, 100)
    await this.#parts.commands.queue(scope, deviceId, { method, params, oneway: true, timeoutMs: ttlMs, retries, createdBy }, persistent)
  }

  async #setAttributes(scope: Scope, event: ActionEvent, action: RuleAction & { type: 'attributes' }): Promise<void> {
    if (!event.device) throw new ActionRefused('the alarm has no device')
    const filled = Buffer.from(JSON.stringify(fillJson(action.values, event.data)))
    const decoded = decodeAttributes(filled, { ...defaultPayloadRules, castNumericStrings: false })
    if ('refused' in decoded) throw new ActionRefused(decoded.refused.detail)
    if (decoded.rejects[0]) throw new ActionRefused(decoded.rejects[0].detail)
    await this.#parts.attributes.change(scope, event.device.id, action.scope, { values: decoded.attributes, deleted: decoded.nulls })
  }

  async #callWebhook(
    scope: Scope,
    key: string,
    event: ActionEvent,
    action: RuleAction & { type: 'webhook' },
    signal: AbortSignal,
  ): Promise<void> {
    if (action.channelId !== undefined) {
      const to = [{ channelId: action.channelId }]
      const { alarm, data } = event
      await this.#context.db.withTenant(scope, (tx) =>
        this.#parts.hub.messages.accept(tx, scope, {
          to,
          title: alarm.title,
          text: alarm.title,
          format: 'text',
          topic: 'alarm',
          event: `alarm.${String(data['moment'])}`,
          source: 'alert',
          dedupKey: key,
          data,
          createdBy: 'system',
        }),
      )
      return
    }
    const body = action.body === undefined ? event.data : fillJson(action.body, event.data)
    const answered = await call(
      {
        method: action.method ?? 'POST',
        url: fillText(action.url ?? '', event.data, encodeURIComponent),
        headers: {
          ...action.headers,
          'content-type': 'application/json',
          'webhook-id': key,
          'webhook-timestamp': String(Math.floor(this.#context.clock.now() / 1000)),
        },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      },
      { outbound: this.#parts.outbound, isExempt: false, isOnce: false, signal },
    )
    if ('failure' in answered) {
      const { failure } = answered
      const reason = 'reason' in failure ? failure.reason : failure.outcome
      throw failure.outcome === 'retry' ? new Error(reason) : new ActionRefused(reason)
    }
    const { status } = answered.reply
    if (status >= 200 && status < 300) return
    // What the receiver does not want will not be wanted later.
    if (status >= 300 && status < 500 && status !== 408 && status !== 429) throw new ActionRefused(`the answer was ${status}`)
    throw new Error(`the answer was ${status}`)
  }

  async #isStormy(scope: Scope, { ruleId, alarmId }: ActionJob): Promise<boolean> {
    const [row] = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ pair: number; rule: number }>(sql`
        select count(*) filter (where r.device_id = a.device_id)::int as pair, count(*) filter (where r.at > now() - interval '1 minute')::int as rule
        from alarms a join rule_runs r on r.tenant_id = a.tenant_id and r.rule_id = ${ruleId} and r.at > now() - interval '1 hour'
          and r.type in ('command', 'attributes') and r.outcome = 'done' where a.id = ${alarmId}`),
    )
    return (row?.pair ?? 0) >= mostPerPair || (row?.rule ?? 0) >= mostPerRule
  }

  async #finish(scope: Scope, data: ActionJob, event: ActionEvent, ended: Ended): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) => this.#note(tx, scope, data, event, ended))
    this.#done.inc({ type: event.action.type, outcome: ended.outcome })
  }

  /** @returns false when it was noted before */
  async #note(tx: Tx, scope: Scope, data: ActionJob, { action, device }: ActionEvent, { outcome, detail }: Ended): Promise<boolean> {
    const at = new Date(this.#context.clock.now())
    const inserted = await tx.execute(sql`
      insert into rule_runs (tenant_id, key, id, rule_id, alarm_id, device_id, type, outcome, detail, at)
      values (${scope.tenantId}, ${`${data.eventId}:${data.index}`}, ${randomUUIDv7()}, ${data.ruleId}::uuid, ${data.alarmId}, ${device?.id ?? null}::uuid,
        ${action.type}, ${outcome}, ${detail}, ${at.toISOString()}::timestamptz)
      on conflict do nothing returning id`)
    if (inserted.length === 0) return false
    const kind = action.type === 'notify' ? 'notified' : (`action_${outcome}` as const)
    await addAlarmEvent(tx, scope, data.alarmId, {
      kind,
      at,
      data: { type: action.type, moment: data.moment, ...(detail ? { detail } : {}) },
    })
    return true
  }
}

type Ended = { outcome: 'done' | 'failed' | 'suppressed'; detail: string | null }

/** The action will never succeed as it is. */
class ActionRefused extends Error {}

function isRefusal(error: unknown): boolean {
  return error instanceof ProblemError && error.status < 500 && error.code !== 'COMMAND_QUEUE_FULL'
}

function reasonOf(error: unknown): string {
  return (error instanceof ProblemError ? error.code : error instanceof Error ? error.message : String(error)).slice(0, 300)
}

export function momentOf(kind: AlarmStep['kind'], from: Severity | undefined, severity: Severity | undefined): ActionMoment {
  if (kind !== 'severity_changed') return kind
  return from && severity && rankOf(severity) < rankOf(from) ? 'severityUp' : 'severityDown'
}

type Choice = { moment: string; severity: Severity | undefined; isLate: boolean; late: 'notify' | 'all' | 'none' }

/** The actions that run now; of late events only what the rule says [7.1]. */
export function chosen(actions: readonly unknown[], { moment, severity, isLate, late }: Choice): { index: number; action: RuleAction }[] {
  return actions.flatMap((one, index) => {
    // Checked when the rule was saved.
    const action = one as RuleAction
    if (!action.on.some((name) => name === moment)) return []
    if (action.severities && severity && !action.severities.includes(severity)) return []
    if (isLate && (late === 'none' || (late === 'notify' && action.type !== 'notify'))) return []
    return [{ index, action }]
  })
}
