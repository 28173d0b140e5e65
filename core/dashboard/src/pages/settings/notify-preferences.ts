// SPDX-License-Identifier: AGPL-3.0-only
import type { NotifyPreferences } from '../../api/types.ts'

export const severities = ['critical', 'major', 'minor', 'warning'] as const
export const wantedTopics = ['alarm', 'message'] as const
/** The inbox is not among them: it takes everything. */
export const wantedKinds = ['email', 'sms', 'telegram'] as const
export const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

type Quiet = NonNullable<NotifyPreferences['quietHours']>
type Topic = (typeof wantedTopics)[number]
type Kind = (typeof wantedKinds)[number]
export type PreferencesForm = {
  minSeverity: (typeof severities)[number] | ''
  topics: Record<Topic, Record<Kind, boolean>>
  quiet: (Omit<Quiet, 'days' | 'breakThrough'> & { days: string[]; breakThrough: number }) | undefined
}

export const blankQuiet = { from: '22:00', to: '07:00', mode: 'hold' as const, days: [...weekdays] as string[], breakThrough: 1 }

export function fromPreferences({ minSeverity, topics, quietHours }: NotifyPreferences): PreferencesForm {
  const of = (topic: Topic) =>
    Object.fromEntries(wantedKinds.map((kind) => [kind, topics?.[topic]?.[kind] !== false])) as Record<Kind, boolean>
  return {
    minSeverity: minSeverity ?? '',
    topics: { alarm: of('alarm'), message: of('message') },
    quiet: quietHours && { ...quietHours, days: quietHours.days ?? [...weekdays], breakThrough: quietHours.breakThrough ?? 1 },
  }
}

/** What the form has no field for stays as it is stored. */
export function toPreferences(form: PreferencesForm, stored: NotifyPreferences): NotifyPreferences {
  const { minSeverity: _, quietHours: __, topics: before = {}, ...rest } = stored
  const topics = { ...before }
  for (const topic of wantedTopics) {
    const off = wantedKinds.filter((kind) => !form.topics[topic][kind])
    const { email: _email, sms: _sms, telegram: _telegram, ...others } = before[topic] ?? {}
    const next = { ...others, ...Object.fromEntries(off.map((kind) => [kind, false])) }
    if (Object.keys(next).length > 0) topics[topic] = next
    else delete topics[topic]
  }
  const { quiet } = form
  // Every day is the same as none named.
  const isDaily = quiet === undefined || quiet.days.length === 0 || quiet.days.length === weekdays.length
  const { days, ...hours } = quiet ?? { days: [] }
  return {
    ...rest,
    ...(form.minSeverity === '' ? {} : { minSeverity: form.minSeverity }),
    ...(Object.keys(topics).length > 0 ? { topics } : {}),
    ...(quiet === undefined ? {} : { quietHours: { ...(hours as Omit<Quiet, 'days'>), ...(isDaily ? {} : { days }) } }),
  }
}
