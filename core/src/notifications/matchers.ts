// SPDX-License-Identifier: AGPL-3.0-only
import { LinearRegex } from './linear-regex.ts'

export type Labels = Readonly<Record<string, string>>
export type Matcher = { name: string; matches: (value: string) => boolean; matchesEmpty: boolean }

const maxRegexChars = 200
const syntax = /^\s*([A-Za-z_\p{L}][\w.\p{L}]{0,99})\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*$/u

/**
 * `name="value"`, `!=`, `=~` or `!~`; expressions match the whole value, in linear time. A missing label is empty.
 *
 * @throws {SyntaxError}
 */
export function parseMatcher(text: string): Matcher {
  const [, name, operator, quoted] = syntax.exec(text) ?? []
  if (name === undefined || quoted === undefined) throw new SyntaxError(`${text} is not written as name="value"`)
  const value = quoted.replace(/\\(["\\])/g, '$1')
  const matches = compare(operator!, value)
  return { name, matches, matchesEmpty: matches('') }
}

function compare(operator: string, value: string): (one: string) => boolean {
  if (operator === '=') return (one) => one === value
  if (operator === '!=') return (one) => one !== value
  if ([...value].length > maxRegexChars) throw new SyntaxError(`an expression has ${maxRegexChars} characters at most`)
  const regex = new LinearRegex(value)
  return operator === '=~' ? (one) => regex.test(one) : (one) => !regex.test(one)
}

const known = new Map<string, Matcher>()
const mostKnown = 5000

/** The same, compiled once. */
export function matcherOf(text: string): Matcher {
  const found = known.get(text) ?? parseMatcher(text)
  if (known.size >= mostKnown) known.clear()
  known.set(text, found)
  return found
}

/** Whether all of them match. */
export function matchesAll(matchers: readonly string[], labels: Labels): boolean {
  return matchers.every((text) => {
    const matcher = matcherOf(text)
    return matcher.matches(labels[matcher.name] ?? '')
  })
}
