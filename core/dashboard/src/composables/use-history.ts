// SPDX-License-Identifier: AGPL-3.0-only
import { onScopeDispose, ref, shallowRef, watch } from 'vue'
import { telemetry } from '../api/calls.ts'
import { toApiError } from '../api/errors.ts'
import type { ApiError } from '../api/errors.ts'
import type { RawPoint } from '../api/types.ts'
import { appendPoints } from '../charts/series.ts'
import type { DataState } from './use-data.ts'
import type { Range } from './use-range.ts'
import { useLive } from './use-live.ts'

/** Asked of the server: never more than the plot has room for [D-87]. */
export function pointsFor(width: number): number {
  return Math.max(300, Math.min(2000, Math.round(width)))
}

/** Keys may hold a comma; then they are given one by one. */
export function askFor(keys: string[]): { keys: string } | { key: string[] } {
  return keys.some((key) => key.includes(',')) ? { key: keys } : { keys: keys.join(',') }
}

/**
 * The history of some keys of a device, downsampled by the server, and going on live while the range
 * ends now. Keys are kept in a Map: they come from devices.
 */
export function useHistory(deviceId: () => string, keys: () => string[], range: Range, width: () => number) {
  const series = shallowRef(new Map<string, RawPoint[]>())
  const state = ref<DataState>('loading')
  const error = shallowRef<ApiError>()
  let abort: AbortController | undefined

  async function fetchAll(): Promise<void> {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    if (keys().length === 0) {
      series.value = new Map()
      state.value = 'ready'
      return
    }
    try {
      const answer = await telemetry.history(
        deviceId(),
        {
          ...askFor(keys()),
          from: String(range.from.value),
          to: String(range.isLive.value ? range.to.value + 60_000 : range.to.value),
          downsample: 'minmax',
          points: pointsFor(width()),
        },
        mine.signal,
      )
      if (abort !== mine) return
      series.value = new Map(answer.map((one) => [one.key, one.points]))
      state.value = 'ready'
      error.value = undefined
    } catch (failure) {
      if (abort !== mine) return
      error.value = toApiError(failure)
      if (state.value === 'loading') state.value = 'error'
    }
  }

  watch([deviceId, () => keys().join(), range.chosen], () => void fetchAll(), { immediate: true })
  useLive(
    'telemetry',
    () => (range.isLive.value && keys().length > 0 ? { deviceIds: [deviceId()], keys: keys(), maxHz: 4 } : undefined),
    (items) => {
      const next = new Map(series.value)
      for (const key of new Set(items.map((item) => item[1]))) {
        if (!keys().includes(key)) continue
        next.set(
          key,
          appendPoints(
            next.get(key) ?? [],
            items.filter((item) => item[1] === key).map((item) => [item[2], item[3]] as const),
          ),
        )
      }
      series.value = next
    },
    fetchAll,
  )
  onScopeDispose(() => abort?.abort())
  return { series, state, error, refresh: fetchAll }
}
