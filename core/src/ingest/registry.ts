// SPDX-License-Identifier: AGPL-3.0-only
import type { ProductSettings } from '../products/schemas.ts'
import type { DeviceLimits } from './rate-limits.ts'

/** Payload rules of a device's product (specs: device API §17.1 `payload`). */
export type PayloadRules = {
  json: 'relaxed' | 'strict'
  duplicateKeys: 'last' | 'reject'
  castNumericStrings: boolean
  timestampUnit: 'ms' | 's' | 'auto'
  maxFutureMs: number
  ackInvalidPayload: boolean
}

export const defaultPayloadRules: PayloadRules = {
  json: 'relaxed',
  duplicateKeys: 'last',
  castNumericStrings: true,
  timestampUnit: 'ms',
  maxFutureMs: 86_400_000,
  ackInvalidPayload: false,
}

/**
 * A known device as the ingest path holds it in memory: one object per device, shared by
 * all entrances, so that a packet needs no look-up.
 */
export type Device = {
  tenantId: string
  tenantNo: number
  id: string
  /** Small number used in telemetry rows. */
  no: number
  name: string
  isDisabled: boolean
  isGateway: boolean
  /** The gateway that speaks for it; undefined for a device that only speaks for itself. */
  gatewayId?: string | undefined
  /** What its product says: one object for all devices of the product, replaced when that changes, never changed in place. */
  settings: ProductSettings
  /** `settings.payload`, which every packet needs. */
  rules: PayloadRules
  inactivityTimeoutMs: number
  /** Rate limits; absent when the device has none, which is usual [§15]. */
  limits?: DeviceLimits | undefined
  /** Greatest server-made timestamp so far, ms; points without `ts` come strictly after it. */
  lastServerTs: number
  /** The store's own memory of this device's keys and their numbers. */
  keyNos?: Map<string, number>
}
