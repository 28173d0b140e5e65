// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import { products } from '../api/calls.ts'
import { freshMs, keys } from '../api/keys.ts'
import type { KeyModel, Product } from '../api/types.ts'
import { useData } from './use-data.ts'

/** Products with the titles, units and decimals of their keys. */
export function useProducts() {
  const { data, state, error, refresh } = useData({ key: keys.products, query: () => products.list(), staleMs: freshMs.catalogue })
  const byId = computed(() => new Map<string, Product>((data.value?.items ?? []).map((one) => [one.id, one])))
  function modelOf(productId: string | undefined, key: string): KeyModel | undefined {
    const model = productId === undefined ? undefined : byId.value.get(productId)?.model.keys
    return model && Object.hasOwn(model, key) ? model[key] : undefined
  }
  return { items: computed(() => data.value?.items ?? []), byId, modelOf, state, error, refresh }
}
