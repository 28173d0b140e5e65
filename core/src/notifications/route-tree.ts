// SPDX-License-Identifier: AGPL-3.0-only
import { isInside } from './intervals.ts'
import { matchesAll } from './matchers.ts'
import type { Labels } from './matchers.ts'
import type { Route, Routing } from './routing-document.ts'

/** A node of the tree that answers for an alert, with what it inherits. */
export type RouteMatch = {
  /** Child indexes from the root `0`. */
  path: string
  receiver: string
  groupBy: readonly string[]
  groupWaitMs: number
  groupIntervalMs: number
  repeatIntervalMs: number
  activeIntervals: readonly string[]
  muteIntervals: readonly string[]
  /** Name of the policy that goes on when nobody acknowledges. */
  escalation?: string
}

const root: Omit<RouteMatch, 'path'> = {
  receiver: '',
  groupBy: [],
  groupWaitMs: 30_000,
  groupIntervalMs: 300_000,
  repeatIntervalMs: 14_400_000,
  activeIntervals: [],
  muteIntervals: [],
}

/**
 * Depth first: the first child that matches wins, with `continue` its later siblings are tried too, and a node
 * answers itself only when no child matched. Everything but intervals is inherited.
 */
export function matchRoutes(routing: Routing, labels: Labels): RouteMatch[] {
  return visit(routing.route, '0', root, labels)
}

function visit(route: Route, path: string, inherited: Omit<RouteMatch, 'path'>, labels: Labels): RouteMatch[] {
  const own = {
    receiver: route.receiver ?? inherited.receiver,
    groupBy: route.groupBy ?? inherited.groupBy,
    groupWaitMs: route.groupWaitMs ?? inherited.groupWaitMs,
    groupIntervalMs: route.groupIntervalMs ?? inherited.groupIntervalMs,
    repeatIntervalMs: route.repeatIntervalMs ?? inherited.repeatIntervalMs,
    activeIntervals: route.activeIntervals ?? [],
    muteIntervals: route.muteIntervals ?? [],
    ...escalationOf(route.escalation ?? inherited.escalation),
  }
  const found: RouteMatch[] = []
  for (const [index, child] of (route.routes ?? []).entries()) {
    if (!matchesAll(child.matchers ?? [], labels)) continue
    found.push(...visit(child, `${path}.${index}`, own, labels))
    if (!child.continue) break
  }
  return found.length > 0 ? found : [{ path, ...own }]
}

const escalationOf = (name: string | undefined) => (name === undefined ? {} : { escalation: name })

/** The labels that alerts of one group share. */
export function groupLabels(match: Pick<RouteMatch, 'groupBy'>, labels: Labels): Record<string, string> {
  const names = match.groupBy.includes('...') ? Object.keys(labels) : match.groupBy
  return Object.fromEntries([...names].sort().map((name) => [name, labels[name] ?? '']))
}

export const groupIdOf = (match: RouteMatch, labels: Labels): string =>
  `${match.path} ${match.receiver} ${JSON.stringify(groupLabels(match, labels))}`

/** Whether the node tells nobody at this instant. */
export function isOutsideIntervals(routing: Routing, match: Pick<RouteMatch, 'activeIntervals' | 'muteIntervals'>, at: Date): boolean {
  const isIn = (name: string) => isInside(routing.intervals?.[name] ?? [], at)
  return (match.activeIntervals.length > 0 && !match.activeIntervals.some(isIn)) || match.muteIntervals.some(isIn)
}
