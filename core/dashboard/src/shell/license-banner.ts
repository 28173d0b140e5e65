// SPDX-License-Identifier: AGPL-3.0-only
import { useLocalStorage } from '@vueuse/core'
import { computed } from 'vue'
import { useI18n } from 'vue-i18n'
import type { License } from '../api/types.ts'
import { useFormat } from '../composables/use-format.ts'
import { useLicense } from '../composables/use-license.ts'
import { useSession } from '../session.ts'
import { daysUntil, toLocal } from '../time.ts'

/** What readers of the license are told on every page, the most serious first [L-124]. */
const order = ['INVALID', 'REVOKED', 'RESTRICTED', 'MISMATCH', 'GRACE', 'OVER_LIMIT', 'CLOCK_SUSPECT', 'EXPIRING', 'TRIAL'] as const
type Name = (typeof order)[number]
const serious: ReadonlySet<Name> = new Set(['INVALID', 'REVOKED', 'RESTRICTED'])

const dateOf = ({ license }: License, name: Name) =>
  name === 'EXPIRING' ? license?.expiresAt : name === 'GRACE' ? license?.graceEndsAt : license?.restrictedAt

/** The one line of the license, or none; who may not know of it never asks for it [D-71]. */
export function useLicenseBanner() {
  const { t } = useI18n()
  const session = useSession()
  const format = useFormat()
  const { data } = useLicense()
  /** `<user> <day>` on which the reminder of the end was closed. */
  const closed = useLocalStorage('iotpms.license-reminder', '')
  const today = () => {
    const { year, month, day } = toLocal(Date.now(), session.zone)
    return `${session.user?.id} ${year}-${month}-${day}`
  }
  const banner = computed(() => {
    const view = session.has('license.read') ? data.value : undefined
    if (!view) return undefined
    const isStaging = view.conditions.includes('STAGING') || view.env === 'staging'
    const name = order.find((one) => view.state === one || view.conditions.includes(one))
    const isClosed = name === 'EXPIRING' && closed.value === today()
    if (!name || isClosed) {
      return isStaging ? { name: 'STAGING', isDanger: false, text: t('license.banner.STAGING'), isClosable: false } : undefined
    }
    const days = daysUntil(view.license?.expiresAt ?? 0, view.clock.effectiveNow)
    const at = dateOf(view, name)
    const text = t(`license.banner.${name}`, { at: at ? format.instant(at) : '—', count: days, days }, days)
    return {
      name,
      isDanger: serious.has(name),
      text: isStaging ? `${t('license.banner.STAGING')} · ${text}` : text,
      isClosable: name === 'EXPIRING',
    }
  })
  return { banner, close: () => (closed.value = today()) }
}
