// SPDX-License-Identifier: AGPL-3.0-only
import { computed, shallowRef, watch } from 'vue'
import { telemetry } from '../../api/calls.ts'
import { keys } from '../../api/keys.ts'
import type { Latest } from '../../api/types.ts'
import { useData } from '../../composables/use-data.ts'
import { useLive } from '../../composables/use-live.ts'

/** The latest value of every key of a device, going on live. */
export function useLatest(deviceId: () => string) {
  const { data, state, error, refresh } = useData({ key: () => keys.deviceLatest(deviceId()), query: () => telemetry.latest(deviceId()) })
  // Keys come from devices, so a Map holds them [D-105].
  const byKey = shallowRef(new Map<string, Latest>())
  watch(
    data,
    (now) => {
      if (now) byKey.value = new Map(now.items.map((one) => [one.key, one]))
    },
    { immediate: true },
  )
  useLive(
    'telemetry',
    () => ({ deviceIds: [deviceId()], maxHz: 4 }),
    (items) => {
      const next = new Map(byKey.value)
      for (const [, key, ts, value, kind] of items) {
        const before = next.get(key)
        if (!before || before.ts <= ts) next.set(key, { key, ts, value, kind })
      }
      byKey.value = next
    },
    () => void refresh(),
  )
  const latest = computed(() => [...byKey.value.values()].sort((a, b) => a.key.localeCompare(b.key)))
  return { latest, state, error, refresh }
}
