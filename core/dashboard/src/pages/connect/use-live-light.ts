// SPDX-License-Identifier: AGPL-3.0-only
import { computed, ref, shallowRef } from 'vue'
import { devices, system, telemetry } from '../../api/calls.ts'
import type { Refused, Reject } from '../../api/types.ts'
import { useLive } from '../../composables/use-live.ts'
import { useSession } from '../../session.ts'

export type Received = { at: number; key: string; value: unknown; count: number }
export type Refusal =
  | { kind: 'reject'; at: number; reject: Reject }
  | { kind: 'token'; at: number; refused: Refused }
  | { kind: 'takeover'; at: number }

/** Refused connections older than this are nothing to do with what is tried now [D-59]. */
const refusedMs = 300_000

/** What the light says: waiting, connected, received, and the last refusal. From the socket, no polling. */
export function useLiveLight(deviceId: () => string, onReceived: () => void) {
  const session = useSession()
  const isConnected = ref(false)
  const received = shallowRef<Received>()
  const refusal = shallowRef<Refusal>()
  const openedAt = Date.now()

  async function load(): Promise<void> {
    const [now, latest] = await Promise.all([devices.session(deviceId()), telemetry.latest(deviceId())])
    isConnected.value = now.session !== null
    const newest = latest.items.reduce<(typeof latest.items)[number] | undefined>(
      (best, one) => (best && best.ts >= one.ts ? best : one),
      undefined,
    )
    if (newest && !received.value) received.value = { at: newest.ts, key: newest.key, value: newest.value, count: 0 }
    if (!session.has('system.read')) return
    const { items } = await system.refused()
    const recent = items.find((one) => Date.now() - Date.parse(one.at) < refusedMs && isWrongToken(one))
    if (recent && !refusal.value) refusal.value = { kind: 'token', at: Date.parse(recent.at), refused: recent }
  }

  useLive(
    'deviceLog',
    () => ({ id: deviceId() }),
    (items) => {
      for (const item of items) {
        if (item.type === 'uplink') {
          const at = typeof item.at === 'number' ? item.at : Date.parse(item.at)
          received.value = { at, key: item.key, value: item.value, count: (received.value?.count ?? 0) + item.points }
          refusal.value = undefined
          onReceived()
        } else if (item.type === 'reject') {
          refusal.value = { kind: 'reject', at: Date.parse(item.entry.lastAt), reject: item.entry }
        } else if (item.type === 'log') {
          const { event, at } = item.entry
          if (event === 'connected') isConnected.value = true
          else if (event === 'disconnected') isConnected.value = false
          else if (event === 'takeover_loop') refusal.value = { kind: 'takeover', at: Date.parse(at) }
        }
      }
    },
    load,
  )
  useLive(
    'system',
    () => (session.has('system.read') ? {} : undefined),
    (items) => {
      const last = items.filter((item) => item.type === 'refused' && isWrongToken(item)).at(-1)
      if (last) refusal.value = { kind: 'token', at: Date.parse(last.at), refused: last }
    },
    // Who is refused is not part of what `load` fetches: the next attempt tells.
    () => undefined,
  )
  void load().catch(() => undefined)

  const light = computed(() =>
    received.value && (received.value.count > 0 || received.value.at > openedAt - refusedMs)
      ? 'received'
      : isConnected.value
        ? 'connected'
        : 'waiting',
  )
  return { light, received, refusal }
}

function isWrongToken(refused: Refused): boolean {
  return /credential|token|unknown|nothing_given/i.test(refused.reason)
}
