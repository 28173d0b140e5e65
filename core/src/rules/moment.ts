// SPDX-License-Identifier: AGPL-3.0-only
import type { DeviceValues } from './device-values.ts'
import type { Known, Truth } from './values.ts'

export const attributeScopes = ['server', 'shared', 'client'] as const
export type AttributeScope = (typeof attributeScopes)[number]
export const deviceFields = ['device.name', 'device.label', 'device.product', 'device.online'] as const
export type DeviceField = (typeof deviceFields)[number]

/** Everything rules know of a device. All times are ms since 1970. */
export type DeviceScene = {
  readonly values: DeviceValues
  readAttribute(scope: AttributeScope, name: string): Known
  readField(field: DeviceField): Known
  /** Connectivity as the server saw it; undefined for a device that never was there. */
  connection: { isOnline: boolean; since: number } | undefined
  createdAt: number
}

/** A scene at one instant, as one rule looks at it. */
export type Moment = {
  readonly device: DeviceScene
  /** The instant that is judged. */
  readonly at: number
  /** The server's clock, which silence is measured by. */
  readonly serverNow: number
  /** The pair's event-time clock: where windows end. */
  readonly clock: number
  /** Keys whose points this evaluation applied; empty for timers and changes. */
  readonly applied: ReadonlySet<string>
  /** When the rule was activated. */
  readonly activeSince: number
  /** Nobody is silent before the server was able to listen [3.4]; minus infinity in a preview. */
  readonly readyAt: number
  /** Last known results of leaves with hysteresis, by leaf number; written while evaluating. */
  readonly latches: Truth[]
}

/** Instants at which something changes by itself: on the clock of events, and on the server's. */
export type Due = { event: number; server: number }

export const never = Number.POSITIVE_INFINITY
export const neverDue: Due = { event: never, server: never }

export function earliest(one: Due, other: Due): Due {
  return { event: Math.min(one.event, other.event), server: Math.min(one.server, other.server) }
}
