// SPDX-License-Identifier: AGPL-3.0-only
import type { RouteMatch } from './route-tree.ts'
import type { Labels } from './matchers.ts'

type Member = { status: 'firing' | 'resolved'; labels: Record<string, string> }
export type NotifyReason = 'first' | 'new' | 'resolved' | 'all_resolved' | 'repeat'

/** What is kept of a group: plain data. Instants are ms since 1970. */
export type Group = {
  match: RouteMatch
  members: Record<string, Member>
  /** Alerts last told as firing. */
  told: string[]
  notifiedAt: number | null
  nextTickAt: number
  /** The escalation that runs for it. */
  escalation?: { policy: string; startedAt: number }
}

export type Notification = { reason: NotifyReason; firing: string[]; resolved: string[] }

const ranks: Record<string, number> = { critical: 4, major: 3, minor: 2, warning: 1 }

export function newGroup(match: RouteMatch, at: number): Group {
  return { match, members: {}, told: [], notifiedAt: null, nextTickAt: at + match.groupWaitMs }
}

/** An alert of the group fires, perhaps with other labels than before: worse than it was makes it untold. */
export function addFiring(group: Group, alert: string, labels: Labels): void {
  const before = group.members[alert]
  const isWorse = (ranks[labels['severity'] ?? ''] ?? 0) > (ranks[before?.labels['severity'] ?? ''] ?? 0)
  if (before && isWorse) group.told = group.told.filter((one) => one !== alert)
  group.members[alert] = { status: 'firing', labels: { ...labels } }
}

/** It has ended; it leaves at the next tick. */
export function addResolved(group: Group, alert: string): void {
  const member = group.members[alert]
  if (member) member.status = 'resolved'
}

/** It belongs to another group now: nothing is said of it here any more. */
export function moveAway(group: Group, alert: string): void {
  delete group.members[alert]
  group.told = group.told.filter((one) => one !== alert)
}

/**
 * One tick [notifications 7.3]: what to say now, if anything. The group is changed; it has ended when it has no
 * members left.
 *
 * @param isMuted silenced, inhibited, or outside of its intervals
 */
export function tick(
  group: Group,
  now: number,
  isMuted: (labels: Labels, alert: string) => boolean,
  sendsResolved: boolean,
): Notification | undefined {
  const names = Object.keys(group.members).sort()
  const visible = names.filter((name) => !isMuted(group.members[name]!.labels, name))
  const firing = visible.filter((name) => group.members[name]!.status === 'firing')
  const told = group.told.filter((name) => visible.includes(name))
  const resolved = visible.filter((name) => group.members[name]!.status === 'resolved' && told.includes(name))
  const stillFires = names.some((name) => group.members[name]!.status === 'firing')
  const reason = decide()
  const notification = reason && { reason, firing, resolved: sendsResolved ? resolved : [] }
  group.told = reason ? firing : told.filter((name) => !resolved.includes(name))
  if (reason) group.notifiedAt = now
  for (const name of names) if (group.members[name]!.status === 'resolved') delete group.members[name]
  group.nextTickAt = now + group.match.groupIntervalMs
  return notification || undefined

  function decide(): NotifyReason | undefined {
    if (firing.some((name) => !told.includes(name))) return told.length === 0 ? 'first' : 'new'
    if (resolved.length > 0 && sendsResolved) return stillFires ? 'resolved' : 'all_resolved'
    const isDue = group.notifiedAt !== null && now - group.notifiedAt >= group.match.repeatIntervalMs
    return firing.length > 0 && isDue ? 'repeat' : undefined
  }
}

export const hasEnded = (group: Group): boolean => Object.keys(group.members).length === 0
