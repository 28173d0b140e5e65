// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import { useI18n } from 'vue-i18n'
import type { KeyModel } from '../api/types.ts'
import { formatNumber, formatValue } from '../format.ts'
import { usePrefs } from '../prefs.ts'
import { useSession } from '../session.ts'
import { ageOf, formatInstant, formatWithZone } from '../time.ts'
import { useNow } from './use-now.ts'

/** Numbers, values and times in the person's language and zone. */
export function useFormat() {
  const { t } = useI18n()
  const prefs = usePrefs()
  const session = useSession()
  const now = useNow()
  const language = computed(() => prefs.language)
  const zone = computed(() => session.zone)

  const showValue = (
    value: unknown,
    kind?: string,
    style: { unit?: string | null | undefined; decimals?: number | null | undefined } = {},
  ) => formatValue(value, kind, language.value, { unit: style.unit, decimals: style.decimals, yes: t('common.yes'), no: t('common.no') })

  return {
    language,
    zone,
    number: (value: number, decimals?: number | null) => formatNumber(value, language.value, decimals),
    value: showValue,
    title: (key: string, model?: KeyModel) => model?.title?.[language.value] ?? key,
    instant: (at: string | number, options: { ms?: boolean } = {}) => formatInstant(toMs(at), zone.value, language.value, options),
    withZone: (at: string | number) => formatWithZone(toMs(at), zone.value, language.value),
    relative(at: string | number): string {
      const ts = toMs(at)
      const age = ageOf(ts, now.value)
      if (age.unit === 'absolute') return formatInstant(ts, zone.value, language.value)
      if (age.unit === 'now') return t('common.age.now')
      return t(`common.age.${age.unit}`, { count: age.count }, age.count)
    },
  }
}

export function toMs(at: string | number): number {
  return typeof at === 'number' ? at : new Date(at).getTime()
}
