// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { useI18n } from 'vue-i18n'
import type { AuditEvent } from './calls.ts'

/** What would move, hide or reorder text on a page is shown as a symbol: names come from anywhere. */
export function showText(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (one) => {
    const code = one.codePointAt(0)!
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : code === 0x7f ? '␡' : `⟨${code.toString(16).toUpperCase()}⟩`
  })
}

function showValue(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return showText(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}

/** Events as sentences. */
export function useEventTexts() {
  const i18n = useI18n()
  const { t } = i18n
  const has = (key: string) => i18n.te(key)
  const nameOf = (type: string) => {
    const key = `audit.types.${type.replaceAll('.', '_')}`
    return has(key) ? t(key) : type
  }
  return {
    nameOf,
    who: ({ actor, data }: AuditEvent) => {
      if (data.actor.name) return showText(data.actor.name)
      return has(`audit.actors.${actor}`) ? t(`audit.actors.${actor}`) : showText(actor)
    },
    target: ({ subject, data }: AuditEvent) => showText(data.target.name ?? (subject === '-' ? '' : subject)),
    changes: ({ data }: AuditEvent) =>
      data.changes
        .slice(0, 3)
        .map(
          ({ path, from, to }) =>
            `${showText(path.slice(1))}: ${from === null ? '' : `${showValue(from)} → `}${to === null ? '∅' : showValue(to)}`,
        )
        .join(' · ') + (data.changes.length > 3 ? ' …' : ''),
  }
}
