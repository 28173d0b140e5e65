// SPDX-License-Identifier: AGPL-3.0-only

/** The routing document as the server keeps it. Members this page does not know are left as they are. */
export type Route = {
  receiver?: string
  matchers?: string[]
  groupBy?: string[]
  groupWaitMs?: number
  groupIntervalMs?: number
  repeatIntervalMs?: number
  continue?: boolean
  activeIntervals?: string[]
  muteIntervals?: string[]
  /** Name of an escalation, inherited. */
  escalation?: string
  routes?: Route[]
}
export type Target = { channelId?: string; userId?: string; email?: string; phone?: string; address?: string }
export type Receiver = { name: string; sendResolved?: boolean; targets: Target[]; fallback?: Target[][]; fallbackAfterMs?: number }
export type Routing = { route: Route; receivers: Receiver[]; intervals?: Record<string, unknown>; inhibit?: Inhibit[] }
export type Inhibit = { source: string[]; target: string[]; equal?: string[] }

/** What a node inherits when it says nothing itself. */
export const usualTimes = { groupWaitMs: 30_000, groupIntervalMs: 300_000, repeatIntervalMs: 14_400_000 } as const
export type RouteTime = keyof typeof usualTimes
export const routeTimes = Object.keys(usualTimes) as RouteTime[]

export const isRouting = (value: unknown): value is Routing => {
  if (typeof value !== 'object' || value === null) return false
  const { route, receivers } = value as { route?: unknown; receivers?: unknown }
  return typeof route === 'object' && route !== null && Array.isArray(receivers)
}

/** All nodes with the path the server names them by: `0` the root, `0.1` its second child. */
export function listRoutes(route: Route, path = '0'): { path: string; route: Route }[] {
  return [{ path, route }, ...(route.routes ?? []).flatMap((child, index) => listRoutes(child, `${path}.${index}`))]
}

/** A receiver under another name: the routes that named it follow. */
export function renameReceiver(routing: Routing, from: string, to: string): void {
  for (const receiver of routing.receivers) if (receiver.name === from) receiver.name = to
  for (const { route } of listRoutes(routing.route)) if (route.receiver === from) route.receiver = to
}

/** How many routes send to it. */
export const countUses = (routing: Routing, name: string): number =>
  listRoutes(routing.route).filter(({ route }) => route.receiver === name).length

/** A name that no receiver has yet. */
export function freeName(routing: Routing, wanted: string): string {
  const taken = new Set(routing.receivers.map(({ name }) => name))
  for (let no = 1; ; no++) {
    const name = no === 1 ? wanted : `${wanted} ${no}`
    if (!taken.has(name)) return name
  }
}

/** A member that is emptied goes, so that the node inherits again. */
export function setOrDrop<T extends object, K extends keyof T>(thing: T, name: K, value: T[K] | undefined): void {
  const isEmpty = value === undefined || value === '' || (Array.isArray(value) && value.length === 0)
  if (isEmpty) delete thing[name]
  else thing[name] = value
}

/** `severity=critical`, one a line; what stands there twice counts once, the last. */
export function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const line of text.split('\n')) {
    const at = line.indexOf('=')
    const name = line.slice(0, at).trim()
    const value = line.slice(at + 1).trim()
    if (at > 0 && name !== '') labels[name] = value.replace(/^"(.*)"$/, '$1')
  }
  return labels
}

/** Moves an element one place towards the beginning. */
export function moveUp<T>(list: T[], index: number): void {
  if (index > 0) list.splice(index - 1, 2, list[index]!, list[index - 1]!)
}
