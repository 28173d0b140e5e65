// SPDX-License-Identifier: AGPL-3.0-only
import { readonly, ref } from 'vue'
import { system } from '../api/calls.ts'
import { socketUrlOf } from '../base.ts'
import { useSession } from '../session.ts'
import { LiveSocket } from './socket.ts'
import type { LiveStatus } from './socket.ts'

const current = ref<LiveStatus>('idle')
/** Shown after this long without a line [D-39]. */
export const liveStatus = readonly(current)

let socket: LiveSocket | undefined

const listeners = new Set<(topic: string) => void>()

/** Hears what concerns the whole application: `license`, `modules`, and `open` after each connecting. */
export function onLiveEvent(listener: (topic: string) => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

/** The tab's socket, made on first use. */
export function liveSocket(): LiveSocket {
  if (socket) return socket
  const session = useSession()
  const made = new LiveSocket({
    async address() {
      if (!session.user || !session.mayAsk()) return undefined
      const { ticket } = await system.ticket()
      const url = socketUrlOf('api/v1/stream')
      url.searchParams.set('ticket', ticket)
      return url
    },
    status: (status) => (current.value = status),
    // The next ticket request meets a 401, and that leads to the sign-in dialog.
    sessionEnded: () => void session.renew(),
    event: (topic) => {
      for (const listener of listeners) listener(topic)
    },
  })
  session.onEnd(() => made.stop())
  session.onEnter(() => made.wake())
  let hiddenTimer: ReturnType<typeof setTimeout> | undefined
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiddenTimer)
    if (document.hidden) hiddenTimer = setTimeout(() => made.suspend(true), 60_000)
    else made.suspend(false)
  })
  socket = made
  return made
}
