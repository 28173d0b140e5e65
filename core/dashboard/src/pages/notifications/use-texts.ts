// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import { useI18n } from 'vue-i18n'
import { users } from '../../api/calls.ts'
import { freshMs, keys } from '../../api/keys.ts'
import { channels } from '../../api/notification-calls.ts'
import { useData } from '../../composables/use-data.ts'
import { splitDuration } from '../../format.ts'
import { useSession } from '../../session.ts'
import type { Target } from './routing-form.ts'

/** The kinds of channels and their names in the person's language. */
export function useChannelTypes() {
  const { locale } = useI18n()
  const { data, error, state, refresh } = useData({ key: keys.channelTypes, query: channels.types, staleMs: freshMs.catalogue })
  const types = computed(() => data.value?.items ?? [])
  return {
    types,
    error,
    state,
    refresh,
    titleOf(type: string): string {
      const title = types.value.find((one) => one.type === type)?.title
      return title ? title[locale.value === 'en' ? 'en' : 'zh'] : type
    },
  }
}

/** The channels there are, by id. */
export function useChannels() {
  const { data, error, state, refresh } = useData({ key: keys.channels, query: channels.list, staleMs: freshMs.list })
  const items = computed(() => data.value?.items ?? [])
  const nameOf = (id: string): string | undefined => items.value.find((one) => one.id === id)?.name
  return { data, items, error, state, refresh, nameOf }
}

/** Reasons as sentences; one that has none stays what the provider's adapter called it. */
export function useReasons() {
  const i18n = useI18n()
  return (reason: string): string => {
    // What follows the first word says which, such as the digest a message went into.
    const key = `notifications.reason.${reason.split(' ', 1)[0]}`
    return i18n.te(key) ? i18n.t(key) : reason
  }
}

/** Spans of time in the unit that says them in a whole number. */
export function useSpans() {
  const i18n = useI18n()
  return (ms: number): string => {
    if (ms % 1000 !== 0) return `${ms} ms`
    const { count, unit } = splitDuration(ms)
    return i18n.t(`notifications.span.${unit}`, { count }, count)
  }
}

/** What targets of receivers are called. */
export function useTargets() {
  const i18n = useI18n()
  const session = useSession()
  const { items, nameOf } = useChannels()
  const { data } = useData({ key: keys.users, query: users.list, enabled: () => session.has('user.read') })
  const people = computed(() => (data.value?.items ?? []).filter((one) => !one.disabled))
  return {
    channels: items,
    people,
    targetName({ channelId, userId, email, phone, address }: Target): string {
      const parts = [
        channelId === undefined ? undefined : (nameOf(channelId) ?? i18n.t('notifications.routing.unknownChannel')),
        userId === undefined ? undefined : (people.value.find((one) => one.id === userId)?.name ?? i18n.t('notifications.routing.aUser')),
        email,
        phone,
        address,
      ]
      return parts.filter(Boolean).join(' ')
    },
  }
}
