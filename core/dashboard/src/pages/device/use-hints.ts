// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import { keys } from '../../api/keys.ts'
import type { KeyModel } from '../../api/types.ts'
import { useData } from '../../composables/use-data.ts'
import { readHint } from './hints.ts'
import { readScope } from './use-attributes.ts'

/** Titles and units that a device has announced for its keys; where its product has a word on a key, that one counts. */
export function useHints(deviceId: () => string, isOn: () => boolean): (key: string) => KeyModel | undefined {
  const { data } = useData({
    key: () => keys.deviceHints(deviceId()),
    query: () => readScope(deviceId(), 'client'),
    enabled: isOn,
  })
  const hints = computed(() => new Map((isOn() ? (data.value ?? []) : []).flatMap((attribute) => readHint(attribute) ?? [])))
  return (key) => hints.value.get(key)
}
