// SPDX-License-Identifier: AGPL-3.0-only
import { onScopeDispose, watch } from 'vue'
import type { WatchSource } from 'vue'
import { liveSocket, liveStatus } from '../live/live.ts'
import type { Topic, Topics } from '../live/topics.ts'

/** Rows reach the page at most ten times a second, in one go [D-40]. */
const batchMs = 100
/** How often a page that cannot have a socket fetches. */
const pollMs = 10_000

/**
 * Follows a topic while the component lives. `params` undefined: nothing to follow now. `resync` fetches
 * what is shown anew: after a gap, and every ten seconds when no socket gets through.
 */
export function useLive<T extends Topic>(
  topic: T,
  params: WatchSource<Topics[T]['params'] | undefined>,
  onItems: (items: Topics[T]['item'][]) => void,
  resync?: () => void,
): void {
  let end: (() => void) | undefined
  let waiting: Topics[T]['item'][] = []
  let timer: ReturnType<typeof setTimeout> | undefined
  const flush = () => {
    timer = undefined
    const items = waiting
    waiting = []
    onItems(items)
  }
  const close = () => {
    end?.()
    end = undefined
    clearTimeout(timer)
    timer = undefined
    waiting = []
  }
  watch(
    params,
    (next, before) => {
      if (end && JSON.stringify(next) === JSON.stringify(before)) return
      close()
      if (!next) return
      const socket = liveSocket()
      socket.start()
      end = socket.subscribe(topic, next, {
        items: (items) => {
          waiting.push(...(items as Topics[T]['item'][]))
          timer ??= setTimeout(flush, batchMs)
        },
        ...(resync ? { resync } : {}),
      })
    },
    { immediate: true },
  )
  const poll = setInterval(() => {
    if (liveStatus.value === 'polling' && end && !document.hidden) resync?.()
  }, pollMs)
  onScopeDispose(() => {
    clearInterval(poll)
    close()
  })
}
