// SPDX-License-Identifier: AGPL-3.0-only
import type { Language } from '../errors.ts'
import type { Priority } from './channel-type.ts'
import type { NotifyReason } from './groups.ts'
import { escapeText } from './render.ts'

/** What a message says of an alert. All of it is text: nothing in it is read as a mark. */
export type AlertData = {
  title?: string
  device?: string
  value?: string
  link?: string
  /** It began before the server knew of it. */
  late?: boolean
}

export type ToldAlert = { id: string; labels: Readonly<Record<string, string>>; data: AlertData; startsAt: Date; endsAt: Date | null }

const severities: Record<string, { priority: Priority; zh: string; en: string }> = {
  critical: { priority: 1, zh: '紧急', en: 'Critical' },
  major: { priority: 2, zh: '重要', en: 'Major' },
  minor: { priority: 3, zh: '次要', en: 'Minor' },
  warning: { priority: 4, zh: '警告', en: 'Warning' },
}
const mostListed = 10

const severityOf = (alert: ToldAlert) => severities[alert.labels['severity'] ?? ''] ?? { priority: 3 as Priority, zh: '告警', en: 'Alarm' }

/** The most urgent of what fires; what is over is no more than normal. */
export function priorityOfAlerts(firing: readonly ToldAlert[]): Priority {
  return firing.length === 0 ? 3 : firing.map((one) => severityOf(one).priority).reduce((least, one) => (one < least ? one : least))
}

/** Title and body of a group's message, as the built-in templates `alarm`, `alarm_resolved` and `alarm_digest` have it. */
export function describeAlerts(
  told: { reason: NotifyReason; firing: readonly ToldAlert[]; resolved: readonly ToldAlert[] },
  language: Language,
  zone: string,
): { title: string; text: string; links: { label: string; url: string }[] } {
  const all = [...told.firing, ...told.resolved]
  const [first] = all
  const isZh = language === 'zh'
  if (!first) return { title: '', text: '', links: [] }
  const words = (zh: string, en: string) => (isZh ? zh : en)
  const titleOf = (alert: ToldAlert) => {
    const isOver = told.resolved.includes(alert)
    const mark = isOver ? words('已恢复', 'Resolved') : severityOf(alert)[language]
    const late = alert.data.late ? words('补报 ', 'Late: ') : ''
    return `${late}【${mark}】${[alert.data.device, alert.data.title ?? alert.id].filter(Boolean).join(' ')}`
  }
  const links = first.data.link ? [{ label: words('查看告警', 'Open the alarm'), url: first.data.link }] : []
  if (all.length === 1) return { title: titleOf(first), text: body(first, told.resolved.length > 0, isZh, zone), links }
  const counts = isZh
    ? `${told.firing.length} 条告警${told.resolved.length > 0 ? `，${told.resolved.length} 条已恢复` : ''}`
    : `${told.firing.length} firing${told.resolved.length > 0 ? `, ${told.resolved.length} resolved` : ''}`
  const lines = all.slice(0, mostListed).map((alert) => `- ${escapeText(titleOf(alert), 'commonmark')}`)
  const more = all.length > mostListed ? [words(`还有 ${all.length - mostListed} 条`, `and ${all.length - mostListed} more`)] : []
  return {
    title: told.firing[0] ? `${titleOf(told.firing[0])} (${counts})` : counts,
    text: [lines.join('\n'), ...more].join('\n\n'),
    links,
  }
}

function body(alert: ToldAlert, isOver: boolean, isZh: boolean, zone: string): string {
  const escape = (text: string) => escapeText(text, 'commonmark')
  const head = [alert.data.device ? `**${escape(alert.data.device)}**` : '', escape(alert.data.title ?? alert.id)].filter(Boolean).join(' ')
  const colon = isZh ? '：' : ': '
  const rows: [string, string | undefined][] = [
    [isZh ? '级别' : 'Severity', severityOf(alert)[isZh ? 'zh' : 'en']],
    [isZh ? '当前值' : 'Value', alert.data.value],
    [isZh ? '开始' : 'Started', formatTime(alert.startsAt, zone)],
    [isZh ? '结束' : 'Ended', isOver && alert.endsAt ? formatTime(alert.endsAt, zone) : undefined],
  ]
  const list = rows.flatMap(([name, value]) => (value === undefined ? [] : [`- ${name}${colon}${escape(value)}`]))
  return `${head}\n${list.join('\n')}`
}

/** `YYYY-MM-DD HH:mm:ss` on the clock of the zone. */
export function formatTime(at: Date, zone: string): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'medium' }).format(at)
}
