// SPDX-License-Identifier: AGPL-3.0-only
import { useQuery } from '@pinia/colada'
import { computed } from 'vue'
import type { ComputedRef } from 'vue'
import { freshMs } from '../api/keys.ts'
import { toApiError } from '../api/errors.ts'
import type { ApiError } from '../api/errors.ts'

export type DataState = 'loading' | 'ready' | 'error'

export type Data<T> = {
  data: ComputedRef<T | undefined>
  state: ComputedRef<DataState>
  error: ComputedRef<ApiError | undefined>
  refresh: () => Promise<void>
}

type Options<T> = { key: () => (string | Record<string, string>)[]; query: () => Promise<T>; staleMs?: number; enabled?: () => boolean }

/** Data of the cache: what an earlier visit left is shown at once and renewed behind it [D-36]. */
export function useData<T>(options: Options<T>): Data<T> {
  const query = useQuery({
    key: options.key,
    query: options.query,
    staleTime: options.staleMs ?? freshMs.normal,
    enabled: options.enabled ?? true,
  })
  return {
    data: computed(() => query.data.value),
    state: computed(() => (query.data.value !== undefined ? 'ready' : query.error.value ? 'error' : 'loading')),
    error: computed(() => (query.error.value ? toApiError(query.error.value) : undefined)),
    refresh: async () => {
      await query.refetch()
    },
  }
}
