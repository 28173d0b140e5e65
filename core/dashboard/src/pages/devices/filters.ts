// SPDX-License-Identifier: AGPL-3.0-only
import type { LocationQuery } from 'vue-router'
import type { FacetQuery } from '../../api/types.ts'

/** Filters of the list: the API's parameters and the page's address, letter for letter [D-46]. */
const names = ['q', 'state', 'productId', 'tag', 'firmware', 'disabled', 'lastSeenBefore'] as const
const states = new Set(['never', 'online', 'offline'])
const sorts = new Set(['name', '-name', 'createdAt', '-createdAt', 'lastActivityAt', '-lastActivityAt'])
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
export const defaultSort = '-createdAt'

/** Reads the address; what the API would refuse is left out. */
export function readFilters(query: LocationQuery): Record<string, string> {
  const filters: Record<string, string> = {}
  for (const name of names) {
    const value = query[name]
    if (typeof value !== 'string' || value === '') continue
    if (name === 'state' && !states.has(value)) continue
    if (name === 'productId' && !uuid.test(value)) continue
    if (name === 'disabled' && value !== 'true' && value !== 'false') continue
    if (name === 'lastSeenBefore' && Number.isNaN(Date.parse(value))) continue
    filters[name] = value
  }
  return filters
}

export function readSort(query: LocationQuery): string {
  return typeof query['sort'] === 'string' && sorts.has(query['sort']) ? query['sort'] : defaultSort
}

/** The filters as the API's types have them; {@link readFilters} has checked each. */
export function toQuery(filters: Record<string, string>): FacetQuery {
  return filters
}
