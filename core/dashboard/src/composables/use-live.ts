// SPDX-License-Identifier: AGPL-3.0-only
import { onScopeDispose, watch } from 'vue'
import type { WatchSource } from 'vue'
import { Inbox } from '../live/inbox.ts'
import { liveSocket, liveStatus } from '../live/live.ts'
import type { Topic, Topics } from '../live/topics.ts'

/** How often a page that cannot have a socket fetches. */
const pollMs = 10_000

/**
 * Follows a topic while the component lives. `params` undefined: nothing to follow now. `resync` fetches
 * what is shown anew: when the stream begins (`isFirst`), after a gap, and every ten seconds when no socket
 * gets through. Items wait until what it returns has ended.
 */
export function useLive<T extends Topic>(
  topic: T,
  params: WatchSource<Topics[T]['params'] | undefined>,
  onItems: (items: Topics[T]['item'][]) => void,
  resync: (isFirst: boolean) => Promise<unknown> | void,
): void {
  const inbox = new Inbox(onItems)
  let end: (() => void) | undefined
  const close = () => {
    end?.()
    end = undefined
    inbox.clear()
  }
  const fetch = (isFirst: boolean) => void inbox.holdFor(resync(isFirst))
  watch(
    params,
    (next, before) => {
      if (end && JSON.stringify(next) === JSON.stringify(before)) return
      close()
      if (!next) return
      const socket = liveSocket()
      socket.start()
      end = socket.subscribe(topic, next, { items: (items) => inbox.push(items as Topics[T]['item'][]), resync: fetch })
    },
    { immediate: true },
  )
  const poll = setInterval(() => {
    if (liveStatus.value === 'polling' && end && !document.hidden) fetch(false)
  }, pollMs)
  onScopeDispose(() => {
    clearInterval(poll)
    close()
  })
}
