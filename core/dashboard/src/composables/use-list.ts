// SPDX-License-Identifier: AGPL-3.0-only
import { computed, ref, shallowRef, watch } from 'vue'
import type { WatchSource } from 'vue'
import { toApiError } from '../api/errors.ts'
import type { ApiError } from '../api/errors.ts'
import type { Page } from '../api/types.ts'

/** More rows than this are no help to anybody; the filter should be narrowed [D-45]. */
const maxRows = 5000

/**
 * A list that is paged by the server. A change of `query` starts it anew; answers to older questions
 * are dropped.
 */
export function useList<T, Q>(
  query: WatchSource<Q>,
  fetchPage: (query: Q, cursor: string | undefined, signal: AbortSignal) => Promise<Page<T> & { total?: number }>,
) {
  const items = shallowRef<T[]>([])
  const total = ref<number>()
  const cursor = ref<string | null>(null)
  const error = shallowRef<ApiError>()
  const isLoading = ref(false)
  const isLoaded = ref(false)
  let abort: AbortController | undefined
  let current: Q

  async function load(from: string | undefined): Promise<void> {
    abort?.abort()
    const mine = new AbortController()
    abort = mine
    isLoading.value = true
    try {
      const page = await fetchPage(current, from, mine.signal)
      if (abort !== mine) return
      items.value = from === undefined ? page.items : [...items.value, ...page.items]
      cursor.value = page.nextCursor
      if (from === undefined) total.value = page.total
      error.value = undefined
      isLoaded.value = true
    } catch (failure) {
      if (abort !== mine) return
      error.value = toApiError(failure)
    } finally {
      if (abort === mine) isLoading.value = false
    }
  }

  watch(
    query,
    (next, before) => {
      if (before !== undefined && JSON.stringify(next) === JSON.stringify(before)) return
      current = next
      void load(undefined)
    },
    { immediate: true },
  )

  const isFull = computed(() => items.value.length >= maxRows)
  return {
    items,
    total,
    error,
    isLoading,
    isFull,
    hasNext: computed(() => cursor.value !== null && !isFull.value),
    state: computed(() => (isLoaded.value ? (items.value.length === 0 ? 'empty' : 'ready') : error.value ? 'error' : 'loading')),
    refresh: () => load(undefined),
    async loadNext(): Promise<void> {
      if (!isLoading.value && cursor.value !== null && !isFull.value) await load(cursor.value)
    },
    /** Changes rows in place: live updates, an act just done. */
    patch(change: (item: T) => T | undefined): void {
      items.value = items.value.flatMap((item) => change(item) ?? [])
    },
    prepend(item: T): void {
      items.value = [item, ...items.value]
      isLoaded.value = true
    },
  }
}
