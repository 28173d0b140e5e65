// SPDX-License-Identifier: AGPL-3.0-only
import { computed, shallowRef, watch } from 'vue'
import { telemetry } from '../../api/calls.ts'
import { keys } from '../../api/keys.ts'
import type { Latest } from '../../api/types.ts'
import { useData } from '../../composables/use-data.ts'
import { useLive } from '../../composables/use-live.ts'
import type { DeviceContext } from './use-device.ts'

/** The latest value of every key of a device, the product's keys first, going on live. */
export function useLatest({ device, keyOrder }: DeviceContext) {
  const deviceId = () => device.value.id
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
    // The stream begins with the latest value of every key.
    (isFirst) => (isFirst ? undefined : refresh()),
  )
  const latest = computed(() => {
    const place = new Map(keyOrder.value.map((key, index) => [key, index]))
    const placeOf = (key: string) => place.get(key) ?? keyOrder.value.length
    return [...byKey.value.values()].sort((a, b) => placeOf(a.key) - placeOf(b.key) || a.key.localeCompare(b.key))
  })
  return { latest, state, error, refresh }
}
