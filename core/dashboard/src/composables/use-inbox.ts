// SPDX-License-Identifier: AGPL-3.0-only
import { useIntervalFn } from '@vueuse/core'
import { computed } from 'vue'
import { keys } from '../api/keys.ts'
import { inbox } from '../api/notification-calls.ts'
import { useSession } from '../session.ts'
import { useData } from './use-data.ts'

/** How soon a new message is seen at the bell. */
const lookMs = 15_000

/** How many messages of the own inbox are not read. */
export function useUnread() {
  const session = useSession()
  const { data, refresh } = useData({ key: keys.inbox, query: () => inbox.list({ limit: 1 }), enabled: () => session.user !== null })
  useIntervalFn(() => {
    // What is shown stays when the server cannot be asked: another line says so.
    if (!document.hidden && session.user) void refresh().catch(() => undefined)
  }, lookMs)
  return { unread: computed(() => (session.user ? (data.value?.unread ?? 0) : 0)), refresh }
}
