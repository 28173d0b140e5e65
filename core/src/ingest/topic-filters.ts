// SPDX-License-Identifier: AGPL-3.0-only

/** `$share/<group>/<filter>` of MQTT 5 §4.8.2, which brokers of 3.1.1 know as well. */
const shared = /^\$share\/([^/+#]+)\/(.+)$/

/** What is wrong with a filter to subscribe to, `$share/<group>/…` included; undefined when it is fine. */
export function filterProblem(filter: string): string | undefined {
  if (filter.startsWith('$share/')) {
    const [, , inner] = shared.exec(filter) ?? []
    return inner === undefined ? 'A shared subscription is written $share/group/filter.' : plainProblem(inner)
  }
  return plainProblem(filter)
}

function plainProblem(filter: string): string | undefined {
  if (Buffer.byteLength(filter) > 65_535 || filter.includes('\0')) return 'A filter is too long or holds U+0000.'
  for (const [index, level] of filter.split('/').entries()) {
    if (level === '+' || (level === '#' && index === filter.split('/').length - 1)) continue
    if (level.includes('+') || level.includes('#')) return 'A wildcard is a whole level, and # is the last one.'
  }
  return undefined
}

/** The filter as one client alone would subscribe to it. */
export function withoutShare(filter: string): string {
  return shared.exec(filter)?.[2] ?? filter
}

/** MQTT 5 §4.7: `+` is any one level, `#` at the end any number of them, none included. */
export function isMatch(filter: readonly string[], levels: readonly string[]): boolean {
  // §4.7.2: a wildcard at the beginning does not reach topics of the broker itself.
  if (levels[0]?.startsWith('$') && (filter[0] === '+' || filter[0] === '#')) return false
  for (const [index, level] of filter.entries()) {
    if (level === '#') return true
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return filter.length === levels.length
}
