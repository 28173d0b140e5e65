// SPDX-License-Identifier: AGPL-3.0-only
import type { LocationQuery } from 'vue-router'

/** States of deliveries, in the order they are offered. */
export const deliveryStates = ['sent', 'delivered', 'queued', 'failed', 'expired', 'suppressed', 'canceled'] as const
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Filters of the log are the API's parameters and the page's address [D-46]; what the API would refuse is left out. */
export function readLogFilters(query: LocationQuery): Record<string, string> {
  const filters: Record<string, string> = {}
  const { state, channelId, type } = query
  if (typeof state === 'string' && /^[a-z]{1,20}$/.test(state)) filters['state'] = state
  if (typeof channelId === 'string' && uuid.test(channelId)) filters['channelId'] = channelId
  if (typeof type === 'string' && /^[a-z_]{1,50}$/.test(type)) filters['type'] = type
  return filters
}
