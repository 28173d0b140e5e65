// SPDX-License-Identifier: AGPL-3.0-only
import { isObject } from './problems.ts'

const place = /\{\{\s*([^{}]*?)\s*\}\}/g
const whole = /^\{\{\s*([^{}]*?)\s*\}\}$/

/**
 * Fills a JSON template without logic [7.1]: a text that is nothing but `{{path}}` becomes the value itself, elsewhere
 * it is put in as text. What is not there is null, or nothing.
 */
export function fillJson(template: unknown, event: unknown): unknown {
  if (typeof template === 'string') {
    const alone = whole.exec(template)
    return alone ? (find(event, alone[1]!) ?? null) : fillText(template, event)
  }
  if (Array.isArray(template)) return template.map((one: unknown) => fillJson(one, event))
  if (!isObject(template)) return template
  return Object.fromEntries(Object.entries(template).map(([name, value]): [string, unknown] => [name, fillJson(value, event)]))
}

/** @param escape makes a value fit for where it is put */
export function fillText(template: string, event: unknown, escape: (text: string) => string = (text) => text): string {
  return template.replace(place, (_, path: string) => {
    const value = find(event, path)
    if (value === undefined || value === null) return ''
    return escape(typeof value === 'object' ? JSON.stringify(value) : String(value))
  })
}

function find(event: unknown, path: string): unknown {
  let at = event
  // A key may itself hold dots: the longest name that is there goes first.
  let names = path.split('.')
  while (names.length > 0) {
    if (!isObject(at)) return undefined
    let length = names.length
    while (length > 0 && !Object.hasOwn(at, names.slice(0, length).join('.'))) length--
    if (length === 0) return undefined
    at = at[names.slice(0, length).join('.')]
    names = names.slice(length)
  }
  return at
}
