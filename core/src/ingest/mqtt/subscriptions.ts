// SPDX-License-Identifier: AGPL-3.0-only
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

const filtersPerSubscribe = 32
const filtersPerSession = 64
/** How MQTT 3.1.1 says no to a filter. */
const failure = 0x80

/** Grants or refuses each filter by itself; `held` keeps the granted ones with their QoS [M-34]. */
export function grantFilters(held: Map<string, number>, asked: readonly { topic: string; qos: number }[], protocol: number): number[] {
  return asked.map(({ topic, qos }, index) => {
    const isSurplus = index >= filtersPerSubscribe || (held.size >= filtersPerSession && !held.has(topic))
    if (isSurplus) return protocol === 5 ? reason.quotaExceeded : failure
    if (!allowedFilters.has(topic)) return protocol === 5 ? reason.filterInvalid : failure
    const granted = Math.min(qos, 1)
    // Deleted first so that the map keeps the order of subscribing: a push goes out in the form asked for last [M-39].
    held.delete(topic)
    held.set(topic, granted)
    return granted
  })
}

export function releaseFilters(held: Map<string, number>, filters: readonly string[]): number[] {
  return filters.map((filter) => (held.delete(filter) ? reason.success : reason.noSubscriptionExisted))
}
