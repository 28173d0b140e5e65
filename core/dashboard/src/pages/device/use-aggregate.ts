// SPDX-License-Identifier: AGPL-3.0-only
import { computed, onScopeDispose, ref, shallowRef, watch } from 'vue'
import { telemetry } from '../../api/calls.ts'
import { toApiError } from '../../api/errors.ts'
import type { ApiError } from '../../api/errors.ts'
import type { RawPoint, Series } from '../../api/types.ts'
import type { ChartSeries, NumberPoint } from '../../charts/series.ts'
import { askFor, useHistory } from '../../composables/use-history.ts'
import type { Range } from '../../composables/use-range.ts'
import { useSession } from '../../session.ts'

export const aggregations = ['NONE', 'AVG', 'MIN', 'MAX', 'SUM', 'COUNT', 'DELTA', 'RATE'] as const
export type Aggregation = (typeof aggregations)[number]
export const intervals = ['minute', 'hour', 'day', 'week', 'month', 'quarter', 'year'] as const
export type Interval = (typeof intervals)[number]

/** Usual length, ms: only for where a line breaks and for the choice at the start. */
const lengthMs: Record<Interval, number> = {
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
  month: 2_678_400_000,
  quarter: 7_948_800_000,
  year: 31_622_400_000,
}

/** More buckets than this are no help on a screen. */
const maxBuckets = 2000

type Look = { label: string; unit?: string | null | undefined; decimals?: number | null | undefined }

/** Series of the picked keys: raw and live, or in buckets of the calendar of the page's zone. */
export function useAggregate(deviceId: () => string, keys: () => string[], range: Range, lookOf: (key: string) => Look) {
  const session = useSession()
  const agg = ref<Aggregation>('NONE')
  const interval = ref<Interval>('hour')
  const isRaw = computed(() => agg.value === 'NONE')
  const raw = useHistory(
    deviceId,
    () => (isRaw.value ? keys() : []),
    range,
    () => Math.min(innerWidth, 1400),
  )
  const buckets = shallowRef<Series[]>([])
  const error = shallowRef<ApiError>()
  let abort: AbortController | undefined

  async function fetchBuckets(): Promise<void> {
    abort?.abort()
    if (isRaw.value || keys().length === 0) return
    const mine = new AbortController()
    abort = mine
    // The band of an average is its smallest and largest value.
    const asked = agg.value === 'AVG' ? 'AVG,MIN,MAX' : agg.value
    try {
      const answer = await telemetry.history(
        deviceId(),
        {
          ...askFor(keys()),
          from: String(range.from.value),
          to: String(range.to.value),
          agg: asked,
          intervalType: interval.value,
          interval: 1,
          timeZone: session.zone,
        },
        mine.signal,
      )
      if (abort !== mine) return
      buckets.value = answer
      error.value = undefined
    } catch (failure) {
      if (abort === mine) error.value = toApiError(failure)
    }
  }

  watch([agg, range.chosen], () => {
    const span = range.to.value - range.from.value
    if (!isRaw.value && span / lengthMs[interval.value] > maxBuckets) {
      interval.value = intervals.find((one) => span / lengthMs[one] <= maxBuckets) ?? 'year'
    }
  })
  watch([deviceId, () => keys().join(), range.chosen, agg, interval, () => session.zone], () => void fetchBuckets())
  onScopeDispose(() => abort?.abort())

  const series = computed<ChartSeries[]>(() =>
    keys().map((key) => {
      const look = agg.value === 'COUNT' ? { label: lookOf(key).label, decimals: 0 } : lookOf(key)
      if (isRaw.value) return { id: key, ...look, points: toNumbers(raw.series.value.get(key) ?? []) }
      const of = (name: string) => toNumbers(buckets.value.find((one) => one.key === key && one.agg === name)?.points ?? [])
      const points = of(agg.value)
      if (agg.value !== 'AVG') return { id: key, ...look, points }
      const max = new Map(of('MAX'))
      return {
        id: key,
        ...look,
        points,
        band: of('MIN').map(([ts, value]) => [ts, value, max.get(ts) ?? value] as [number, number, number]),
      }
    }),
  )
  return {
    agg,
    interval,
    series,
    intervalMs: computed(() => (isRaw.value ? 0 : lengthMs[interval.value])),
    history: {
      state: computed(() => (isRaw.value ? raw.state.value : error.value ? 'error' : 'ready')),
      error: computed(() => (isRaw.value ? raw.error.value : error.value)),
      refresh: () => (isRaw.value ? raw.refresh() : fetchBuckets()),
    },
  }
}

/** Exact integers beyond 2⁵³ come as text; on a plot they are rounded. */
function toNumbers(points: readonly RawPoint[]): NumberPoint[] {
  return points.flatMap(([ts, value]) => {
    const number = typeof value === 'string' || typeof value === 'number' ? Number(value) : Number.NaN
    return Number.isFinite(number) ? [[ts, number] as NumberPoint] : []
  })
}
