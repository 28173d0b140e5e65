// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from '../registry.ts'
import { reason } from './answers.ts'

/** Filters a device may hold, as exact strings: `+` is literal here [M-33]. */
const allowedFilters: ReadonlySet<string> = new Set([
  'v1/devices/me/attributes',
  'v1/devices/me/attributes/response/+',
  'v1/devices/me/rpc/request/+',
  'v1/devices/me/rpc/response/+',
  'v2/a',
  'v2/a/j',
  'v2/a/res/+',
  'v2/a/res/j/+',
  'v2/r/req/+',
  'v2/r/req/j/+',
  'v2/r/res/+',
  'v2/r/res/j/+',
  'v2/fw/response/+/chunk/+',
  'v2/fw/error',
  'v2/sw/response/+/chunk/+',
  'v2/sw/error',
])

const gatewayFilters: ReadonlySet<string> = new Set([
  'v1/gateway/attributes',
  'v1/gateway/attributes/response',
  'v1/gateway/rpc',
  'v1/gateway/disconnect',
])

const filtersPerSubscribe = 32
const filtersPerSession = 64
/** How MQTT 3.1.1 says no to a filter. */
const failure = 0x80

type Holder = { device: Device; protocol: number; subscriptions: Map<string, number> }

/** Grants or refuses each filter by itself; the session holds the granted ones with their QoS [M-34]. */
export function grantFilters(
  { device, protocol, subscriptions: held }: Holder,
  asked: readonly { topic: string; qos: number }[],
): { codes: number[]; granted: string[] } {
  const granted: string[] = []
  const codes = asked.map(({ topic, qos }, index) => {
    const isSurplus = index >= filtersPerSubscribe || (held.size >= filtersPerSession && !held.has(topic))
    if (isSurplus) return protocol === 5 ? reason.quotaExceeded : failure
    if (!isFilterAllowed(topic, device)) return protocol === 5 ? reason.filterInvalid : failure
    const code = Math.min(qos, 1)
    // Deleted first so that the map keeps the order of subscribing: a push goes out in the form asked for last [M-39].
    held.delete(topic)
    held.set(topic, code)
    granted.push(topic)
    return code
  })
  return { codes, granted }
}

function isFilterAllowed(filter: string, device: Device): boolean {
  if (allowedFilters.has(filter) || (device.isGateway && gatewayFilters.has(filter))) return true
  return filter === device.settings.transport.attributesPushTopic
}

export function releaseFilters(held: Map<string, number>, filters: readonly string[]): number[] {
  return filters.map((filter) => (held.delete(filter) ? reason.success : reason.noSubscriptionExisted))
}
