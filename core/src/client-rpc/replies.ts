// SPDX-License-Identifier: AGPL-3.0-only
import { isExactNumber } from '../telemetry/values.ts'

/** What placeholders of a reply may name. */
export type ReplyValues = { params: unknown; device: { name: string }; now: number }

/** What all placeholders of one reply may bring in together. */
const maxInsertedLength = 1_048_576

const placeholder = /\$\{([^{}]*)\}/g

/**
 * A product's reply with the placeholders in its strings filled in: `${params.a.b}`, `${device.name}`,
 * `${now}`. What is inserted becomes part of the string: a string as it is, other values as JSON text, nothing
 * for what is missing. Other text in `${}` is left as it stands.
 *
 * @returns undefined when the reply would become too long
 */
export function fillReply(reply: unknown, values: ReplyValues): unknown {
  let room = maxInsertedLength
  const fillString = (text: string) =>
    text.replaceAll(placeholder, (whole, path: string) => {
      const inserted = isKnown(path) ? format(find(values, path)) : whole
      room -= inserted.length
      return room < 0 ? '' : inserted
    })
  const fill = (value: unknown): unknown => {
    if (typeof value === 'string') return fillString(value)
    if (Array.isArray(value)) return value.map(fill)
    if (typeof value !== 'object' || value === null || isExactNumber(value)) return value
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, fill(member)]))
  }
  const filled = fill(reply)
  return room < 0 ? undefined : filled
}

function isKnown(path: string): boolean {
  return path === 'now' || path === 'device.name' || path === 'params' || path.startsWith('params.')
}

/** Own members only: `constructor` and the like are names as any other [V-3]. */
function find(values: ReplyValues, path: string): unknown {
  let found: unknown = values
  for (const name of path.split('.')) {
    if (typeof found !== 'object' || found === null || isExactNumber(found) || !Object.hasOwn(found, name)) return undefined
    found = (found as Record<string, unknown>)[name]
  }
  return found
}

function format(value: unknown): string {
  if (typeof value === 'string') return value
  return value === undefined ? '' : JSON.stringify(value)
}
