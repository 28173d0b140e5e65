// SPDX-License-Identifier: AGPL-3.0-only
import { inArray } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'
import { notifyAlerts } from '../db/notify-tables.ts'
import { tenants } from '../db/tables.ts'
import { describeAlerts, priorityOfAlerts } from './alert-text.ts'
import type { ToldAlert } from './alert-text.ts'
import type { Group, Notification } from './groups.ts'
import type { Accepted, Messages } from './messages.ts'
import { groupLabels } from './route-tree.ts'
import type { WantedTarget } from './targets.ts'

type Saying = {
  /** Id of the group. */
  id: string
  group: Group
  told: Notification
  to: readonly WantedTarget[]
  /** A step of an escalation, from 1. */
  escalation?: number
}

/** Makes the message about a group of alerts. @throws {ProblemError} `NO_RECIPIENT` */
export async function sayOfGroup(tx: Tx, scope: Scope, messages: Messages, saying: Saying): Promise<Accepted> {
  const { id, group, told: found, escalation } = saying
  const rows = await tx
    .select()
    .from(notifyAlerts)
    .where(inArray(notifyAlerts.id, [...found.firing, ...found.resolved]))
  const byId = new Map(
    rows.map((row): [string, ToldAlert] => [
      row.id,
      { id: row.id, labels: row.labels, data: row.data, startsAt: row.startsAt, endsAt: row.endsAt },
    ]),
  )
  const pick = (ids: readonly string[]) => ids.flatMap((one) => byId.get(one) ?? [])
  const [tenant] = await tx.select({ locale: tenants.locale, timeZone: tenants.timeZone }).from(tenants)
  const language = tenant?.locale === 'en' ? 'en' : 'zh'
  const told = { reason: found.reason, firing: pick(found.firing), resolved: pick(found.resolved) }
  const text = describeAlerts(told, language, tenant?.timeZone ?? 'UTC')
  const mark = escalation === undefined ? '' : language === 'en' ? `Escalation ${escalation}: ` : `升级 ${escalation}：`
  const isOver = told.firing.length === 0
  return messages.accept(tx, scope, {
    to: saying.to,
    ...text,
    title: mark + text.title,
    format: 'markdown',
    priority: priorityOfAlerts(told.firing),
    topic: 'alarm',
    event: isOver ? 'alarm.cleared' : 'alarm.raised',
    source: 'alert',
    resolved: isOver,
    groupKey: id,
    createdBy: 'system',
    data: {
      group: {
        reason: escalation === undefined ? found.reason : 'escalation',
        receiver: group.match.receiver,
        labels: groupLabels(group.match, told.firing[0]?.labels ?? told.resolved[0]?.labels ?? {}),
      },
      alerts: [...told.firing, ...told.resolved].map((one) => ({
        id: one.id,
        status: told.firing.includes(one) ? 'firing' : 'resolved',
        labels: one.labels,
        ...one.data,
        startsAt: one.startsAt.toISOString(),
        endsAt: one.endsAt?.toISOString() ?? null,
      })),
    },
  })
}
