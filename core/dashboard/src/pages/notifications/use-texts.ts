// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import { useI18n } from 'vue-i18n'
import { channels } from '../../api/notification-calls.ts'
import { freshMs, keys } from '../../api/keys.ts'
import { useData } from '../../composables/use-data.ts'

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
    const key = `notifications.reason.${reason}`
    return i18n.te(key) ? i18n.t(key) : reason
  }
}
