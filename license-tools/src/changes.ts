// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { LicenseClaims } from '@iot-pms/core/license'
import type { Text } from './errors.ts'
import { formatDay } from './tool.ts'

/** One difference between two licenses; `ack` marks those the customer's administrator has to accept [L-72]. */
export type Change = { change: string; feature?: string; limit?: string; from?: unknown; to?: unknown; ack?: true }

/** The change list of [L-72] between two tokens, with the binding beside it. */
export function listChanges(from: LicenseClaims, to: LicenseClaims): Change[] {
  return [
    ...to.features.filter((id) => !from.features.includes(id)).map((feature): Change => ({ change: 'FEATURE_ADDED', feature })),
    ...from.features
      .filter((id) => !to.features.includes(id))
      .map((feature): Change => ({ change: 'FEATURE_REMOVED', feature, ack: true })),
    ...listLimitChanges(from.limits, to.limits),
    ...(to.exp > from.exp ? [{ change: 'EXPIRES_LATER', from: formatDay(from.exp), to: formatDay(to.exp) }] : []),
    ...(to.exp < from.exp ? [{ change: 'EXPIRES_EARLIER', from: formatDay(from.exp), to: formatDay(to.exp), ack: true as const }] : []),
    ...(to.edition === from.edition ? [] : [{ change: 'EDITION_CHANGED', from: from.edition, to: to.edition }]),
    ...(to.kind === from.kind || from.kind !== 'production'
      ? []
      : [{ change: 'KIND_CHANGED', from: from.kind, to: to.kind, ack: true as const }]),
    ...(to.sub === from.sub ? [] : [{ change: 'CUSTOMER_CHANGED', from: from.sub, to: to.sub, ack: true as const }]),
    ...(JSON.stringify([from.machine, from.cnf]) === JSON.stringify([to.machine, to.cnf])
      ? []
      : [{ change: 'MACHINE_CHANGED', from: describeMachine(from), to: describeMachine(to) }]),
  ]
}

export function formatChange({ change, feature, limit, from, to, ack }: Change): Text {
  const what = feature ?? limit ?? ''
  const values = from === undefined ? '' : `${String(from)} → ${String(to)}`
  const line = [change, what, values].filter((part) => part !== '').join(' ')
  return ack ? { zh: `${line}（客户须确认）`, en: `${line} (the customer must accept it)` } : { zh: line, en: line }
}

export function describeMachine({ machine }: Pick<LicenseClaims, 'machine'>): string {
  if (machine.mode === 'any') return 'any'
  return `${machine.mode} ${machine.min}/${machine.factors.length} (${machine.factors.map((factor) => factor.k).join(' ')})`
}

/** A limit that is not written counts as the product counts it [L-60]. */
function listLimitChanges(from: LicenseClaims['limits'], to: LicenseClaims['limits']): Change[] {
  const usual: Record<string, number> = { devices: 0, tenants: 1, replicas: 1, users: -1, overage_pct: 0 }
  const names = new Set([...Object.keys(from), ...Object.keys(to)])
  return [...names].flatMap((limit): Change[] => {
    const [before, after] = [from[limit] ?? usual[limit] ?? 0, to[limit] ?? usual[limit] ?? 0]
    if (before === after) return []
    const isRaised = before !== -1 && (after === -1 || after > before)
    const change = { change: isRaised ? 'LIMIT_RAISED' : 'LIMIT_LOWERED', limit, from: before, to: after }
    return [isRaised ? change : { ...change, ack: true }]
  })
}
