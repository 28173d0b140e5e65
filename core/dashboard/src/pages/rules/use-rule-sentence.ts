// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import { splitDuration } from '../../format.ts'
import { fromRule } from './rule-form.ts'

/** A rule in words; undefined where it is more than a sentence. */
export function useRuleSentence() {
  const i18n = useI18n()
  const span = (ms: number): string => {
    const { count, unit } = splitDuration(ms)
    return i18n.t(`rules.span.${unit}`, { count }, count)
  }
  return (rule: Record<string, unknown>): string | undefined => {
    const form = fromRule(rule)
    if (!form) return undefined
    const where = i18n.t(`rules.where.${form.scope}`, {
      count: form.scope === 'products' ? form.productIds.length : form.deviceIds.length,
      tags: form.tags,
    })
    const severity = i18n.t(`rules.severity.${form.severity}`)
    const dwell = form.forMs === 0 ? '' : i18n.t('rules.sentence.for', { span: span(form.forMs) })
    if (form.condition === 'offline') return i18n.t('rules.sentence.offline', { where, dwell, severity })
    if (form.condition === 'noData') {
      const key = form.key || i18n.t('rules.anyKey')
      return i18n.t('rules.sentence.noData', { where, key, span: span(form.forMs), severity })
    }
    return i18n.t('rules.sentence.compare', { where, key: form.key, op: i18n.t(`rules.op.${form.op}`), value: form.value, dwell, severity })
  }
}
