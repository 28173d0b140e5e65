// SPDX-License-Identifier: AGPL-3.0-only
import { computed, shallowRef, watch } from 'vue'
import { attributes } from '../../api/calls.ts'
import { keys } from '../../api/keys.ts'
import type { Attribute, AttributeScope } from '../../api/types.ts'
import { useData } from '../../composables/use-data.ts'
import { useLive } from '../../composables/use-live.ts'

export const scopes = ['client', 'shared', 'server'] as const
/** More than this of a scope are no help on a page. */
const maxAttributes = 2000
const pageSize = 500

export async function readScope(id: string, scope: AttributeScope): Promise<Attribute[]> {
  const found: Attribute[] = []
  for (let cursor: string | undefined; ;) {
    const page = await attributes.list(id, scope, { limit: pageSize, ...(cursor ? { cursor } : {}) })
    found.push(...page.items)
    if (page.nextCursor === null || found.length >= maxAttributes) return found
    cursor = page.nextCursor
  }
}

/** The attributes of a device by scope and key, going on live. Keys come from devices, so Maps hold them [D-105]. */
export function useAttributes(deviceId: () => string) {
  const { data, state, error, refresh } = useData({
    key: () => keys.deviceAttributes(deviceId()),
    query: async () => {
      const [client, shared, server] = await Promise.all(scopes.map((scope) => readScope(deviceId(), scope)))
      return { client: client!, shared: shared!, server: server! }
    },
    staleMs: 0,
  })
  const byScope = shallowRef(new Map<AttributeScope, Map<string, Attribute>>())
  watch(
    data,
    (now) => {
      if (now) byScope.value = new Map(scopes.map((scope) => [scope, new Map(now[scope].map((one) => [one.key, one]))]))
    },
    { immediate: true },
  )
  useLive(
    'attributes',
    () => ({ deviceIds: [deviceId()] }),
    (items) => {
      const next = new Map([...byScope.value].map(([scope, byKey]) => [scope, new Map(byKey)]))
      for (const item of items) {
        const byKey = next.get(item.scope)
        if (item.deleted) byKey?.delete(item.key)
        else byKey?.set(item.key, { key: item.key, value: item.value, kind: item.kind, lastUpdateTs: item.lastUpdateTs })
      }
      byScope.value = next
    },
    refresh,
  )
  return {
    state,
    error,
    refresh,
    client: computed(() => byScope.value.get('client') ?? new Map<string, Attribute>()),
    listOf: (scope: AttributeScope) =>
      [...(byScope.value.get(scope)?.values() ?? [])].sort((one, other) => (one.key < other.key ? -1 : one.key > other.key ? 1 : 0)),
  }
}
