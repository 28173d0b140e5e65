// SPDX-License-Identifier: AGPL-3.0-only
import type { LocationQuery } from 'vue-router'
import type { AlarmQuery } from '../../api/types.ts'

export const severities = ['critical', 'major', 'minor', 'warning'] as const
/** What waits for somebody comes first; everything else is one step away [D-83]. */
export const views = ['open', 'active', 'recovered', 'all'] as const
export type AlarmView = (typeof views)[number]
export type AlarmFilters = Pick<AlarmQuery, 'status' | 'acked' | 'severity' | 'deviceId' | 'ruleId' | 'type' | 'q'>

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const byView: Record<AlarmView, AlarmFilters> = {
  open: { status: 'active', acked: false },
  active: { status: 'active' },
  recovered: { status: 'cleared', acked: false },
  all: {},
}

export const readView = (query: LocationQuery): AlarmView => views.find((one) => one === query['view']) ?? 'open'

/** The page's address as the API asks for it; what it would refuse is left out. */
export function readAlarmFilters(query: LocationQuery): AlarmFilters {
  const filters: AlarmFilters = { ...byView[readView(query)] }
  const severity = severities.find((one) => one === query['severity'])
  if (severity) filters.severity = severity
  for (const name of ['deviceId', 'ruleId'] as const) {
    const value = query[name]
    if (typeof value === 'string' && uuid.test(value)) filters[name] = value
  }
  for (const name of ['type', 'q'] as const) {
    const value = query[name]
    if (typeof value === 'string' && value !== '' && value.length <= 255) filters[name] = value
  }
  return filters
}
