// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import type { Alarm } from '../../api/types.ts'
import { useFormat } from '../../composables/use-format.ts'

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/** Spans and values of alarms in the person's language. */
export function useAlarmTexts() {
  const i18n = useI18n()
  const format = useFormat()
  return {
    /** To the two largest units: how long something has gone on is read at a glance. */
    span(ms: number): string {
      const whole = Math.max(0, ms)
      if (whole < minuteMs) return i18n.t('alarms.span.seconds', { seconds: Math.floor(whole / 1000) })
      if (whole < hourMs) return i18n.t('alarms.span.minutes', { minutes: Math.floor(whole / minuteMs) })
      const [hours, minutes] = [Math.floor((whole % dayMs) / hourMs), Math.floor((whole % hourMs) / minuteMs)]
      if (whole < dayMs) return i18n.t('alarms.span.hours', { hours, minutes })
      return i18n.t('alarms.span.days', { days: Math.floor(whole / dayMs), hours })
    },
    /** What made it: `temperature -3.1, open true`. */
    triggerOf: ({ trigger }: Pick<Alarm, 'trigger'>): string =>
      Object.entries(trigger)
        .map(
          ([key, value]) =>
            `${key} ${typeof value === 'number' ? format.number(value) : typeof value === 'string' ? value : JSON.stringify(value)}`,
        )
        .join(', '),
  }
}
