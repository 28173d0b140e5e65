// SPDX-License-Identifier: AGPL-3.0-only
import { addFiring, addResolved, hasEnded, moveAway, newGroup, tick } from './groups.ts'
import type { Group, NotifyReason } from './groups.ts'
import type { Labels } from './matchers.ts'
import { isInhibited, isSilenced } from './muting.ts'
import type { Silence } from './muting.ts'
import { groupIdOf, isOutsideIntervals, matchRoutes } from './route-tree.ts'
import type { Routing } from './routing-document.ts'

export type SimulatedEvent = { atMs: number; alert: string; status: 'firing' | 'resolved'; labels?: Record<string, string> }
export type Simulated = { atMs: number; route: string; receiver: string; reason: NotifyReason; firing: string[]; resolved: string[] }

const maxTicks = 200_000

/**
 * What would be told, in virtual time: the same tree, groups, silences and inhibition as in earnest, and nothing is
 * sent. Events at an instant are applied before ticks at it.
 */
export function simulate(input: {
  routing: Routing
  silences: readonly Silence[]
  startAt: number
  untilMs: number
  events: readonly SimulatedEvent[]
}): Simulated[] {
  const { routing, startAt } = input
  const groups = new Map<string, Group>()
  const firing = new Map<string, Labels>()
  const told: Simulated[] = []
  const events = input.events.toSorted((a, b) => a.atMs - b.atMs)
  for (let next = 0, ticks = 0; ticks < maxTicks;) {
    const due = [...groups.values()].reduce((least, group) => Math.min(least, group.nextTickAt), Infinity)
    const event = events[next]
    if (event && startAt + event.atMs <= due) {
      if (event.atMs > input.untilMs) break
      applyEvent(routing, groups, firing, { ...event, atMs: startAt + event.atMs })
      next++
      continue
    }
    if (due > startAt + input.untilMs) break
    ticks++
    for (const [id, group] of groups) {
      if (group.nextTickAt !== due) continue
      const isMuted = (labels: Labels, alert: string) =>
        isSilenced(input.silences, labels, due) ||
        isInhibited(routing, firing, labels, alert) ||
        isOutsideIntervals(routing, group.match, new Date(due))
      const receiver = routing.receivers.find((one) => one.name === group.match.receiver)
      const found = tick(group, due, isMuted, receiver?.sendResolved ?? false)
      if (found) told.push({ atMs: due - startAt, route: group.match.path, receiver: group.match.receiver, ...found })
      if (hasEnded(group)) groups.delete(id)
    }
  }
  return told
}

function applyEvent(routing: Routing, groups: Map<string, Group>, firing: Map<string, Labels>, event: SimulatedEvent): void {
  if (event.status === 'resolved') {
    firing.delete(event.alert)
    for (const group of groups.values()) addResolved(group, event.alert)
    return
  }
  const labels = event.labels ?? {}
  firing.set(event.alert, labels)
  const matches = new Map(matchRoutes(routing, labels).map((match) => [groupIdOf(match, labels), match]))
  for (const [id, group] of groups) {
    if (matches.has(id) || group.members[event.alert] === undefined) continue
    moveAway(group, event.alert)
    if (hasEnded(group)) groups.delete(id)
  }
  for (const [id, match] of matches) {
    const group = groups.get(id) ?? newGroup(match, event.atMs)
    groups.set(id, group)
    addFiring(group, event.alert, labels)
  }
}
