// SPDX-License-Identifier: AGPL-3.0-only
import { inject, provide } from 'vue'
import type { ComputedRef, InjectionKey } from 'vue'
import type { Device, KeyModel } from '../../api/types.ts'

export type DeviceContext = {
  device: ComputedRef<Device>
  /** Answer to send back with a change, so that nobody's change is lost unseen. */
  etag: () => string | undefined
  modelOf: (key: string) => KeyModel | undefined
  /** The product's keys, the primary one first. */
  keyOrder: ComputedRef<string[]>
  /** Older than this a value is no current one [D-18]. */
  staleMs: ComputedRef<number | undefined>
  refresh: () => Promise<void>
}

const key: InjectionKey<DeviceContext> = Symbol('device')

export function provideDevice(context: DeviceContext): void {
  provide(key, context)
}

/** The device of the open page. */
export function useDevice(): DeviceContext {
  const context = inject(key)
  if (!context) throw new Error('A device tab outside of the device page')
  return context
}
